"""DICOM series with DICOM-SEG or RTSTRUCT files: one directory per case or patient, which may have subdirectories."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from autocrossdim.data import dicom
from autocrossdim.data.converting.annotations import KINDS, described, painted, structure_names
from autocrossdim.data.converting.description import Description, Examined, SourceCase
from autocrossdim.data.converting.named import unknown_about
from autocrossdim.data.converting.registry import Wishes, layout
from autocrossdim.data.converting.sources import Array, ReadImage, ReadLabel
from autocrossdim.data.dicom_objects import lenient, require_packages
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_dicom_slices
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory, reading
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import counted, listed

SEARCHED = 200  # files looked at before a directory is taken for something else


@dataclass(frozen=True)
class Series(ReadImage):
    """A channel: the slices of one series, stacked by their positions."""

    folder: Path
    slices: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The slices, in the order of their paths."""
        return self.slices

    def read(self) -> tuple[Array, Geometry]:
        """Return the image (1, Z, Y, X) and its geometry."""
        stacked = dicom.stacked(self.folder, [str(file) for file in self.slices])
        image = read_dicom_slices(self.folder, stacked)
        return image.array, image.geometry


@dataclass(frozen=True)
class Structures(ReadLabel):
    """A label: structures of annotation files, painted on the grid of their series.

    Attributes:
        annotations: DICOM-SEG or RTSTRUCT files.
        series: The series they belong to.
        labels: Name of a structure -> its value; other structures are left out.
    """

    annotations: tuple[Path, ...]
    series: Series
    labels: dict[str, int]

    @property
    def files(self) -> tuple[Path, ...]:
        """The annotation files."""
        return self.annotations

    def read(self) -> tuple[Array, Geometry]:
        """Return the label values (1, Z, Y, X) and the geometry of the series."""
        _, geometry = self.series.read()
        return painted(self.annotations, self.labels, geometry)[0][None], geometry


@dataclass
class Found:
    """What the directory of a case holds.

    Attributes:
        images: Series -> its slices.
        modalities: Series -> its modality.
        annotations: Annotation file -> the series it refers to, empty if it names none.
        names: Annotation file -> names of its structures.
        faults: One sentence each.
    """

    images: dict[str, list[Path]] = field(default_factory=dict)
    modalities: dict[str, str] = field(default_factory=dict)
    annotations: dict[Path, str] = field(default_factory=dict)
    names: dict[Path, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def detects(source: Path) -> bool:
    """Whether a directory in the source holds DICOM files, at any depth."""
    if not source.is_dir():
        return False
    folders = [entry for entry in list_directory(source) if entry.is_dir()]
    return any(dicom.is_dicom(file) for folder in folders[:3] for file in islice(_walk(folder), SEARCHED))


@layout("dicom", detects, takes=("channels", "labels"))
def describe(source: Path, wishes: Wishes) -> Description:
    """Describe the directories; a series without annotations becomes a test case.

    Raises:
        UserError: Packages are missing, or the source holds no directories.
    """
    require_packages("The layout dicom")
    folders = [entry for entry in list_directory(source) if entry.is_dir() and not entry.name.startswith(".")]
    if not folders:
        raise UserError(
            f"{source}: contains no directories. Give the directory with one directory of DICOM files per case."
        )
    found = dict(zip(folders, map_cases(_search, folders, wishes.processes, "Searching DICOM files"), strict=True))
    faults = [fault for each in found.values() for fault in each.faults]
    names = [name for each in found.values() for structures in each.names.values() for name in structures]
    labels = wishes.labels or {name: value for value, name in enumerate(sorted(set(names)), start=1)}
    if unknown := sorted(set(labels) - set(names)):
        faults.append(f"--label: no annotation has the name {listed(unknown)}. Names: {described(names)}.")
    cases = [case for folder, each in found.items() for case in _cases(folder, each, labels, faults)]
    used = Counter(case.facts["modality"] for case in cases)
    if len(used) > 1 and not wishes.channels:
        kinds = ", ".join(f"{modality} ({counted(number, 'case')})" for modality, number in used.most_common())
        faults.append(f"{source}: images of several modalities: {kinds}. Convert each alone, or give --channel NAME.")
    return Description(
        channel_names=wishes.channels or tuple(used)[:1] or ("image",),
        labels={"background": 0, **dict(sorted(labels.items(), key=lambda item: item[1]))},
        cases=cases,
        about=unknown_about(source),
        faults=faults,
        warnings=[*_rare(labels, found), *_repeated(labels, found)],
        examine=examine,
    )


def examine(case: SourceCase, channels: list[Array], label: Array, geometry: Geometry) -> Examined:
    """Report structures that overlap."""
    assert isinstance(case.label, Structures)
    return Examined(overlaps=painted(case.label.annotations, case.label.labels, geometry)[1])


def _rare(labels: dict[str, int], found: dict[Path, Found]) -> list[str]:
    """Return a warning for each label that some annotated directories lack; names may be spelt differently."""
    annotated = [{name for each in one.names.values() for name in each} for one in found.values() if one.names]
    return [
        f"'{name}' is annotated in {sum(name in names for names in annotated)} of {len(annotated)} directories; "
        "elsewhere it is background. Check the spelling of its name, or leave it out with --label."
        for name in labels
        if any(name not in names for names in annotated)
    ]


def _repeated(labels: dict[str, int], found: dict[Path, Found]) -> list[str]:
    """Return a warning for each directory in which several files annotate one structure of a series."""
    warnings = []
    for folder, each in found.items():
        only = next(iter(each.images), "")
        counts = Counter(
            (each.annotations[file] or only, name) for file, names in each.names.items() for name in set(names)
        )
        names = sorted({name for (_, name), count in counts.items() if count > 1 and name in labels})
        if names:
            warnings.append(
                f"{folder}: several files annotate {listed(names)} in the same series; their masks are joined. If they "
                "are versions of one annotation, keep one of the files."
            )
    return warnings


@lenient()
def _search(folder: Path) -> Found:
    """Read the headers of all DICOM files below a directory."""
    from pydicom import dcmread

    tags = ["Modality", "SeriesInstanceUID", "NumberOfFrames", "ReferencedSeriesSequence"]
    tags += ["ReferencedFrameOfReferenceSequence", "Rows"]
    found = Found()
    for file in _walk(folder):
        if not dicom.is_dicom(file):
            continue
        try:
            dicom.check_dicom(file)
            header = dcmread(file, specific_tags=tags, stop_before_pixels=True)
            modality, series = str(header.Modality), str(header.SeriesInstanceUID)
            if modality in KINDS:
                found.annotations[file] = _referenced(header)
                found.names[file] = structure_names(file)
            elif "Rows" in header:
                if int(header.get("NumberOfFrames") or 1) > 1:
                    raise UserError(f"{file}: several frames in one file. Convert it to single slices or to NIfTI.")
                found.images.setdefault(series, []).append(file)
                found.modalities[series] = modality
        except UserError as error:
            found.faults.append(str(error))
        except Exception as error:  # pydicom raises exceptions of every kind on damaged files
            found.faults.append(f"{file}: cannot be read as DICOM ({error}). Copy the file again.")
    return found


def _referenced(header: object) -> str:
    """Return the series that an annotation refers to; empty if it names none."""
    from pydicom import Dataset

    assert isinstance(header, Dataset)
    steps = ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence", "RTReferencedSeriesSequence")
    place = header
    for step in ("ReferencedSeriesSequence",) if header.Modality == "SEG" else steps:
        items = place.get(step)
        if not items:
            return ""
        place = items[0]
    return str(place.get("SeriesInstanceUID", ""))


def _cases(folder: Path, found: Found, labels: dict[str, int], faults: list[str]) -> list[SourceCase]:
    """Return one case per annotated series; without annotations, the only series."""
    of_series: dict[str, list[Path]] = {}
    for file, named in found.annotations.items():
        only = next(iter(found.images)) if len(found.images) == 1 else ""
        uid = named or only
        if uid not in found.images:
            faults.append(f"{file}: the series it refers to is not in {folder}. Add the series, or remove the file.")
        else:
            of_series.setdefault(uid, []).append(file)
    if not found.annotations:
        if len(found.images) != 1:
            faults.append(
                f"{folder}: {len(found.images) or 'no'} series and no annotation. "
                "Keep one series to make it a test case, or remove it."
            )
            return []
        of_series = {next(iter(found.images)): []}
    cases = []
    for number, (annotated, annotations) in enumerate(sorted(of_series.items()), start=1):
        slices = tuple(sorted(found.images[annotated]))
        series = Series(slices[0].parent, slices)
        name = folder.name if len(of_series) == 1 else f"{folder.name}_{number}"
        label = Structures(tuple(sorted(annotations)), series, labels) if annotations else None
        # Not the series UID: with access to the hospital's archive, it leads to the patient.
        facts = {"modality": found.modalities[annotated]}
        cases.append(SourceCase(name, (series,), label, None if len(of_series) == 1 else folder.name, facts=facts))
    return cases


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a directory that are not hidden, sorted within each directory."""
    with reading(folder):
        for place, folders, files in os.walk(folder):
            folders.sort()
            yield from (Path(place) / file for file in sorted(files) if not file.startswith("."))
