from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autocrossdim.records.checkpoint import CHECKPOINT_VERSION, Checkpoint, reader
from autocrossdim.records.environment import Environment
from autocrossdim.records.run_state import RunState
from autocrossdim.system.errors import UserError


@pytest.fixture
def checkpoint(make_plan: Callable[..., Any]) -> Checkpoint:
    plan = make_plan()
    return Checkpoint(
        plan=plan,
        configuration="dx",
        fold=0,
        split={"train": ["a"], "val": ["b"]},
        network={"weight": torch.arange(3.0)},
        settings={"epochs": 2},
        provenance={"weights": "random"},
        run=RunState(epoch=2, step=7, seconds=1.5, best=0.25, losses=[0.5], shortened_step=6, shortened_progress=0.75),
        sources={"a": "0f", "b": "1e"},
        images={"a": "2d"},
        requested=["epochs"],
        environments=[Environment.now("A GPU", devices=1, precision="bf16")],
        resume={"network": {"weight": torch.zeros(3)}},
    )


def written(checkpoint: Checkpoint, path: Path, **changes: Any) -> Path:
    """Write a checkpoint whose content was changed; None leaves an entry out."""
    checkpoint.write(path)
    content = {**torch.load(path, weights_only=True), **changes}
    torch.save({name: value for name, value in content.items() if value is not None}, path)
    return path


def test_a_reader_keeps_what_it_read_without_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "one")
    read = reader()
    first = read(tmp_path / "one")
    assert first == replace(checkpoint, network={}, resume={})
    (tmp_path / "one").unlink()
    assert read(tmp_path / "one") is first
    with pytest.raises(UserError, match="no such checkpoint"):
        reader()(tmp_path / "one")


def test_a_checkpoint_is_read_as_it_was_written(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "checkpoint")
    found = Checkpoint.read(tmp_path / "checkpoint")
    assert torch.equal(found.network["weight"], checkpoint.network["weight"])
    assert torch.equal(found.resume["network"]["weight"], checkpoint.resume["network"]["weight"])
    assert replace(found, network={}, resume={}) == replace(checkpoint, network={}, resume={})
    assert not found.complete


def test_a_checkpoint_from_before_environments_were_recorded_is_read(checkpoint: Checkpoint, tmp_path: Path) -> None:
    found = Checkpoint.read(written(checkpoint, tmp_path / "checkpoint", requested=None, environments=None))
    assert (found.requested, found.environments) == (None, [])


@pytest.mark.parametrize("version", [None, 1, 2, CHECKPOINT_VERSION + 1])
def test_another_version_is_refused_in_one_line(checkpoint: Checkpoint, tmp_path: Path, version: int | None) -> None:
    path = written(checkpoint, tmp_path / "checkpoint", version=version)
    with pytest.raises(UserError, match=rf"version {version}; this is {CHECKPOINT_VERSION}\).*--restart") as caught:
        Checkpoint.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": {"epoch": -1}},
        {"run": {"step": "many"}},
        {"run": {"pace": 1}},
        {"run": None},
        {"plan": "{}"},
        {"plan": None},
        {"network": {"weight": 1}},
        {"sources": {"a": 1}},
        {"split": ["a"]},
        {"extra": 1},
    ],
)
def test_impossible_content_is_refused_in_one_line(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = written(checkpoint, tmp_path / "checkpoint", **changes)
    with pytest.raises(UserError, match=r"not a valid checkpoint \(.*--restart") as caught:
        Checkpoint.read(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_or_missing_file_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(UserError, match="checkpoint: no such checkpoint"):
        Checkpoint.read(path)
    checkpoint.write(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"damaged or not a checkpoint\. Train this fold again with --restart"):
        Checkpoint.read(path)


def test_a_new_run_has_done_nothing() -> None:
    state = RunState()
    assert (state.epoch, state.step, state.seconds, state.complete, state.losses) == (0, 0, 0.0, False, [])


def test_renamed_training_cases_are_no_other_cases(checkpoint: Checkpoint) -> None:
    checkpoint.split["train"] = ["a", "b"]
    files = {"p1": {"2d", "0f"}, "p2": {"1e"}, "p3": {"9a"}}
    assert checkpoint.outgrown(["p1", "p2"], files.__getitem__) is None
    assert checkpoint.outgrown(["p1", "p2", "p3"], files.__getitem__) == "trained on 2 of the 3 current training cases"
    assert checkpoint.outgrown(["p1"], files.__getitem__) == (
        "trained on 1 of the 1 current training case and on b, no longer among them"
    )


def test_the_first_of_the_trainings_that_it_continues_names_the_weights(checkpoint: Checkpoint) -> None:
    assert (checkpoint.is_continuation, checkpoint.first_weights) == (False, None)
    checkpoint.provenance = {"asked": "random"}
    for continued in (False, True, True):
        assert (checkpoint.is_continuation, checkpoint.first_weights) == (continued, "random")
        checkpoint.provenance = {"asked": "previous", "started_from": checkpoint.provenance}
    checkpoint.provenance = {"asked": "previous", "started_from": {}}  # of a version that did not record it
    assert (checkpoint.is_continuation, checkpoint.first_weights) == (True, None)


def test_what_it_was_trained_on_includes_the_trainings_that_it_continues(checkpoint: Checkpoint) -> None:
    checkpoint.split["unlabelled"] = ["u"]
    checkpoint.provenance |= {"cases": ["z"], "contents": {"5b": "z"}}
    assert checkpoint.trained_on.names == {"a", "u", "z"}
    assert checkpoint.trained_on.contents == {"0f": "a", "1e": "b", "2d": "a", "5b": "z"}


def test_corrected_cases_are_those_whose_files_have_other_contents_now(checkpoint: Checkpoint) -> None:
    assert checkpoint.corrected(["a"], {"a": {"2d", "0f"}}.__getitem__) == []
    assert checkpoint.corrected(["a"], {"a": {"2d", "99"}}.__getitem__) == ["a"]
    assert checkpoint.corrected(["a", "c"], {"a": set[str](), "c": {"99"}}.__getitem__) == []  # not known, and new
