"""The fingerprint of a dataset: measurements from which a planner decides."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from autocrossdim.records.sources import FileVersion
from autocrossdim.system.files import read_record, write_text


class Intensities(BaseModel):
    """Foreground intensities of one channel over the dataset, in the image's own unit."""

    model_config = ConfigDict(frozen=True)

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


class LabelMeasurement(BaseModel):
    """One label value in one case.

    Attributes:
        centroid: Voxels (z, y, x).
        mean: Mean intensity per channel, in units of the standard deviation of the image.
        std: Standard deviation per channel, in the same unit.
    """

    model_config = ConfigDict(frozen=True)

    centroid: tuple[float, float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class CaseFingerprint(BaseModel):
    """Measurements of one case.

    Attributes:
        name: Name of the case.
        shape: Voxels (z, y, x).
        cropped_shape: Voxels (z, y, x) of the bounding box of nonzero voxels.
        spacing: mm (z, y, x).
        orientation: Code of the image as read (`autocrossdim.data.orientation`); None if it is unknown or 2D.
        label_voxels: Label value -> number of voxels; slices that were not annotated are left out.
        labels: Label value -> what was measured on its voxels, background left out.
        source: Versions of the files that were measured; empty if written by version 0.1.
        annotated_slices: Number of annotated slices and of all slices; None if every slice was annotated.
        intensity_std: Standard deviation of each channel over the whole image, in its own unit; empty if measured by an
            earlier version.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, int, int]
    cropped_shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str | None = None
    label_voxels: dict[int, int]
    labels: dict[int, LabelMeasurement] = {}
    source: tuple[FileVersion, ...] = ()
    annotated_slices: tuple[int, int] | None = None
    intensity_std: tuple[float, ...] = ()


class Fingerprint(BaseModel):
    """Measurements of a dataset.

    Attributes:
        version: Version of the file's format.
        dims: 2 for flat images, else 3.
        cases: Its cases.
        intensities: Foreground intensities per channel.
        grown: Whether cases were added or removed since the plan was made, which is therefore kept.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    dims: int
    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[Intensities, ...]
    grown: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the cases."""
        return [case.name for case in self.cases]

    @property
    def presence(self) -> dict[str, Collection[int]]:
        """Label values that each case holds, by the name of the case."""
        return {case.name: case.label_voxels.keys() for case in self.cases}

    def median_spacing(self) -> np.ndarray:
        """Return the median spacing of each axis, mm (z, y, x)."""
        return np.median([case.spacing for case in self.cases], axis=0)

    def cases_with(self, values: Collection[int]) -> int:
        """Return the number of cases that hold at least one of these label values."""
        return sum(any(case.label_voxels.get(value) for value in values) for case in self.cases)

    def relative_size_after_cropping(self) -> float:
        """Return the median share of a case's voxels that remain after cropping to its nonzero voxels."""
        return float(np.median([np.prod(c.cropped_shape) / np.prod(c.shape) for c in self.cases]))

    @classmethod
    def read(cls, path: Path) -> "Fingerprint":
        """Read fingerprint.json.

        Raises:
            UserError: The file is missing or damaged.
        """
        return read_record(cls, path, fault="not a fingerprint", remedy="Plan again with --overwrite.")

    def write(self, path: Path) -> None:
        """Write fingerprint.json."""
        write_text(path, self.model_dump_json(indent=2) + "\n")
