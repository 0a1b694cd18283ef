from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.selection.budget import Budget, differences, mean_minutes, mean_steps

SETTINGS = {"epochs": 100, "learning_rate": 1e-3, "seed": 1, "workers": 2}


def budget(steps: int, minutes: float, **settings: Any) -> Budget:
    return Budget(steps=steps, seconds=60 * minutes, settings=settings)


@pytest.fixture
def checkpoint(make_plan: Callable[..., Any]) -> Checkpoint:
    return Checkpoint(
        plan=make_plan(),
        configuration="dx",
        fold=0,
        split={"train": ["a"], "val": ["b"]},
        network={},
        settings=SETTINGS,
        provenance={"asked": "imagenet"},
        run=RunState(epoch=100, step=5000, seconds=600.0, complete=True),
    )


def test_a_budget_is_what_the_checkpoint_recorded(checkpoint: Checkpoint, tmp_path: Path) -> None:
    found = Budget.of(checkpoint, FoldFolder(tmp_path / "dx" / "fold_0"))
    assert (found.steps, found.seconds) == (5000, 600)
    assert found.settings == {"epochs": 100, "learning_rate": 1e-3, "weights": "imagenet"}


def test_the_2d_twin_that_a_network_started_from_is_included(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = FoldFolder(tmp_path / "dx" / "fold_0")
    twin = replace(checkpoint, run=RunState(epoch=200, step=10_000, seconds=300.0, complete=True))
    twin.write(folder.slices.latest)
    alone = Budget.of(checkpoint, folder)
    assert (alone.steps, alone.seconds) == (5000, 600)
    started = replace(checkpoint, provenance={"model": "/moved/dx/slices/fold_0/checkpoint_latest"})
    both = Budget.of(started, folder)
    assert (both.steps, both.seconds) == (15_000, 900)


def test_the_trainings_that_a_fold_continues_are_included(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = FoldFolder(tmp_path / "dx" / "fold_0")
    replace(checkpoint, run=RunState(epoch=200, step=10_000, seconds=300.0, complete=True)).write(folder.slices.latest)
    first = {"asked": "imagenet", "model": "/moved/dx/slices/fold_0/checkpoint_latest"}
    second = {"asked": "previous", "steps": 70, "seconds": 7.0, "started_from": first}
    third = {"asked": "previous", "steps": 20, "seconds": 2.0, "started_from": second}
    found = Budget.of(replace(checkpoint, provenance=third), folder)
    assert (found.steps, found.seconds) == (15_090, 909)
    # Former checkpoints did not record the time.
    del second["seconds"]
    assert Budget.of(replace(checkpoint, provenance=third), folder).seconds is None


def test_a_trainer_that_records_neither_steps_nor_time_is_no_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    silent = Budget.of(replace(checkpoint, run=RunState(epoch=1, complete=True)), FoldFolder(tmp_path / "fold_0"))
    assert mean_steps([silent]) is None
    assert mean_minutes([silent]) is None
    sentence = differences({"omnia": [budget(100, 1)], "dx": [silent]})[0]
    assert sentence.startswith("Training budgets per fold may differ: omnia 100 steps")
    assert "dx an unknown number of steps in an unknown number of minutes" in sentence
    assert differences({"dx": [silent]}) == []


def test_equal_steps_or_equal_times_are_equal_budgets() -> None:
    assert differences({"omnia": [budget(5000, 10)], "dx": [budget(5000, 60)]}) == []
    assert differences({"omnia": [budget(9000, 30)], "dx": [budget(2000, 31)]}) == []
    assert differences({"omnia": [budget(5000, 10)]}) == []


def test_unequal_budgets_are_given_per_fold_with_the_way_to_equal_ones() -> None:
    (sentence,) = differences({"omnia": [budget(5000, 10), budget(5000, 12)], "dx": [budget(1000, 60)] * 2})
    assert "omnia 5,000 steps in 11.0 minutes, dx 1,000 steps in 60.0 minutes" in sentence
    assert "--max-time" in sentence


def test_settings_that_differ_are_named_with_their_values() -> None:
    (sentence,) = differences({"omnia": [budget(9, 1, epochs=50, rate=1)], "dx": [budget(9, 1, epochs=100, rate=1)]})
    assert sentence == "The configurations were trained with different settings: epochs (omnia: 50, dx: 100)."


def test_folds_that_were_trained_differently_are_named() -> None:
    (sentence,) = differences({"dx": [budget(9, 1, epochs=50), budget(9, 1, epochs=100)]})
    assert sentence == "The folds of dx were trained with different settings: epochs (fold 0: 50, fold 1: 100)."
