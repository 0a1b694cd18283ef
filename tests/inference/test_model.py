"""Only folds and configurations that were trained under compatible plans are averaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autocrossdim
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.labels import Labels
from autocrossdim.records.normalization import Normalization
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.device import CPU
from autocrossdim.system.errors import UserError

LABELS = {"labels": Labels.from_dataset_json({"background": 0, "a": 1, "b": 2})}
CHANNELS = {"channel_names": ("T1", "T2")}
DIFFERENCES = [
    (LABELS, {"labels": Labels.from_dataset_json({"background": 0, "a": 2, "b": 1})}, "labels"),
    (CHANNELS, {"channel_names": ("T2", "T1")}, "channels"),
    ({}, {"normalization": (Normalization(scheme="zscore"),)}, "normalisation"),
    ({}, {"transpose": (2, 0, 1)}, "axis order"),
]


@pytest.fixture
def two_folds(write_model: Callable[..., Path], tmp_path: Path) -> Callable[..., list[Path]]:
    """Write a model whose second fold was trained under another plan, and return its checkpoints."""

    def write(plan: dict[str, Any], other: dict[str, Any]) -> list[Path]:
        model = tmp_path / "models" / "dx"
        (write_model(model, **other) / "fold_0").rename(model / "fold_1")
        write_model(model, **plan)
        return [model / f"fold_{fold}" / "checkpoint_latest" for fold in (0, 1)]

    return write


@pytest.mark.parametrize(("plan", "other", "difference"), DIFFERENCES)
def test_folds_of_different_plans_are_not_averaged(
    two_folds: Callable[..., list[Path]], plan: dict[str, Any], other: dict[str, Any], difference: str
) -> None:
    first, second = two_folds(plan, other)
    expected = rf"{second}: trained under another plan than {first} \(different: {difference}\)"
    with pytest.raises(UserError, match=expected):
        Model.load([first, second], CPU)
    with pytest.raises(UserError, match=expected):
        Predictor.load(first.parents[1], device="cpu")
    assert Predictor.load(first.parents[1], fold=1, device="cpu").members == 1


@pytest.mark.parametrize(("plan", "other", "difference"), DIFFERENCES)
def test_folds_of_different_plans_are_not_exported(
    two_folds: Callable[..., list[Path]], tmp_path: Path, plan: dict[str, Any], other: dict[str, Any], difference: str
) -> None:
    first, second = two_folds(plan, other)
    with pytest.raises(UserError, match=rf"{second}: trained under another plan than {first} .*{difference}"):
        autocrossdim.export(first.parents[1], tmp_path / "model.acd")
    assert not (tmp_path / "model.acd").exists()


@pytest.mark.parametrize(("plan", "other", "difference"), DIFFERENCES)
def test_configurations_of_different_plans_are_not_averaged(
    make_plan: Callable[..., Any],
    write_model: Callable[..., Path],
    tmp_path: Path,
    plan: dict[str, Any],
    other: dict[str, Any],
    difference: str,
) -> None:
    volumes, slices = make_plan(3, **plan), make_plan(2, **other)
    workspace = Workspace(tmp_path / "Dataset001_Tiny")
    both = volumes.model_copy(update={"configurations": volumes.configurations | slices.configurations})
    both.write(workspace.plan)
    for trained in (volumes, slices):
        write_model(workspace.model(trained.decision.configuration), plan=trained)
    dx, omnia = (workspace.fold(name, 0).latest for name in ("dx", "omnia"))
    with pytest.raises(UserError, match=rf"{omnia}: trained under another plan than {dx} \(different: {difference}\)"):
        Predictor.load(workspace.root, config=["dx", "omnia"], device="cpu")


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}: cannot be read \(it is a directory, not a file\)"):
        Model.load([tmp_path], CPU)
    with pytest.raises(UserError, match="no such checkpoint"):
        Model.load([tmp_path / "checkpoint_latest"], CPU)


def test_an_incomplete_fold_and_foreign_weights_name_the_file(write_model: Callable[..., Path], tmp_path: Path) -> None:
    latest = write_model(tmp_path / "model") / "fold_0" / "checkpoint_latest"
    checkpoint = Checkpoint.read(latest)
    checkpoint.run.complete = False
    checkpoint.write(latest)
    with pytest.raises(UserError, match=rf"{latest}: training stopped after epoch 1\. Resume it"):
        Model.load([latest], CPU)
    checkpoint.run.complete = True
    checkpoint.network.popitem()
    checkpoint.write(latest)
    with pytest.raises(UserError, match=rf"{latest}: the weights do not fit the planned network") as caught:
        Model.load([latest], CPU)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="No trained fold"):
        Model.load([], CPU)
