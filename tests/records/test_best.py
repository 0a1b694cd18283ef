from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from autocrossdim.records.best import Best, Contender, KeepLargest, checkpoint_digests, plan_digest
from autocrossdim.records.labels import Labels
from autocrossdim.records.likeness import IMAGE_MEASURES
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.terminal import best_table
from autocrossdim.system.errors import UserError


@pytest.fixture
def space(tmp_path: Path, make_plan: Callable[..., Any]) -> Workspace:
    """A planned dataset with two trained folds."""
    found = Workspace(tmp_path / "Dataset001_Tiny")
    make_plan().write(found.plan)
    for fold in (0, 1):
        latest = found.fold("dx", fold).latest
        latest.parent.mkdir(parents=True)
        latest.write_bytes(b"weights %d" % fold)
    return found


def best_of(space: Workspace, plan: Any, **changes: Any) -> Best:
    fields = {
        "dataset": plan.dataset,
        "configurations": ("dx",),
        "folds": (0, 1),
        "postprocessing": (KeepLargest(name="block", values=(1,)),),
        "dice_postprocessed": 0.9,
        "contenders": (
            Contender(name="dx", configurations=("dx",), multiply_adds=10**9, dice=0.89, dice_interval=(0.8, 0.95)),
            Contender(name="omnia", configurations=("omnia",), multiply_adds=10**8, dice=0.7, hd95=3.2),
        ),
        "reasons": ("dx has the highest mean Dice.",),
        "plan_digest": plan_digest(plan, ["dx"]),
        "checkpoints": checkpoint_digests(space, ["dx"], (0, 1)),
    }
    return Best.model_validate(fields | changes)


def test_it_comes_back_from_its_file(space: Workspace, make_plan: Callable[..., Any]) -> None:
    best = best_of(space, make_plan())
    best.write(space.best)
    assert Best.read(space.best) == best
    assert set(best.checkpoints) == {"dx/fold_0", "dx/fold_1"}


def test_the_order_of_regions_matters_since_it_is_that_of_the_outputs(make_plan: Callable[..., Any]) -> None:
    def digest(*regions: str) -> str:
        values = {"whole": (1, 2), "core": (2,)}
        labels = Labels(foreground={name: values[name] for name in regions}, regions_class_order=(1, 2))
        return plan_digest(make_plan(labels=labels), ["dx"])

    assert digest("whole", "core") != digest("core", "whole")


def test_what_the_training_data_are_like_refers_to_a_chosen_configuration(
    space: Workspace, make_plan: Callable[..., Any]
) -> None:
    measure = {"centre": [0.0], "deviation": [1.0], "cases": [[0.0]]}
    likeness = {
        "configuration": "omnia",
        "image": dict.fromkeys(IMAGE_MEASURES, measure),
        "features": {},
        "limits": dict.fromkeys(IMAGE_MEASURES, 1.0),
        "n_cases": 5,
        "n_unlike": 0,
    }
    with pytest.raises(ValidationError, match="likeness is about another configuration"):
        best_of(space, make_plan(), likeness=likeness)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "damaged"),
        ('{"version": 99}', "version 99, but this program reads version 1"),
        ('{"version": 1, "configurations": []}', r"damaged \(dataset"),
    ],
)
def test_damage_is_told_with_the_remedy(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "best.json"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"best\.json: .*{message}"):
        Best.read(file)


def test_it_is_of_today_until_a_checkpoint_or_what_matters_of_the_plan_changes(
    space: Workspace, make_plan: Callable[..., Any]
) -> None:
    best = best_of(space, make_plan())
    assert best.outdated(space) is None
    plan = make_plan()
    cost = plan.configurations["dx"].cost.model_copy(update={"seconds_per_epoch": 99.0})
    dearer = plan.configurations["dx"].model_copy(update={"cost": cost})
    plan.model_copy(update={"configurations": {"dx": dearer}, "notes": ("Another word.",)}).write(space.plan)
    assert best.outdated(space) is None

    space.fold("dx", 1).latest.write_bytes(b"trained longer")
    assert "fold_1/checkpoint_latest was trained further or again" in str(best.outdated(space))
    assert best.outdated(space, folds=[0]) is None
    assert best.outdated(space, folds=["all"]) is None  # which no cross-validation is about

    make_plan(batch_size=3).write(space.plan)
    assert "plan.json was planned anew" in str(best.outdated(space, folds=[0]))


def test_the_table_marks_what_was_chosen(space: Workspace, make_plan: Callable[..., Any]) -> None:
    console = Console(width=100, record=True)
    console.print(best_table(best_of(space, make_plan())))
    lines = console.export_text().splitlines()
    (chosen,) = [line for line in lines if "chosen" in line]
    assert "dx" in chosen
    assert "0.890 (0.800–0.950)" in chosen
    assert any("omnia" in line and "3.20" in line for line in lines)
