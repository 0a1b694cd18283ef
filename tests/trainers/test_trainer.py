import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autocrossdim import api
from autocrossdim.checkpoint import Checkpoint
from autocrossdim.data.images import read_label
from autocrossdim.errors import UserError
from autocrossdim.inference.predictor import Predictor
from autocrossdim.plan import Plan
from autocrossdim.workspace import FoldFolder, Workspace
from trainers import trainer as trainer_module

REAL_WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "weights" / "tf_efficientnetv2_b0.imagenet.pth"


@pytest.fixture
def work(planned: tuple[Path, Path], tmp_path: Path) -> Path:
    """A work folder of one's own in which everything was planned."""
    return work_below(tmp_path / "work", planned)


def work_below(folder: Path, planned: tuple[Path, Path]) -> Path:
    raw, shared = planned
    space, mine = Workspace.of(raw.name, shared), Workspace.of(raw.name, folder)
    mine.root.mkdir(parents=True)
    for file in space.root.iterdir():
        if file.is_file():
            (mine.root / file.name).write_bytes(file.read_bytes())
    (mine.root / "preprocessed").symlink_to(space.root / "preprocessed")
    return folder


def fold(planned: tuple[Path, Path], work: Path, number: int | str = 0, config: str = "dx") -> FoldFolder:
    return Workspace.of(planned[0].name, work).fold(config, number)


def history(folder: FoldFolder) -> list[dict[str, Any]]:
    timed = ("seconds", "waited_for_data")
    lines = [json.loads(line) for line in folder.history.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


class Interrupted(Exception):
    """Stands for a power cut."""


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    planned: tuple[Path, Path], tmp_path: Path, quick: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**quick, "epochs": 4}
    whole, cut = work_below(tmp_path / "whole", planned), work_below(tmp_path / "cut", planned)
    api.train(planned[0], whole, fold=[0], weights="random", settings=settings)
    expected = Checkpoint.read(fold(planned, whole).latest)

    say, spoken = trainer_module._line, []

    def power_cut(*arguments: Any) -> str:
        spoken.append(say(*arguments))
        if len(spoken) == 2:
            raise Interrupted
        return spoken[-1]

    monkeypatch.setattr(trainer_module, "_line", power_cut)
    with pytest.raises(Interrupted):
        api.train(planned[0], cut, fold=[0], weights="random", settings=settings)
    folder = fold(planned, cut)
    assert Checkpoint.read(folder.latest).progress["epoch"] == 2
    api.train(planned[0], cut, fold=[0], weights="random", settings=settings)
    found = Checkpoint.read(folder.latest)
    assert history(folder) == history(fold(planned, whole))
    for name, tensor in expected.network.items():
        assert torch.equal(tensor, found.network[name]), name


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
    real, calls = trainer_module.DiceCrossEntropy.forward, []

    def sometimes_nan(self: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        loss = real(self, logits, target)
        return loss * float("nan") if len(calls) > 3 and torch.is_grad_enabled() else loss

    monkeypatch.setattr(trainer_module.DiceCrossEntropy, "forward", sometimes_nan)
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
    found = predictor(np.random.default_rng(0).normal(size=(1, 9, 31, 22)), (2.0, 1.0, 1.0), keep_probabilities=True)
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
    from autocrossdim.plan import PlanOptions

    options = PlanOptions(memory_gb=1, trial=False, encoder="tf_efficientnetv2_b0")
    api.plan_and_preprocess(planned[0], tmp_path, options=options, processes=1)
    api.train(planned[0], tmp_path, fold=[0], weights=str(REAL_WEIGHTS), settings=quick)
    assert "parameters in" in capfd.readouterr().err
    provenance = Checkpoint.read(fold(planned, tmp_path).latest).provenance
    assert provenance["sha256"].startswith("12de0bf005df")
    assert provenance["report"]["parameters"]["adapted"] > 0
