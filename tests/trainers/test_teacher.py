"""Learning from unlabelled scans: what the teacher answers, what the network is shown, and complete runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autocrossdim.commands.project import Project
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from trainers import loop
from trainers.loss import IGNORED
from trainers.teacher import COLLAPSE, has_collapsed, is_teaching, pseudo_labelled, pseudo_labels

Train = Callable[..., FoldFolder]


class Oracle(nn.Module):
    """Knows the answer: voxels above 0 are the structure; it is unsure of those at 0."""

    def forward(self, data: Tensor) -> Tensor:
        return torch.cat([-50 * data, 50 * data], dim=1)


def test_only_confident_answers_count() -> None:
    logits = torch.tensor([[[5.0, 1.0, -5.0]], [[-5.0, 0.5, 5.0]]]).transpose(0, 1)  # (1, 2, 3)
    assert pseudo_labels(logits, regions=False).tolist() == [[0, IGNORED, 1]]
    assert pseudo_labels(logits, regions=True).tolist() == [[[1, IGNORED, 0], [0, IGNORED, 1]]]


@pytest.mark.parametrize("shape", [(3, 1, 12, 10), (2, 1, 6, 8, 7)])
def test_the_answer_belongs_to_what_is_shown(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    clean = torch.randn(shape).sign()
    clean[:, :, :2] = 0
    data, target = pseudo_labelled(Oracle(), clean, 3 * clean, regions=False)
    expected = torch.where(data > 0, 1, torch.where(data < 0, 0, IGNORED))[:, 0]
    assert torch.equal(target, expected)
    assert not torch.equal(data, 3 * clean), "a box of another patch is pasted"
    assert set(data.unique().tolist()) == {-3.0, 0.0, 3.0}, "the network sees the changed intensities"


def test_a_score_far_below_the_one_at_the_start_is_a_collapse() -> None:
    state = RunState()
    assert not has_collapsed(state, None)
    assert not has_collapsed(state, 0.9)
    assert not has_collapsed(state, 0.8)  # nothing was taught yet: the teaching begins from here
    state.taught_steps = 1
    assert not has_collapsed(state, 0.8 - 0.9 * COLLAPSE)
    assert has_collapsed(state, 0.8 - 1.1 * COLLAPSE)
    assert is_teaching(state, 0.9)
    assert not is_teaching(replace(state, untaught=True), 0.9)
    assert not is_teaching(state, 0.1)


@pytest.fixture
def scans(planned: tuple[Path, Path]) -> Iterator[Path]:
    """Put the test cases of the dataset into imagesUn for the time of a test."""
    raw = planned[0]
    unlabelled = raw / "imagesUn"
    shutil.copytree(raw / "imagesTs", unlabelled)
    yield unlabelled
    shutil.rmtree(unlabelled)


def history(folder: FoldFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.history.read_text(encoding="utf-8").splitlines()]


class PowerCut(Exception):
    """Ends a run without warning."""


@pytest.mark.slow
def test_an_interrupted_run_learns_the_same_from_unlabelled_scans(
    scans: Path, another_work: Callable[[str], Path], train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 4, "patience": 0, "unlabelled": 1.0}
    expected = train(work=another_work("whole"), **settings)
    assert [line["unlabelled_steps"] for line in history(expected)] == [0, 2, 4, 6]
    names = Checkpoint.read(expected.latest).split["unlabelled"]
    assert names == sorted(file.name.removesuffix("_0000.nii.gz") for file in scans.iterdir())

    write, written = loop._write_checkpoint, []

    def power_cut(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        written.append(1)
        if len(written) == 3:
            raise PowerCut

    monkeypatch.setattr(loop, "_write_checkpoint", power_cut)
    interrupted = another_work("interrupted")
    with pytest.raises(PowerCut):
        train(work=interrupted, **settings)
    found = train(work=interrupted, **settings)
    one, other = Checkpoint.read(expected.latest).network, Checkpoint.read(found.latest).network
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    supervised = train(work=another_work("supervised"), **{**settings, "unlabelled": 0})
    three = Checkpoint.read(supervised.latest).network
    assert any(not torch.equal(tensor, three[name]) for name, tensor in one.items())


def test_an_interrupted_run_does_not_go_on_with_another_image_of_a_scan(
    scans: Path, work: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = loop._write_checkpoint

    def power_cut(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(loop, "_write_checkpoint", power_cut)
        train(epochs=2, unlabelled=1)
    first, second = sorted(scans.iterdir())
    shutil.copy(second, first)
    with pytest.raises(UserError, match="learned from other unlabelled scans than imagesUn contains now"):
        train(epochs=2, unlabelled=1)


def test_scans_are_used_on_request_only(
    scans: Path, planned: tuple[Path, Path], train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(epochs=1)
    assert "2 unlabelled scans in imagesUn: not used. Add --set unlabelled=1 to use them." in capsys.readouterr().err
    assert "unlabelled" not in Checkpoint.read(folder.latest).split
    for file in scans.iterdir():
        file.unlink()
    with pytest.raises(UserError, match="imagesUn: no images"):
        train(1, unlabelled=1)


def test_scans_added_after_planning_are_checked(scans: Path, train: Train, write_image: Callable[..., Path]) -> None:
    broken = np.zeros((20, 28, 24), np.float32)
    broken[3, 4, 5] = np.nan
    write_image(scans / "broken_0000.nii.gz", broken)
    with pytest.raises(UserError, match=r"broken_0000.nii.gz: 1 of 13,440 voxels are NaN"):
        train(unlabelled=1)


def test_a_loss_on_unlabelled_scans_that_is_not_finite_ends_the_training(
    scans: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(network: nn.Module, clean: Tensor, changed: Tensor, *, regions: bool) -> tuple[Tensor, Tensor]:
        return changed * torch.nan, torch.zeros_like(changed[:, 0]).long()

    monkeypatch.setattr(loop, "pseudo_labelled", broken)
    with pytest.raises(UserError, match=r"loss is nan at step 2, on the cases .*case_05"):
        train(epochs=4, unlabelled=1)


def test_a_scan_that_was_learned_from_never_validates_the_fold(
    scans: Path, train: Train, planned: tuple[Path, Path]
) -> None:
    folder = train(epochs=2, unlabelled=1)
    assert Checkpoint.read(folder.latest).trained_on.names >= {"case_05", "case_06"}


def test_a_copy_of_a_validation_case_under_another_name_is_never_learned_from(
    scans: Path, train: Train, planned: tuple[Path, Path]
) -> None:
    (validated, *_) = Project.open(planned[0], work=planned[1]).splits[0].val
    shutil.copy(planned[0] / "imagesTr" / f"{validated}_0000.nii.gz", scans / "other_0000.nii.gz")
    with pytest.raises(UserError, match=f"imagesUn: other is the same image as {validated}, a validation case"):
        train(epochs=1, unlabelled=1)


def test_a_complete_fold_does_not_go_on_with_other_scans(
    scans: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(epochs=2, unlabelled=1)
    (scans / "case_05_0000.nii.gz").unlink()
    train(epochs=3, unlabelled=1)
    assert "trained with other unlabelled scans than are used now" in capsys.readouterr().err
    assert Checkpoint.read(folder.latest).run.epoch == 2


def test_after_a_collapse_training_goes_back_to_the_best_weights_without_the_scans(
    scans: Path,
    another_work: Callable[[str], Path],
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score, write, scored = loop.score, loop._write_checkpoint, []

    def falls(*arguments: Any, **named: Any) -> Any:
        scored.append((0.7, 0.5, 0.6, 0.6)[len(scored)])
        found = score(*arguments, **named)
        return replace(found, dice=dict.fromkeys(found.dice, scored[-1]))

    def power_cut(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        if len(scored) == 2:
            raise PowerCut

    work = another_work("collapsed")
    monkeypatch.setattr(loop, "score", falls)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(loop, "_write_checkpoint", power_cut)
        train(work=work, epochs=4, patience=0, unlabelled=1)
    said = " ".join(capsys.readouterr().err.split())
    assert "fell from 0.700 to 0.500 while learning from unlabelled scans" in said
    assert "starts from the weights of epoch 1, the best so far" in said
    space = Workspace.of(scans.parent.name, work)
    folder = space.fold("dx", 0)
    latest, best = Checkpoint.read(folder.latest), Checkpoint.read(folder.best)
    assert (latest.run.step, best.run.step) == (4, 2)
    for name, tensor in best.network.items():
        assert torch.equal(tensor, latest.network[name]), name
    train(work=work, epochs=4, patience=0, unlabelled=1)
    assert [line["unlabelled_steps"] for line in history(folder)] == [0, 2, 2, 2]
    assert [line.get("collapsed_from") for line in history(folder)] == [None, 0.7, 0.7, 0.7]
    (warning,) = Summary.read(folder.summary).warnings
    assert warning.startswith("Unlabelled scans: by epoch 2, the pseudo-Dice had fallen from 0.700 to 0.500")
    assert Summary.read(space.summary("dx")).warnings == (f"fold 0: {warning}",)


def test_scans_of_a_patient_who_is_validated_are_left_out(scans: Path, planned: tuple[Path, Path]) -> None:
    raw, work = planned
    names = sorted(file.name.removesuffix("_0000.nii.gz") for file in scans.iterdir())
    project = Project.open(raw, work=work)
    held_out = project.splits[0].val[0]
    grouped = replace(project.dataset, groups={names[0]: "one patient", held_out: "one patient"})
    project = Project(grouped, Workspace.of(raw.name, work))
    assert project.unlabelled(0) == tuple(names[1:])
    assert project.unlabelled("all") == tuple(names)


def test_a_fold_without_scans_of_other_patients_says_so(
    scans: Path, planned: tuple[Path, Path], work: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = planned[0]
    (held_out,) = Project.open(raw, work=work).splits[0].val
    file = raw / "dataset.json"
    before = file.read_bytes()
    names = (scan.name.removesuffix("_0000.nii.gz") for scan in scans.iterdir())
    try:
        write_json(file, {**read_json(file), "groups": dict.fromkeys([held_out, *names], "patient")})
        folder = train(epochs=1, unlabelled=1)
    finally:
        file.write_bytes(before)
    assert "no unlabelled scan to learn from" in " ".join(capsys.readouterr().err.split())
    assert "unlabelled" not in Checkpoint.read(folder.latest).split
