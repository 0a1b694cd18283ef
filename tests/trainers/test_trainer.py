import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autocrossdim
from autocrossdim.commands.plugins import Trainer, find_trainer
from autocrossdim.data.images import read_label
from autocrossdim.evaluation import diagnosis
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import Interrupted, UserError
from autocrossdim.system.files import read_json, write_json
from trainers import loop
from trainers.loss import DiceCrossEntropy
from trainers.losses import Losses
from trainers.trainer import DefaultTrainer

REAL_WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "weights" / "tf_efficientnetv2_b0.imagenet.pth"

Train = Callable[..., FoldFolder]


def history(folder: FoldFolder) -> list[dict[str, Any]]:
    """Return the history of a fold without what depends on the speed of the machine."""
    timed = ("seconds", "waited_for_data")
    lines = [json.loads(line) for line in folder.history.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def assert_same_run(one: FoldFolder, other: FoldFolder) -> None:
    """Assert that two folds have the same history and bitwise the same weights."""
    assert history(one) == history(other)
    expected, found = (Checkpoint.read(folder.latest).network for folder in (one, other))
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_the_trainer_of_a_plan_is_found_by_name(planned: tuple[Path, Path]) -> None:
    plan = Plan.read(Workspace.of(planned[0].name, planned[1]).plan)
    for configuration in plan.configurations.values():
        trainer: Trainer = find_trainer(configuration.trainer)
        assert isinstance(trainer, DefaultTrainer)
    with pytest.raises(UserError, match="Did you mean 'epochs'"):
        trainer.check_settings({"epoch": 3})


class PowerCut(Exception):
    """Ends a run without warning."""


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    another_work: Callable[[str], Path], train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 4, "lookahead": 2, "accumulate": 2}
    expected = train(work=another_work("whole"), **settings)

    epoch_line, lines = loop.epoch_line, []

    def power_cut(*arguments: Any, **named: Any) -> str:
        lines.append(epoch_line(*arguments, **named))
        if len(lines) == 2:
            raise PowerCut
        return lines[-1]

    monkeypatch.setattr(loop, "epoch_line", power_cut)
    interrupted = another_work("interrupted")
    with pytest.raises(PowerCut):
        train(work=interrupted, **settings)
    folder = FoldFolder(interrupted / expected.root.relative_to(expected.workspace.root.parent))
    assert Checkpoint.read(folder.latest).run.epoch == 2
    assert_same_run(expected, train(work=interrupted, **settings))


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_request_to_stop_is_followed_by_a_checkpoint_and_resumed_bitwise(
    another_work: Callable[[str], Path], train: Train, monkeypatch: pytest.MonkeyPatch, request_to_stop: signal.Signals
) -> None:
    expected = train(work=another_work("whole"), steps_per_epoch=3)
    step, steps = loop.training_step, []

    def with_request(*arguments: Any, **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 5:  # in the middle of the second epoch
            os.kill(os.getpid(), request_to_stop)
        return step(*arguments, **named)

    monkeypatch.setattr(loop, "training_step", with_request)
    interrupted = another_work("interrupted")
    message = f"dx fold 0: stopped by {request_to_stop.name} after step 5; a checkpoint was written"
    with pytest.raises(Interrupted, match=message):
        train(work=interrupted, steps_per_epoch=3)
    folder = train(work=interrupted, steps_per_epoch=3)
    assert len(steps) == 6
    assert_same_run(expected, folder)


def test_a_plateau_shortens_the_run_and_says_so(
    train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainers.schedule.BETTER", 2.0)  # no score is better than the first one
    folder = train(epochs=50, patience=2, cooldown=2)
    assert "no better validation score for 2 epochs" in capfd.readouterr().err
    lines = history(folder)
    assert len(lines) == 5
    assert lines[-1]["learning_rate"] < lines[2]["learning_rate"]
    assert Checkpoint.read(folder.latest).complete


def test_the_running_average_of_the_weights_is_evaluated(train: Train) -> None:
    name = "head.weight"
    averaged = Checkpoint.read(train(0).latest)
    assert not torch.equal(averaged.network[name], averaged.resume["network"][name])
    last = Checkpoint.read(train(1, averaging=0).latest)
    assert torch.equal(last.network[name], last.resume["network"][name])


def test_the_learning_rate_is_that_of_the_configuration_unless_it_is_set(
    planned: tuple[Path, Path], work: Path, train: Train
) -> None:
    plan = Plan.read(Workspace.of(planned[0].name, work).plan)
    by_default = history(train(0, epochs=1, warmup=0))[0]["learning_rate"]
    doubled = 2 * plan.configuration("dx").learning_rate
    assert history(train(1, epochs=1, warmup=0, learning_rate=doubled))[0]["learning_rate"] == 2 * by_default


def test_accumulated_batches_count_as_one_step(planned: tuple[Path, Path], work: Path, train: Train) -> None:
    plan = Plan.read(Workspace.of(planned[0].name, work).plan)
    line = history(train(epochs=1, accumulate=3))[0]
    assert line["step"] == 2
    assert line["patches"] == 2 * 3 * plan.configuration("dx").batch_size


def test_a_network_with_deep_supervision_is_planned_trained_and_applied(
    planned: tuple[Path, Path], tmp_path: Path, train: Train
) -> None:
    autocrossdim.plan_and_preprocess(
        planned[0],
        work=tmp_path / "deep",
        encoder="test_efficientnet",
        deep_supervision=True,
        memory=1,
        trial=False,
        processes=1,
    )
    folder = train(work=tmp_path / "deep")
    assert any(name.startswith("heads.") for name in Checkpoint.read(folder.latest).network)
    assert (folder.validation / "summary.json").exists()


def test_training_continues_without_compilation_where_that_fails(
    train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_compiler(self: torch.nn.Module) -> None:
        raise RuntimeError("no C++ compiler here")

    monkeypatch.setattr(torch.nn.Module, "compile", no_compiler)
    folder = train(compile=True)
    assert "torch.compile does not work here (no C++ compiler here)" in capfd.readouterr().err
    assert Checkpoint.read(folder.latest).complete


def test_a_complete_fold_is_skipped_and_can_be_extended(train: Train, capfd: pytest.CaptureFixture[str]) -> None:
    folder = train()
    written = folder.latest.stat().st_mtime_ns
    train()
    assert folder.latest.stat().st_mtime_ns == written
    assert "already trained" in capfd.readouterr().err
    figure = folder.progress.read_bytes()
    train(epochs=3)
    assert [line["epoch"] for line in history(folder)] == [1, 2, 3]
    assert (folder.validation / "summary.json").exists()
    complete = folder.progress.read_bytes()
    # Killed before the last epoch was drawn: the figure is that of two epochs.
    folder.progress.write_bytes(figure)
    os.utime(folder.progress, (0, 0))
    train(epochs=3)
    assert folder.progress.read_bytes() == complete != figure


def test_without_weights_a_started_fold_goes_on_from_its_own_and_a_new_one_from_the_default(
    planned: tuple[Path, Path],
    work: Path,
    train: Train,
    quick: dict[str, object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    train(0, weights="random")
    capfd.readouterr()
    options = {"work": work, "config": "dx", "set": quick}
    autocrossdim.train(planned[0], fold=0, **options)
    assert "dx fold 0: already trained." in capfd.readouterr().err
    with pytest.raises(UserError, match="started with --weights random, not imagenet"):
        autocrossdim.train(planned[0], fold=[0, 1], **options)


def test_results_of_an_earlier_state_of_the_network_never_pass_for_those_of_the_present_one(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(epochs=1)
    unlink = os.unlink

    def refuse(path: Any, *rest: Any, **options: Any) -> None:
        if str(path).endswith(".nii.gz"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        unlink(path, *rest, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(UserError, match=r"\.nii\.gz: cannot be removed \(the drive does not respond\)"):
        train(epochs=2)
    assert Checkpoint.read(folder.latest).run.epoch == 1


def test_a_complete_fold_is_not_passed_off_as_trained_with_other_settings(train: Train) -> None:
    folder = train()
    with pytest.raises(UserError, match=r"other settings \(learning_rate: 0\.002 -> 0\.5\).*--restart"):
        train(learning_rate=0.5)
    assert Checkpoint.read(folder.latest).settings["learning_rate"] is None


def test_a_run_that_ends_by_its_time_is_complete(train: Train) -> None:
    checkpoint = Checkpoint.read(train(epochs=10000, max_seconds=1.0).latest)
    assert checkpoint.complete
    assert checkpoint.run.seconds < 60


def test_a_restart_discards_the_existing_run(train: Train) -> None:
    train(epochs=3)
    assert len(history(train(restart=True))) == 2


def test_a_restart_that_fails_to_start_leaves_the_trained_fold(train: Train) -> None:
    folder = train()
    with pytest.raises(UserError, match="nowhere"):
        train(weights="nowhere.pth", restart=True)
    assert Checkpoint.read(folder.latest).complete


def test_a_fold_trained_on_other_cases_is_refused(planned: tuple[Path, Path], work: Path, train: Train) -> None:
    train()
    splits = Workspace.of(planned[0].name, work).splits
    splits.write_text(json.dumps(list(reversed(json.loads(splits.read_text(encoding="utf-8"))))))
    with pytest.raises(UserError, match="trained on other cases"):
        train()


def test_folds_of_another_plan_are_left_out_of_the_summary(
    planned: tuple[Path, Path], work: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    train(0)
    workspace = Workspace.of(planned[0].name, work)
    plan = Plan.read(workspace.plan)
    dx = plan.configuration("dx").model_copy(update={"batch_size": 3})
    plan.model_copy(update={"configurations": {**plan.configurations, "dx": dx}}).write(workspace.plan)
    train(1)
    assert "left out" in capfd.readouterr().err
    assert len(json.loads((workspace.model("dx") / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]) == 1


def test_losses_that_are_read_once_per_epoch_give_the_same_run(
    another_work: Callable[[str], Path], train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(work=another_work("every_step"))
    monkeypatch.setattr(Losses, "is_due", lambda *_, **__: False)
    assert_same_run(expected, train(work=another_work("every_epoch")))


@pytest.mark.parametrize("read", ["every step", "every epoch"])
def test_a_loss_that_is_not_finite_names_step_and_cases_and_keeps_the_last_checkpoint(
    planned: tuple[Path, Path], work: Path, train: Train, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    monkeypatch.setattr(Losses, "is_due", lambda *_, **__: read == "every step")
    forward, calls = DiceCrossEntropy.forward, []

    def sometimes_nan(self: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        loss = forward(self, logits, target)
        return loss * float("nan") if len(calls) > 3 and torch.is_grad_enabled() else loss

    monkeypatch.setattr(DiceCrossEntropy, "forward", sometimes_nan)
    with pytest.raises(UserError, match=r"loss is nan at step 2, on the cases case_0\d"):
        train()
    folder = Workspace.of(planned[0].name, work).fold("dx", 0)
    checkpoint = Checkpoint.read(folder.latest)
    assert checkpoint.run.epoch == 1
    assert all(tensor.isfinite().all() for tensor in checkpoint.network.values())


def test_the_fold_all_trains_on_every_case_and_validates_none(train: Train) -> None:
    folder = train("all")
    checkpoint = Checkpoint.read(folder.latest)
    assert checkpoint.complete
    assert len(checkpoint.split["train"]) == 5
    assert not folder.validation.exists()


def test_dx_starts_from_omnia_of_the_same_dataset_and_fold(train: Train) -> None:
    with pytest.raises(UserError, match=r"--config omnia --fold 0"):
        train(weights="omnia")
    train(config="omnia")
    provenance = Checkpoint.read(train(weights="omnia").latest).provenance
    assert "omnia/fold_0" in provenance["model"]
    assert provenance["report"]["parameters"]["new"] == 0


def test_a_fold_never_starts_from_weights_that_were_trained_on_its_validation_cases(
    train: Train, planned: tuple[Path, Path], work: Path
) -> None:
    space = Workspace.of(planned[0].name, work)
    other = train(1, epochs=1)
    (held_out,) = read_json(space.splits)[0]["val"]
    with pytest.raises(UserError, match=rf"fold_1.checkpoint_latest: was trained on {held_out}, which would validate"):
        train(0, weights=str(other.root))
    train(config="omnia", epochs=1)
    folds = read_json(space.splits)
    write_json(space.splits, [folds[1], folds[0], *folds[2:]])
    (case,) = folds[1]["val"]
    with pytest.raises(UserError, match=rf"omnia.fold_0.checkpoint_latest: was trained on {case}, which would"):
        train(weights="omnia")
    assert not space.fold("dx", 0).latest.exists()


def test_slices_and_volumes_are_ensembled_on_the_original_grid(
    planned: tuple[Path, Path], work: Path, train: Train
) -> None:
    raw = planned[0]

    def probabilities(*config: str) -> np.ndarray:
        output = work / "_".join(config)
        autocrossdim.predict(raw, raw / "imagesTs", output, work=work, config=config, probabilities=True)
        stored: np.ndarray = np.load(output / "case_05.npz")["probabilities"]
        return stored.astype(float)

    for config in ("omnia", "dx"):
        train(config=config)
    both = probabilities("omnia", "dx")
    np.testing.assert_allclose(both, (probabilities("omnia") + probabilities("dx")) / 2, atol=2e-3)
    label, _ = read_label(work / "omnia_dx" / "case_05.nii.gz")
    clear = np.sort(both, axis=0)[-1] - np.sort(both, axis=0)[-2] > 5e-3
    np.testing.assert_array_equal(label[clear], both.argmax(axis=0)[clear])


def test_one_image_is_segmented_from_python(train: Train) -> None:
    predictor = Predictor.load(train().root.parent)
    image = np.random.default_rng(0).normal(size=(1, 9, 31, 22))
    found = predictor(image, spacing=(2.0, 1.0, 1.0), probabilities=True)
    assert found.label.shape == (9, 31, 22)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities.astype(float).sum(axis=0), 1, atol=5e-3)
    with pytest.raises(UserError, match=r"1 channel\(s\): phantom"):
        predictor(np.zeros((2, 9, 9, 9)), spacing=(1.0, 1.0, 1.0))


BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")  # adapt to the images of the training


def test_a_frozen_encoder_does_not_change(train: Train, another_work: Callable[[str], Path]) -> None:
    start = train(0)
    end = train(0, work=another_work("frozen"), weights=str(start.root), frozen_epochs=2, seed=7)
    before, after = Checkpoint.read(start.latest).network, Checkpoint.read(end.latest).network
    for name, tensor in before.items():
        if name.startswith("encoder.") and not name.endswith(BATCH_NORM):
            assert torch.equal(tensor, after[name]), name
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("weights", ["imagenet", "nowhere.pth"])
def test_unavailable_weights_are_an_error_and_nothing_is_trained(
    planned: tuple[Path, Path], work: Path, train: Train, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(work / "empty_cache"))
    with pytest.raises(UserError, match="--weights"):
        train(weights=weights)
    assert not Workspace.of(planned[0].name, work).fold("dx", 0).latest.exists()


@pytest.mark.skipif(not REAL_WEIGHTS.exists(), reason="the real weights are not beside this checkout")
@pytest.mark.slow
def test_real_weights_are_loaded_and_reported(
    planned: tuple[Path, Path], tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    autocrossdim.plan_and_preprocess(
        planned[0], work=tmp_path / "real", memory=1, trial=False, encoder="tf_efficientnetv2_b0", processes=1
    )
    folder = train(work=tmp_path / "real", weights=str(REAL_WEIGHTS))
    assert "parameters in" in capfd.readouterr().err
    provenance = Checkpoint.read(folder.latest).provenance
    assert provenance["sha256"].startswith("12de0bf005df")
    assert provenance["report"]["parameters"]["adapted"] > 0


def test_signs_of_a_failing_training_are_named_in_the_log(
    train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Rates so small that nothing is learned; one step is an epoch.
    monkeypatch.setattr(diagnosis, "EPOCHS", 6)
    train(0, config="omnia", epochs=6, steps_per_epoch=1, learning_rate=1e-9)
    said = capfd.readouterr().err
    assert "warning: omnia is a 2D network, but the voxels are nearly isotropic" in said
    assert said.count("warning: omnia fold 0: Slow convergence: the training loss") == 1
    assert "9e-10 at its peak here" in said  # recorded at the end of each epoch
