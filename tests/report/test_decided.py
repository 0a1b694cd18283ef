"""The page names the next command at every stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.decided import Next, next_step


@pytest.mark.parametrize(
    ("folds", "validated", "missing", "command"),
    [
        (5, False, [], "autocrossdim train Dataset001_Tiny --work WORK"),
        (0, False, [], "autocrossdim train Dataset001_Tiny --work WORK --fold all"),
        (5, True, ["fold 3"], "autocrossdim train Dataset001_Tiny --work WORK"),
        (5, True, [], "autocrossdim find_best Dataset001_Tiny --work WORK"),
    ],
)
def test_next_command(
    folds: int, validated: bool, missing: list[str], command: str, make_plan: Callable[..., Any], tmp_path: Path
) -> None:
    plan = make_plan()
    workspace = Workspace.of(plan.dataset, tmp_path)
    step = next_step(
        plan, workspace, None, folds=folds, outdated=False, validated=validated, missing=missing, work=tmp_path
    )
    assert step.command == command


def test_without_folds_a_trained_model_predicts_next(make_plan: Callable[..., Any], tmp_path: Path) -> None:
    plan = make_plan()
    workspace = Workspace.of(plan.dataset, tmp_path)
    checkpoint = workspace.fold(plan.decision.configuration, "all").latest
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.touch()
    step = next_step(plan, workspace, None, folds=0, outdated=False, validated=False, missing=[], work=None)
    assert step.command == "autocrossdim predict Dataset001_Tiny -i IMAGES -o SEGMENTED"


def after_validation(plan: Plan, work: Path, **found: Any) -> Next:
    """Return what follows the validation of five folds."""
    workspace = Workspace.of(plan.dataset, work)
    known = {"folds": 5, "outdated": False, "validated": True, "missing": [], "work": None}
    return next_step(plan, workspace, None, **{**known, **found})


def test_a_model_that_hardly_segments_a_label_is_trained_further(make_plan: Callable[..., Any], tmp_path: Path) -> None:
    step = after_validation(make_plan(), tmp_path, failed=["organ"], configuration="other", epochs=80)
    assert step.why == "Train for longer: the model hardly segments 'organ'."
    assert step.command == "autocrossdim train Dataset001_Tiny --config other --epochs 160"


def test_a_model_whose_cases_changed_is_trained_before_anything_else(
    make_plan: Callable[..., Any], tmp_path: Path
) -> None:
    options = ["--config", "dx", "--weights", "previous", "--epochs", "20"]
    step = after_validation(make_plan(), tmp_path, retraining=options, missing=["fold 2"])
    assert step.why == "Train on the cases as they are now."
    assert step.command == "autocrossdim train Dataset001_Tiny --config dx --weights previous --epochs 20"
