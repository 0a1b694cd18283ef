"""What `train` does around the trainer; training itself is tested in tests/trainers."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import autocrossdim
from autocrossdim.commands.plugins import FoldTask
from autocrossdim.commands.project import Project
from autocrossdim.data.phantoms import ANISOTROPIC_SPACING, chambers, write_dataset
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.system.errors import Interrupted, UserError
from autocrossdim.system.files import write_text
from autocrossdim.system.lock import locked

FOLDS = [0, 1, 2]


class Recorder:
    """A trainer that writes down which folds start over; it stops before the fold `stop` with `reason`."""

    def __init__(self) -> None:
        self.restarted: dict[int | str, bool] = {}
        self.turns: list[tuple[int, int]] = []
        self.stop: int | None = None
        self.reason: BaseException = Interrupted("stopped.")

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        pass

    def is_trained(self, task: FoldTask) -> bool:
        return not task.restart and (task.folder.root / "trained").exists()

    def train_fold(self, task: FoldTask) -> None:
        self.turns.append(task.turn)
        if task.fold == self.stop:
            raise self.reason
        self.restarted[task.fold] = task.restart
        if task.restart:
            shutil.rmtree(task.folder.root)
        write_text(task.folder.root / "trained", "")


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("autocrossdim.commands.plugins.find_trainer", lambda _: recorder)
    monkeypatch.setattr("autocrossdim.evaluation.folds.summarise_folds", lambda *_: None)
    return recorder


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset, and the work directory with its plan and preprocessed cases."""
    folder = tmp_path_factory.mktemp("planned")
    raw, work = folder / "Dataset902_Chambers", folder / "work"
    labels = {"background": 0, "chamber": 1, "wall": 2}
    write_dataset(raw, lambda random: chambers(random, (4, 32, 32)), labels, ANISOTROPIC_SPACING, training=3, test=0)
    options: dict[str, Any] = {"memory": 1, "trial": False, "encoder": "test_efficientnet", "processes": 1}
    autocrossdim.plan_and_preprocess(raw, work=work, **options)
    return raw, work


@pytest.fixture
def words(planned: tuple[Path, Path], tmp_path: Path) -> list[object]:
    """The words of a training in a copy of the work directory."""
    raw, work = planned[0], tmp_path / "work"
    shutil.copytree(planned[1], work)
    return ["train", raw, "--work", work, *(word for fold in FOLDS for word in ("--fold", fold))]


@pytest.mark.parametrize("name", ["train", "distil", "find_best", "annotate_next", "report"])
def test_labels_that_changed_since_planning_are_refused(
    planned: tuple[Path, Path], tmp_path: Path, edit_json: Callable[..., None], name: str
) -> None:
    raw = tmp_path / planned[0].name
    shutil.copytree(planned[0], raw)
    edit_json(raw, labels={"background": 0, "wall": 1, "chamber": 2})  # the two are swapped
    with pytest.raises(UserError, match=r"labels changed since the dataset was planned\. Undo the change, or plan"):
        getattr(autocrossdim, name)(raw, work=planned[1])


def test_an_interrupted_restart_is_resumed_with_the_command_shown(
    words: list[object], trainer: Recorder, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    trainer.stop = 1
    stopped = command(*words, "--restart")
    assert stopped.returncode == 143
    again = f"autocrossdim {' '.join(map(str, words))}"
    assert stopped.stderr.endswith(f"stopped. To resume, leave out --restart: {again}\n")

    trainer.stop = None
    assert trainer.restarted == {0: True}
    resumed = command(*words)
    assert trainer.restarted == {0: False, 1: True, 2: True}
    assert "2 folds (1, 2) will start over, as requested with --restart" in resumed.stderr

    command(*words)
    assert trainer.restarted == {0: False, 1: False, 2: False}


def test_the_next_command_trains_the_other_folds_with_the_same_options(
    words: list[object], trainer: Recorder, succeed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--epochs", "3", "--weights", "random", "--set", "workers=0", "--set", "slices_first=off")
    monkeypatch.setattr("autocrossdim.evaluation.folds.summarise_folds", lambda *_: "results")
    monkeypatch.setattr(import_module("autocrossdim.report.terminal"), "summary_text", str)
    said = succeed(*words[:6], *options)
    assert f"Next: autocrossdim {' '.join(map(str, [*words[:4], *options]))}\n" in said


def test_only_folds_that_are_left_to_train_have_a_turn(
    words: list[object], trainer: Recorder, succeed: Callable[..., str]
) -> None:
    succeed(*words[:6])  # fold 0
    trainer.turns.clear()
    succeed(*words)
    assert trainer.turns == [(0, 2), (1, 2), (2, 2)]
    trainer.turns.clear()
    succeed(*words, "--restart")
    assert trainer.turns == [(1, 3), (2, 3), (3, 3)]


def test_folds_keep_what_they_have_learned_if_a_restart_fails(
    words: list[object], trainer: Recorder, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    trainer.stop, trainer.reason = 0, UserError("--weights foo: unavailable.")
    assert command(*words, "--restart").returncode == 2
    trainer.stop = None
    command(*words)
    assert trainer.restarted == {0: False, 1: False, 2: False}


def test_an_error_while_an_interrupted_restart_is_resumed_does_not_cancel_it(
    words: list[object], trainer: Recorder, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    trainer.stop = 0
    assert command(*words, "--restart").returncode == 143
    trainer.reason = UserError("--weights foo: unavailable.")
    assert command(*words).returncode == 2
    trainer.stop = None
    command(*words)
    assert trainer.restarted == {0: True, 1: True, 2: True}


def test_a_fold_that_is_being_trained_is_not_marked_to_start_over(
    words: list[object],
    planned: tuple[Path, Path],
    tmp_path: Path,
    trainer: Recorder,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autocrossdim.system.lock.SECONDS_TO_END", 0.0)
    project = Project.open(planned[0], work=tmp_path / "work")
    fold = project.workspace.fold(project.plan.configuration(None).name, 1)
    with locked(fold.lock, fold.root):
        refused = command(*words, "--restart")
    assert refused.returncode == 2
    assert "fold_1" in refused.stderr
    assert "is writing to it" in refused.stderr
    command(*words)
    assert trainer.restarted == {0: False, 1: False, 2: False}


@pytest.mark.slow
def test_of_two_processes_that_train_the_same_fold_the_second_one_fails_and_names_the_first(
    words: list[object],
    planned: tuple[Path, Path],
    tmp_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autocrossdim.system.lock.SECONDS_TO_END", 0.0)
    project = Project.open(planned[0], work=tmp_path / "work")
    fold = project.workspace.fold(project.plan.configuration(None).name, 0)
    train = [*words[:6], "--weights", "random", "--device", "cpu"]  # fold 0
    for setting in ("steps_per_epoch=1", "validation_batches=1", "workers=0", "patience=0"):
        train += ["--set", setting]
    first = [sys.executable, "-m", "autocrossdim", *map(str, train), "--epochs", "100000"]
    with subprocess.Popen(first, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stderr is not None
            assert any("fold 0: epoch 1 of" in line for line in process.stderr)
            for options in ([], ["--restart"]):
                refused = command(*train, "--epochs", 1, *options)
                assert refused.returncode == 2
                assert f"fold_0: process {process.pid} on {platform.node()} is writing to it" in refused.stderr
            assert process.poll() is None
        finally:
            process.kill()
    reached = Checkpoint.read(fold.latest).run.epoch
    assert command(*train, "--epochs", reached + 1).returncode == 0
    checkpoint = Checkpoint.read(fold.latest)
    assert (checkpoint.run.epoch, checkpoint.complete) == (reached + 1, True)
    epochs = [json.loads(line)["epoch"] for line in fold.history.read_text(encoding="utf-8").splitlines()]
    assert epochs == list(range(1, reached + 2)), "no epoch is of the processes that were refused"
    assert not fold.lock.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Stopped. Run the same command again to resume.\n"),
        (["--restart"], "Stopped. To resume, leave out --restart: autocrossdim train 'a b'\n"),
    ],
)
def test_ctrl_c_says_how_to_resume(
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autocrossdim.commands.project.Project.open", interrupt)
    stopped = command("train", "a b", *options)
    assert (stopped.returncode, stopped.stderr) == (130, said)


def test_ctrl_c_says_that_overwriting_begins_again(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autocrossdim.commands.project.Project.open", interrupt)
    assert "with --overwrite, it starts from the beginning" in command("plan", "a", "--overwrite").stderr
