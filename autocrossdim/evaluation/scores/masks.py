"""What several scores compute from masks."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from autocrossdim.evaluation.interval import means
from autocrossdim.evaluation.metrics import Mask, surface_distances
from autocrossdim.records.score import Rows, Values


def dice(prediction: Mask, reference: Mask) -> float:
    """Return Dice; NaN if both masks are empty."""
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(prediction & reference)) / total if total else math.nan


def hd95(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return the larger of the two directed 95th percentiles of surface distances in mm; neither mask is empty."""
    predicted, expected = cropped(prediction, reference)
    directed = surface_distances(predicted, expected, spacing)
    return float(max(np.percentile(distances, 95) for distances in directed))


def cropped(prediction: Mask, reference: Mask, *more: Mask) -> tuple[Mask, ...]:
    """Return the box around `prediction` and `reference`, with one voxel around it if possible, of all masks.

    Surfaces inside the box are those of the complete image. The first two masks are not both empty.
    """
    union = prediction | reference
    box = []
    for axis in range(union.ndim):
        inside = np.flatnonzero(union.any(axis=tuple(other for other in range(union.ndim) if other != axis)))
        box.append(slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2))
    return tuple(mask[tuple(box)] for mask in (prediction, reference, *more))


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Return the diagonal of an image in mm, the distance of a structure that is missing from one segmentation."""
    return math.hypot(*(size * step for size, step in zip(shape, spacing, strict=True)))


def mean_values(values: Iterable[Values]) -> Values:
    """Return the mean of each column. NaN is left out; a mean of nothing but NaN is NaN."""
    rows = list(values)
    columns = list(rows[0])
    array = means(np.array([[row[column] for column in columns] for row in rows], float))
    return {column: float(value) for column, value in zip(columns, array, strict=True)}


def mean_rows(cases: Mapping[str, Rows]) -> Rows:
    """Return the means over cases of each row and column, NaN left out. All cases have the same rows and columns."""
    rows = list(cases.values())
    return {name: mean_values(case[name] for case in rows) for name in rows[0]}
