"""Sizes of annotations and predictions (volumes, or areas of 2D images), and how well they agree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.summary import Summary

FEWEST = 3  # cases from which limits of agreement and a correlation are given; our choice


@dataclass(frozen=True)
class Measure:
    """How sizes are measured.

    Attributes:
        noun: `volume` or `area`.
        unit: mL, mm², pixels or voxels.
    """

    noun: str
    unit: str

    @classmethod
    def of(cls, dims: int, *, spaced: bool) -> "Measure":
        """Return the measure of images with 2 or 3 axes, with or without a voxel spacing."""
        if dims == 2:
            return cls("area", "mm²" if spaced else "pixels")
        return cls("volume", "mL" if spaced else "voxels")

    def size(self, voxels: float, spacing: Sequence[float]) -> float:
        """Return the size of a number of voxels of a spacing in mm."""
        return voxels * math.prod(spacing) / (1000 if self.unit == "mL" else 1)


@dataclass(frozen=True)
class Agreement:
    """Agreement of the sizes of one label in annotation and prediction.

    Attributes:
        name: Name of the label.
        cases: Names of the cases in which annotation or prediction has the label.
        annotated: Size in the annotation of each case.
        predicted: Size in the prediction of each case.
    """

    name: str
    cases: Sequence[str]
    annotated: Sequence[float]
    predicted: Sequence[float]

    @property
    def bias(self) -> float:
        """Mean difference, prediction minus annotation; NaN without a case."""
        return float(np.mean(self._differences)) if self.cases else math.nan

    @property
    def limits(self) -> tuple[float, float]:
        """Bland and Altman's 95 % limits of agreement, bias ± 1.96 standard deviations; NaN with too few cases."""
        if len(self.cases) < FEWEST:
            return math.nan, math.nan
        spread = 1.96 * float(np.std(self._differences, ddof=1))
        return self.bias - spread, self.bias + spread

    @property
    def correlation(self) -> float:
        """Pearson's correlation; NaN with too few cases or if one side has no spread."""
        if len(self.cases) < FEWEST or min(np.ptp(self.annotated), np.ptp(self.predicted)) == 0:
            return math.nan
        return float(np.corrcoef(self.annotated, self.predicted)[0, 1])

    @property
    def _differences(self) -> np.ndarray:
        return np.subtract(self.predicted, self.annotated)


def case_sizes(
    summary: Summary, fingerprint: Fingerprint, measure: Measure, ending: str
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the sizes of annotation and prediction by case name and label key.

    Cases that are no longer in the fingerprint are left out.
    """
    spacings = {case.name: case.spacing for case in fingerprint.cases}
    return {
        name: {
            key: (measure.size(metrics["n_ref"], spacings[name]), measure.size(metrics["n_pred"], spacings[name]))
            for key, metrics in case.metrics.items()
        }
        for case in summary.metric_per_case
        if (name := case.file.removesuffix(ending)) in spacings
    }


def agreements(summary: Summary, sizes: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[Agreement]:
    """Return the agreement of each label over the cases in which annotation or prediction has it."""
    found = []
    for key in summary.mean:
        # Sizes of labels that were not annotated in a case are NaN.
        pairs = {name: labels[key] for name, labels in sizes.items() if any(size > 0 for size in labels[key])}
        annotated, predicted = [a for a, _ in pairs.values()], [p for _, p in pairs.values()]
        found.append(Agreement(summary.name(key), list(pairs), annotated, predicted))
    return found
