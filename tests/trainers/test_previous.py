"""Training after cases were added: each fold continues from its own weights, and never validates what it has seen."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autocrossdim
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.report.commands import setting_words
from autocrossdim.system.errors import UserError
from trainers import loop

NEW = ("case_06", "case_05")  # the test cases of the planned dataset; fold 0 validates the first
PLAN = {"encoder": "test_efficientnet", "memory": 1, "trial": False, "processes": 1}


class Growing:
    """A copy of the planned dataset, to which its test cases are added."""

    def __init__(self, planned: tuple[Path, Path], folder: Path, quick: dict[str, object]) -> None:
        raw, work = planned
        self.raw = Path(shutil.copytree(raw, folder / raw.name))
        self.work = Path(shutil.copytree(work, folder / "own"))
        self.space, self.quick = Workspace.of(raw.name, self.work), quick

    def grow(self) -> None:
        for name in NEW:
            for kind, file in (("images", f"{name}_0000.nii.gz"), ("labels", f"{name}.nii.gz")):
                (self.raw / f"{kind}Ts" / file).rename(self.raw / f"{kind}Tr" / file)
        self.plan()

    def plan(self) -> None:
        autocrossdim.plan_and_preprocess(self.raw, work=self.work, **PLAN)

    def train(self, fold: int | str = 0, *, weights: str = "random", restart: bool = False, **more: Any) -> FoldFolder:
        settings = {**self.quick, **more}
        autocrossdim.train(
            self.raw, work=self.work, config="dx", fold=fold, weights=weights, restart=restart, set=settings
        )
        return self.space.fold("dx", fold)

    @property
    def splits(self) -> list[dict[str, list[str]]]:
        content: list[dict[str, list[str]]] = json.loads(self.space.splits.read_text(encoding="utf-8"))
        return content

    def of_new(self) -> int:
        """Return the fold that validates the first new case."""
        return next(fold for fold, split in enumerate(self.splits) if NEW[0] in split["val"])


@pytest.fixture
def growing(planned: tuple[Path, Path], tmp_path: Path, quick: dict[str, object]) -> Growing:
    return Growing(planned, tmp_path, quick)


def settings_of(folder: FoldFolder) -> str:
    return " ".join(setting_words(Checkpoint.read(folder.latest)))


def validated(folder: FoldFolder) -> list[str]:
    return [case.file.removesuffix(".nii.gz") for case in Summary.read(folder.summary).metric_per_case]


@pytest.mark.slow
def test_a_fold_is_kept_until_it_is_asked_to_continue(growing: Growing, capfd: pytest.CaptureFixture[str]) -> None:
    folder = growing.train(0)
    first = Checkpoint.read(folder.latest)
    capfd.readouterr()
    growing.grow()
    said = capfd.readouterr().err
    assert growing.of_new() == 0
    assert "dx fold 0 was trained on 4 of the 5 current training cases." in said
    command = f"autocrossdim train {growing.raw} --work {growing.work} --config dx --weights previous"
    assert f"`{command} {settings_of(folder)}`" in said

    growing.train(0)
    assert "dx fold 0: trained on 4 of the 5 current training cases. It is kept." in capfd.readouterr().err
    assert Checkpoint.read(folder.latest).run == first.run
    assert validated(folder) == growing.splits[0]["val"] == [*first.split["val"], NEW[0]]

    best = Checkpoint.read(folder.best)
    growing.train(0, weights="previous", epochs=1)
    second = Checkpoint.read(folder.latest)
    assert second.provenance["model"] == str(folder.best)
    assert second.provenance["steps"] == best.run.step
    assert second.provenance["started_from"] == first.provenance
    assert second.provenance["report"]["parameters"]["new"] == 0
    assert sorted(second.split["train"]) == sorted([*first.split["train"], NEW[1]])
    assert second.trained_on.names == set(second.split["train"])
    assert second.run.step == 2
    assert Checkpoint.read(folder.best).provenance == second.provenance

    written = folder.latest.stat().st_mtime_ns
    growing.train(0, weights="previous", epochs=1)
    assert "already trained" in capfd.readouterr().err
    assert folder.latest.stat().st_mtime_ns == written


def test_the_commands_before_a_continued_training_find_it_done(
    growing: Growing, capfd: pytest.CaptureFixture[str]
) -> None:
    growing.train(0)
    growing.grow()
    folder = growing.train(0, weights="previous", epochs=1)
    written = folder.latest.stat().st_mtime_ns
    capfd.readouterr()
    growing.train(0, weights="random")
    autocrossdim.train(growing.raw, work=growing.work, config="dx", fold=0, set=growing.quick)
    assert capfd.readouterr().err.count("dx fold 0: already trained, last with --weights previous.") == 2
    assert folder.latest.stat().st_mtime_ns == written
    with pytest.raises(UserError, match="started with --weights previous, not imagenet"):
        growing.train(0, weights="imagenet")


@pytest.mark.parametrize("name", [NEW[0], "renamed"])
def test_a_fold_that_learned_from_its_validation_case_before_it_was_annotated_has_to_start_over(
    growing: Growing, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    scans = growing.raw / "imagesUn"
    scans.mkdir()
    shutil.copy(growing.raw / "imagesTs" / f"{NEW[0]}_0000.nii.gz", scans / f"{name}_0000.nii.gz")
    folder = growing.train(0, unlabelled=1)
    shutil.rmtree(scans)
    capfd.readouterr()
    growing.grow()
    said = capfd.readouterr().err
    known = name if name == NEW[0] else f"{NEW[0]} (then named {name})"
    assert f"dx fold 0 was trained on {known}, which is a validation case now" in said
    command = f"autocrossdim train {growing.raw} --work {growing.work} --config dx --fold 0 --weights random"
    assert "--set unlabelled=1" in settings_of(folder)
    assert f"`{command} {settings_of(folder)} --restart`" in said
    assert "--weights previous" not in said
    with pytest.raises(UserError, match=r"would validate it\. Train again with --restart"):
        growing.train(0, weights="previous")


def test_a_fold_that_learned_from_another_scan_of_a_patient_it_validates_now_has_to_start_over(
    growing: Growing, edit_json: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    scans = growing.raw / "imagesUn"
    scans.mkdir()
    shutil.copy(growing.raw / "imagesTs" / f"{NEW[1]}_0000.nii.gz", scans / "earlier_0000.nii.gz")
    growing.train(0, unlabelled=1)
    shutil.rmtree(scans)
    edit_json(growing.raw, groups={"earlier": "patient", NEW[0]: "patient"})
    capfd.readouterr()
    growing.grow()
    seen = f"{NEW[0]} (through earlier, of the same group)"
    said = " ".join(capfd.readouterr().err.split())
    assert f"dx fold 0 was trained on {seen}, which is a validation case now" in said
    with pytest.raises(UserError, match=re.escape(f"than the fold has now: {seen}")):
        growing.train(0, weights="previous")


@pytest.mark.slow
def test_an_interruption_before_the_first_new_checkpoint_loses_nothing(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = growing.train(0)
    growing.grow()
    before = Checkpoint.read(folder.latest).run

    def power_cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for restart in (False, True):
        with monkeypatch.context() as patched:
            patched.setattr(loop, "training_step", power_cut)
            with pytest.raises(KeyboardInterrupt):
                growing.train(0, weights="previous", restart=restart)
        assert folder.best.exists()
        assert Checkpoint.read(folder.latest).run == before
    growing.train(0, weights="previous")
    assert NEW[1] in Checkpoint.read(folder.latest).split["train"]


def test_a_fold_without_previous_weights_is_an_error(growing: Growing) -> None:
    with pytest.raises(UserError, match=r"--weights previous: .*fold_0.* does not exist.*--weights imagenet"):
        growing.train(0, weights="previous")


@pytest.mark.slow
def test_a_fold_never_validates_what_its_weights_were_trained_on(growing: Growing) -> None:
    folder = growing.train(0, epochs=1)
    growing.grow()
    splits = growing.splits
    # A file of the user moves a case that fold 0 was trained on to its validation cases.
    seen = splits[0]["train"][0]
    moved = [{"train": [n for n in splits[0]["train"] if n != seen], "val": [*splits[0]["val"], seen]}, *splits[1:]]
    growing.space.splits.write_text(json.dumps(moved))
    for weights in ("random", "previous"):
        with pytest.raises(UserError, match=rf"trained on other cases than the fold has now: {seen}"):
            growing.train(0, weights=weights)
    # Nor is it forgotten when the weights were trained again without the case.
    checkpoint = Checkpoint.read(folder.latest)
    checkpoint.split["train"].remove(seen)
    checkpoint.provenance["cases"] = [seen]
    for path in (folder.latest, folder.best):
        checkpoint.write(path)
    with pytest.raises(UserError, match=rf"than the fold has now: {seen}"):
        growing.train(0, weights="previous")


@pytest.mark.slow
def test_a_fold_with_the_same_training_cases_has_nothing_new_to_learn(
    growing: Growing, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = growing.train("all", epochs=1)
    assert not folder.best.exists()
    written = folder.latest.stat().st_mtime_ns
    growing.train("all", weights="previous", epochs=5)
    assert "dx fold all: already trained." in capfd.readouterr().err
    assert folder.latest.stat().st_mtime_ns == written
    # Without a best epoch, the last checkpoint is continued.
    growing.grow()
    growing.train("all", weights="previous", epochs=1)
    assert Checkpoint.read(folder.latest).provenance["model"] == str(folder.latest)
    assert len(Checkpoint.read(folder.latest).split["train"]) == 7


def test_a_job_that_starts_over_from_previous_weights_does_so_once(growing: Growing) -> None:
    fold = growing.train()
    fold.restart.touch()  # as a cluster job does that was submitted with --restart
    growing.train(weights="previous", restart=True)
    assert Checkpoint.read(fold.latest).provenance["asked"] == "previous"
    assert not fold.restart.exists()


def test_annotating_more_labels_of_a_case_keeps_the_plan(growing: Growing, edit_json: Callable[..., None]) -> None:
    edit_json(growing.raw, annotated_labels={"case_00": ["organ", "nodule"]})
    growing.plan()
