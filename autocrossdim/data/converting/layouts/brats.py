"""BraTS: one directory per scan with four channels and a segmentation, in the namings until 2021 and since 2023."""

import re
from dataclasses import dataclass
from pathlib import Path

from autocrossdim.data.converting.description import Description, SourceCase
from autocrossdim.data.converting.named import without_label
from autocrossdim.data.converting.registry import Wishes, layout
from autocrossdim.data.converting.sources import ImageFile, LabelFile
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory
from autocrossdim.system.text import listed

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
DEPTH = 3  # levels of directories above those of the scans, such as HGG and LGG until 2019


@dataclass(frozen=True)
class Naming:
    """How a year names its files.

    Attributes:
        suffixes: Ending of each channel, in the order of `CHANNELS`.
        segmentation: Ending of the label.
        values: Value in the label file -> value in the dataset.
    """

    suffixes: tuple[str, str, str, str]
    segmentation: str
    values: dict[int, int]


# 1: necrotic and non-enhancing core, 2: oedema, 3: enhancing tumour, which was 4 until 2021.
OLDER = Naming(("_t1", "_t1ce", "_t2", "_flair"), "_seg", {1: 1, 2: 2, 4: 3})
NEWER = Naming(("-t1n", "-t1c", "-t2w", "-t2f"), "-seg", {1: 1, 2: 2, 3: 3})

_TIME_POINT = re.compile(r"^(BraTS-[A-Z]+-\d+)-\d+$")  # the scans of a patient since 2023


def detects(source: Path) -> bool:
    """Whether a directory contains a scan with two or more of its channels."""
    return source.is_dir() and any(
        sum(_file(folder, suffix) is not None for suffix in naming.suffixes) > 1 for folder, naming in _scans(source)
    )


@layout("brats", detects)
def describe(source: Path, _: Wishes) -> Description:
    """Describe a training or validation set; scans without a segmentation become test cases.

    Raises:
        UserError: The source holds no scan of BraTS.
    """
    scans = _scans(source)
    if not scans:
        raise UserError(f"{source}: contains no directory such as BraTS2021_00000 with BraTS2021_00000_flair.nii.gz.")
    cases, faults = [], []
    for folder, naming in scans:
        name = folder.name
        found = {suffix: _file(folder, suffix) for suffix in (*naming.suffixes, naming.segmentation)}
        missing = [f"{name}{suffix}.nii.gz" for suffix in naming.suffixes if found[suffix] is None]
        # Until 2020, one case of the training set had a segmentation of another name.
        other = [file.name for file in list_directory(folder) if "seg" in file.name.lower()]
        if found[naming.segmentation] is None and other:
            missing.append(f"{name}{naming.segmentation}.nii.gz (is it {listed(other)}? Copy the scan, renamed)")
        if missing:
            faults.append(f"{folder}: lacks {', '.join(missing)}. Unpack the archive again, or remove the directory.")
            continue
        label = found[naming.segmentation]
        match = _TIME_POINT.match(name)
        cases.append(
            SourceCase(
                name,
                tuple(ImageFile(file) for suffix in naming.suffixes if (file := found[suffix]) is not None),
                None if label is None else LabelFile(label, naming.values),
                match[1] if match else None,
            )
        )
    return Description(
        channel_names=CHANNELS,
        labels={"background": 0, "whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing tumour": [3]},
        regions_class_order=(2, 1, 3),
        cases=cases,
        about={
            "name": "BraTS",
            "reference": "Menze et al., The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS), IEEE "
            "Transactions on Medical Imaging 34 (2015) 1993-2024; Baid et al., arXiv:2107.02314.",
            "licence": "The terms of the BraTS challenge of the year apply; see https://www.synapse.org.",
            "description": "Values: 1 necrotic and non-enhancing tumour core, 2 oedema, 3 enhancing tumour.",
        },
        faults=faults,
        warnings=without_label(cases),
    )


def _scans(source: Path) -> list[tuple[Path, Naming]]:
    """Return the directories of scans, sorted by path, and how they name their files."""
    found: list[tuple[Path, Naming]] = []
    level = [source]
    for _ in range(DEPTH + 1):
        below = []
        for folder in level:
            naming = _naming(folder)
            if naming is None:
                below += [entry for entry in list_directory(folder) if entry.is_dir()]
                continue
            found.append((folder, naming))
        level = below
    return sorted(found, key=lambda scan: scan[0])


def _naming(folder: Path) -> Naming | None:
    """Return how the files of a scan are named; None if the directory contains no file of a scan.

    One file suffices: a scan that lacks others is a fault to report, not a directory to pass over.
    """
    for naming in (OLDER, NEWER):
        if any(_file(folder, suffix) is not None for suffix in (*naming.suffixes, naming.segmentation)):
            return naming
    return None


def _file(folder: Path, suffix: str) -> Path | None:
    """Return the file of a scan with that suffix; None if there is none."""
    name = folder.resolve().name
    candidates = (folder / f"{name}{suffix}{ending}" for ending in (".nii.gz", ".nii"))
    return next((file for file in candidates if file.is_file()), None)
