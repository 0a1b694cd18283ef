import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autocrossdim import api
from autocrossdim.data.images import read_label
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan, PlanOptions
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import Interrupted, UserError
from trainers import fit as fit_module

REAL_WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "weights" / "tf_efficientnetv2_b0.imagenet.pth"


def fold(planned: tuple[Path, Path], work: Path, number: int | str = 0, config: str = "dx") -> FoldFolder:
    return Workspace.of(planned[0].name, work).fold(config, number)


def history(folder: FoldFolder) -> list[dict[str, Any]]:
    timed = ("seconds", "waited_for_data")
    lines = [json.loads(line) for line in folder.history.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


class PowerCut(Exception):
    """Ends a run without warning."""


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    planned: tuple[Path, Path],
    another_work: Callable[[str], Path],
    quick: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {**quick, "epochs": 4, "lookahead": 2, "accumulate": 2}
    whole, cut = another_work("whole"), another_work("cut")
    api.train(planned[0], whole, fold=[0], weights="random", settings=settings)
    expected = Checkpoint.read(fold(planned, whole).latest)

    say, spoken = fit_module._line, []

    def power_cut(*arguments: Any) -> str:
        spoken.append(say(*arguments))
        if len(spoken) == 2:
            raise PowerCut
        return spoken[-1]

    monkeypatch.setattr(fit_module, "_line", power_cut)
    with pytest.raises(PowerCut):
        api.train(planned[0], cut, fold=[0], weights="random", settings=settings)
    folder = fold(planned, cut)
    assert Checkpoint.read(folder.latest).progress["epoch"] == 2
    api.train(planned[0], cut, fold=[0], weights="random", settings=settings)
    found = Checkpoint.read(folder.latest)
    assert history(folder) == history(fold(planned, whole))
    for name, tensor in expected.network.items():
        assert torch.equal(tensor, found.network[name]), name


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_it_writes_a_checkpoint_at_once_and_goes_on_bitwise(
    planned: tuple[Path, Path],
    another_work: Callable[[str], Path],
    quick: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    request_to_stop: signal.Signals,
) -> None:
    settings = {**quick, "steps_per_epoch": 3}
    whole, cut = another_work("whole"), another_work("cut")
    api.train(planned[0], whole, fold=[0], weights="random", settings=settings)
    step, steps = fit_module.Fit._step, []

    def ask(*arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 5:  # in the middle of the second epoch
            os.kill(os.getpid(), request_to_stop)
        return step(*arguments)

    monkeypatch.setattr(fit_module.Fit, "_step", ask)
    with pytest.raises(Interrupted, match=f"{request_to_stop.name} after step 5"):
        api.train(planned[0], cut, fold=[0], weights="random", settings=settings)
    assert Checkpoint.read(fold(planned, cut).latest).progress["step"] == 5
    api.train(planned[0], cut, fold=[0], weights="random", settings=settings)
    assert len(steps) == 6
    expected, found = (Checkpoint.read(fold(planned, work).latest) for work in (whole, cut))
    assert history(fold(planned, whole)) == history(fold(planned, cut))
    for name, tensor in expected.network.items():
        assert torch.equal(tensor, found.network[name]), name


def test_a_plateau_shortens_the_run_and_says_so(
    planned: tuple[Path, Path],
    work: Path,
    quick: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("trainers.schedule.BETTER", 2.0)  # so no score is better than the first
    plateau = {"epochs": 50, "patience": 2, "cooldown": 2}
    api.train(planned[0], work, fold=[0], weights="random", settings={**quick, **plateau})
    assert "no better validation score for 2 epochs" in capfd.readouterr().err
    lines = history(fold(planned, work))
    assert len(lines) == 5
    assert lines[-1]["learning_rate"] < lines[2]["learning_rate"]
    assert Checkpoint.read(fold(planned, work).latest).complete


def test_what_is_evaluated_is_the_average_of_the_steps(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    checkpoint = Checkpoint.read(fold(planned, work).latest)
    name = "head.weight"
    assert not torch.equal(checkpoint.network[name], checkpoint.resume["network"][name])
    api.train(planned[0], work, fold=[1], weights="random", settings={**quick, "averaging": 0})
    checkpoint = Checkpoint.read(fold(planned, work, 1).latest)
    assert torch.equal(checkpoint.network[name], checkpoint.resume["network"][name])


def test_accumulated_batches_are_one_larger_batch(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    one_step = {**quick, "epochs": 1, "accumulate": 3, "steps_per_epoch": 2}
    api.train(planned[0], work, fold=[0], weights="random", settings=one_step)
    line = history(fold(planned, work))[0]
    assert line["step"] == 2
    assert line["patches"] == 2 * 3 * Plan.read(Workspace.of(planned[0].name, work).plan).configuration("dx").batch_size


def test_deep_supervision_is_planned_trained_and_predicted_with(
    planned: tuple[Path, Path], tmp_path: Path, quick: dict[str, object]
) -> None:
    options = PlanOptions(memory=1, trial=False, deep_supervision=True)
    api.plan_and_preprocess(planned[0], tmp_path, options=options, processes=1)
    api.train(planned[0], tmp_path, fold=[0], weights="random", settings=quick)
    folder = fold(planned, tmp_path)
    assert any(name.startswith("heads.") for name in Checkpoint.read(folder.latest).network)
    assert (folder.validation / "summary.json").exists()


def test_where_compiling_fails_training_goes_on_and_says_so(
    planned: tuple[Path, Path],
    work: Path,
    quick: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def no_compiler(self: torch.nn.Module) -> None:
        raise RuntimeError("no C++ compiler here")

    monkeypatch.setattr(torch.nn.Module, "compile", no_compiler)
    api.train(planned[0], work, fold=[0], weights="random", settings={**quick, "compile": True})
    assert "torch.compile does not work here (no C++ compiler here)" in capfd.readouterr().err
    assert Checkpoint.read(fold(planned, work).latest).complete


def test_a_finished_run_is_skipped_and_can_be_extended(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    folder = fold(planned, work)
    written = folder.latest.stat().st_mtime_ns
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    assert folder.latest.stat().st_mtime_ns == written
    assert "already trained" in capfd.readouterr().err
    api.train(planned[0], work, fold=[0], weights="random", settings={**quick, "epochs": 3})
    assert [line["epoch"] for line in history(folder)] == [1, 2, 3]
    assert (folder.validation / "summary.json").exists()


def test_a_run_that_ends_by_its_time_is_complete(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings={**quick, "epochs": 10000, "max_seconds": 1.0})
    checkpoint = Checkpoint.read(fold(planned, work).latest)
    assert checkpoint.complete
    assert checkpoint.progress["seconds"] < 60


def test_restart_forgets(planned: tuple[Path, Path], work: Path, quick: dict[str, object]) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings={**quick, "epochs": 3})
    api.train(planned[0], work, fold=[0], weights="random", settings=quick, restart=True)
    assert len(history(fold(planned, work))) == 2


def test_a_restart_that_cannot_begin_leaves_the_trained_fold(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    with pytest.raises(UserError, match="nowhere"):
        api.train(planned[0], work, fold=[0], weights="nowhere.pth", settings=quick, restart=True)
    assert Checkpoint.read(fold(planned, work).latest).complete


def test_a_fold_whose_cases_changed_is_not_taken_for_trained(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    splits = Workspace.of(planned[0].name, work).splits
    splits.write_text(json.dumps(list(reversed(json.loads(splits.read_text())))))
    with pytest.raises(UserError, match="other cases"):
        api.train(planned[0], work, fold=[0], weights="random", settings=quick)


def test_folds_of_another_plan_are_left_out_of_the_summary(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    space = Workspace.of(planned[0].name, work)
    plan = Plan.read(space.plan)
    dx = plan.configuration("dx").model_copy(update={"batch_size": 3})
    plan.model_copy(update={"configurations": {**plan.configurations, "dx": dx}}).write(space.plan)
    api.train(planned[0], work, fold=[1], weights="random", settings=quick)
    assert "left out" in capfd.readouterr().err
    assert len(json.loads((space.model("dx") / "summary.json").read_text())["metric_per_case"]) == 1


def test_a_loss_that_is_not_finite_names_step_and_cases_and_keeps_the_last_checkpoint(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = fit_module.DiceCrossEntropy.forward, []

    def sometimes_nan(self: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        loss = real(self, logits, target)
        return loss * float("nan") if len(calls) > 3 and torch.is_grad_enabled() else loss

    monkeypatch.setattr(fit_module.DiceCrossEntropy, "forward", sometimes_nan)
    with pytest.raises(UserError, match=r"loss is nan at step 2, on cases case_0\d"):
        api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    assert Checkpoint.read(fold(planned, work).latest).progress["epoch"] == 1


def test_all_trains_on_every_case_and_validates_with_none(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    api.train(planned[0], work, fold=["all"], weights="random", settings=quick)
    folder = fold(planned, work, "all")
    assert Checkpoint.read(folder.latest).complete
    assert not folder.validation.exists()


def test_dx_starts_from_this_datasets_omnia_of_the_same_fold(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    with pytest.raises(UserError, match=r"--config omnia --fold 0"):
        api.train(planned[0], work, fold=[0], weights="omnia", settings=quick)
    api.train(planned[0], work, "omnia", [0], "random", settings=quick)
    api.train(planned[0], work, "dx", [0], "omnia", settings=quick)
    provenance = Checkpoint.read(fold(planned, work).latest).provenance
    assert "omnia/fold_0" in provenance["model"]
    assert provenance["report"]["parameters"]["new"] == 0


def test_slices_and_volumes_are_ensembled_on_the_original_grid(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object]
) -> None:
    raw = planned[0]
    for config in ("omnia", "dx"):
        api.train(raw, work, config, [0], "random", settings=quick)
    alone = [work / "omnia_alone", work / "dx_alone"]
    for output, config in zip(alone, ("omnia", "dx"), strict=True):
        api.predict(raw, raw / "imagesTs", output, work, config=[config], probabilities=True)
    api.predict(raw, raw / "imagesTs", work / "both", work, config=["omnia", "dx"], probabilities=True)
    single = [np.load(output / "case_05.npz")["probabilities"].astype(float) for output in alone]
    both = np.load(work / "both" / "case_05.npz")["probabilities"].astype(float)
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, atol=2e-3)
    label, _ = read_label(work / "both" / "case_05.nii.gz")
    clear = np.sort(both, axis=0)[-1] - np.sort(both, axis=0)[-2] > 5e-3
    np.testing.assert_array_equal(label[clear], both.argmax(axis=0)[clear])


def test_one_image_is_segmented_from_python(planned: tuple[Path, Path], work: Path, quick: dict[str, object]) -> None:
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    predictor = Predictor.load(Workspace.of(planned[0].name, work).model("dx"))
    found = predictor(np.random.default_rng(0).normal(size=(1, 9, 31, 22)), spacing=(2.0, 1.0, 1.0), probabilities=True)
    assert found.label.shape == (9, 31, 22)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities.astype(float).sum(axis=0), 1, atol=5e-3)
    with pytest.raises(UserError, match=r"1 channel\(s\): phantom"):
        predictor(np.zeros((2, 9, 9, 9)), (1.0, 1.0, 1.0))


def test_frozen_encoders_stay_as_they_are(planned: tuple[Path, Path], work: Path, quick: dict[str, object]) -> None:
    start = fold(planned, work)
    api.train(planned[0], work, fold=[0], weights="random", settings=quick)
    frozen = {**quick, "frozen_epochs": 2, "freeze_statistics": True, "seed": 7}
    api.train(planned[0], work, "dx", [1], str(start.root), settings=frozen)
    before, after = Checkpoint.read(start.latest).network, Checkpoint.read(fold(planned, work, 1).latest).network
    for name, tensor in before.items():
        if name.startswith("encoder."):
            assert torch.equal(tensor, after[name]), name
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("weights", ["imagenet", "nowhere.pth"])
def test_weights_that_cannot_be_had_are_an_error_and_nothing_is_trained(
    planned: tuple[Path, Path], work: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(work / "empty_cache"))
    with pytest.raises(UserError, match="--weights"):
        api.train(planned[0], work, fold=[0], weights=weights)
    assert not fold(planned, work).latest.exists()


@pytest.mark.skipif(not REAL_WEIGHTS.exists(), reason="the real weights are not beside this checkout")
def test_real_weights_are_loaded_and_reported(
    planned: tuple[Path, Path], tmp_path: Path, quick: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    options = PlanOptions(memory=1, trial=False, encoder="tf_efficientnetv2_b0")
    api.plan_and_preprocess(planned[0], tmp_path, options=options, processes=1)
    api.train(planned[0], tmp_path, fold=[0], weights=str(REAL_WEIGHTS), settings=quick)
    assert "parameters in" in capfd.readouterr().err
    provenance = Checkpoint.read(fold(planned, tmp_path).latest).provenance
    assert provenance["sha256"].startswith("12de0bf005df")
    assert provenance["report"]["parameters"]["adapted"] > 0
