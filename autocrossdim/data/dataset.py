"""A raw dataset folder in nnU-Net's format: what its dataset.json says, and its cases."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocrossdim.data.dicom import is_dicom_folder
from autocrossdim.data.images import ENDINGS, PICTURES
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json

RAW_VARIABLES = ("AUTOCROSSDIM_RAW", "nnUNet_raw")


@dataclass(frozen=True)
class Case:
    """One case: a file a channel (or one RGB file, or the folder of a DICOM series) and its label, if any."""

    name: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """A raw dataset.

    Attributes:
        path: its folder.
        name: the folder's name, `DatasetXXX_Name`.
        channel_names: name of each channel, in order.
        labels: what label values mean.
        file_ending: of all images and labels, `.nii.gz` for example.
        groups: case -> group (patient); cases of one group are never split between training and validation.
        num_training: number of training cases that dataset.json promises; None if it does not say.
        description: dataset.json as it is.
    """

    path: Path
    name: str
    channel_names: tuple[str, ...]
    labels: Labels
    file_ending: str
    groups: dict[str, str]
    num_training: int | None
    description: dict[str, Any]

    def training_cases(self) -> list[Case]:
        """Return the training cases, sorted by name, with the files they should have, there or not."""
        if "dataset" in self.description:
            return [
                Case(
                    name,
                    tuple(self.path / file for file in files["images"]),
                    self.path / files["label"],
                )
                for name, files in sorted(self.description["dataset"].items())
            ]
        return self._cases("imagesTr", "labelsTr")

    def test_cases(self) -> list[Case]:
        """Return the cases of imagesTs, sorted by name; `label` is None where labelsTs has none."""
        return [
            case if case.label is not None and case.label.exists() else Case(case.name, case.images, None)
            for case in self._cases("imagesTs", "labelsTs")
        ]

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


def find_dataset(argument: str | Path) -> Path:
    """Return the folder of a dataset given by path, name (`Dataset004_Hippocampus`, `Hippocampus`) or number.

    Names and numbers are looked up under $AUTOCROSSDIM_RAW, then $nnUNet_raw.

    Raises:
        UserError: not found, or found more than once; the message lists where was looked.
    """
    path = Path(argument)
    if path.is_dir():
        return path
    looked = [str(path.absolute())]
    for variable in RAW_VARIABLES:
        if not os.environ.get(variable):
            looked.append(f"${variable} (not set)")
            continue
        root = Path(os.environ[variable])
        looked.append(f"${variable} ({root})")
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
        found = [folder for folder in folders if _is_called(folder.name, str(argument))]
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found)
            raise UserError(f"{argument}: several datasets in {root} match: {names}. Give the full name.")
        if found:
            return found[0]
    raise UserError(f"{argument}: no such dataset. Looked at {', '.join(looked)}.")


def load_dataset(path: str | Path) -> Dataset:
    """Read dataset.json of the dataset in folder `path`; images are not looked at.

    Raises:
        UserError: no such folder, or everything that is wrong with its dataset.json.
    """
    dataset, faults = parse_dataset(Path(path))
    if dataset is None:
        raise UserError("\n".join(faults))
    return dataset


def parse_dataset(path: Path) -> tuple[Dataset | None, list[str]]:
    """Read dataset.json; return the dataset, or None and every fault of the file, one sentence each."""
    file = path / "dataset.json"
    if not path.is_dir():
        return None, [f"{path}: no such folder."]
    try:
        content = read_json(file)
    except UserError as error:
        return None, [str(error)]
    if not isinstance(content, dict):
        return None, [f"{file}: must be a JSON object with channel_names, labels, numTraining, file_ending."]

    faults: list[str] = []
    older = "modality" in content and "channel_names" not in content
    channel_names = _channel_names(content.get("modality" if older else "channel_names"))
    if not channel_names:
        faults.append(f'{file}: channel_names is missing or not of the form {{"0": "T1", "1": "T2"}}.')

    labels = None
    if "labels" not in content:
        faults.append(f'{file}: labels is missing. Add {{"background": 0, "name": 1, ...}}.')
    else:
        try:
            labels = Labels.from_dataset_json(content["labels"], content.get("regions_class_order"))
        except UserError as error:
            faults.append(f"{file}: {error}")

    # Datasets with `modality` are of nnU-Net's first version, which knew one format only.
    ending = content.get("file_ending", ".nii.gz" if older else None)
    if ending not in ENDINGS:
        faults.append(f"{file}: file_ending is {ending!r}; must be one of {', '.join(ENDINGS)}.")

    number = content.get("numTraining")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        faults.append(f"{file}: numTraining is {number!r}; must be a whole number.")
    groups = content.get("groups", {})
    if not isinstance(groups, dict):
        faults.append(f'{file}: groups must be of the form {{"case": "patient", ...}}.')
    if not _is_case_list(content.get("dataset", {})):
        faults.append(
            f'{file}: dataset must be of the form {{"case": {{"images": ["..."], "label": "..."}}}}, '
            "with at least one image a case and no / in the case's name."
        )

    if faults or labels is None:
        return None, faults
    dataset = Dataset(
        path=path,
        name=path.resolve().name,
        channel_names=channel_names,
        labels=labels,
        file_ending=str(ending),
        groups={str(case): str(group) for case, group in groups.items()},
        num_training=number,
        description=content,
    )
    return dataset, []


def cases_in_folder(folder: Path, num_channels: int, file_ending: str) -> list[Case]:
    """Return the cases to predict in `folder`, sorted by name, without labels.

    A case is `CASE_0000.ext`, one file a channel; where one file is all a case needs, `CASE.ext` will do. A
    folder of DICOM slices is one case, called as the folder; so is each sub-folder with DICOM slices.

    Raises:
        UserError: nothing to predict, a case without all its channels, or a file that belongs to no case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    channels, unnumbered = channel_files(folder, file_ending)
    picture = num_channels == 3 and file_ending in PICTURES
    if channels:
        # Left out in silence, these would be missed among the results, or their content in a result.
        if unnumbered:
            raise UserError(f"{unnumbered[0]}: the name must end in the channel's number, as the others do (_0000).")
        surplus = [file for found in channels.values() for channel, file in found.items() if channel >= num_channels]
        if surplus:
            raise UserError(f"{surplus[0]}: the model knows {num_channels} channel(s), up to {num_channels - 1:04d}.")
        cases = []
        for name, found in channels.items():
            images = _expected(folder, name, set(found), num_channels, file_ending)
            for image in images:
                if not image.is_file():
                    raise UserError(f"{image}: no such file, but case '{name}' needs {num_channels} channels.")
            cases.append(Case(name, images, None))
        return cases
    if unnumbered and (num_channels == 1 or picture):
        return [Case(file.name.removesuffix(file_ending), (file,), None) for file in unnumbered]
    dicom = [entry for entry in [folder, *sorted(folder.iterdir())] if is_dicom_folder(entry)]
    if dicom:
        return [Case(entry.resolve().name, (entry,), None) for entry in dicom]
    raise UserError(
        f"{folder}: holds no case. Images must be called CASE_0000{file_ending}, with one file a channel "
        f"(0000 to {num_channels - 1:04d})."
    )


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
    """Return the files in `folder` with that ending, sorted; hidden ones are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        entry for entry in folder.iterdir() if entry.name.endswith(file_ending) and not entry.name.startswith(".")
    )


def _expected(folder: Path, name: str, found: set[int], num_channels: int, file_ending: str) -> tuple[Path, ...]:
    """Files a case should have: one a channel, or the one colour picture that holds three."""
    colour = num_channels == 3 and found == {0} and file_ending in PICTURES
    return tuple(folder / f"{name}_{c:04d}{file_ending}" for c in range(1 if colour else num_channels))


def _is_called(folder: str, wanted: str) -> bool:
    """Whether a folder's name is `wanted`, or DatasetXXX_Name with that number or name."""
    match = re.fullmatch(r"Dataset(\d+)_(.+)", folder)
    return folder == wanted or (
        match is not None and (match[2] == wanted or (wanted.isdecimal() and int(match[1]) == int(wanted)))
    )


def _channel_names(content: Any) -> tuple[str, ...]:
    """Channel names in order; empty if `content` is no such mapping."""
    if isinstance(content, list):
        return tuple(str(name) for name in content)
    if not isinstance(content, dict) or set(content) != {str(i) for i in range(len(content))}:
        return ()
    return tuple(str(content[str(i)]) for i in range(len(content)))


def _is_case_list(content: Any) -> bool:
    # A case's name becomes the name of files below the work folder: no way may lead out of it.
    return isinstance(content, dict) and all(
        isinstance(files, dict)
        and Path(name).name == name
        and isinstance(files.get("label"), str)
        and isinstance(files.get("images"), list)
        and files["images"]
        and all(isinstance(image, str) for image in files["images"])
        for name, files in content.items()
    )
