"""What the data look like: numbers, no decisions.

One pass over the dataset reads each case once, checks it and measures it, in worker processes that hold
one case each. The quantities are nnU-Net's; unlike there, voxels to be ignored are not foreground.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_text

# Foreground intensities kept for the dataset's percentiles: 4 bytes each, so 40 MB a channel at the most.
# nnU-Net keeps ten times as many; a percentile of 1e7 values is exact to far more digits than are used.


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


class CaseFingerprint(BaseModel):
    """One case: shapes in voxels and spacing in mm (z, y, x), and voxels a label value."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, int, int]
    cropped_shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    label_voxels: dict[int, int]


class Fingerprint(BaseModel):
    """The dataset: its cases and, a channel, its foreground intensities. `dims` is 2 when all images are flat."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    dims: int
    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[Intensities, ...]

    def median_spacing(self) -> np.ndarray:
        """Per-axis median of the spacings, mm (z, y, x)."""
        return np.median([case.spacing for case in self.cases], axis=0)

    def cases_with(self, values: Collection[int]) -> int:
        """Number of cases that hold at least one of these label values."""
        return sum(any(case.label_voxels.get(value) for value in values) for case in self.cases)

    def relative_size_after_cropping(self) -> float:
        """Median share of a case's voxels left after cropping to what was imaged."""
        return float(np.median([np.prod(c.cropped_shape) / np.prod(c.shape) for c in self.cases]))

    @classmethod
    def read(cls, path: Path) -> "Fingerprint":
        """Read fingerprint.json.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise UserError(f"{path}: not a fingerprint. Plan again with --overwrite.") from error

    def write(self, path: Path) -> None:
        """Write fingerprint.json."""
        write_text(path, self.model_dump_json(indent=2) + "\n")
