"""Every fault of a raw dataset in one list, and what may be meant but should be known."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocrossdim.data.dataset import Case, Dataset, channel_files, files_ending, parse_dataset
from autocrossdim.data.images import Geometry, Image, file_is_picture, read_image, read_label, same_place
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases

FEW = 5  # cases or groups below which five folds are not to be had


@dataclass(frozen=True)
class Report:
    """What was found in a dataset, a sentence each: faults must be mended, warnings may be meant."""

    faults: list[str]
    warnings: list[str]


@dataclass
class StructureCheck:
    """What dataset.json and the names of files tell; `dataset` is None if dataset.json cannot be used."""

    dataset: Dataset | None
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class CaseCheck:
    """What reading one case told.

    Attributes:
        name: the case.
        image: the image, if it could be read whole.
        label: label values (Z, Y, X), if they could be read whole.
        faults: a sentence each.
        warnings: a sentence each.
        values: label values present.
        image_hash: the same for two cases with identical images.
        dims: 2 or 3, None if unreadable.
    """

    name: str
    image: Image | None = None
    label: npt.NDArray[np.integer[Any]] | None = None
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: tuple[int, ...] = ()
    image_hash: str | None = None
    dims: int | None = None


def verify(path: str | Path, processes: int = 1) -> Report:
    """Look for every fault of the dataset in folder `path`, reading each training case once.

    Nothing is written. Cases are read in `processes` workers, which hold one case each.
    """
    structure = check_structure(Path(path))
    if structure.dataset is None:
        return summarise([structure])
    check = partial(_check_case_only, structure.dataset)
    return summarise([structure, *map_cases(check, structure.dataset.training_cases(), processes, "Verifying cases")])


def check_structure(path: Path) -> StructureCheck:
    """Check dataset.json, folders, names and numbers of files; no image is opened."""
    dataset, faults = parse_dataset(Path(path))
    structure = StructureCheck(dataset, faults)
    if dataset is None:
        return structure
    cases = dataset.training_cases()
    names = {case.name for case in cases}

    if dataset.num_training is None:
        faults.append(f"{dataset.path}/dataset.json: numTraining is missing. Add {len(cases)}.")
    elif dataset.num_training != len(cases):
        faults.append(
            f"{dataset.path}/dataset.json: numTraining is {dataset.num_training}, but there are {len(cases)} "
            "training cases. Mend the number or add the missing cases."
        )
    if "dataset" not in dataset.description:
        folders = [folder for folder in ("imagesTr", "labelsTr") if not (dataset.path / folder).is_dir()]
        faults += [f"{dataset.path / folder}: no such folder." for folder in folders]
        faults += _misnamed(dataset, "imagesTr")
        structure.warnings += [
            f"{file}: a label without an image."
            for file in files_ending(dataset.path / "labelsTr", dataset.file_ending)
            if file.name.removesuffix(dataset.file_ending) not in names
        ]
        if not cases and not folders:
            faults.append(f"{dataset.path}/imagesTr: no file ends in _0000{dataset.file_ending}.")
    elif not cases:
        faults.append(f"{dataset.path}/dataset.json: dataset names no case.")
    faults += _misnamed(dataset, "imagesTs")
    for case in dataset.test_cases():
        faults += _missing_channels(case)

    if dataset.groups:
        if lost := sorted(set(dataset.groups) - names):
            structure.warnings.append(f"groups in dataset.json name cases that are not there: {', '.join(lost)}.")
        if alone := sorted(names - set(dataset.groups)):
            structure.warnings.append(
                f"groups in dataset.json do not name {', '.join(alone)}: each counts as a group of its own."
            )
    number = len({dataset.groups.get(name, name) for name in names})
    if 0 < number < FEW:
        what = ("group" if dataset.groups else "training case") + ("s" if number > 1 else "")
        how = "validation leaves one out at a time" if number > 1 else "nothing can be held out for validation"
        structure.warnings.append(f"{dataset.path}: only {number} {what}, fewer than {FEW}: {how}.")
    return structure


def check_case(dataset: Dataset, case: Case) -> CaseCheck:
    """Read one training case and check it by itself; faults are collected, never raised."""
    check = CaseCheck(case.name)
    check.faults += _missing_channels(case)
    image = label = None
    place: Geometry | None = None
    if not check.faults:
        try:
            image = read_image(case.images)
        except UserError as error:
            check.faults.append(str(error))
    if case.label is None or not case.label.is_file():
        check.faults.append(f"{case.label}: no such file; case '{case.name}' has no label.")
    else:
        try:
            label, place = read_label(case.label)
        except UserError as error:
            check.faults.append(str(error))

    if image is not None:
        _check_image(dataset, case, image, check)
    if label is not None:
        _check_label(dataset, case, label, check)
    if image is not None and place is not None and (difference := same_place(image.geometry, place)):
        assert case.label is not None
        remedy = "Resample one of them" + (
            " (a TIFF's spacing is read from CASE.json beside it)." if file_is_picture(case.label) else "."
        )
        check.faults.append(f"{case.label}: lies elsewhere than its image: {difference}. {remedy}")
    check.image, check.label = image, label
    return check


def summarise(checks: Iterable[StructureCheck | CaseCheck]) -> Report:
    """Put the checks of a dataset into one report, adding what shows only between cases."""
    checks = list(checks)
    faults = [fault for check in checks for fault in check.faults]
    warnings = [warning for check in checks for warning in check.warnings]
    cases = [check for check in checks if isinstance(check, CaseCheck)]
    datasets = [check.dataset for check in checks if isinstance(check, StructureCheck) and check.dataset]

    dims = Counter(case.dims for case in cases if case.dims is not None)
    if len(dims) > 1:
        rare = min(dims, key=lambda d: dims[d])
        odd = [case.name for case in cases if case.dims == rare]
        faults.append(f"2D and 3D images are mixed: {', '.join(odd)} {'is' if len(odd) == 1 else 'are'} {rare}D.")

    same: dict[str, list[str]] = {}
    for case in cases:
        if case.image_hash is not None:
            same.setdefault(case.image_hash, []).append(case.name)
    warnings += [f"cases {', '.join(names)}: identical images." for names in same.values() if len(names) > 1]

    present = {value for case in cases for value in case.values}
    for dataset in datasets if present else []:
        warnings += [
            f"label '{name}' ({', '.join(map(str, values))}) occurs in no case."
            for name, values in dataset.labels.foreground.items()
            if present.isdisjoint(values)
        ]
    return Report(faults, warnings)


def _check_case_only(dataset: Dataset, case: Case) -> CaseCheck:
    """As `check_case`, without the arrays, which need not come back from a worker."""
    check = check_case(dataset, case)
    check.image = check.label = None
    return check


def _check_image(dataset: Dataset, case: Case, image: Image, check: CaseCheck) -> None:
    check.dims = image.geometry.dims
    if len(image.array) != len(dataset.channel_names):
        check.faults.append(
            f"{case.images[0]}: {len(image.array)} channel(s), but dataset.json names "
            f"{len(dataset.channel_names)}. Mend dataset.json or the image."
        )
    for number, channel in enumerate(image.array):
        file = case.images[number] if len(case.images) == len(image.array) else case.images[0]
        broken = int(channel.size - np.isfinite(channel).sum())
        if broken:
            check.faults.append(f"{file}: {broken} of {channel.size} voxels are NaN or infinite. Replace them (by 0?).")
        elif channel.min() == channel.max():
            check.warnings.append(f"{file}: channel {number} is constant ({channel.flat[0]:g}).")
    digest = hashlib.blake2b(repr(image.array.shape).encode(), digest_size=16)
    digest.update(image.array.data)
    check.image_hash = digest.hexdigest()


def _check_label(dataset: Dataset, case: Case, label: npt.NDArray[Any], check: CaseCheck) -> None:
    values, counts = np.unique(label, return_counts=True)
    check.values = tuple(int(value) for value in values)
    undeclared = [
        f"{value} ({count} voxels)"
        for value, count in zip(check.values, counts, strict=True)
        if value not in dataset.labels.values
    ]
    if undeclared:
        check.faults.append(
            f"{case.label}: holds label value(s) that dataset.json does not declare: {_some(undeclared)}."
        )
    elif not {value for values in dataset.labels.foreground.values() for value in values} & set(check.values):
        check.warnings.append(f"{case.label}: no foreground.")


def _missing_channels(case: Case) -> list[str]:
    return [
        f"{image}: no such file; case '{case.name}' lacks a channel." for image in case.images if not image.is_file()
    ]


def _misnamed(dataset: Dataset, folder: str) -> list[str]:
    """Faults about image files without a channel number, or with one that is not declared."""
    channels, unnumbered = channel_files(dataset.path / folder, dataset.file_ending)
    number = len(dataset.channel_names)
    return [
        f"{file}: the name must end in the channel's number, as in CASE_0000{dataset.file_ending}."
        for file in unnumbered
    ] + [
        f"{file}: channel {channel}, but dataset.json names {number} (0000 to {number - 1:04d})."
        for found in channels.values()
        for channel, file in sorted(found.items())
        if channel >= number
    ]


def _some(items: Sequence[str], most: int = 10) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
