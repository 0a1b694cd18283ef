"""Names of channels and labels, for sources that do not define them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autocrossdim.data.converting.description import SourceCase
from autocrossdim.data.converting.registry import Wishes
from autocrossdim.data.converting.sources import ImageFile, LabelFile
from autocrossdim.data.images import file_ending, read_image, read_label
from autocrossdim.data.pictures import is_picture
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import counted, listed

COLOURS = ("R", "G", "B")
MAX_VALUES = 100  # more values than any annotation has: the files are images


def is_colour(file: Path) -> bool:
    """Whether a file is a colour picture, whose three channels stay in one file."""
    if not is_picture(file):
        return False
    try:
        return len(read_image([file]).array) == len(COLOURS)
    except UserError:
        return False  # reported when its case is checked


def channel_names(wishes: Wishes, images: Mapping[str, Sequence[Path]]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the channels, and a fault for each case that has another number of files.

    Args:
        wishes: Names that the user gave; `R`, `G` and `B` of colour pictures, else `channel 0` and so on.
        images: Case -> image files.
    """
    usual = Counter(len(files) for files in images.values()).most_common(1)[0][0]
    first = next(iter(images.values()))[0]
    if usual == 1 and is_colour(first):
        names = wishes.channels or COLOURS
    else:
        names = wishes.channels or tuple(f"channel {number}" for number in range(usual))
        usual = len(names)
    faults = [
        f"case '{name}': {counted(len(files), 'image file')} instead of {usual}. Complete the case, or remove it."
        for name, files in images.items()
        if len(files) != usual
    ]
    return names, faults


def labels_and_values(
    wishes: Wishes, files: Sequence[Path]
) -> tuple[dict[str, int | list[int]], dict[int, int], list[str], list[str]]:
    """Return the labels of a dataset, and how values in label files become values in the dataset.

    Values in the dataset are consecutive, in the order of the values in the files.

    Args:
        wishes: Names that the user gave; `label 1` and so on otherwise, after all files are read.
        files: Label files.

    Returns:
        `labels` of dataset.json; value in the files -> value in the dataset; a fault for each unreadable file; and a
        warning that says where each value occurs if the user named none, because a stray value becomes a label, too.
    """
    faults: list[str] = []
    warnings: list[str] = []
    named = wishes.labels
    if named is None:
        found = map_cases(_values, files, wishes.processes, "Reading label values")
        faults = [fault for fault in found if isinstance(fault, str)]
        counts = [each for each in found if not isinstance(each, str)]
        values = sorted({value for each in counts for value in each} - {0})
        if len(values) > MAX_VALUES:
            faults.append(
                f"{files[0].parent}: {len(values)} different values, so these are not labels. Check the files."
            )
            values = []
        named = {f"label {number}": value for number, value in enumerate(values, start=1)}
        warnings = [_unnamed(named, counts)] if named else []
    named = {name: value for name, value in named.items() if value != 0}
    if not named and not faults:
        faults.append("The label files contain only background. At least one case must be annotated.")
    order = sorted(named, key=lambda name: named[name])
    new = {name: number for number, name in enumerate(order, start=1)}
    return {"background": 0, **new}, {named[name]: new[name] for name in order}, faults, warnings


def common_ending(cases: Sequence[SourceCase]) -> str:
    """Return the ending that all files have, so that they can be copied; `.nii.gz` if they have several."""
    sources = [source for case in cases for source in (*case.channels, case.label)]
    endings = {file_ending(source.path) for source in sources if isinstance(source, ImageFile | LabelFile)}
    return endings.pop() if len(endings) == 1 else ".nii.gz"


def without_label(cases: Sequence[SourceCase]) -> list[str]:
    """Return a warning if only some cases have a label: a label may have been forgotten."""
    names = [case.name for case in cases if case.label is None]
    if not names or len(names) == len(cases):
        return []
    have, their = ("has", "Its") if len(names) == 1 else ("have", "Their")
    found = f"{counted(len(names), 'case')} of {len(cases)} {have} no label: {listed(names)}."
    return [f"{found} {their} images are in imagesTs."]


def unknown_about(source: Path) -> dict[str, str]:
    """Return what dataset.json says about a source that states nothing itself."""
    return {
        "name": source.resolve().stem,
        "reference": "not stated by the source",
        "licence": "not stated by the source",
        "description": "",
    }


def _values(file: Path) -> dict[int, int] | str:
    """Return how many voxels of a label file have each value, or what is wrong with the file."""
    try:
        values, voxels = np.unique(read_label(file)[0], return_counts=True)
    except UserError as error:
        return str(error)
    return dict(zip(values.tolist(), voxels.tolist(), strict=True))


def _unnamed(named: Mapping[str, int], counts: Sequence[Mapping[int, int]]) -> str:
    """Return where the value of each label occurs, and how to name it.

    Args:
        named: Name that was made up -> value in the files.
        counts: Value -> number of voxels, of each file that was read.
    """
    found = []
    for name, value in named.items():
        files = [each[value] for each in counts if value in each]
        found.append(f"'{name}' is {value} ({counted(sum(files), 'voxel')} in {len(files)} of {len(counts)} files)")
    return (
        f"Every value in the label files became a label: {listed(found, 10)}. To choose and name "
        "the labels, convert again with --label NAME=VALUE; any other value is then reported as an error."
    )
