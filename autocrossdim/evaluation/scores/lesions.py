"""Detection of single lesions, for any dataset: found and missed components of the reference, and false positives.

A lesion is a connected component of a label or region; voxels that touch at a corner are connected (26 neighbours in
3D, 8 in 2D). A lesion of the reference is found if at least one of its voxels is predicted. A predicted component that
overlaps no lesion is a false positive. The Dice of a found lesion compares it with all predicted components that
overlap it, so that two lesions joined by the prediction are both found, but with a low Dice.
"""

import math
from collections.abc import Mapping

import numpy as np
from skimage.measure import label as connected_components

from autocrossdim.evaluation.metrics import Mask
from autocrossdim.evaluation.registry import Case, score
from autocrossdim.records.score import Rows, Score, ScoreTable, Values


def report(cases: Mapping[str, Rows]) -> Score:
    """Return the numbers of lesions in all cases, and the mean Dice over all found lesions."""
    rows = {name: _pooled([case[name] for case in cases.values()]) for name in next(iter(cases.values()))}
    note = "A lesion is found if at least one of its voxels is predicted. Dice is the mean over the found lesions."
    return Score(
        name="lesions", tables=(ScoreTable(title="Lesions of all cases", rows=rows),), notes=(note,), cases=dict(cases)
    )


@score("lesions", report, needs_mm=False, counts_lesions=True)
def measure(case: Case) -> Rows:
    """Return the numbers of lesions of each label or region, and the mean Dice over those found."""
    return {name: detection(predicted, expected) for name, predicted, expected in case.masks()}


def detection(prediction: Mask, reference: Mask) -> Values:
    """Return the numbers of lesions found, missed and falsely predicted, and the mean Dice of those found (or NaN)."""
    predicted = connected_components(prediction, connectivity=prediction.ndim)
    expected = connected_components(reference, connectivity=reference.ndim)
    sizes = np.bincount(predicted.ravel()), np.bincount(expected.ravel())
    # Overlap of every pair of components that overlap at all, in voxels.
    both = prediction & reference
    pairs, voxels = np.unique(np.stack([expected[both], predicted[both]]), axis=1, return_counts=True)
    dice = []
    for lesion in np.unique(pairs[0]):
        of_lesion = pairs[0] == lesion
        dice.append(2 * voxels[of_lesion].sum() / (sizes[1][lesion] + sizes[0][pairs[1, of_lesion]].sum()))
    n_lesions, n_predicted = len(sizes[1]) - 1, len(sizes[0]) - 1
    return {
        "lesions": n_lesions,
        "found": len(dice),
        "false positives": n_predicted - len(np.unique(pairs[1])),
        "Dice": float(np.mean(dice)) if dice else math.nan,
    }


def _pooled(cases: list[Values]) -> Values:
    lesions, found, false = (sum(case[name] for case in cases) for name in ("lesions", "found", "false positives"))
    total = sum(case["found"] * case["Dice"] for case in cases if case["found"])
    return {
        "lesions": lesions,
        "found": found,
        "sensitivity": found / lesions if lesions else math.nan,
        "false positives": false,
        "false positives per case": false / len(cases),
        "Dice": total / found if found else math.nan,
    }
