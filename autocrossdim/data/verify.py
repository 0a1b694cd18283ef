"""Integrity of a raw dataset: every error in one list, and what may be intended but should be known."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocrossdim.data.annotated_slices import labelled_slices
from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.geometry import Geometry, Image, label_fault
from autocrossdim.data.images import read_image, read_label
from autocrossdim.data.pictures import spacing_file
from autocrossdim.data.sides import MIRROR_AXES, missing_axes, missing_axes_fault
from autocrossdim.data.structure import (
    StructureCheck,
    check_structure,
    is_missing,
    missing_channels,
    training_images,
)
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import counted, listed

# Our choice: labelled slices of one case that show that only every k-th one was annotated, and cases with the same
# distance that show it together. Two slices of one case may also be two small structures.
SPARSE_SLICES, SPARSE_CASES = 3, 3


@dataclass(frozen=True)
class Report:
    """Findings in a dataset, one sentence each: faults must be fixed, warnings may be intended, notes inform."""

    faults: list[str]
    warnings: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass
class CaseCheck:
    """Findings in one case.

    Attributes:
        name: Name of the case.
        image: Image; None if it could not be read.
        label: Label values (Z, Y, X); None if they could not be read.
        faults: One sentence each.
        warnings: One sentence each.
        values: Label values present.
        image_hash: Digest of the image's voxels; equal for cases with identical images.
        dims: 2 or 3; None if the image could not be read.
        orientation: Orientation code of the image; None if it is unknown or 2D.
        slices: Number of slices of the label.
        labelled: Numbers of the slices that hold any label.
    """

    name: str
    image: Image | None = None
    label: npt.NDArray[np.integer[Any]] | None = None
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: tuple[int, ...] = ()
    image_hash: str | None = None
    dims: int | None = None
    orientation: str | None = None
    slices: int = 0
    labelled: tuple[int, ...] = ()


def verify(path: str | Path, processes: int = 1) -> Report:
    """Check the dataset in directory `path`, reading each training case and unlabelled scan once; nothing is written.

    Args:
        path: Directory of the dataset.
        processes: Number of worker processes, each of which holds one case in memory.

    Raises:
        UserError: A directory may not be read.
    """
    structure = check_structure(Path(path))
    if structure.dataset is None:
        structure.faults += _axes_of_first_image(Path(path), structure)
        return summarise([structure])
    cases = [*structure.dataset.training_cases(), *structure.dataset.unlabelled_cases()]
    return summarise([structure, *map_cases(partial(findings, structure.dataset), cases, processes, "Verifying cases")])


def _axes_of_first_image(path: Path, structure: StructureCheck) -> list[str]:
    """Return a fault about axes to mirror that 2D images lack, found without reading the cases.

    They are not read if dataset.json has a fault; a single image shows whether there is an axis z. Whether volumes have
    anatomical axes depends on all of them.
    """
    listing = structure.description.get("mirror_axes")
    names = [name for name in MIRROR_AXES if name in listing] if isinstance(listing, list) else []
    files = next(iter((training_images(path, structure.description) or {}).values()), [])
    if not names or not files:
        return []
    try:
        dims = read_image(files[:1]).geometry.dims
    except UserError:
        return []  # listed once dataset.json can be used
    missing = missing_axes(names, dims=dims, oriented=False) if dims == 2 else []
    return [f"{path / 'dataset.json'}: {missing_axes_fault(missing, dims=dims)}"] if missing else []


def check_case(dataset: Dataset, case: Case) -> CaseCheck:
    """Read one training case or unlabelled scan and check it by itself; faults are collected, never raised."""
    check = CaseCheck(case.name)
    image = label = None
    geometry: Geometry | None = None
    try:
        check.faults += missing_channels(case)
        if not check.faults:
            image = read_image(case.images)
    except UserError as error:
        check.faults.append(str(error))
    try:
        if case.label is not None and is_missing(case.label):
            check.faults.append(f"{case.label}: no such file, but every training case needs a label. Add it.")
        elif case.label is not None:
            label, geometry = read_label(case.label)
    except UserError as error:
        check.faults.append(str(error))

    if image is not None:
        _check_image(dataset, case, image, check)
    if label is not None and geometry is not None:
        _check_label(dataset, case, label, check)
        labelled = labelled_slices(label, geometry)
        check.slices, check.labelled = len(labelled), tuple(np.flatnonzero(labelled).tolist())
        if dataset.labels.unannotated_slices and not check.labelled:
            check.faults.append(
                f"{case.label}: contains no label, so no slice counts as annotated (unannotated_slices in "
                "dataset.json). Remove the case, or annotate some of its slices."
            )
    if image is not None and geometry is not None and (fault := label_fault(image.geometry, geometry)):
        assert case.label is not None
        hint = " The spacing of a TIFF is read from CASE.json beside it." if spacing_file(case.label) else ""
        check.faults.append(f"{case.label}: {fault}{hint}")
    check.image, check.label = image, label
    return check


def summarise(checks: Iterable[StructureCheck | CaseCheck]) -> Report:
    """Combine the checks of a dataset into one report, and compare the cases with each other."""
    checks = list(checks)
    faults = [fault for check in checks for fault in check.faults]
    warnings = [warning for check in checks for warning in check.warnings]
    cases = [check for check in checks if isinstance(check, CaseCheck)]
    datasets = [check.dataset for check in checks if isinstance(check, StructureCheck) and check.dataset]

    dims = Counter(case.dims for case in cases if case.dims is not None)
    if len(dims) > 1:
        rare = min(dims, key=lambda d: dims[d])
        odd = [case.name for case in cases if case.dims == rare]
        faults.append(
            f"2D and 3D images are mixed: {listed(odd, 10)} {'is' if len(odd) == 1 else 'are'} {rare}D. "
            "Make them two datasets."
        )

    for dataset in datasets if len(dims) == 1 else []:
        (kind,) = dims
        oriented = kind == 3 and any(case.orientation is not None for case in cases)
        if missing := missing_axes(dataset.mirror_axes or (), dims=kind, oriented=oriented):
            faults.append(f"{dataset.path / 'dataset.json'}: {missing_axes_fault(missing, dims=kind)}")

    same: dict[str, list[str]] = {}
    for case in cases:
        if case.image_hash is not None:
            same.setdefault(case.image_hash, []).append(case.name)
    unlabelled = {case.name for dataset in datasets for case in dataset.unlabelled_cases()}
    for names in (names for names in same.values() if len(names) > 1):
        scans, annotated = sorted(unlabelled.intersection(names)), sorted(set(names) - unlabelled)
        if scans and annotated:  # a fold that validates with the case would learn from its image
            faults.append(
                f"{datasets[0].path / 'imagesUn'}: {listed(scans)} {'has' if len(scans) == 1 else 'have'} the same "
                f"image as the training case {annotated[0]}. Remove the copy from imagesUn."
            )
        else:
            warnings.append(f"cases {', '.join(names)} have identical images.")

    present = {value for case in cases for value in case.values}
    foreground = {value for dataset in datasets for values in dataset.labels.foreground.values() for value in values}
    if present and datasets and present.isdisjoint(foreground) and not faults:
        faults.append(f"{datasets[0].path}: no label file contains a foreground label. Check the label files.")
    for dataset in datasets if not present.isdisjoint(foreground) else []:
        warnings += [
            f"label '{name}' ({', '.join(map(str, values))}) does not occur in any case."
            for name, values in dataset.labels.foreground.items()
            if present.isdisjoint(values)
        ]
        warnings += _sparse_slices(dataset, [case for case in cases if case.slices])
    notes = [
        f"{counted(number, 'unlabelled scan')} in imagesUn, from which training can learn (--set unlabelled=1)."
        for dataset in datasets
        if (number := len(dataset.unlabelled_cases()))
    ]
    labelled = [case for case in cases if case.slices]
    warnings += _unknown_orientations(labelled or cases)
    return Report(faults, warnings, [*_orientations(labelled or cases), *_annotated(datasets, labelled), *notes])


def _sparse_slices(dataset: Dataset, cases: list[CaseCheck]) -> list[str]:
    """Return a warning if slices without labels look as if they were not annotated, or as if they were after all."""
    file = dataset.path / "dataset.json"
    gaps = [np.diff(case.labelled) for case in cases if len(case.labelled) >= SPARSE_SLICES]
    if dataset.labels.unannotated_slices:
        if not gaps or any((gap > 1).any() for gap in gaps):
            return []
        return [
            f"{file}: unannotated_slices leaves out all slices without labels, but no case has such a slice between "
            "slices with labels. Remove the key if every slice was annotated."
        ]
    steps = _steps(gaps)
    if not steps or 2 * len(steps) < len(cases):
        steps = _common_steps([np.diff(case.labelled) for case in cases if len(case.labelled) > 1])
    if not steps or 2 * len(steps) < len(cases):
        return []
    return [
        f"{file}: in {len(steps)} of {counted(len(cases), 'case')}, labels occur only in separate slices, most often "
        f"{max(set(steps), key=steps.count)} slices apart. If the slices between were not annotated, add "
        '"unannotated_slices": "empty".'
    ]


def _steps(gaps: list[npt.NDArray[np.intp]]) -> list[int]:
    """Return the most frequent distance of labelled slices of each case in which none are adjacent."""
    return [int(np.bincount(gap).argmax()) for gap in gaps if (gap > 1).all()]


def _common_steps(gaps: list[npt.NDArray[np.intp]]) -> list[int]:
    """As `_steps`, also for cases with two labelled slices; empty unless the cases agree.

    No case may have adjacent labelled slices, and the distance must be the same in half of these cases and in at least
    three: small structures that occupy single slices lie at another distance in each case.
    """
    steps = _steps(gaps)
    most = max(Counter(steps).values(), default=0)
    return steps if len(steps) == len(gaps) and most >= max(SPARSE_CASES, len(steps) / 2) else []


def _annotated(datasets: list[Dataset], cases: list[CaseCheck]) -> list[str]:
    """Return sentences about slices and labels that were not annotated, if dataset.json declares any."""
    notes = []
    for dataset in datasets:
        if dataset.labels.unannotated_slices:
            labelled, total = sum(len(case.labelled) for case in cases), sum(case.slices for case in cases)
            notes.append(f"Annotated slices: {labelled} of {total}; the others are left out (unannotated_slices).")
        if partial := [case.name for case in cases if case.name in dataset.annotated_labels]:
            notes.append(
                f"Not every label was annotated in {len(partial)} of {counted(len(cases), 'case')} (annotated_labels)."
            )
    return notes


def _orientations(cases: list[CaseCheck]) -> list[str]:
    """Return a sentence about the anatomical orientations in which the images are stored."""
    found = Counter(case.orientation for case in cases if case.dims == 3)
    if not found:
        return []
    stored = ", ".join(f"{code or 'unknown'} ({counted(number, 'case')})" for code, number in found.most_common())
    known = [code for code, _ in found.most_common() if code is not None]
    if len(known) > 1:
        which = "Those that are known" if None in found else "All"
        return [
            f"Orientation (z, y, x): {stored}. {which} are brought to {known[0]}; segmentations keep that of their "
            "image."
        ]
    return [f"Orientation (z, y, x): {stored}."]


def _unknown_orientations(cases: list[CaseCheck]) -> list[str]:
    """Return a warning about images of unknown orientation in a dataset in which others are known."""
    volumes = [case for case in cases if case.dims == 3]
    known = Counter(case.orientation for case in volumes if case.orientation is not None).most_common(1)
    unknown = [case.name for case in volumes if case.orientation is None]
    if not known or not unknown:
        return []
    return [
        f"the image files of {listed(unknown, 10)} do not state their orientation. They are taken to have "
        f"{known[0][0]} (z, y, x), as most others. Fix their headers if their axes have another order or direction."
    ]


def findings(dataset: Dataset, case: Case) -> CaseCheck:
    """As `check_case`, without the arrays, so that they are not sent between processes."""
    check = check_case(dataset, case)
    check.image = check.label = None
    return check


def _check_image(dataset: Dataset, case: Case, image: Image, check: CaseCheck) -> None:
    check.dims = image.geometry.dims
    check.orientation = image.geometry.orientation
    if len(image.array) != len(dataset.channel_names):
        remedy = "Correct dataset.json or the image."
        if len(image.array) == 3 and len(case.images) == 1:
            remedy = 'Write "channel_names": {"0": "red", "1": "green", "2": "blue"}, or convert the image to grey.'
        check.faults.append(
            f"{case.images[0]}: {counted(len(image.array), 'channel')}, but dataset.json names "
            f"{len(dataset.channel_names)}. {remedy}"
        )
    for number, channel in enumerate(image.array):
        file = case.images[number] if len(case.images) == len(image.array) else case.images[0]
        broken = int(channel.size - np.isfinite(channel).sum())
        if broken:
            check.faults.append(
                f"{file}: {broken:,} of {channel.size:,} voxels are NaN or infinite. Replace them, for example by 0."
            )
        elif channel.min() == channel.max():
            check.warnings.append(f"{file}: channel {number} is {channel.flat[0]:g} everywhere.")
    digest = hashlib.blake2b(repr(image.array.shape).encode(), digest_size=16)
    digest.update(image.array.data)
    check.image_hash = digest.hexdigest()


def _check_label(dataset: Dataset, case: Case, label: npt.NDArray[Any], check: CaseCheck) -> None:
    values, counts = np.unique(label, return_counts=True)
    check.values = tuple(int(value) for value in values)
    undeclared = [
        f"{value} ({counted(int(count), 'voxel')})"
        for value, count in zip(check.values, counts, strict=True)
        if value not in dataset.labels.values
    ]
    if undeclared:
        check.faults.append(
            f"{case.label}: contains label values that dataset.json does not declare: {listed(undeclared, 10)}. "
            "Declare them under 'labels', or correct the file."
        )
    elif unexpected := _unexpected(dataset, case, check.values):
        check.faults.append(
            f"{case.label}: contains the label value {listed(unexpected)}, but annotated_labels in dataset.json says "
            f"that only {listed(case.annotated_labels or (), 10)} was annotated. Correct one of the two."
        )
    elif not {value for values in dataset.labels.foreground.values() for value in values} & set(check.values):
        check.warnings.append(f"{case.label}: contains background only.")


def _unexpected(dataset: Dataset, case: Case, values: tuple[int, ...]) -> list[int]:
    """Return the label values that belong only to labels that were not annotated in the case."""
    if case.annotated_labels is None:
        return []
    annotated = {value for name in case.annotated_labels for value in dataset.labels.foreground[name]}
    return [value for value in values if value not in {0, dataset.labels.ignore, *annotated}]
