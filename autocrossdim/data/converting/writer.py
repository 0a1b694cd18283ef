"""Writing a described source as a raw dataset: everything is checked first, then each case is written.

Each case leaves a record in the directory `sources/` of the dataset: the files it was made from, with their sizes and
times. A case whose record still holds is not read again, so an interrupted conversion resumes.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.data.converting.description import Description, Examined, SourceCase
from autocrossdim.data.converting.sources import Source, require_files
from autocrossdim.data.geometry import Geometry, label_fault, same_place
from autocrossdim.data.images import file_ending
from autocrossdim.data.orientation import orientation_code
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import (
    list_directory,
    make_directory,
    read_json,
    reading,
    write_json,
)
from autocrossdim.system.lock import LOCK, locked
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import counted, listed

RECORDS = "sources"
FORMER = "dataset.json.former"  # keeps what was added by hand, such as `unannotated_slices`, until it is written again
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes:
        path: Directory of the dataset.
        layout: Layout of the source.
        training: Number of training cases.
        test: Number of test cases.
        written: Number of cases that were written now; the others were unchanged.
        labels: Name -> value in the dataset, or values of a region, without background.
        warnings: What may be intended but should be known, one sentence each.
        patients_unknown: Whether neither the source nor dataset.json says which cases are of one patient.
    """

    path: Path
    layout: str
    training: int
    test: int
    written: int
    labels: dict[str, int | list[int]]
    warnings: list[str]
    patients_unknown: bool


def write_dataset(
    description: Description, output: Path, origin: Mapping[str, str], *, layout: str, processes: int = 1
) -> Converted:
    """Write a raw dataset; its dataset.json comes last, so a dataset that has one is complete.

    Args:
        description: The source.
        output: Directory of the dataset; new, empty, or from an earlier conversion.
        origin: Where the dataset comes from, for the key `converted_from` of dataset.json.
        layout: Name of the layout.
        processes: Worker processes, each of which holds one case in memory.

    Raises:
        UserError: The source has faults (the message lists all of them, and nothing was written), or another process
            writes to the directory.
    """
    faults = [*description.faults, *_structure(description), *_foreign(description, output)]
    cases = [case for case in description.cases if not _missing(case)]
    faults += [fault for case in description.cases for fault in _missing(case)]
    due = [case for case in cases if not _is_current(case, description, output)]
    common = replace(description, cases=())  # workers need not be sent all cases with each
    found = map_cases(partial(_examine, common), due, processes, "Checking cases")
    faults += [fault for each in found for fault in each.faults] + _mixed(due, found)
    faults = list(dict.fromkeys(faults))  # a label that cannot be read was tried twice
    _refuse(faults)
    warnings = [warning for each in found for warning in each.warnings]
    warnings += [*_overlaps(due, found), *_assumed_orientations(due, found)]
    with locked(output / LOCK, output):
        _refuse(_foreign(description, output))  # by another process, while this one was reading
        for folder in (RECORDS, "imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            if folder.endswith("Ts") and not (output / folder).is_dir():
                continue
            make_directory(output / folder)
        # Put aside first: without dataset.json, a partly rewritten dataset is not taken for a complete one.
        with reading(output), suppress(FileNotFoundError):
            (output / "dataset.json").replace(output / FORMER)
        map_cases(partial(_write_case, common, output), due, processes, "Writing cases")
        content = _write_lists(description, output, dict(origin))
    parts = Counter(case.part for case in cases)
    labels = {name: value for name, value in description.labels.items() if value != 0}
    return Converted(
        path=output,
        layout=layout,
        training=parts["Tr"],
        test=parts["Ts"],
        written=len(due),
        labels=labels,
        warnings=[*description.warnings, *warnings],
        patients_unknown=not description.has_groups and "groups" not in content,
    )


def _refuse(faults: Sequence[str]) -> None:
    """Raise an error that lists the faults, if there are any."""
    if faults:
        raise UserError(f"{counted(len(faults), 'problem')} found, nothing was converted.\n" + "\n".join(faults))


def _structure(description: Description) -> list[str]:
    """Return faults in the list of cases and in the labels."""
    faults = []
    training = [case for case in description.cases if case.part == "Tr"]
    if not training and not description.faults:
        faults.append("The source contains no case with a label. Give the directory of the training set.")
    counts = Counter(case.name for case in description.cases)
    faults += [
        f"case '{name}': the source contains {count} cases of that name." for name, count in counts.items() if count > 1
    ]
    faults += [
        f"case '{name}': the name cannot be a file name. Rename the case."
        for name in counts
        if not _NAME.fullmatch(name) or name.startswith(".")
    ]
    if len(description.labels) > 1:
        try:
            Labels.from_dataset_json(dict(description.labels), description.regions_class_order)
        except UserError as error:
            faults.append(str(error))
    return faults


def _foreign(description: Description, output: Path) -> list[str]:
    """Return faults about what the output directory already holds."""
    with reading():
        if not output.exists():
            return []
        if not output.is_dir():
            return [f"{output}: is a file. Choose a directory for the dataset."]
        is_ours = (output / RECORDS).is_dir()
        if not is_ours and [file for file in list_directory(output) if file.name != LOCK]:
            return [f"{output}: contains files that no conversion wrote. Choose a new or empty directory."]
        records = [file for file in list_directory(output / RECORDS) if file.name[0] != "."] if is_ours else []
    cases = {case.name: case for case in description.cases}
    surplus = [
        file.stem for file in records if file.stem not in cases or not _same_files(file, cases[file.stem], description)
    ]
    if not surplus:
        return []
    return [
        f"{output}: contains {counted(len(surplus), 'case')} of another conversion, which would stay beside the new "
        f"files: {listed(surplus)}. Choose another directory, or delete this one."
    ]


def _same_files(record: Path, case: SourceCase, description: Description) -> bool:
    """Whether a recorded case has the names of files that it is going to have."""
    content = read_json(record)
    return (
        isinstance(content, dict)
        and content.get("part") == case.part
        and content.get("file_ending") == description.file_ending
        and isinstance(content.get("channels"), list)
        and len(content["channels"]) == len(case.channels)
    )


def _sources(case: SourceCase) -> tuple[Source, ...]:
    return (*case.channels, *(() if case.label is None else (case.label,)))


def _missing(case: SourceCase) -> list[str]:
    """Return a fault for each file of a case that does not exist."""
    faults = [fault for channel in case.channels for fault in require_files(channel, case.name, "this channel")]
    return faults + ([] if case.label is None else require_files(case.label, case.name, "its label"))


def _targets(case: SourceCase, description: Description, output: Path) -> tuple[list[Path], Path | None]:
    """Return the files of a case in the dataset: its channels, and its label."""
    ending = description.file_ending
    images = [
        output / f"images{case.part}" / f"{case.name}_{number:04d}{ending}" for number in range(len(case.channels))
    ]
    return images, None if case.label is None else output / f"labels{case.part}" / f"{case.name}{ending}"


def _record(case: SourceCase, description: Description) -> dict[str, Any]:
    """Return what decides how a case is written: it is written again when this changes."""
    with reading():
        stats = {str(file.absolute()): file.stat() for source in _sources(case) for file in source.files}
    return {
        "files": [
            {"path": path, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns} for path, stat in stats.items()
        ],
        "channels": [_described(channel) for channel in case.channels],
        "label": None if case.label is None else _described(case.label),
        "part": case.part,
        "file_ending": description.file_ending,
        "facts": dict(case.facts),
    }


def _described(source: Source) -> dict[str, Any]:
    """Return how a channel or label is read, as `read_json` returns it."""
    plain = json.dumps(vars(source), default=lambda value: str(value) if isinstance(value, Path) else vars(value))
    return {"reader": type(source).__name__, **json.loads(plain)}


def _is_current(case: SourceCase, description: Description, output: Path) -> bool:
    """Whether a case was written from sources that have not changed since."""
    file = output / RECORDS / f"{case.name}.json"
    images, label = _targets(case, description, output)
    with reading():
        if not all(path.is_file() for path in (file, *images, *([] if label is None else [label]))):
            return False
    return bool(read_json(file) == _record(case, description))


def _examine(description: Description, case: SourceCase) -> Examined:
    """Read a case and check what the dataset must fulfil; faults are collected, never raised."""
    faults: list[str] = []
    channels: list[Any] = []
    label = geometry = None
    for source in case.channels:
        try:
            array, place = source.read()
        except UserError as error:
            faults.append(str(error))
            continue
        if geometry is not None and (difference := same_place(geometry, place)):
            first = case.channels[0].files[0].name
            faults.append(f"{source.files[0]}: its geometry differs from that of {first}: {difference}.")
        if len(array) > 1 and file_ending(source.files[0]) != description.file_ending:
            faults.append(
                f"{source.files[0]}: a colour image keeps its format, so its label needs the same format. "
                "Convert one of them."
            )
        if broken := int(array.size - np.isfinite(array).sum()):
            faults.append(f"{source.files[0]}: {broken:,} of {array.size:,} voxels are NaN or infinite.")
        geometry = geometry or place
        channels.append(array)
    if case.label is not None:
        try:
            label = _label(description, case.label, geometry, faults)
        except UserError as error:
            faults.append(str(error))
    number = sum(len(array) for array in channels)
    if not faults and number != len(description.channel_names):
        faults.append(
            f"{case.channels[0].files[0]}: {counted(number, 'channel')}, but {len(description.channel_names)} "
            f"are named: {', '.join(description.channel_names)}. Remove the case, or name the channels it has."
        )
    if geometry is None:
        return Examined(faults)
    examined = Examined(faults)
    if not faults and label is not None and description.examine is not None:
        examined = description.examine(case, channels, label, geometry)
    return replace(examined, dims=geometry.dims, assumed=_assumed_orientation(description, case, geometry))


def _assumed_orientation(description: Description, case: SourceCase, geometry: Geometry) -> str | None:
    """Return the orientation that a converted file states although its source does not; a copy states none either."""
    is_copied = case.channels[0].files[0].name.lower().endswith(description.file_ending)
    return None if geometry.dims == 2 or geometry.oriented or is_copied else orientation_code(geometry.direction)


def _overlaps(cases: Sequence[SourceCase], found: Sequence[Examined]) -> list[str]:
    """Return a warning if structures overlap: which, and in which cases."""
    voxels = sum((Counter(each.overlaps) for each in found), Counter[str]())
    if not voxels:
        return []
    names = [case.name for case, each in zip(cases, found, strict=True) if each.overlaps]
    pairs = listed([f"{pair} ({counted(number, 'voxel')})" for pair, number in voxels.most_common()])
    return [
        f"structures overlap in {counted(len(names), 'case')} ({listed(names, 10)}), where the highest value wins: "
        f"{pairs}. Choose structures with --label NAME=VALUE if that is not what you want."
    ]


def _assumed_orientations(cases: Sequence[SourceCase], found: Sequence[Examined]) -> list[str]:
    """Return a warning for each orientation that is assumed."""
    assumed: dict[str, list[str]] = {}
    for case, each in zip(cases, found, strict=True):
        if each.assumed is not None:
            assumed.setdefault(each.assumed, []).append(case.name)
    return [
        f"the image files of {listed(names, 10)} do not state their orientation. Their converted files state {code} "
        "(z, y, x). Correct their headers if that is wrong."
        for code, names in assumed.items()
    ]


def _label(description: Description, source: Source, geometry: Geometry | None, faults: list[str]) -> Any:
    """Return the label values (Z, Y, X) of a case after comparing them with its image and the declared values."""
    array, place = source.read()
    if geometry is not None and (fault := label_fault(geometry, place)):
        faults.append(f"{source.files[0]}: {fault}")
    declared = {v for value in description.labels.values() for v in (value if isinstance(value, list) else [value])}
    if unknown := sorted({int(value) for value in np.unique(array)} - declared):
        faults.append(
            f"{source.files[0]}: contains the values {listed(unknown)}, but only {listed(sorted(declared), 20)} are "
            "expected. Correct the file."
        )
    return array[0]


def _mixed(cases: Sequence[SourceCase], found: Sequence[Examined]) -> list[str]:
    dims = Counter(each.dims for each in found if each.dims is not None)
    if len(dims) < 2:
        return []
    rare = min(dims, key=lambda number: dims[number])
    odd = [case.name for case, each in zip(cases, found, strict=True) if each.dims == rare]
    return [f"2D and 3D images are mixed: {listed(odd, 10)} {'is' if len(odd) == 1 else 'are'} {rare}D. Separate them."]


def _write_case(description: Description, output: Path, case: SourceCase) -> None:
    """Write the files of a case, and its record when all of them are complete."""
    images, label = _targets(case, description, output)
    record = _record(case, description)
    for source, path in zip(case.channels, images, strict=True):
        source.write(path)
    if case.label is not None and label is not None:
        case.label.write(label)
    write_json(output / RECORDS / f"{case.name}.json", record)


def _write_lists(description: Description, output: Path, origin: dict[str, str]) -> dict[str, Any]:
    """Write splits_final.json, if the source defines folds, and dataset.json; return the content of the latter."""
    training = sorted(case.name for case in description.cases if case.part == "Tr")
    groups = {case.name: case.group for case in description.cases if case.group is not None}
    if description.splits is not None:
        folds = [{key: list(names) for key, names in asdict(split).items()} for split in description.splits]
        write_json(output / "splits_final.json", folds)
    content: dict[str, Any] = {
        **{key: value for key, value in description.about.items() if value},
        "channel_names": {str(number): name for number, name in enumerate(description.channel_names)},
        "labels": dict(description.labels),
    }
    if description.regions_class_order is not None:
        content["regions_class_order"] = list(description.regions_class_order)
    content |= {"numTraining": len(training), "file_ending": description.file_ending}
    if groups:
        content["groups"] = groups
    former = output / FORMER
    with reading():
        known = dict(read_json(former)) if former.exists() else {}
    replaced = {"regions_class_order"} | ({"groups"} if groups else set())
    added = {key: value for key, value in known.items() if key not in replaced}
    content = {**added, **content, "converted_from": origin}
    write_json(output / "dataset.json", content)
    with reading():
        former.unlink(missing_ok=True)
    return content
