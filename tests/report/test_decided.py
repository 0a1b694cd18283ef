"""The page names the next command at every stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.records.workspace import Workspace
from autocrossdim.report.decided import next_step


@pytest.mark.parametrize(
    ("folds", "validated", "missing", "command"),
    [
        (5, False, [], "autocrossdim train 'my data/Dataset001_Tiny' --work w"),
        (0, False, [], "autocrossdim train 'my data/Dataset001_Tiny' --work w --fold all"),
        (5, True, ["fold 3"], "autocrossdim train 'my data/Dataset001_Tiny' --work w"),
        (5, True, [], "autocrossdim find_best 'my data/Dataset001_Tiny' --work w"),
    ],
)
def test_next_command(
    folds: int, validated: bool, missing: list[str], command: str, make_plan: Callable[..., Any], tmp_path: Path
) -> None:
    plan = make_plan()
    workspace = Workspace.of(plan.dataset, tmp_path)
    where = {"named": Path("my data/Dataset001_Tiny"), "work": "w"}
    step = next_step(plan, workspace, None, folds=folds, outdated=False, validated=validated, missing=missing, **where)
    assert step.command == command


def test_without_folds_a_trained_model_predicts_next(make_plan: Callable[..., Any], tmp_path: Path) -> None:
    plan = make_plan()
    workspace = Workspace.of(plan.dataset, tmp_path)
    checkpoint = workspace.fold(plan.decision.configuration, "all").latest
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.touch()
    where = {"named": "1", "work": None}
    step = next_step(plan, workspace, None, folds=0, outdated=False, validated=False, missing=[], **where)
    assert step.command == "autocrossdim predict 1 -i IMAGES -o SEGMENTED"
