"""Structure of a raw dataset: dataset.json, the directories, and names and numbers of files. No image is opened."""

from dataclasses import dataclass, field
from pathlib import Path

from autocrossdim.data.case_keys import misspelt_keys
from autocrossdim.data.dataset import Case, Dataset, channel_files, files_ending, parse_dataset
from autocrossdim.data.images import ENDINGS
from autocrossdim.data.splits import own_splits_fault
from autocrossdim.system.files import reading
from autocrossdim.system.text import counted, listed

FEW = 5  # cases or groups needed for five folds


@dataclass
class StructureCheck:
    """Findings in dataset.json and in file names; `dataset` is None if dataset.json cannot be used."""

    dataset: Dataset | None
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@reading()
def check_structure(path: Path) -> StructureCheck:
    """Check dataset.json, the directories, and names and numbers of files; no image is opened.

    Raises:
        UserError: A directory may not be read.
    """
    dataset, faults = parse_dataset(Path(path))
    structure = StructureCheck(dataset, faults)
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

    if unknown := sorted(set(dataset.annotated_labels) - names - {case.name for case in test}):
        faults.append(
            f"{dataset.path / 'dataset.json'}: annotated_labels names {listed(unknown, 10)}, but there is no such "
            "training or test case. Correct the name."
        )
    if cases and (fault := own_splits_fault(dataset)) is not None:
        faults.append(fault)
    structure.warnings += misspelt_keys(dataset.path / "dataset.json", dataset.description)
    if dataset.groups:
        if unknown := sorted(set(dataset.groups) - names - unlabelled - {case.name for case in test}):
            structure.warnings.append(f"groups in dataset.json name cases that do not exist: {listed(unknown, 10)}.")
        if ungrouped := sorted(names - set(dataset.groups)):
            structure.warnings.append(
                f"groups in dataset.json do not name {listed(ungrouped, 10)}: each is a group of its own."
            )
    number = len({dataset.groups.get(name, name) for name in names})
    if 0 < number < FEW:
        units = counted(number, "group" if dataset.groups else "training case")
        how = "each fold holds out one of them" if number > 1 else "no case can be held out for validation"
        structure.warnings.append(f"{dataset.path}: only {units}, fewer than {FEW}: {how}.")
    return structure


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
