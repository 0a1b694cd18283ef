"""Calibration on held-out cases: the temperature of the probabilities, and the Dice to expect of a case.

All evidence comes from cases that were segmented by a network not trained on them.
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
from autocrossdim.records.calibration import LEAST_GROUPS, TEMPERATURE_BOUNDS, Calibration, CaseScore
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import written_whole

Floats = NDArray[np.floating[Any]]

TEMPERATURES = tuple(float(value) for value in np.geomspace(*TEMPERATURE_BOUNDS, 7))
"""Temperatures at which the sums for a case's soft Dice are recorded before the best one is known; between them, soft
Dice is interpolated."""

VOXELS_PER_CASE = 2000  # sampled for the fit of a single number
BINS = 15  # of the expected calibration error (Guo et al. 2017)


@dataclass
class Evidence:
    """What is kept of a held-out case's probabilities.

    Attributes:
        probabilities: Probabilities of a random sample of voxels in and near the segmentation, float32 (n, K); rows
            sum to 1. For regions, there are two columns (outside, inside) and a row per voxel and region.
        target: Index of the true column, integers (n,).
        sums: Sums for the soft Dice, (len(TEMPERATURES), 3, labels); see `soft_dice`.
        source: Digest of the image and label files of the case; empty if unknown.
    """

    probabilities: Floats
    target: NDArray[np.integer[Any]]
    sums: Floats
    source: str = ""

    def write(self, path: Path) -> None:
        """Write to `path` (.npz)."""
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                probabilities=self.probabilities.astype(np.float32),
                target=self.target,
                sums=self.sums,
                source=np.array(self.source),
            )

    @classmethod
    def read(cls, path: Path) -> "Evidence":
        """Read a file written by `write`.

        Raises:
            UserError: The file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                source = str(arrays["source"]) if "source" in arrays else ""
                evidence = cls(arrays["probabilities"], arrays["target"], arrays["sums"], source)
        except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: missing or damaged. Delete it and run the same command again.") from error
        if evidence.probabilities.ndim != 2 or evidence.target.shape != evidence.probabilities.shape[:1]:
            raise UserError(f"{path}: damaged. Delete it and run the same command again.")
        return evidence


def scale_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Apply temperature scaling to probabilities (n, K); float64."""
    scaled = _logarithm(probabilities) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Floats = raised / raised.sum(axis=1, keepdims=True)
    return result


def calibrate(evidence: Sequence[Evidence]) -> Calibration:
    """Fit the temperature to the sampled voxels of all cases by maximum likelihood."""
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

    bounds = tuple(np.log(TEMPERATURE_BOUNDS))
    temperature = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
    return Calibration(
        temperature=temperature,
        error_before=calibration_error(probabilities, target),
        error_after=calibration_error(scale_temperature(probabilities, temperature), target),
        n_voxels=len(target),
    )


def calibration_error(probabilities: Floats, target: NDArray[np.integer[Any]]) -> float:
    """Return the expected calibration error of the most probable label (Guo et al. 2017), 0 to 1.

    Args:
        probabilities: Probabilities, shape (n, K).
        target: Index of the true column, shape (n,).
    """
    _, confidence, correct = reliability(probabilities, target)
    return float(np.abs(confidence - correct).sum() / len(target))


def reliability(probabilities: Floats, target: NDArray[np.integer[Any]]) -> Floats:
    """Return what a reliability diagram shows, by bins of the probability of the most probable label.

    The sums of several cases can be added.

    Args:
        probabilities: Probabilities, shape (n, K).
        target: Index of the true column, shape (n,).

    Returns:
        For each of `BINS` equal bins from 0 to 1 the number of voxels, the sum of the probabilities of their most
        probable labels, and the number of voxels that have that label, shape (3, BINS).
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == target
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (np.ones(len(bins)), confidence, correct)]
    return np.stack(sums)


def confidence_at(evidence: Evidence, temperature: float) -> float:
    """Return a case's mean soft Dice over the labels found, at a temperature; NaN if no label was found."""
    by_label = soft_dice(evidence.sums)
    found = ~np.isnan(by_label).any(axis=0)
    if not found.any():
        return float("nan")
    return float(np.interp(np.log(temperature), np.log(TEMPERATURES), by_label[:, found].mean(axis=1)))


def fit_case_score(confidence: Sequence[float], dice: Sequence[float], groups: Sequence[str]) -> CaseScore:
    """Fit a line from confidence to Dice over held-out cases, unless there are fewer than `LEAST_GROUPS` groups.

    The error of the prediction is estimated by cross-validation that leaves out one group at a time.

    Args:
        confidence: Mean soft Dice of each case.
        dice: True mean Dice over labels of each case. Cases where either value is NaN are left out.
        groups: Group (patient) of each case.
    """
    x, y = np.asarray(confidence, float), np.asarray(dice, float)
    known = ~np.isnan(x) & ~np.isnan(y)
    x, y, members = x[known], y[known], np.asarray(groups, object)[known]
    n_groups = len(set(members.tolist()))
    if n_groups < LEAST_GROUPS:
        return CaseScore(n_cases=len(y), n_groups=n_groups)
    errors = np.abs(predicted_without(x, y, members) - y)
    errors_of_mean = np.abs(predicted_without(np.zeros_like(y), y, members) - y)
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


def predicted_without(confidence: Floats, dice: Floats, groups: NDArray[np.object_]) -> Floats:
    """Return the expected Dice of each case according to the line fitted to the cases of all other groups.

    Args:
        confidence: Mean soft Dice of each case, shape (n,).
        dice: True mean Dice of each case, shape (n,).
        groups: Group of each case, at least two, shape (n,).
    """
    expected = np.empty_like(dice)
    for group in set(groups.tolist()):
        left_out = groups == group
        slope, intercept = _line(confidence[~left_out], dice[~left_out])
        expected[left_out] = np.clip(intercept + slope * confidence[left_out], 0, 1)
    return expected


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return slope and intercept by least squares; the mean (slope 0) if the line falls or all x are equal."""
    spread = ((x - x.mean()) ** 2).sum()
    slope = max(0.0, float(((x - x.mean()) * (y - y.mean())).sum() / spread)) if spread > 1e-12 else 0.0
    return slope, float(y.mean() - slope * x.mean())


def _logarithm(probabilities: Floats) -> Floats:
    # A probability that float32 rounds to 0 is not certain; 1e-12 is far below what a sample of voxels can resolve.
    result: Floats = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    return result
