"""Reliability of probabilities, and expected against true Dice, on the held-out cases that `find_best` predicted."""

from collections.abc import Mapping

import numpy as np

from autocrossdim.records.best import Best
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.report.pictures import png
from autocrossdim.selection.calibration import (
    BINS,
    Evidence,
    Floats,
    confidence_at,
    predicted_without,
    reliability,
    scale_temperature,
)
from autocrossdim.selection.held_out import evidence_file

LEAST_VOXELS = 30  # voxels below which the share of a bin is mostly chance


def calibration_chart(best: Best, summary: Summary, folds: Mapping[str, FoldFolder], ending: str) -> bytes | None:
    """Draw a reliability diagram and, beside it, the expected and the true Dice of each case, as PNG.

    Args:
        best: What `find_best` chose.
        summary: Metrics of the held-out cases of that choice.
        folds: Directory of the fold by which each case was segmented.
        ending: File ending of the cases.

    Returns:
        The picture; None if nothing was segmented, or the files with the probabilities were deleted.

    Raises:
        UserError: A file with probabilities is damaged.
    """
    temperature = best.calibration.temperature
    before, after = np.zeros((2, 3, BINS))
    confidence, dice, groups = [], [], []
    for case in summary.metric_per_case:
        name = case.file.removesuffix(ending)
        if name not in folds or not (file := evidence_file(folds[name], name)).exists():
            continue
        evidence = Evidence.read(file)
        before += reliability(evidence.probabilities, evidence.target)
        after += reliability(scale_temperature(evidence.probabilities, temperature), evidence.target)
        confidence.append(confidence_at(evidence, temperature))
        dice.append(case.dice)
        groups.append(case.cluster)
    if not before[0].any():
        return None
    x, y, members = np.array(confidence), np.array(dice), np.array(groups, object)
    known = np.isfinite(x) & np.isfinite(y)
    x, y, members = x[known], y[known], members[known]
    if best.case_score.calibrated and len(set(members.tolist())) > 1:
        x = predicted_without(x, y, members)
    return _drawn(before, after, temperature, x, y)


def _drawn(before: Floats, after: Floats, temperature: float, expected: Floats, dice: Floats) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (count, confidences, correct), style in (
        (before, {"color": "C1", "marker": "s", "linestyle": "dashed", "label": "as predicted"}),
        (after, {"color": "C0", "marker": "o", "label": f"temperature {temperature:.2f}"}),
    ):
        enough = count >= LEAST_VOXELS
        left.plot(confidences[enough] / count[enough], correct[enough] / count[enough], markersize=4, **style)
    left.set(xlabel="probability of the most probable label", ylabel="share of voxels that have it")
    left.legend(fontsize=8, loc="upper left")
    right.scatter(expected, dice, s=14, alpha=0.7, color="C0", linewidths=0, clip_on=False)
    right.set(xlabel="expected Dice", ylabel="true Dice")
    for plot in (left, right):
        plot.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=0)
        plot.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        plot.grid(alpha=0.3)
    return png(figure)
