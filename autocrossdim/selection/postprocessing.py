"""Largest-component post-processing: what it does to a segmentation, and where the held-out cases say that it helps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from autocrossdim.data.images import read_label
from autocrossdim.evaluation.metrics import case_metrics
from autocrossdim.evaluation.summary import CaseResult, Summary, case_results, summarise
from autocrossdim.inference.postprocess import postprocess
from autocrossdim.records.best import KeepLargest
from autocrossdim.records.labels import Labels
from autocrossdim.selection.choose import PairedDifference, compare
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import listed

Metrics = Mapping[str, Mapping[str, float]]


ROUNDING = 1e-9  # of differences between means


@dataclass(frozen=True)
class PostprocessingChoice:
    """The steps that help, what all of them together change on the held-out cases, and why, in sentences."""

    steps: tuple[KeepLargest, ...]
    summary: Summary
    reasons: list[str]


def possible_steps(labels: Labels) -> list[KeepLargest]:
    """Return the steps to try: all foreground together, then each label or region, larger regions first."""
    whole = tuple(sorted({value for values in labels.foreground.values() for value in values}))
    order = labels.regions_class_order or ()
    steps = []
    for name, values in sorted(labels.foreground.items(), key=lambda item: -len(item[1])):
        around = [
            (len(others), painted)
            for others, painted in zip(labels.foreground.values(), order, strict=bool(order))
            if set(others) > set(values) and painted not in values
        ]
        steps.append(KeepLargest(name=name, values=values, replaced_by=min(around, default=(0, 0))[1]))
    if all(step.values != whole for step in steps):
        steps.insert(0, KeepLargest(name="foreground", values=whole))
    return steps


def choose_postprocessing(summary: Summary, labels: Labels, processes: int) -> PostprocessingChoice:
    """Try every step on the held-out cases and keep those that help.

    A step helps where the mean Dice rises and the 95 % interval of the paired difference does not reach below zero.
    Without an interval (a single patient) nothing is kept.

    Args:
        summary: of the cross-validation; its files are read.
        labels: of the dataset.
        processes: cases looked at at a time.

    Raises:
        UserError: a segmentation or reference cannot be read.
    """
    cases = case_results(summary)
    first, *others = possible_steps(labels)

    def tried(*specifications: tuple[KeepLargest, ...]) -> list[Summary]:
        work = partial(_trial, specifications=specifications, labels=labels)
        changes = map_cases(work, cases, processes, "Trying post-processing")
        return [
            summarise(
                [
                    replace(case, metrics={**case.metrics, **found[i]})
                    for case, found in zip(cases, changes, strict=True)
                ],
                labels,
            )
            for i in range(len(specifications))
        ]

    reasons = []
    kept: tuple[KeepLargest, ...] = ()
    base = summary
    (result,) = tried((first,))
    difference = compare(result, summary)
    if _helps(difference):
        kept, base = (first,), result
        reasons.append(_sentence(first, difference, summary, result))
    for step, result in zip(others, tried(*((*kept, step) for step in others)) if others else [], strict=True):
        difference = compare(result, base)
        if _helps(difference):
            kept = (*kept, step)
            reasons.append(_sentence(step, difference, base, result))
    # Steps that help one by one are seen once more together: regions lie inside each other.
    together = tried(kept)[0] if len(kept) > 1 else base if kept else summary
    if len(kept) > 1 and not _helps(compare(together, summary)):
        kept, together = (), summary
        reasons = ["Post-processing steps that help one by one do not help together: none is kept."]
    rejected = [step.name for step in (first, *others) if step not in kept]
    if rejected:
        reasons.append(
            f"Largest component of {listed(rejected)} only: not kept; mean Dice does not rise more than by chance."
        )
    return PostprocessingChoice(kept, together, reasons)


def _helps(difference: PairedDifference) -> bool:
    return difference.mean > ROUNDING and difference.low >= -ROUNDING


def _sentence(step: KeepLargest, difference: PairedDifference, before: Summary, after: Summary) -> str:
    distances = [summary["foreground_mean"].get("HD95") for summary in (before, after)]
    hd95 = "" if None in distances else f"; HD95 goes from {distances[0]:.1f} to {distances[1]:.1f} mm"
    changed = sum(a != b for a, b in zip(before["metric_per_case"], after["metric_per_case"], strict=True))
    return (
        f"Only the largest component of {step.name} is kept: it changes {changed} of {difference.n_cases} cases, and "
        f"mean Dice rises by {difference.mean:.5f} (95 % interval {difference.low:.5f} to {difference.high:.5f}){hd95}."
    )


def _trial(
    case: CaseResult, specifications: Sequence[Sequence[KeepLargest]], labels: Labels
) -> list[dict[str, dict[str, float]]]:
    """Return, for each list of steps, the metrics of the labels that it changes."""
    found, _ = read_label(Path(case.prediction_file))
    expected, geometry = read_label(Path(case.reference_file))
    changes: list[dict[str, dict[str, float]]] = []
    for steps in specifications:
        processed = postprocess(found, steps)
        different = processed != found
        touched = {*np.unique(found[different]).tolist(), *np.unique(processed[different]).tolist()}
        affected = _only(labels, touched)
        changes.append(case_metrics(processed, expected, affected, geometry.spacing))
    return changes


def _only(labels: Labels, values: set[int]) -> Labels:
    """The labels or regions that any of `values` belongs to."""
    some = [bool(values.intersection(own)) for own in labels.foreground.values()]
    order = labels.regions_class_order
    return labels.model_copy(
        update={
            "foreground": dict(compress(labels.foreground.items(), some)),
            "regions_class_order": None if order is None else tuple(compress(order, some)),
        }
    )
