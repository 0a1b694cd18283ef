"""The scores that can be computed: each is one decorated function that measures a case, in a file of `scores/`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from autocrossdim.evaluation.metrics import LabelArray, Mask
from autocrossdim.records.labels import Labels
from autocrossdim.records.score import Score, ScoreName

Structures = Mapping[str, tuple[int, ...]]
"""Label values of each structure to score, by its name in the tables."""


@dataclass(frozen=True)
class Case:
    """Two segmentations of one case on the same grid.

    Attributes:
        name: Case name.
        prediction: Label values, shape `(Z, Y, X)`, or `(Y, X)` for a 2D image.
        reference: Label values of the same shape.
        spacing: Voxel spacing in mm, in the order of the arrays' axes.
        structures: Structures to score.
        ignore: Value in the reference of voxels that were not annotated and belong to no mask; None if there are none.
    """

    name: str
    prediction: LabelArray
    reference: LabelArray
    spacing: tuple[float, ...]
    structures: Structures
    ignore: int | None = None

    def masks(self) -> Iterator[tuple[str, Mask, Mask]]:
        """Yield the name, the prediction's mask and the reference's mask of each structure."""
        annotated = True if self.ignore is None else self.reference != self.ignore
        for name, values in self.structures.items():
            yield name, np.isin(self.prediction, values) & annotated, np.isin(self.reference, values) & annotated


Measured = TypeVar("Measured")


@dataclass(frozen=True)
class ChallengeScore:
    """A score.

    Attributes:
        name: Name on the command line.
        measure: Measures one case, in a worker process. What it returns is kept for every case, so it is small.
        report: Returns the score of all cases, given what `measure` returned by case name.
        structures: Returns the structures to score among the labels of a dataset, or raises a `UserError`.
        needs_mm: Whether the score is defined in mm, so that images without a voxel spacing are refused.
        counts_lesions: Whether it tells connected components apart, which slices that are left out would cut into
            several, so that datasets with `unannotated_slices` are refused.
    """

    name: str
    measure: Callable[[Case], Any]
    report: Callable[[Mapping[str, Any]], Score]
    structures: Callable[[Labels], Structures]
    needs_mm: bool
    counts_lesions: bool


SCORES: dict[str, ChallengeScore] = {}
"""Scores by name."""


def every_label(labels: Labels) -> Structures:
    """Return every label or region of a dataset."""
    return labels.foreground


def score(
    name: ScoreName,
    report: Callable[[Mapping[str, Measured]], Score],
    *,
    structures: Callable[[Labels], Structures] = every_label,
    needs_mm: bool = True,
    counts_lesions: bool = False,
) -> Callable[[Callable[[Case], Measured]], Callable[[Case], Measured]]:
    """Register the decorated function as the `measure` of a score; see `ChallengeScore` for the arguments."""

    def register(measure: Callable[[Case], Measured]) -> Callable[[Case], Measured]:
        SCORES[name] = ChallengeScore(name, measure, report, structures, needs_mm, counts_lesions)
        return measure

    return register
