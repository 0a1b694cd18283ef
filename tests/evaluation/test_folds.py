from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.data.splits import Split
from autocrossdim.evaluation.folds import summarise_folds
from autocrossdim.evaluation.summary import summarise
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.labels import Labels
from autocrossdim.records.run_state import RunState
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.records.workspace import Workspace

LABELS = Labels.from_dataset_json({"background": 0, "liver": 1, "tumour": 2})
SWAPPED = Labels.from_dataset_json({"background": 0, "tumour": 1, "liver": 2})


@pytest.fixture
def workspace(tmp_path: Path, make_plan: Callable[..., Any]) -> Workspace:
    space = Workspace(tmp_path / "Dataset001_Tiny")
    make_plan(labels=LABELS).write(space.plan)
    return space


def validated(workspace: Workspace, fold: int, plan: Any, dice: float) -> None:
    """Write the checkpoint and summary of a fold with one validation case."""
    folder = workspace.fold("dx", fold)
    Checkpoint(
        plan=plan,
        configuration="dx",
        fold=fold,
        split={"train": [], "val": [f"case_{fold}"]},
        network={},
        settings={},
        provenance={},
        run=RunState(epoch=1, complete=True),
    ).write(folder.latest)
    metrics = {key: {"Dice": dice, "n_pred": 1, "n_ref": 1} for key in ("1", "2")}
    file = f"case_{fold}.nii.gz"
    case = CaseResult(reference_file=file, prediction_file=file, metrics=metrics)
    summarise([case], plan.labels).write(folder.summary)


def folds(*validated: tuple[str, ...]) -> list[Split]:
    return [Split(train=(), val=names) for names in validated]


THREE = folds(("case_0",), ("case_1",), ("case_2",))


def test_validated_folds_are_merged_and_returned(workspace: Workspace, make_plan: Callable[..., Any]) -> None:
    assert summarise_folds(workspace, "dx", THREE) is None
    for fold, dice in ((0, 0.4), (2, 0.8)):
        validated(workspace, fold, make_plan(labels=LABELS), dice)
    summary = summarise_folds(workspace, "dx", THREE)
    assert summary is not None
    assert summary.foreground_mean["Dice"] == pytest.approx(0.6)
    assert Summary.read(workspace.summary("dx")).n_cases == 2


def test_folds_trained_with_other_labels_are_left_out_and_named(
    workspace: Workspace, make_plan: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    validated(workspace, 0, make_plan(labels=LABELS), 0.4)
    validated(workspace, 1, make_plan(labels=SWAPPED), 0.8)
    summary = summarise_folds(workspace, "dx", THREE[:2])
    assert summary is not None
    assert summary.n_cases == 1
    assert "fold_1: trained under another plan (different: labels)" in capsys.readouterr().err


def test_cases_that_came_are_named_and_cases_that_went_are_left_out(
    workspace: Workspace, make_plan: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for fold, dice in enumerate((0.4, 0.8)):
        validated(workspace, fold, make_plan(labels=LABELS), dice)
    summary = summarise_folds(workspace, "dx", folds(("case_0", "case_8", "case_9"), ("case_7",)))
    assert summary is not None
    assert [case.file for case in summary.metric_per_case] == ["case_0.nii.gz"]
    assert summary.foreground_mean["Dice"] == pytest.approx(0.4)
    said = capsys.readouterr().err
    assert "fold_0: case_8, case_9 have no result yet" in said
    assert "fold_1: case_7 has no result yet" in said
