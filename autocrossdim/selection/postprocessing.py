"""Choice of post-processing: where keeping only the largest component helps on held-out cases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autocrossdim.data.annotated_slices import read_annotation
from autocrossdim.data.images import read_label
from autocrossdim.evaluation.metrics import case_metrics, label_key
from autocrossdim.evaluation.summary import summarise
from autocrossdim.inference.postprocess import postprocess
from autocrossdim.records.best import KeepLargest
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Metrics, Summary
from autocrossdim.selection.choose import PairedDifference, compare
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import listed

ROUNDING = 1e-9  # of differences between means
LEAST_GAIN = 0.001
"""Least gain in the Dice of one label, or in the sum over labels. Our choice: Dice is reported with three decimals, and
a smaller gain is not worth the risk that a step removes a structure that no held-out case has. nnU-Net keeps a step for
any gain."""


@dataclass(frozen=True)
class PostprocessingChoice:
    """The chosen steps, the summary of the held-out cases after them, and the reasons, one sentence each."""

    steps: tuple[KeepLargest, ...]
    summary: Summary
    reasons: list[str]


def possible_steps(labels: Labels) -> list[KeepLargest]:
    """Return the steps to try: all foreground together, then each label or region, larger regions first."""
    foreground = tuple(sorted({value for values in labels.foreground.values() for value in values}))
    order = labels.regions_class_order or ()
    steps = []
    for name, values in sorted(labels.foreground.items(), key=lambda item: -len(item[1])):
        around = [
            (len(others), painted)
            for others, painted in zip(labels.foreground.values(), order, strict=bool(order))
            if set(others) > set(values) and painted not in values
        ]
        steps.append(KeepLargest(name=name, values=values, replaced_by=min(around, default=(0, 0))[1]))
    if all(step.values != foreground for step in steps):
        steps.insert(0, KeepLargest(name="foreground", values=foreground))
    return steps


def choose_postprocessing(summary: Summary, labels: Labels, *, processes: int) -> PostprocessingChoice:
    """Try every step on the held-out cases and keep those that help.

    A step helps if it raises the Dice of one label by at least `LEAST_GAIN`, or that of several by as much in total,
    and if the 95 % interval of the paired difference does not include negative values. Without an interval (a single
    patient), no step is kept.

    Args:
        summary: Summary of the cross-validation. The files it names are read.
        labels: Labels of the dataset.
        processes: Number of cases processed in parallel.

    Raises:
        UserError: A segmentation or reference cannot be read.
    """
    first, *others = possible_steps(labels)
    try_steps = partial(_summaries_after, summary, labels, processes)
    reasons = []
    kept: tuple[KeepLargest, ...] = ()
    after = summary  # the steps kept so far
    (result,) = try_steps([(first,)])
    difference = _gain(result, summary)
    if _helps(difference, summary):
        kept, after = (first,), result
        reasons.append(_sentence(first, difference, summary, result))
    base = after
    for step, result in zip(others, try_steps([(*kept, step) for step in others]), strict=True):
        difference = _gain(result, base)
        if _helps(difference, base):
            kept, after = (*kept, step), result
            reasons.append(_sentence(step, difference, base, result))
    if len(kept) > 1:
        # Steps that help one by one are evaluated once more together, because regions may contain each other.
        (after,) = try_steps([kept])
        if not _helps(_gain(after, summary), summary):
            kept, after = (), summary
            reasons = ["No post-processing is kept: the steps that help individually do not help together."]
    rejected = [step.name for step in (first, *others) if step not in kept]
    if rejected:
        reasons.append(
            f"Keeping only the largest component is not applied to {listed(rejected)}, because it does not raise the "
            f"Dice of a label by {LEAST_GAIN} or more beyond noise."
        )
    if kept:
        reasons.append("Post-processing was chosen on the same cases, so its effect on new cases tends to be smaller.")
    return PostprocessingChoice(kept, after, reasons)


def _gain(after: Summary, before: Summary) -> PairedDifference:
    """Return the gain of a step. It is 0 in most cases; an expanded interval would reject steps that never do harm."""
    return compare(after, before, expanded=False)


def _helps(difference: PairedDifference, before: Summary) -> bool:
    n_labels = sum(not math.isnan(metrics["Dice"]) for metrics in before.mean.values())
    return difference.mean * n_labels >= LEAST_GAIN - ROUNDING and difference.low >= -ROUNDING


def _sentence(step: KeepLargest, difference: PairedDifference, before: Summary, after: Summary) -> str:
    distances = [summary.foreground_mean.get("HD95") for summary in (before, after)]
    hd95 = "" if None in distances else f"; HD95 changes from {distances[0]:.1f} to {distances[1]:.1f} {before.unit}"
    changed = sum(a != b for a, b in zip(before.metric_per_case, after.metric_per_case, strict=True))
    return (
        f"Keeping only the largest component of {step.name} changes {changed} of {difference.n_cases} cases and raises "
        f"mean Dice by {difference.mean:.4f} (95 % interval {difference.low:.4f} to {difference.high:.4f}){hd95}."
    )


def _summaries_after(
    summary: Summary, labels: Labels, processes: int, specifications: Sequence[Sequence[KeepLargest]]
) -> list[Summary]:
    """Return the summary of the cases after each of several lists of steps."""
    if not specifications:
        return []
    cases = summary.metric_per_case
    work = partial(_metrics_after, specifications=specifications, labels=labels)
    changes = map_cases(work, cases, processes, "Testing post-processing")
    return [
        summarise(
            [
                case.model_copy(update={"metrics": {**case.metrics, **changed[index]}})
                for case, changed in zip(cases, changes, strict=True)
            ],
            labels,
        )
        for index in range(len(specifications))
    ]


def _metrics_after(
    case: CaseResult, specifications: Sequence[Sequence[KeepLargest]], labels: Labels
) -> list[dict[str, Metrics]]:
    """Return, for each list of steps, the metrics of the labels that it changes."""
    predicted, _ = read_label(Path(case.prediction_file))
    expected, geometry = read_annotation(Path(case.reference_file), labels)
    annotated = [name for name, values in labels.foreground.items() if case.is_annotated(label_key(values))]
    changes: list[dict[str, Metrics]] = []
    for steps in specifications:
        processed = postprocess(predicted, steps)
        different = processed != predicted
        touched = {*np.unique(predicted[different]).tolist(), *np.unique(processed[different]).tolist()}
        affected = labels.only([name for name in annotated if touched.intersection(labels.foreground[name])])
        changes.append(case_metrics(processed, expected, affected, spacing=geometry.spacing))
    return changes
