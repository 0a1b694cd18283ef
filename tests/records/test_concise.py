"""What a command returns is one readable line in a notebook."""

from collections.abc import Callable
from typing import Any

from autocrossdim.records.summary import CaseResult, Summary


def test_a_plan_names_its_decision(make_plan: Callable[..., Any]) -> None:
    assert repr(make_plan()) == "<Plan: Dataset001_Tiny, dx: 3D, patch size 16 × 16 × 16, batch size 2>"


def test_a_summary_gives_the_dice_of_each_label() -> None:
    metrics = {"1": {"Dice": 0.9, "n_ref": 1.0, "n_pred": 1.0}, "2": {"Dice": 0.8, "n_ref": 1.0, "n_pred": 1.0}}
    summary = Summary(
        foreground_mean={"Dice": 0.85},
        mean=metrics,
        labels={"1": "liver", "2": "tumour"},
        metric_per_case=(CaseResult(reference_file="a.nii.gz", prediction_file="b/a.nii.gz", metrics=metrics),),
    )
    assert repr(summary) == "<Summary: 1 case, mean Dice 0.850; liver 0.900, tumour 0.800>"
