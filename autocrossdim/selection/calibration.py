"""Whether probabilities mean what they say: temperature, calibration error, and the Dice to expect of a case.

Everything here rests on held-out cases: each segmented by a network that never saw it.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocrossdim.inference.uncertainty import soft_dice
from autocrossdim.records.calibration import LEAST_GROUPS, Calibration, CaseScore
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import written_whole

Floats = NDArray[np.floating[Any]]

TEMPERATURES = (0.5, 2**-0.5, 1.0, 2**0.5, 2.0, 2**1.5, 4.0)
"""At which a case's soft Dice is taken down before the temperature is known; read off between them. The first and
last bound the temperature: beyond them, something other than the temperature is wrong."""

VOXELS_PER_CASE = 2000  # kept for the temperature: one number is fitted to them
BINS = 15  # of the expected calibration error (Guo et al. 2017)


@dataclass
class Evidence:
    """What is kept of one held-out case's probabilities.

    Attributes:
        probabilities: of a random sample of voxels in and near what was segmented, float32 (n, K), each row summing
            to 1; for regions, two columns (outside, inside) and a row for every voxel and region.
        target: which column is true, integers (n,).
        sums: what soft Dice is made of, (len(TEMPERATURES), 3, labels); see `soft_dice`.
    """

    probabilities: Floats
    target: NDArray[np.integer[Any]]
    sums: Floats

    def write(self, path: Path) -> None:
        """Write to `path` (.npz), whole or not at all."""
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, probabilities=self.probabilities.astype(np.float32), target=self.target, sums=self.sums
            )

    @classmethod
    def read(cls, path: Path) -> "Evidence":
        """Read what `write` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(arrays["probabilities"], arrays["target"], arrays["sums"])
        except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: missing or damaged. Delete it and run the same command again.") from error
        if found.probabilities.ndim != 2 or found.target.shape != found.probabilities.shape[:1]:
            raise UserError(f"{path}: damaged. Delete it and run the same command again.")
        return found


def temper(probabilities: Floats, temperature: float) -> Floats:
    """Return rows of probabilities (n, K) raised to 1 / temperature and normalised, float64."""
    scaled = _logarithm(probabilities) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Floats = raised / raised.sum(axis=1, keepdims=True)
    return result


def calibrate(evidence: Sequence[Evidence]) -> Calibration:
    """Fit the temperature to the voxels of all cases by their likelihood."""
    probabilities = np.concatenate([case.probabilities for case in evidence])
    target = np.concatenate([case.target for case in evidence])
    if not len(target):
        return Calibration()
    from scipy.optimize import minimize_scalar

    logarithm = _logarithm(probabilities)
    true = logarithm[np.arange(len(target)), target]

    def loss(log_temperature: float) -> float:
        scaled = logarithm / np.exp(log_temperature)
        top = scaled.max(axis=1)
        normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((normaliser - true / np.exp(log_temperature)).mean())

    bounds = (np.log(TEMPERATURES[0]), np.log(TEMPERATURES[-1]))
    temperature = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
    return Calibration(
        temperature=temperature,
        error_before=calibration_error(probabilities, target),
        error_after=calibration_error(temper(probabilities, temperature), target),
        n_voxels=len(target),
    )


def calibration_error(probabilities: Floats, target: NDArray[np.integer[Any]]) -> float:
    """Return the expected calibration error of the likeliest label (Guo et al. 2017), 0 to 1.

    Args:
        probabilities: shape (n, K).
        target: the true column, shape (n,).
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == target
    of_bin = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(of_bin, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(target))


def confidence_at(evidence: Evidence, temperature: float) -> float:
    """Return a held-out case's soft Dice, the mean over labels found, at a temperature; NaN if nothing was found."""
    of_label = soft_dice(evidence.sums)
    found = ~np.isnan(of_label).any(axis=0)
    if not found.any():
        return float("nan")
    return float(np.interp(np.log(temperature), np.log(TEMPERATURES), of_label[:, found].mean(axis=1)))


def fit_case_score(confidence: Sequence[float], dice: Sequence[float], groups: Sequence[str]) -> CaseScore:
    """Fit the line from confidence to Dice over held-out cases; no line with fewer than `LEAST_GROUPS` groups.

    Args:
        confidence: soft Dice of each case.
        dice: its true mean Dice over labels. Cases where either is NaN are left out.
        groups: group (patient) of each case; a group is left out together when the error is estimated.
    """
    x, y = np.asarray(confidence, float), np.asarray(dice, float)
    known = ~np.isnan(x) & ~np.isnan(y)
    x, y, members = x[known], y[known], np.asarray(groups, object)[known]
    n_groups = len(set(members.tolist()))
    if n_groups < LEAST_GROUPS:
        return CaseScore(n_cases=len(y), n_groups=n_groups)
    errors, errors_of_mean = np.empty_like(y), np.empty_like(y)
    for group in set(members.tolist()):
        out = members == group
        slope, intercept = _line(x[~out], y[~out])
        errors[out] = np.abs(np.clip(intercept + slope * x[out], 0, 1) - y[out])
        errors_of_mean[out] = np.abs(y[~out].mean() - y[out])
    slope, intercept = _line(x, y)
    return CaseScore(
        slope=slope,
        intercept=intercept,
        calibrated=True,
        n_cases=len(y),
        n_groups=n_groups,
        error=float(errors.mean()),
        error_of_mean=float(errors_of_mean.mean()),
    )


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Least squares; a line that falls, or cases that are all alike, give the mean."""
    spread = ((x - x.mean()) ** 2).sum()
    slope = max(0.0, float(((x - x.mean()) * (y - y.mean())).sum() / spread)) if spread > 1e-12 else 0.0
    return slope, float(y.mean() - slope * x.mean())


def _logarithm(probabilities: Floats) -> Floats:
    # What float32 rounds to 0 is no certainty; 1e-12 is far below anything a sample of voxels could tell from it.
    result: Floats = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    return result
