"""The store of preprocessed cases: compressed arrays from which a patch is read without reading the case.

A case is four files: `CASE.image.b2nd`, `CASE.label.b2nd`, `CASE.npz` (positions of labelled voxels) and `CASE.json`.
For a cascade, `CASE.previous_stage.b2nd` holds the segmentation by the previous stage.
The JSON file is written last and marks the case as complete; it also records the versions of the source files.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import blosc2
import numpy as np
from pydantic import BaseModel, ConfigDict

from autocrossdim.data.dataset import Case
from autocrossdim.data.geometry import Geometry
from autocrossdim.preprocessing.arrays import open_array, write_array
from autocrossdim.preprocessing.case import Placement, Preprocessed
from autocrossdim.preprocessing.positions import ANNOTATED, read_positions, write_positions
from autocrossdim.records.normalization import Normalization
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.records.sources import FileVersion, content_hash, contents, file_versions
from autocrossdim.system.errors import UserError, from_os_error
from autocrossdim.system.files import list_directory, read_json, read_record, reading, write_json
from autocrossdim.system.lock import LOCK
from autocrossdim.system.text import shown_path

ARRAYS = (".image.b2nd", ".label.b2nd", ".previous_stage.b2nd")
SETTINGS = "settings"  # without ending, so that no case's record has the same name


class CaseRecord(BaseModel):
    """Description of a stored case.

    Attributes:
        name: Name of the case.
        label_path: Absolute path of its label file; empty for an unlabelled scan.
        geometry: Geometry of the image as read.
        placement: Position of the preprocessed case in the original grid.
        source: Versions of the files it was preprocessed from; empty if written by version 0.1.
        annotated_labels: Names of the labels that were annotated; None if all were.
        annotated_slices: Numbers of the slices (axis 0) with annotated voxels; None if every slice was annotated.
        has_previous_stage: Whether a segmentation by the previous stage is stored as well.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    label_path: str
    geometry: dict[str, object]
    placement: Placement
    source: tuple[FileVersion, ...] = ()
    annotated_labels: tuple[str, ...] | None = None
    annotated_slices: tuple[int, ...] | None = None
    has_previous_stage: bool = False

    @property
    def images(self) -> int:
        """Number of image files, which come first in `source`; the spacing files of TIFFs come last."""
        files = sum(not version.name.endswith(".json") for version in self.source)
        return files - bool(self.label_path) - self.has_previous_stage

    def original_geometry(self) -> Geometry:
        """Return the geometry of the image as read."""
        return Geometry.from_json(self.geometry)


@dataclass
class StoredCase:
    """A case opened for reading.

    Attributes:
        name: Name of the case.
        image: Image, shape (C, Z, Y, X), float32; slicing reads only the blocks of the slice.
        label: Label values, shape (Z, Y, X), read likewise.
        voxels: Positions (n, 3) of some voxels of each class or region; absent ones are left out.
        annotated_voxels: Positions (n, 3) of some voxels without the ignore label; None if no voxel has it.
        annotated_labels: As in `CaseRecord`.
        annotated_slices: As in `CaseRecord`.
        previous_stage: Segmentation by the previous stage, shape (Z, Y, X); None if there is none.
        soft_label: Probabilities of the teachers, shape (F, Z, Y, X), as in `SoftLabels`; None without teachers.
    """

    name: str
    image: blosc2.NDArray
    label: blosc2.NDArray
    voxels: dict[str, np.ndarray]
    annotated_voxels: np.ndarray | None = None
    annotated_labels: tuple[str, ...] | None = None
    annotated_slices: tuple[int, ...] | None = None
    previous_stage: blosc2.NDArray | None = None
    soft_label: blosc2.NDArray | None = None

    def whole_input(self) -> np.ndarray:
        """Return the input of a network: the image and, as last channel, the previous stage's segmentation.

        Shape (C, Z, Y, X) or (C + 1, Z, Y, X), float32.
        """
        image: np.ndarray = self.image[:]
        if self.previous_stage is None:
            return image
        return np.concatenate([image, self.previous_stage[:][None]], dtype=image.dtype)


@dataclass(frozen=True)
class Store:
    """The preprocessed cases of one configuration in one directory."""

    root: Path

    @property
    def lock(self) -> Path:
        """Lock of the process that preprocesses; beside the directory, which may be emptied."""
        return self.root.with_name(f".{self.root.name}{LOCK}")

    def prepare(self, plan: Plan, configuration: Configuration) -> None:
        """Create the directory for a plan; cases preprocessed under other settings are removed."""
        settings = {
            "orientation": plan.orientation,
            "transpose": list(plan.transpose),
            "spacing": list(configuration.spacing),
            "normalization": [entry.effective().model_dump() for entry in plan.normalization],
            "labels": plan.labels.model_dump(mode="json"),
        }
        if configuration.previous_stage is not None:
            settings["previous_stage"] = configuration.previous_stage
        marker = self.root / SETTINGS
        with reading():
            prepared = marker.exists()
            outdated = self.root.exists() and not (prepared and _used(read_json(marker)) == settings)
        if outdated:
            # The marker goes last: after an interruption the remaining files still count as those of other settings.
            _remove(sorted(list_directory(self.root), key=lambda file: file == marker))
        if outdated or not prepared:
            write_json(marker, settings)

    def names(self) -> list[str]:
        """Return the names of all complete cases, sorted."""
        with reading():
            files = list_directory(self.root) if self.root.is_dir() else []
        return [file.stem for file in files if file.suffix == ".json" and not file.name.startswith(".")]

    def has(self, name: str) -> bool:
        """Whether the case is stored completely."""
        with reading():
            return self._path(name, ".json").exists()

    def is_current(self, case: Case) -> bool:
        """Whether the case is stored and its source files and annotated labels are those it was preprocessed from.

        Files whose size and time are as recorded are not read. If only times changed, the record is updated.

        Raises:
            UserError: A source file is missing or cannot be read, or the record is damaged.
        """
        if not self.has(case.name):
            return False
        record = self.record(case.name)
        present = file_versions(case.source_files, record.source)
        if not record.source or content_hash(present) != content_hash(record.source):
            return False
        if record.annotated_labels != case.annotated_labels:
            return False
        if present != record.source:
            self._write_record(record.model_copy(update={"source": present}))
        return True

    def source_hash(self, name: str) -> str:
        """Return a digest of the image and label files that a case was preprocessed from, and its annotated labels.

        Raises:
            UserError: The case is not stored, its record is damaged, or it was written by version 0.1.
        """
        record = self.record(name)
        if not record.source:
            raise self._damaged(name)
        return content_hash(record.source, record.annotated_labels)

    def image_hash(self, name: str) -> str:
        """Return a digest of the image files that a case was preprocessed from, whatever its name and label.

        Raises:
            UserError: As `source_hash`.
        """
        record = self.record(name)
        if not record.source:
            raise self._damaged(name)
        return content_hash(record.source[: record.images])

    def contents(self, name: str) -> frozenset[str]:
        """Return the content hashes by which a case is recognised under another name; none if it is not stored.

        Raises:
            UserError: The record of the case is damaged.
        """
        if not self.has(name):
            return frozenset()
        record = self.record(name)
        return contents(record.source, record.images, record.annotated_labels)

    def changed_since(self, hashes: Mapping[str, str]) -> list[str]:
        """Return the cases whose source files have other contents now, or that are no longer stored.

        Args:
            hashes: Case -> `source_hash` at an earlier time, as recorded by a checkpoint.
        """
        return [name for name, known in hashes.items() if not self.has(name) or self.source_hash(name) != known]

    def remove(self, names: Iterable[str]) -> None:
        """Remove cases; an interruption leaves no incomplete case behind that counts as complete."""
        for name in names:
            _remove(self._path(name, ending) for ending in (".json", *ARRAYS, ".npz"))

    def keep_only(self, names: Collection[str]) -> None:
        """Remove all cases but these, such as those deleted from the dataset."""
        self.remove(set(self.names()) - set(names))

    def write(
        self,
        case: Case,
        geometry: Geometry,
        preprocessed: Preprocessed,
        plan: Plan,
        patch: tuple[int, ...],
        source: tuple[FileVersion, ...] = (),
    ) -> None:
        """Store one preprocessed case.

        Args:
            case: Raw case; without a label, an empty one is stored, which nothing may take for an annotation.
            geometry: Geometry of the image as read.
            preprocessed: The case after preprocessing.
            plan: Its labels decide of which voxels positions are stored.
            patch: Patch size (Z, Y, X), which determines the size of the compressed chunks.
            source: Versions of the case's files, determined before they were read.
        """
        label = preprocessed.label
        if label is None:
            label = np.zeros(preprocessed.image.shape[1:], np.uint8)
        chunk = tuple(min(n, p) for n, p in zip(label.shape, patch, strict=True))
        write_array(self._path(case.name, ".image.b2nd"), preprocessed.image, (1, *chunk))
        write_array(self._path(case.name, ".label.b2nd"), label, chunk)
        if preprocessed.previous_stage is not None:
            write_array(self._path(case.name, ".previous_stage.b2nd"), preprocessed.previous_stage, chunk)
        write_positions(self._path(case.name, ".npz"), label, plan.labels)
        record = CaseRecord(
            name=case.name,
            label_path="" if case.label is None else str(case.label.resolve()),
            geometry=geometry.to_json(),
            placement=preprocessed.placement,
            source=source,
            annotated_labels=case.annotated_labels,
            annotated_slices=_annotated_slices(label, plan),
            has_previous_stage=preprocessed.previous_stage is not None,
        )
        self._write_record(record)

    def open(self, name: str) -> StoredCase:
        """Open a case for reading.

        Raises:
            UserError: One of its files is missing, damaged or cannot be read.
        """
        try:
            voxels, record = read_positions(self._path(name, ".npz")), self.record(name)
            stage = open_array(self._path(name, ".previous_stage.b2nd")) if record.has_previous_stage else None
            return StoredCase(
                name=name,
                image=open_array(self._path(name, ".image.b2nd")),
                label=open_array(self._path(name, ".label.b2nd")),
                annotated_voxels=voxels.pop(ANNOTATED, None),
                voxels=voxels,
                annotated_labels=record.annotated_labels,
                annotated_slices=record.annotated_slices,
                previous_stage=stage,
            )
        except PermissionError as error:
            raise from_os_error(error, action="read") from error
        except (OSError, RuntimeError, ValueError, EOFError, BadZipFile) as error:  # raised by damaged files
            raise self._damaged(name) from error

    def record(self, name: str) -> CaseRecord:
        """Read the description of a case.

        Raises:
            UserError: The file is missing or damaged.
        """
        try:
            return read_record(CaseRecord, self._path(name, ".json"), remedy="")
        except UserError as error:
            raise self._damaged(name) from error

    def _write_record(self, record: CaseRecord) -> None:
        write_json(self._path(record.name, ".json"), record.model_dump(mode="json"))

    def _damaged(self, name: str) -> UserError:
        record = shown_path(self._path(name, ".json"))
        return UserError(
            f"{record}: this case or one of its files is damaged. Delete this file and run the same command again: the "
            "case is then preprocessed again."
        )

    def _path(self, name: str, ending: str) -> Path:
        return self.root / f"{name}{ending}"


def _used(settings: Any) -> Any:
    """Return stored settings without the intensities that their normalisation does not use.

    Earlier versions stored these, too. They change with every corrected label.
    """
    with suppress(TypeError, KeyError, ValueError):
        schemes = [Normalization.model_validate(entry) for entry in settings["normalization"]]
        return {**settings, "normalization": [scheme.effective().model_dump() for scheme in schemes]}
    return settings


def _remove(files: Iterable[Path]) -> None:
    with reading():
        for file in files:
            with suppress(FileNotFoundError):
                file.unlink()


def _annotated_slices(label: np.ndarray, plan: Plan) -> tuple[int, ...] | None:
    """Return the slices (axis 0) with annotated voxels; None if the plan says that every slice was annotated."""
    if plan.labels.unannotated_slices is None:
        return None
    return tuple(np.flatnonzero((~plan.labels.ignored(label)).any(axis=(1, 2))).tolist())
