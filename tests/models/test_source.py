import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.models.source import open_model
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError


@pytest.fixture
def workspace(make_plan: Callable[..., Any], tmp_path: Path) -> Workspace:
    """The results of a dataset with one fold, whose checkpoint is empty."""
    workspace = Workspace(tmp_path / "work" / "Dataset901_Nodules")
    make_plan().write(workspace.plan)
    latest = workspace.fold("dx", 0).latest
    latest.parent.mkdir(parents=True)
    latest.touch()
    return workspace


@pytest.mark.parametrize("name", ["901", "Nodules", "Dataset901_Nodules"])
def test_a_model_is_found_by_number_or_name(workspace: Workspace, name: str) -> None:
    assert open_model(name, work=workspace.root.parent).selection() == {"dx": [workspace.fold("dx", 0).latest]}


def test_a_single_fold_is_refused_with_the_way_to_select_it(workspace: Workspace) -> None:
    with pytest.raises(UserError, match=r"fold_0: a single fold\. Give .*dx and select the fold with --fold"):
        open_model(workspace.fold("dx", 0).root, work=workspace.root.parent).selection()


def test_a_damaged_choice_of_find_best_is_an_error(workspace: Workspace) -> None:
    workspace.best.write_text(json.dumps(["dx"]))
    with pytest.raises(UserError, match=r"best\.json: damaged"):
        open_model("901", work=workspace.root.parent).selection()


@pytest.mark.parametrize("fold", [(), (0,)])
def test_a_missing_student_is_to_be_distilled(workspace: Workspace, fold: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"Run `autocrossdim distil`"):
        open_model("901", work=workspace.root.parent).selection(config=["dx_distilled"], fold=fold)
