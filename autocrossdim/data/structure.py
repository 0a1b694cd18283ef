"""Structure of a raw dataset: dataset.json, the directories, and names and numbers of files. No image is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autocrossdim.data.case_keys import case_list_faults, misspelt_keys
from autocrossdim.data.dataset import (
    Case,
    Dataset,
    channel_files,
    declared_ending,
    files_ending,
    parse_description,
    read_description,
)
from autocrossdim.data.images import ENDINGS
from autocrossdim.data.splits import own_splits_fault
from autocrossdim.system.files import reading
from autocrossdim.system.text import counted, listed

FEW = 5  # cases or groups needed for five folds


@dataclass
class StructureCheck:
    """Findings in dataset.json and in file names.

    Attributes:
        dataset: The dataset; None if dataset.json cannot be used.
        faults: One sentence each.
        warnings: One sentence each.
        description: Content of dataset.json; empty if it could not be read.
    """

    dataset: Dataset | None
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    description: dict[str, Any] = field(default_factory=dict)


@reading()
def check_structure(path: Path) -> StructureCheck:
    """Check dataset.json, the directories, and names and numbers of files; no image is opened.

    Raises:
        UserError: A directory may not be read.
    """
    description, faults = read_description(Path(path))
    if description is None:
        return StructureCheck(None, faults)
    dataset, wrong = parse_description(Path(path), description)
    faults += wrong
    structure = StructureCheck(dataset, faults, description=description)
    _check_case_names(Path(path), structure)
    if dataset is None:
        return structure
    cases = dataset.training_cases()
    names = {case.name for case in cases}

    is_or_are = "is" if len(cases) == 1 else "are"
    if dataset.num_training is None:
        faults.append(f"{dataset.path / 'dataset.json'}: numTraining is missing. Set it to {len(cases)}.")
    elif dataset.num_training > len(cases):
        faults.append(
            f"{dataset.path / 'dataset.json'}: numTraining is {dataset.num_training}, but there {is_or_are} "
            f"{counted(len(cases), 'training case')}. Correct the number or add the missing cases."
        )
    elif dataset.num_training < len(cases):  # a growing dataset
        structure.warnings.append(
            f"{dataset.path / 'dataset.json'}: numTraining is {dataset.num_training}, but there {is_or_are} "
            f"{counted(len(cases), 'training case')}. All of them are used; nnU-Net needs the exact number."
        )
    if "dataset" not in dataset.description:
        folders = [folder for folder in ("imagesTr", "labelsTr") if not (dataset.path / folder).is_dir()]
        faults += [f"{dataset.path / folder}: no such directory. Create it." for folder in folders]
        faults += _misnamed(dataset, "imagesTr")
        structure.warnings += [
            f"{file}: a label without an image, which is ignored."
            for file in files_ending(dataset.path / "labelsTr", dataset.file_ending)
            if file.name.removesuffix(dataset.file_ending) not in names
        ]
        structure.warnings += _ignored(dataset)
        if not cases and not folders:
            faults.append(
                f"{dataset.path / 'imagesTr'}: no file ends in _0000{dataset.file_ending}. Name the images "
                f"CASE_0000{dataset.file_ending}, or correct file_ending in dataset.json."
            )
    elif not cases:
        faults.append(f"{dataset.path / 'dataset.json'}: the key 'dataset' is empty. List the training cases there.")
    faults += _misnamed(dataset, "imagesTs") + _misnamed(dataset, "imagesUn")
    test = dataset.test_cases()
    for case in test:
        faults += missing_channels(case)
    unlabelled = {case.name for case in dataset.unlabelled_cases()}
    faults += [
        f"{dataset.path / 'imagesUn'}: case '{name}' is also a training case. Remove or rename one of the two."
        for name in sorted(unlabelled & names)
    ]

    if cases and (fault := own_splits_fault(dataset)) is not None:
        faults.append(fault)
    structure.warnings += misspelt_keys(dataset.path / "dataset.json", dataset.description)
    if dataset.groups and (ungrouped := sorted(names - set(dataset.groups))):
        structure.warnings.append(
            f"groups in dataset.json do not name {listed(ungrouped, 10)}: each is a group of its own."
        )
    if dataset.groups and (ungrouped := sorted(unlabelled - set(dataset.groups))):
        structure.warnings.append(
            f"groups in dataset.json do not name {listed(ungrouped, 10)} of imagesUn: each is a group of its own. Add "
            "those whose patient has other scans, so that no fold learns from patients that it validates."
        )
    number = len({dataset.groups.get(name, name) for name in names})
    if 0 < number < FEW:
        units = counted(number, "group" if dataset.groups else "training case")
        how = "each fold holds out one of them" if number > 1 else "no case can be held out for validation"
        structure.warnings.append(f"{dataset.path}: only {units}, fewer than {FEW}: {how}.")
    return structure


def training_images(path: Path, description: Mapping[str, Any]) -> dict[str, list[Path]] | None:
    """Return the image files of each training case, also of a dataset.json that has faults in other keys.

    Args:
        path: Directory of the dataset.
        description: Content of dataset.json.

    Returns:
        Case -> files; None if the keys `file_ending` and `dataset` do not say which files these are.
    """
    ending, cases = declared_ending(description), description.get("dataset", {})
    if ending not in ENDINGS or case_list_faults(path / "dataset.json", cases):
        return None
    if "dataset" in description:
        return {name: [path / file for file in files["images"]] for name, files in cases.items()}
    channels, _ = channel_files(path / "imagesTr", ending)
    return {name: [found[channel] for channel in sorted(found)] for name, found in channels.items()}


def _check_case_names(path: Path, structure: StructureCheck) -> None:
    """Add what dataset.json says about cases that do not exist.

    This needs file names only, so that one list has these faults together with those of the other keys.
    """
    description = structure.description
    if (training := training_images(path, description)) is None:
        return
    test, unlabelled = (
        set(channel_files(path / folder, declared_ending(description))[0]) for folder in ("imagesTs", "imagesUn")
    )
    if unknown := sorted(_keys(description, "annotated_labels") - set(training) - test):
        structure.faults.append(
            f"{path / 'dataset.json'}: annotated_labels names {listed(unknown, 10)}, but there is no such training or "
            "test case. Correct the name."
        )
    if unknown := sorted(_keys(description, "groups") - set(training) - test - unlabelled):
        structure.warnings.append(f"groups in dataset.json name cases that do not exist: {listed(unknown, 10)}.")


def _keys(description: Mapping[str, Any], key: str) -> set[str]:
    """Return the cases that a key lists; none if it is missing or malformed."""
    content = description.get(key)
    return set(content) if isinstance(content, dict) else set()


def missing_channels(case: Case) -> list[str]:
    """Return a fault for every channel of a case whose file does not exist."""
    return [
        f"{image}: no such file, but case '{case.name}' needs this channel. Add it."
        for image in case.images
        if is_missing(image)
    ]


def is_missing(path: Path) -> bool:
    """Return whether a file does not exist.

    Raises:
        UserError: Its directory may not be entered.
    """
    with reading():
        return not path.exists()


def _ignored(dataset: Dataset) -> list[str]:
    """Return warnings about training images and labels whose format is not that of the dataset."""
    return [
        f"{file}: ignored, because file_ending in dataset.json is {dataset.file_ending}."
        for folder in ("imagesTr", "labelsTr")
        for ending in ENDINGS
        for file in files_ending(dataset.path / folder, ending)
        if not file.name.endswith(dataset.file_ending)
    ]


def _misnamed(dataset: Dataset, folder: str) -> list[str]:
    """Return faults about image files without a channel number, or with one that is not declared."""
    channels, unnumbered = channel_files(dataset.path / folder, dataset.file_ending)
    number = len(dataset.channel_names)
    return [
        f"{file}: the name lacks a channel number. Name it CASE_0000{dataset.file_ending}." for file in unnumbered
    ] + [
        f"{file}: channel {channel}, but dataset.json names {counted(number, 'channel')} (0000 to {number - 1:04d}). "
        "Remove the file, or add the channel to dataset.json."
        for found in channels.values()
        for channel, file in sorted(found.items())
        if channel >= number
    ]
