"""Held-out cases as the report lists them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.report.formats import number
from autocrossdim.system.text import listed

SHOWN = 8  # labels that are named in a caption


@dataclass(frozen=True)
class Row:
    """One held-out case.

    Attributes:
        name: Name of the case.
        group: Group (patient) of the case, if it shares one.
        dice: Mean Dice over the labels; NaN if neither annotation nor segmentation has any.
        labels: Dice by label key; NaN likewise.
        hd95: Largest HD95 of the labels that both have; NaN if there is none.
        missed: Names of labels that only the annotation has.
        false_alarms: Names of labels that only the segmentation has.
    """

    name: str
    group: str | None
    dice: float
    labels: Mapping[str, float]
    hd95: float
    missed: Sequence[str]
    false_alarms: Sequence[str]


def held_out_rows(summary: Summary, ending: str) -> list[Row]:
    """Return the cases of a summary, the lowest Dice first.

    Args:
        summary: Results of all folds.
        ending: File ending of the cases.
    """
    return sorted((_row(case, summary, ending) for case in summary.metric_per_case), key=_order)


def described(row: Row, unit: str) -> str:
    """Return the results of a case in a sentence; `unit` is that of distances."""
    parts = [f"Dice {number(row.dice)}"]
    if math.isfinite(row.hd95):
        parts.append(f"HD95 {number(row.hd95, 1)} {unit} where found")
    parts += [
        f"{what}: {listed(names, SHOWN)}"
        for what, names in (("missed", row.missed), ("false alarm", row.false_alarms))
        if names
    ]
    return f"{', '.join(parts)}."


def _row(case: CaseResult, summary: Summary, ending: str) -> Row:
    distances = [
        float(metrics.get("HD95", math.nan))
        for key, metrics in case.metrics.items()
        if case.in_reference(key) and case.in_prediction(key)  # elsewhere it is the diagonal of the image
    ]
    in_one = [key for key in case.metrics if case.in_reference(key) != case.in_prediction(key)]
    return Row(
        name=case.file.removesuffix(ending),
        group=case.group,
        dice=case.dice,
        labels={key: float(metrics["Dice"]) for key, metrics in case.metrics.items()},
        hd95=max((value for value in distances if not math.isnan(value)), default=math.nan),
        missed=[summary.name(key) for key in in_one if case.in_reference(key)],
        false_alarms=[summary.name(key) for key in in_one if case.in_prediction(key)],
    )


def _order(row: Row) -> float:
    """Return the sort key of a case: the lowest Dice first, cases without any label last."""
    return row.dice if math.isfinite(row.dice) else 2.0
