"""CHAOS: abdominal CT with the liver, and MR (T1-DUAL in and out of phase, T2-SPIR) with four organs.

Images are DICOM slices, the ground truth is one PNG file per slice. The organisers order both by file name, and so does
this file; where a PNG file is called as its slice (MR), the names are matched. What DICOM says is used to check that:
the slices are stacked by their positions, names must follow them in one direction, the ground truth must not fit the
images better in reverse, and the right kidney must lie to the patient's right of the left one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture

from autocrossdim.data import dicom
from autocrossdim.data.converting.description import Description, Examined, SourceCase
from autocrossdim.data.converting.registry import Wishes, layout
from autocrossdim.data.converting.sources import Array, ReadImage, ReadLabel
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_dicom_slices
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory, reading
from autocrossdim.system.text import counted, listed

ORGANS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
MR_RANGES = {1: (55, 70), 2: (110, 135), 3: (175, 200), 4: (240, 255)}
"""Organ -> lowest and highest value in the PNG files; the values are 63, 126, 189 and 252."""
CT_RANGES = {1: (128, 255)}
"""The liver is 255, or 1 in files of one bit, which are read as 0 and 255."""

REVERSED = 0.8
"""Ratio of the spread of intensities within the organs, in reverse order to as given, below which a warning is due.

In the right order, an organ's intensities are alike; in the wrong one, its outlines cover other tissue.
"""


@dataclass(frozen=True)
class Modality:
    """One of the datasets in CHAOS.

    Attributes:
        channels: Name of each channel -> directory of its slices, below that of the case.
        images: Directory of a case's data below the patient's.
        labels: As in dataset.json.
        ranges: Label value -> range of values in the PNG files.
        folder: Directory of the patients.
    """

    folder: str
    images: str
    channels: dict[str, str]
    labels: dict[str, int]
    ranges: dict[int, tuple[int, int]]


MODALITIES = {
    "ct": Modality("CT", ".", {"CT": "DICOM_anon"}, {"background": 0, "liver": 1}, CT_RANGES),
    "t1": Modality(
        "MR",
        "T1DUAL",
        {"T1 in phase": "DICOM_anon/InPhase", "T1 out of phase": "DICOM_anon/OutPhase"},
        {"background": 0, **ORGANS},
        MR_RANGES,
    ),
    "t2": Modality("MR", "T2SPIR", {"T2": "DICOM_anon"}, {"background": 0, **ORGANS}, MR_RANGES),
}


@dataclass(frozen=True)
class Slices(ReadImage):
    """A channel: the DICOM slices in a directory, stacked by their positions.

    The files of one scan may declare different series, because they were anonymised one by one.
    """

    folder: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The slices, in the order of their names."""
        return tuple(sorted(dicom.slice_files(self.folder), key=_natural))

    @property
    def stacked(self) -> list[str]:
        """The slices in the order of their positions."""
        files = self.files
        if not files:
            raise UserError(f"{self.folder}: contains no DICOM slices. Unpack the archive again.")
        return dicom.stacked(self.folder, [str(file) for file in files])

    def read(self) -> tuple[Array, Geometry]:
        """Return the image (1, Z, Y, X) and its geometry."""
        image = read_dicom_slices(self.folder, self.stacked)
        return image.array, image.geometry


@dataclass(frozen=True)
class GroundTruth(ReadLabel):
    """A label: one PNG file per slice.

    Attributes:
        folder: Directory of the PNG files.
        slices: The slices they belong to.
        ranges: Label value -> lowest and highest value in the files.
    """

    folder: Path
    slices: Slices
    ranges: dict[int, tuple[int, int]]

    @property
    def files(self) -> tuple[Path, ...]:
        """The PNG files, in the order of their names."""
        with reading():
            files = [file for file in list_directory(self.folder) if file.suffix.lower() == ".png"]
        return tuple(sorted((file for file in files if not file.name.startswith(".")), key=_natural))

    def read(self) -> tuple[Array, Geometry]:
        """Return the label values (1, Z, Y, X) of the dataset and the geometry of the slices."""
        stacked = self.slices.stacked
        geometry = read_dicom_slices(self.slices.folder, stacked).geometry
        planes = [self._plane(file, geometry.shape[1:]) for file in self._in_order([Path(file) for file in stacked])]
        return np.stack(planes)[None], geometry

    def _in_order(self, stacked: Sequence[Path]) -> list[Path]:
        """Return the PNG file of each slice.

        Args:
            stacked: DICOM files in the order of their positions.

        Raises:
            UserError: Some slice has no file or some file no slice, or names do not follow the positions.
        """
        pictures, slices = self.files, self.slices.files
        by_stem = {file.stem: file for file in pictures}
        if set(by_stem) == {file.stem for file in slices}:
            return [by_stem[file.stem] for file in stacked]
        if len(pictures) != len(slices):
            raise UserError(
                f"{self.folder}: {counted(len(pictures), 'PNG file')} for {counted(len(slices), 'slice')} in "
                f"{self.slices.folder}. Unpack the archive again."
            )
        if list(stacked) not in (list(slices), list(slices)[::-1]):
            raise UserError(
                f"{self.slices.folder}: the names of the slices do not follow their positions, so the PNG files of "
                f"{self.folder} cannot be matched. Rename the PNG files as their slices."
            )
        by_slice = dict(zip(slices, pictures, strict=True))
        return [by_slice[file] for file in stacked]

    def _plane(self, file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        try:
            with Picture.open(file) as picture:
                plane = np.array(picture.convert("L"))
        except Exception as error:  # damaged files raise exceptions of every kind
            raise UserError(f"{file}: cannot be read ({error}). Unpack the archive again.") from error
        if plane.shape != shape:
            raise UserError(
                f"{file}: {plane.shape[0]} × {plane.shape[1]} pixels, but its slice has {shape[0]} × {shape[1]}. "
                "Unpack the archive again."
            )
        label = np.zeros(shape, np.uint8)
        unknown = plane > 0
        for value, (low, high) in self.ranges.items():
            inside = (plane >= low) & (plane <= high)
            label[inside] = value
            unknown &= ~inside
        if unknown.any():
            expected = listed([f"{low} to {high}" for low, high in self.ranges.values()])
            raise UserError(
                f"{file}: contains {listed(np.unique(plane[unknown]).tolist())}, but only 0 and {expected} are "
                "expected. Choose the right --modality, or replace the file."
            )
        return label


def detects(source: Path) -> bool:
    """Whether a patient's directory has slices where one of the modalities has them."""
    return source.is_dir() and bool(modalities(source))


def modalities(source: Path) -> list[str]:
    """Return the modalities of which a source holds scans."""
    return [name for name, modality in MODALITIES.items() if _patients(source, modality)]


@layout("chaos", detects, takes=("modality",), modalities=modalities)
def describe(source: Path, wishes: Wishes) -> Description:
    """Describe one modality of the training set, of the test set, or of both; scans without `Ground` are test cases.

    Raises:
        UserError: The modality is unknown, or has to be chosen, or has no scans here.
    """
    present = {name: found for name, each in MODALITIES.items() if (found := _patients(source, each))}
    if not present:
        raise UserError(
            f"{source}: contains no scans of CHAOS, such as CT/1/DICOM_anon or MR/1/T2SPIR. Give the directory that "
            "was unpacked."
        )
    wanted = wishes.modality or (next(iter(present)) if len(present) == 1 else None)
    if wanted not in MODALITIES:
        problem = "choose one, because each is a dataset of its own" if wanted is None else "no such modality"
        raise UserError(f"--modality{f' {wanted}' if wanted else ''}: {problem}: {', '.join(present)}.")
    if wanted not in present:
        raise UserError(
            f"{source}: contains no scans of modality {wanted} (found: {', '.join(present)}). Give another --modality."
        )
    modality = MODALITIES[wanted]
    faults: list[str] = []
    cases = [_case(wanted, modality, patient, faults) for patient in present[wanted]]
    return Description(
        channel_names=tuple(modality.channels),
        labels=modality.labels,
        cases=[case for case in cases if case is not None],
        about={
            "name": f"CHAOS {wanted.upper()}",
            "reference": "Kavur et al., CHAOS Challenge - combined (CT-MR) healthy abdominal organ segmentation, "
            "Medical Image Analysis 69 (2021) 101950; doi:10.5281/zenodo.3431873.",
            "licence": "The terms stated with the data apply; see https://doi.org/10.5281/zenodo.3431873.",
            "description": "Slices are stacked by their positions in DICOM, the ground truth by file names.",
        },
        faults=faults,
        examine=examine,
    )


def examine(case: SourceCase, channels: list[Array], label: Array, geometry: Geometry) -> Examined:
    """Check that the kidneys are on their sides, and that the slices of the ground truth are not in reverse order.

    Args:
        case: The case.
        channels: Images (1, Z, Y, X).
        label: Label values (Z, Y, X).
        geometry: Their geometry.
    """
    found = Examined()
    right, left = (_left_of_patient(label == ORGANS[f"{side} kidney"], geometry) for side in ("right", "left"))
    if right is not None and left is not None and right >= left:
        found.faults.append(
            f"{case.name}: the right kidney's centre is {right - left:.0f} mm to the left of the left kidney's, so the "
            "kidneys are interchanged or the image is mirrored. Correct the ground truth, or remove the case."
        )
    given, reverse = (_spread(channels[0][0], each) for each in (label, label[::-1]))
    if reverse < REVERSED * given:
        found.warnings.append(
            f"{case.name}: the ground truth fits the image better with its slices in reverse order: intensities within "
            f"the organs deviate by {reverse:.3g} instead of {given:.3g}. Look at the case before you use it."
        )
    return found


def _spread(image: Array, label: Array) -> float:
    """Return the standard deviation of the intensities within an organ, averaged over the voxels of all organs."""
    inside = label > 0
    if not inside.any():
        return 0.0
    variance = sum(
        float(image[label == value].var()) * float((label == value).sum()) for value in np.unique(label[inside])
    )
    return float(np.sqrt(variance / inside.sum()))


def _left_of_patient(mask: npt.NDArray[Any], geometry: Geometry) -> float | None:
    """Return the coordinate of a structure's centre that grows to the patient's left, in mm; None if it is empty."""
    if not mask.any():
        return None
    centre = np.argwhere(mask).mean(axis=0)[::-1]  # voxels (x, y, z)
    direction = np.array(geometry.direction).reshape(3, 3)
    position = np.array(geometry.origin) + direction @ (centre * np.array(geometry.spacing[::-1]))
    return float(position[0])


def _patients(source: Path, modality: Modality) -> list[Path]:
    """Return the directories of the patients that have a channel or the ground truth of a modality, sorted.

    One of them suffices: a patient without the others is a fault to report, not a directory to pass over.
    """
    inside = "" if modality.images == "." else f"{modality.images}/"
    above = [f"{levels}{modality.folder}/*/" for levels in ("", "*/", "*/*/")]
    above += ["*/"] if source.name == modality.folder else []
    found = set[Path]()
    for part in (*modality.channels.values(), "Ground"):
        depth = len(Path(f"{inside}{part}").parts)
        matches = (folder for pattern in above for folder in source.glob(f"{pattern}{inside}{part}"))
        found |= {folder.parents[depth - 1] for folder in matches if folder.is_dir()}
    return sorted(found, key=_natural)


def _case(name: str, modality: Modality, patient: Path, faults: list[str]) -> SourceCase | None:
    folder = patient / modality.images
    channels = tuple(Slices(folder / slices) for slices in modality.channels.values())
    missing = [channel.folder for channel in channels if not channel.folder.is_dir()]
    faults += [
        f"{each}: no such directory. Unpack the archive again, or remove the patient's directory." for each in missing
    ]
    if missing:
        return None
    number = f"{int(patient.name):02d}" if patient.name.isdecimal() else patient.name
    ground = folder / "Ground"
    label = GroundTruth(ground, _labelled(ground, channels), modality.ranges) if ground.is_dir() else None
    return SourceCase(f"{name}_{number}", channels, label, facts={"patient": patient.name, "modality": name})


def _labelled(ground: Path, channels: Sequence[Slices]) -> Slices:
    """Return the channel after whose slices the PNG files are called; the first one if they are not."""
    stems = {file.stem for file in list_directory(ground) if file.suffix.lower() == ".png"}
    return next((channel for channel in channels if stems == {file.stem for file in channel.files}), channels[0])


def _natural(path: Path) -> tuple[Any, ...]:
    """Sort key in which numbers within the name count as numbers: `img2` before `img10`."""
    parts = re.split(r"(\d+)", path.name)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))
