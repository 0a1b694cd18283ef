"""The score of the CHAOS challenge: four metrics, each mapped to 0 (beyond a threshold) to 100 (perfect).

Source: Kavur et al., CHAOS Challenge - combined (CT-MR) healthy abdominal organ segmentation, Medical Image Analysis 69
(2021) 101950, and the organisers' code, https://github.com/emrekavur/CHAOS-evaluation (metrics of single organs).

    ======  ==========  ===================  ===============
    metric  unit        score                not 0 up to
    ======  ==========  ===================  ===============
    Dice                100 x Dice           at least 0.8
    RAVD    %           100 - 20 x RAVD      5 %
    ASSD    mm          100 - 20/3 x ASSD    15 mm
    MSSD    mm          100 - 5/3 x MSSD     60 mm
    ======  ==========  ===================  ===============

An organ's score is the mean of the four, a case's score the mean of its organs' scores, and the overall score the mean
of the cases' scores. As in the organisers' code, voxels at the border of the image are no surface because of it.
Distances are measured with the voxel spacing, which is what the organisers' patient coordinates amount to for slices
stacked at right angles.

The challenge has every organ in every reference. Our rules for other data: an organ in neither segmentation is left out
(NaN), and one in a single segmentation has the score 0 and no distances.
"""

import math
from collections.abc import Mapping

import numpy as np

from autocrossdim.evaluation.interval import Floats
from autocrossdim.evaluation.metrics import Mask, surface_distances
from autocrossdim.evaluation.registry import Case, score
from autocrossdim.evaluation.scores.masks import cropped, dice, mean_rows, mean_values
from autocrossdim.records.score import Rows, Score, ScoreTable, Values
from autocrossdim.system.text import listed

DICE_AT_LEAST = 0.8
WORST = {"RAVD (%)": 5.0, "ASSD (mm)": 15.0, "MSSD (mm)": 60.0}
"""Value of each metric from which its score is 0."""

OVERALL = "all organs"
COLUMNS = ("Dice", *WORST, "score")


def report(cases: Mapping[str, Rows]) -> Score:
    """Return the means over cases per organ and overall."""
    notes = []
    one_sided = sorted(
        name
        for name, rows in cases.items()
        if any(row["Dice"] == 0 and math.isnan(row["ASSD (mm)"]) for row in rows.values())
    )
    if one_sided:
        notes.append(
            f"An organ is in only one of the two segmentations of {listed(one_sided)}: its score is 0, and its "
            "distances are excluded from the means."
        )
    table = ScoreTable(title="CHAOS score (0 to 100), means over cases", rows=mean_rows(cases))
    return Score(name="chaos", tables=(table,), notes=tuple(notes), cases=dict(cases))


@score("chaos", report)
def measure(case: Case) -> Rows:
    """Return the metrics and the score of each organ, and their means."""
    rows = {name: organ(predicted, expected, case.spacing) for name, predicted, expected in case.masks()}
    return {**rows, OVERALL: mean_values(rows.values())}


def organ(prediction: Mask, reference: Mask, spacing: tuple[float, ...]) -> Values:
    """Return the metrics and the score of one organ."""
    n_pred, n_ref = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    if not n_pred and not n_ref:
        return dict.fromkeys(COLUMNS, math.nan)
    overlap = dice(prediction, reference)
    ravd = 100 * abs(n_pred - n_ref) / n_ref if n_ref else math.nan
    if not n_pred or not n_ref:
        return {"Dice": overlap, "RAVD (%)": ravd, "ASSD (mm)": math.nan, "MSSD (mm)": math.nan, "score": 0.0}
    distances = _distances(prediction, reference, spacing)
    # A mask that fills the image has no surface; its distances are undefined and score 0.
    assd, mssd = (float(distances.mean()), float(distances.max())) if distances.size else (math.nan, math.nan)
    metrics = {"RAVD (%)": ravd, "ASSD (mm)": assd, "MSSD (mm)": mssd}
    scores = [100 * overlap if overlap >= DICE_AT_LEAST else 0.0]
    scores += [100 * (1 - value / WORST[name]) if value < WORST[name] else 0.0 for name, value in metrics.items()]
    return {"Dice": overlap, **metrics, "score": sum(scores) / len(scores)}


def _distances(prediction: Mask, reference: Mask, spacing: tuple[float, ...]) -> Floats:
    """Return the distances in mm from the surface of either mask to the other's."""
    # The ignored rim keeps voxels at the border of the image from counting as surface.
    rim = np.pad(np.zeros(reference.shape, np.bool_), 1, constant_values=True)
    predicted, expected, rim = cropped(np.pad(prediction, 1), np.pad(reference, 1), rim)
    return np.concatenate(surface_distances(predicted, expected, spacing, rim)).astype(np.float64)
