"""Raw datasets in nnU-Net's format: dataset.json and the files of each case."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autocrossdim.data.annotation_keys import parse_annotated_labels, parse_unannotated_slices
from autocrossdim.data.case_keys import case_list_faults, parse_channel_names, parse_groups
from autocrossdim.data.dicom import dicom_folders
from autocrossdim.data.find import hint_for
from autocrossdim.data.images import ENDINGS
from autocrossdim.data.pictures import PICTURES, spacing_file
from autocrossdim.data.sides import parse_mirror_axes, parse_sides
from autocrossdim.records.codes import Codes, parse_codes
from autocrossdim.records.labels import Labels
from autocrossdim.system.console import warn
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory, read_json, reading
from autocrossdim.system.text import counted, listed, shown_path


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: As in the file names.
        images: One file per channel, or one RGB file, or the directory of a DICOM series.
        label: Label file; None if the case has no label.
        annotated_labels: Names of the labels that were annotated; None if all were.
        previous_stage: Segmentation by the previous stage of a cascade, on the grid of the images; None if not needed.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    annotated_labels: tuple[str, ...] | None = None
    previous_stage: Path | None = None

    @property
    def source_files(self) -> tuple[Path, ...]:
        """Every file that decides what the preprocessed case looks like, in a fixed order.

        These are the images, the label, the segmentation of the previous stage, and the spacing file beside each TIFF.

        Raises:
            UserError: A directory may not be entered.
        """
        files = (*self.images, *(file for file in (self.label, self.previous_stage) if file is not None))
        with reading():
            return (*files, *(side for file in files if (side := spacing_file(file)) is not None and side.is_file()))


@dataclass(frozen=True)
class Dataset:
    """A raw dataset.

    Attributes:
        path: Directory of the dataset.
        name: Name of that directory, `DatasetXXX_Name`.
        channel_names: Name of each channel, in order.
        labels: Meaning of the label values.
        file_ending: Ending of all images and labels, such as `.nii.gz`.
        groups: Case -> group (patient); cases of one group are never split between training and validation.
        sides: Pairs of labels that are the left and the right version of one structure.
        mirror_axes: Names of the axes to mirror; None leaves the choice to the planner.
        annotated_labels: Case -> names of the labels that were annotated, in the order of `labels`; cases in which all
            were are not listed.
        codes: Label -> its concept in a terminology such as SNOMED CT, for the labels that have one.
        num_training: `numTraining` of dataset.json; None if missing.
        description: Unchanged content of dataset.json.
    """

    path: Path
    name: str
    channel_names: tuple[str, ...]
    labels: Labels
    file_ending: str
    groups: dict[str, str]
    num_training: int | None
    description: dict[str, Any]
    sides: tuple[tuple[str, str], ...] = ()
    mirror_axes: tuple[str, ...] | None = None
    annotated_labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    codes: Codes = field(default_factory=dict)

    def training_cases(self) -> list[Case]:
        """Return the training cases, sorted by name; their files are those expected and may be missing."""
        if "dataset" in self.description:
            cases = [
                Case(
                    name,
                    tuple(self.path / file for file in files["images"]),
                    self.path / files["label"],
                )
                for name, files in sorted(self.description["dataset"].items())
            ]
        else:
            cases = self._cases("imagesTr", "labelsTr")
        return [replace(case, annotated_labels=self.annotated_labels.get(case.name)) for case in cases]

    def test_cases(self) -> list[Case]:
        """Return the cases of imagesTs, sorted by name; `label` is None for cases without a file in labelsTs."""
        with reading():
            return [
                case if case.label is not None and case.label.exists() else Case(case.name, case.images, None)
                for case in self._cases("imagesTs", "labelsTs")
            ]

    def unlabelled_cases(self) -> list[Case]:
        """Return the cases of imagesUn, sorted by name, without labels."""
        return [replace(case, label=None) for case in self._cases("imagesUn", "labelsUn")]

    def _cases(self, images: str, labels: str) -> list[Case]:
        channels, _ = channel_files(self.path / images, self.file_ending)
        return [
            Case(
                name,
                _expected(self.path / images, name, set(found), len(self.channel_names), self.file_ending),
                self.path / labels / f"{name}{self.file_ending}",
            )
            for name, found in channels.items()
        ]


def load_dataset(path: str | Path) -> Dataset:
    """Read dataset.json of the dataset in directory `path`; no image is opened.

    Raises:
        UserError: No such directory, or dataset.json has errors; the message lists all of them.
    """
    content, faults = read_description(Path(path))
    dataset = None
    if content is not None:
        dataset, faults = parse_description(Path(path), content)
    if dataset is None:
        raise UserError("\n".join(faults))
    return dataset


def read_description(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the content of dataset.json in directory `path`, or None and what is wrong with the file."""
    file = path / "dataset.json"
    try:
        with reading():
            if not path.is_dir():
                return None, [f"{shown_path(path)}: no such directory."]
            if not file.exists():
                return None, [f"{shown_path(file)}: no such file. {hint_for(path)}"]
        content = read_json(file)
    except UserError as error:
        return None, [str(error)]
    if not isinstance(content, dict):
        return None, [f"{file}: not a JSON object. It needs channel_names, labels, numTraining and file_ending."]
    return content, []


def declared_ending(description: Mapping[str, Any]) -> Any:
    """Return `file_ending` of dataset.json, which may be missing (None) or wrong.

    Datasets with `modality` come from nnU-Net's first version, which read a single format.
    """
    return description.get("file_ending", ".nii.gz" if _is_older(description) else None)


def _is_older(description: Mapping[str, Any]) -> bool:
    return "modality" in description and "channel_names" not in description


def parse_description(path: Path, content: dict[str, Any]) -> tuple[Dataset | None, list[str]]:
    """Return the dataset in directory `path`, or None and every error of dataset.json, one sentence each.

    Args:
        path: Directory of the dataset.
        content: Content of dataset.json.
    """
    file = path / "dataset.json"
    faults: list[str] = []
    older = _is_older(content)
    channel_names, wrong = parse_channel_names(file, content.get("modality" if older else "channel_names"))
    faults += wrong

    labels = None
    if "labels" not in content:
        faults.append(f'{file}: labels is missing. Add {{"background": 0, "name": 1, ...}}.')
    else:
        try:
            labels = Labels.from_dataset_json(content["labels"], content.get("regions_class_order"))
        except UserError as error:
            faults.append(f"{file}: {error}")

    ending = declared_ending(content)
    if ending not in ENDINGS:
        what = "is missing" if ending is None else f"is {ending!r}"
        faults.append(f"{file}: file_ending {what}. Use one of {', '.join(ENDINGS)}.")

    number = content.get("numTraining")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        faults.append(f"{file}: numTraining is {number!r}. Write the number of training cases.")
    groups, wrong = parse_groups(file, content.get("groups", {}))
    faults += wrong + case_list_faults(file, content.get("dataset", {}))

    sides, wrong = parse_sides(file, content.get("sides", []), () if labels is None else labels.names)
    faults += wrong if labels is not None else []
    mirror_axes, wrong = parse_mirror_axes(file, content.get("mirror_axes"))
    faults += wrong
    unannotated_slices, wrong = parse_unannotated_slices(file, content.get("unannotated_slices"))
    faults += wrong
    annotated_labels, wrong = parse_annotated_labels(
        file, content.get("annotated_labels", {}), () if labels is None else labels.names
    )
    faults += wrong if labels is not None else []

    codes, wrong = parse_codes(file, content.get("codes", {}), () if labels is None else labels.names)
    faults += wrong if labels is not None else []

    if faults or labels is None:
        return None, faults
    dataset = Dataset(
        path=path,
        name=path.resolve().name,
        channel_names=channel_names,
        labels=labels if unannotated_slices is None else labels.model_copy(update={"unannotated_slices": "empty"}),
        file_ending=str(ending),
        groups=groups,
        sides=sides,
        mirror_axes=mirror_axes,
        annotated_labels=annotated_labels,
        codes=codes,
        num_training=number,
        description=content,
    )
    return dataset, []


@reading()
def cases_in_folder(folder: Path, num_channels: int, file_ending: str, *, incomplete: bool = False) -> list[Case]:
    """Return the cases to predict in `folder`, sorted by name, without labels.

    A case is `CASE_0000.ext`, one file per channel; if a case needs a single file, `CASE.ext` is accepted too. A
    directory of DICOM slices is one case, named after the directory; so is each subdirectory with DICOM slices. With
    `incomplete`, a case may lack channels, whose files are named all the same. A warning names images of other formats.

    Raises:
        UserError: No case, a case without all its channels, a file that belongs to no case, or no access.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{shown_path(folder)}: no such directory.")
    channels, unnumbered = channel_files(folder, file_ending)
    if channels or unnumbered:
        _warn_of_other_formats(folder, file_ending)
    picture = num_channels == 3 and file_ending in PICTURES
    if channels:
        # Skipping these silently would leave out a case, or a channel of a case.
        if unnumbered:
            raise UserError(f"{unnumbered[0]}: the name lacks a channel number, which the others have. Add _0000.")
        surplus = [file for found in channels.values() for channel, file in found.items() if channel >= num_channels]
        if surplus:
            raise UserError(
                f"{surplus[0]}: the model takes {counted(num_channels, 'channel')}, 0000 to {num_channels - 1:04d}. "
                "Remove this file or choose another model."
            )
        cases = []
        for name, found in channels.items():
            images = _expected(folder, name, set(found), num_channels, file_ending)
            for image in images:
                if not image.is_file() and not incomplete:
                    raise UserError(
                        f"{image}: no such file, but case '{name}' needs {counted(num_channels, 'channel')}. Add it. "
                        "Only models trained with --set channel_dropout=... segment cases without it."
                    )
            cases.append(Case(name, images, None))
        return cases
    if unnumbered and (num_channels == 1 or picture):
        return [Case(file.name.removesuffix(file_ending), (file,), None) for file in unnumbered]
    if dicom := dicom_folders(folder):
        return [Case(entry.resolve().name, (entry,), None) for entry in dicom]
    numbers = "" if num_channels == 1 else f", one file per channel (0000 to {num_channels - 1:04d})"
    raise UserError(f"{folder}: contains no case. Name the images CASE_0000{file_ending}{numbers}.")


def channel_files(folder: Path, file_ending: str) -> tuple[dict[str, dict[int, Path]], list[Path]]:
    """Return {case: {channel: file}}, sorted by case, and the files without a channel number `_0000`."""
    channels: dict[str, dict[int, Path]] = {}
    unnumbered = []
    for file in files_ending(folder, file_ending):
        match = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(file_ending))
        if match:
            channels.setdefault(match[1], {})[int(match[2])] = file
        else:
            unnumbered.append(file)
    return dict(sorted(channels.items())), unnumbered


def files_ending(folder: Path, file_ending: str) -> list[Path]:
    """Return the files in `folder` with that ending, sorted; hidden ones are skipped.

    Raises:
        UserError: The directory cannot be read.
    """
    with reading():
        entries = list_directory(folder) if folder.is_dir() else []
    return [entry for entry in entries if entry.name.endswith(file_ending) and not entry.name.startswith(".")]


def _warn_of_other_formats(folder: Path, file_ending: str) -> None:
    """Name the images of a directory that are left out because they have another ending."""
    with reading():
        files = [file for file in list_directory(folder) if not file.name.startswith(".")]
        others = [
            file.name
            for file in files
            if not file.name.endswith(file_ending) and file.name.lower().endswith(ENDINGS) and file.is_file()
        ]
    if others:
        warn(
            f"{shown_path(folder)}: {counted(len(others), 'image')} of another format left out ({listed(others)}). The "
            f"model takes {file_ending} files; convert or rename them to segment them as well."
        )


def _expected(folder: Path, name: str, found: set[int], num_channels: int, file_ending: str) -> tuple[Path, ...]:
    """Files a case should have: one per channel, or one colour picture with three channels."""
    colour = num_channels == 3 and found == {0} and file_ending in PICTURES
    return tuple(folder / f"{name}_{c:04d}{file_ending}" for c in range(1 if colour else num_channels))
