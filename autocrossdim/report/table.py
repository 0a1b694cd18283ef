"""The table of all labels and cases, which the page sorts, filters and offers as CSV."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.report.sizes import Measure

METRICS = (("Dice", 4), ("NSD", 4), ("HD95", 2), ("ASSD", 3))  # with digits


def results_table(
    summary: Summary,
    sizes: Mapping[str, Mapping[str, tuple[float, float]]],
    measure: Measure,
    *,
    ending: str,
    drawn: Sequence[str],
    name: str,
) -> dict[str, Any]:
    """Return columns and rows for the script of the page; None is a value that is unknown.

    The column of groups (patients) is left out if cases share none.

    Distances are given where annotation and prediction have the label. Elsewhere the outcome says what is missing.

    Args:
        summary: Results of all cases.
        sizes: Sizes by case and label key, as `case_sizes` returns them.
        measure: Their unit.
        ending: File ending of the cases.
        drawn: Names of the cases that the viewer shows.
        name: Name of the dataset, for the CSV file.
    """
    grouped = any(case.group for case in summary.metric_per_case)
    units = [f" ({summary.unit})" if metric in ("HD95", "ASSD") else "" for metric, _ in METRICS]
    return {
        "columns": [
            *(("case", "group") if grouped else ("case",)),
            *("label", "outcome"),
            *(f"{metric}{unit}" for (metric, _), unit in zip(METRICS, units, strict=True)),
            *(f"{column} ({measure.unit})" for column in ("annotated", "predicted", "difference")),
        ],
        "digits": [None] * (4 if grouped else 3)
        + [digits for _, digits in METRICS]
        + [0 if measure.unit in ("pixels", "voxels") else 2] * 3,
        "rows": [
            _row(case, key, summary, sizes.get(case.file.removesuffix(ending), {}), ending, grouped=grouped)
            for case in summary.metric_per_case
            for key in case.metrics
        ],
        "drawn": list(drawn),
        "file": f"{name}.csv",
    }


def _row(
    case: CaseResult,
    key: str,
    summary: Summary,
    sizes: Mapping[str, tuple[float, float]],
    ending: str,
    *,
    grouped: bool,
) -> list[Any]:
    both = case.in_reference(key) and case.in_prediction(key)
    metrics = [
        _known(case.metrics[key].get(metric), digits) if both or metric not in ("HD95", "ASSD") else None
        for metric, digits in METRICS
    ]
    annotated, predicted = sizes.get(key, (math.nan, math.nan))
    return [
        case.file.removesuffix(ending),
        *([case.group or ""] if grouped else []),
        summary.name(key),
        _outcome(case, key),
        *metrics,
        *(_known(size, 3) for size in (annotated, predicted, predicted - annotated)),
    ]


def _outcome(case: CaseResult, key: str) -> str:
    if not case.is_annotated(key):
        return "not annotated"
    if case.in_reference(key):
        return "found" if case.in_prediction(key) else "missed"
    return "false alarm" if case.in_prediction(key) else "absent"


def _known(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits + 1)
