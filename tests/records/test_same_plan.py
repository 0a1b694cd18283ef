"""Checkpoints are used together only if their training is complete and their plans agree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.labels import Labels
from autocrossdim.records.normalization import Normalization
from autocrossdim.records.run_state import RunState
from autocrossdim.records.same_plan import SamePlan
from autocrossdim.system.errors import UserError

TWO = {"background": 0, "a": 1, "b": 2}
SWAPPED = {"background": 0, "a": 2, "b": 1}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
OTHER_ORDER = {"background": 0, "core": [2], "whole": [1, 2]}


def checkpoint(plan: Any, *, complete: bool = True) -> Checkpoint:
    return Checkpoint(
        plan=plan,
        configuration=plan.decision.configuration,
        fold=0,
        split={},
        network={},
        settings={},
        provenance={},
        run=RunState(epoch=3, complete=complete),
    )


def test_equal_plans_agree_whatever_they_were_estimated_to_cost(make_plan: Callable[..., Any]) -> None:
    plan = make_plan()
    cost = plan.configuration().cost.model_copy(update={"multiply_adds_per_case": 1})
    cheaper = plan.configuration().model_copy(update={"cost": cost})
    together = SamePlan()
    for path, other in (("one", plan), ("two", plan.model_copy(update={"configurations": {"dx": cheaper}}))):
        together.add(Path(path), checkpoint(other))


def test_notes_are_not_compared(make_plan: Callable[..., Any]) -> None:
    """Those on annotation are renewed when cases come or go."""
    plan = make_plan()
    together = SamePlan()
    for path, notes in (("one", ("32 of 120 slices are annotated.",)), ("two", ("42 of 160 slices are annotated.",))):
        together.add(Path(path), checkpoint(plan.model_copy(update={"notes": notes})))


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ({"labels": Labels.from_dataset_json(TWO)}, {"labels": Labels.from_dataset_json(SWAPPED)}, "labels"),
        (
            {"labels": Labels.from_dataset_json(REGIONS, [1, 2])},
            {"labels": Labels.from_dataset_json(OTHER_ORDER, [1, 2])},
            "labels",
        ),
        ({"channel_names": ("T1", "T2")}, {"channel_names": ("T2", "T1")}, "channels"),
        ({}, {"normalization": (Normalization(scheme="zscore"),)}, "normalisation"),
        ({}, {"transpose": (2, 0, 1)}, "axis order"),
        ({}, {"patch_size": (8, 8, 8)}, r"configuration dx \(patch_size\)"),
    ],
)
def test_what_differs_is_named_with_both_files(
    make_plan: Callable[..., Any], one: dict[str, Any], other: dict[str, Any], difference: str
) -> None:
    together = SamePlan()
    together.add(Path("fold_0"), checkpoint(make_plan(**one)))
    with pytest.raises(UserError, match=rf"fold_1: trained under another plan than fold_0 \(different: {difference}\)"):
        together.add(Path("fold_1"), checkpoint(make_plan(**other)))


def test_configurations_share_labels_and_preprocessing_but_not_their_networks(make_plan: Callable[..., Any]) -> None:
    together = SamePlan()
    together.add(Path("dx"), checkpoint(make_plan(3, patch_size=(8, 8, 8))))
    together.add(Path("omnia"), checkpoint(make_plan(2)))
    with pytest.raises(UserError, match=r"other: trained under another plan than omnia \(different: axis order\)"):
        together.add(Path("other"), checkpoint(make_plan(2, transpose=(1, 0, 2))))


def test_a_configuration_is_compared_with_its_own_folds_only(make_plan: Callable[..., Any]) -> None:
    """The plan of `dx` also describes `omnia`, in an earlier version that was never trained."""
    volumes, earlier, slices = make_plan(3), make_plan(2, patch_size=(8, 8)), make_plan(2)
    both = volumes.model_copy(update={"configurations": volumes.configurations | earlier.configurations})
    together = SamePlan()
    together.add(Path("dx"), checkpoint(both))
    together.add(Path("omnia"), checkpoint(slices))
    with pytest.raises(UserError, match=r"again: trained under another plan than omnia .*patch_size"):
        together.add(Path("again"), checkpoint(earlier))


def test_incomplete_training_is_refused(make_plan: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"fold_0: training stopped after epoch 3\. Resume it"):
        SamePlan().add(Path("fold_0"), checkpoint(make_plan(), complete=False))
