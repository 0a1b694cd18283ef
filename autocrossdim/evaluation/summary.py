"""Statistics over many cases: means, bootstrap intervals, and the summary that holds them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from autocrossdim.evaluation.interval import LEVEL, Floats, interval, means, resampling_weights
from autocrossdim.evaluation.metrics import METRICS, label_key
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Intervals, Metrics, Summary
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed

FOUND = {"HD95_found": "HD95", "ASSD_found": "ASSD"}
"""Distances over the cases in which both prediction and reference have the label, and the metric they are taken from.

A missed label counts as the image diagonal in HD95 and ASSD, so a few misses can outweigh all other cases.
"""

SHARES = frozenset({"Dice", "IoU", "NSD"})
"""Metrics that are 1 at most; the others have no upper limit."""


def summarise(cases: Sequence[CaseResult], labels: Labels, *, skipped: Iterable[str] = ()) -> Summary:
    """Return the summary of `cases`, sorted by file name.

    As in nnU-Net, means are taken over cases, then over labels, and leave out NaN. Two metrics are added to each mean:
    `HD95_found` and `ASSD_found`, see `FOUND`. Intervals are 95 % bootstrap intervals that resample groups of cases,
    expanded for few groups.

    Args:
        cases: Metrics of each case.
        labels: Labels or regions of the dataset.
        skipped: File names of cases that could not be evaluated, to be listed in the summary.

    Raises:
        UserError: There are no cases, or a case occurs twice.
    """
    names = {label_key(values): name for name, values in labels.foreground.items()}
    return _summarise(cases, names, skipped)


def merge(summaries: Sequence[Summary]) -> Summary:
    """Return the summary of the cases of all `summaries`, such as a cross-validation's from those of its folds.

    As in nnU-Net, means are taken over cases, not over folds. Summaries written by nnU-Net are accepted.

    Raises:
        UserError: There are no cases, a case occurs twice, or the labels differ.
    """
    cases = [case for summary in summaries for case in summary.metric_per_case]
    names = {key: name for summary in summaries for key, name in summary.labels.items()}
    return _summarise(cases, names, [file for summary in summaries for file in summary.skipped])


def metric_array(cases: Sequence[CaseResult], keys: Sequence[str], metrics: Sequence[str]) -> Floats:
    """Return the metrics of `cases` as an array, shape `(cases, labels, metrics)`."""
    return np.array([[[_metric(case, key, metric) for metric in metrics] for key in keys] for case in cases], float)


def foreground(values: Floats) -> Floats:
    """Return means over labels, shape `(..., labels, metrics)` -> `(..., metrics)`. NaN is left out."""
    return means(np.moveaxis(values, -2, 0))


def _summarise(cases: Sequence[CaseResult], names: Mapping[str, str], skipped: Iterable[str]) -> Summary:
    if not cases:
        raise UserError("There are no cases to summarise.")
    cases = sorted(cases, key=lambda case: case.file)
    files = [case.file for case in cases]
    twice = sorted({a for a, b in pairwise(files) if a == b})
    if twice:
        raise UserError(
            f"{listed(twice)}: evaluated more than once. Each case may be in the validation set of one fold only."
        )
    keys = list(cases[0].metrics)
    for case in cases:
        if set(case.metrics) != set(keys):
            raise UserError(
                f"{case.reference_file}: evaluated for the labels {listed(case.metrics)}, "
                f"{cases[0].reference_file} for {listed(keys)}. Evaluate all with the same dataset.json."
            )
    metrics = [
        metric
        for metric in (*METRICS, *FOUND)
        if all(FOUND.get(metric, metric) in case.metrics[key] for case in cases for key in keys)
    ]
    values = metric_array(cases, keys, metrics)
    mean = means(values)
    ends, ends_of_foreground = _intervals(values, [case.cluster for case in cases], metrics)

    def named(row: Iterable[float]) -> Metrics:
        return {metric: float(value) for metric, value in zip(metrics, row, strict=True)}

    def named_ends(rows: Floats) -> dict[str, tuple[float, float]]:
        return {metric: (float(rows[0, index]), float(rows[1, index])) for index, metric in enumerate(metrics)}

    return Summary(
        foreground_mean=named(foreground(mean)),
        mean={key: named(mean[index]) for index, key in enumerate(keys)},
        interval=Intervals(
            level=LEVEL,
            method="bootstrap over groups of cases, expanded to Student's t",
            foreground_mean=named_ends(ends_of_foreground),
            mean={key: named_ends(ends[:, index]) for index, key in enumerate(keys)},
        ),
        labels={key: names.get(key, key) for key in keys},
        skipped=tuple(sorted(skipped)),
        metric_per_case=tuple(
            case.model_copy(update={"metrics": {key: case.metrics[key] for key in keys}}) for case in cases
        ),
    )


def _metric(case: CaseResult, key: str, metric: str) -> float:
    """Return a metric of a case; one of `FOUND` is NaN unless both prediction and reference have the label."""
    if metric not in FOUND:
        return case.metrics[key][metric]
    both = case.in_reference(key) and case.in_prediction(key)
    return case.metrics[key][FOUND[metric]] if both else np.nan


def _intervals(values: Floats, clusters: Sequence[str], metrics: Sequence[str]) -> tuple[Floats, Floats]:
    """Return the intervals of the means, shape `(2, labels, metrics)`, and of their means over labels.

    Only groups in which a metric is known count for it. The ends are limited to the values that a metric can have.
    """
    mean, (groups, of_case) = means(values), np.unique(np.asarray(clusters), return_inverse=True)
    known = np.zeros((len(groups), *mean.shape), bool)
    np.logical_or.at(known, of_case, ~np.isnan(values))
    draws = means(values, resampling_weights(clusters))
    largest = np.array([1.0 if metric in SHARES else np.inf for metric in metrics])
    by_label = interval(draws, mean, known.sum(axis=0))
    of_foreground = interval(foreground(draws), foreground(mean), known.any(axis=1).sum(axis=0))
    return by_label.clip(0, largest), of_foreground.clip(0, largest)
