"""What the data look like: numbers, no decisions.

One pass over the dataset reads each case once, checks it and measures it, in worker processes that hold
one case each. The quantities are nnU-Net's; unlike there, voxels to be ignored are not foreground.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.verify import CaseCheck, Report, check_case, check_structure, summarise
from autocrossdim.errors import UserError
from autocrossdim.files import read_json, write_text
from autocrossdim.parallel import map_cases
from autocrossdim.preprocessing.crop import box_shape, crop, nonzero_box

# Foreground intensities kept for the dataset's percentiles: 4 bytes each, so 40 MB a channel at the most.
# nnU-Net keeps ten times as many; a percentile of 1e7 values is exact to far more digits than are used.
MAX_SAMPLES = 10_000_000


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


@dataclass
class _Measured:
    check: CaseCheck
    case: CaseFingerprint | None
    samples: np.ndarray | None  # (C, samples) float32


def extract(dataset: Dataset, processes: int) -> tuple[Fingerprint, Report]:
    """Check and measure every training case.

    Returns:
        The fingerprint and the report, which holds warnings only.

    Raises:
        UserError: the dataset has faults; all of them are in the message, one a line.
    """
    structure = check_structure(dataset.path)
    cases = dataset.training_cases()
    measure = partial(_check_and_measure, dataset, MAX_SAMPLES // max(1, len(cases)))
    measured = map_cases(measure, cases, processes, "Reading cases")
    report = summarise([structure, *(m.check for m in measured)])
    if report.faults:
        raise UserError(f"{dataset.path}: {len(report.faults)} fault(s) found.\n" + "\n".join(report.faults))
    fingerprints = tuple(m.case for m in measured if m.case is not None)
    samples = np.concatenate([m.samples for m in measured if m.samples is not None], axis=1)
    return (
        Fingerprint(
            dims=2 if all(case.shape[0] == 1 for case in fingerprints) else 3,
            cases=fingerprints,
            intensities=tuple(_intensities(channel) for channel in samples),
        ),
        report,
    )


def _check_and_measure(dataset: Dataset, max_samples: int, case: Case) -> _Measured:
    check = check_case(dataset, case)
    image, label = check.image, check.label
    check.image = check.label = None  # arrays stay in the worker
    if check.faults or image is None or label is None:
        return _Measured(check, None, None)
    box = nonzero_box(image.array)
    values, counts = np.unique(label, return_counts=True)
    fingerprint = CaseFingerprint(
        name=case.name,
        shape=image.geometry.shape,
        cropped_shape=box_shape(box),
        spacing=image.geometry.spacing,
        label_voxels={int(v): int(n) for v, n in zip(values, counts, strict=True)},
    )
    cropped = crop(label, box)
    foreground = np.isin(cropped, [v for values in dataset.labels.foreground.values() for v in values])
    samples = crop(image.array, box)[:, foreground]
    if samples.shape[1] > max_samples:
        chosen = np.random.default_rng(1234).choice(samples.shape[1], max_samples, replace=False)
        samples = samples[:, chosen]
    return _Measured(check, fingerprint, samples)


def _intensities(samples: np.ndarray) -> Intensities:
    """Statistics of the foreground samples of one channel, shape (n,)."""
    if not samples.size:
        raise UserError("No case holds any foreground: there is nothing to learn. Check the label files.")
    low, median, high = np.percentile(samples, [0.5, 50, 99.5])
    return Intensities(
        mean=float(samples.mean(dtype=np.float64)),
        median=float(median),
        std=float(samples.std(dtype=np.float64)),
        min=float(samples.min()),
        max=float(samples.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )
