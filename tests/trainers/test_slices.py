from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder
from trainers.run import Run
from trainers.slices import run_on_slices, run_on_volumes, slices_of, starts_on_slices

MakeRun = Callable[..., Run]


def test_the_2d_counterpart_is_the_same_network_without_the_coarsest_axis(make_run: MakeRun) -> None:
    run = make_run(dims=3)
    dx, slices = run.configuration, run_on_slices(run)
    two, three = slices.task.plan.network_plan(slices.configuration), run.task.plan.network_plan(dx)
    assert two.dims == 2
    assert [stride[1:] for stride in three.strides] == two.strides
    assert two.encoder == three.encoder
    share = slices.configuration.batch_size * prod(slices.configuration.patch_size)
    assert 0.1 < share / (dx.batch_size * prod(dx.patch_size)) < 0.2


def test_the_time_is_divided_and_the_2d_counterpart_has_twice_the_epochs(make_run: MakeRun) -> None:
    run = make_run(epochs=10, max_seconds=100)
    slices, volumes = run_on_slices(run).settings, run_on_volumes(run).settings
    assert slices.max_seconds is not None
    assert volumes.max_seconds is not None
    assert slices.max_seconds + volumes.max_seconds == 100
    assert (slices.epochs, volumes.epochs) == (20, 10)
    assert run_on_volumes(make_run()).settings.max_seconds is None
    assert run_on_slices(run).requested == run_on_volumes(run).requested == run.requested


def test_the_2d_counterpart_learns_at_half_the_rate(make_run: MakeRun) -> None:
    for run in (make_run(), make_run(learning_rate=0.02)):
        assert run_on_slices(run).learning_rate == run.learning_rate / 2
        assert run_on_volumes(run).learning_rate == run.learning_rate
    dx = make_run().configuration
    assert slices_of(dx).learning_rate == dx.learning_rate / 2


@pytest.mark.parametrize("weights", ["imagenet", "random", "weights.pth", "efficientnet_b0.ra_in1k"])
def test_dx_starts_on_slices_from_encoder_or_random_weights(make_run: MakeRun, weights: str) -> None:
    assert starts_on_slices(make_run(dims=3, weights=weights))
    assert not starts_on_slices(make_run(dims=2, weights=weights))
    assert not starts_on_slices(make_run(dims=3, weights=weights, slices_first=False))


def test_a_trained_model_is_trained_on_volumes_at_once(make_run: MakeRun, tmp_path: Path) -> None:
    for weights in ("omnia", str(tmp_path), "model.acd"):
        assert not starts_on_slices(make_run(dims=3, weights=weights))


def test_dx_starts_from_all_weights_of_its_2d_counterpart(
    train: Callable[..., FoldFolder], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = train(slices_first=True)
    said = capfd.readouterr().err
    assert said.index("dx_slices fold 0: epoch 4") < said.index("dx fold 0: epoch 1")
    checkpoint = Checkpoint.read(folder.latest)
    provenance = checkpoint.provenance
    assert "epochs" in (checkpoint.requested or ())
    assert checkpoint.environments == Checkpoint.read(folder.slices.latest).environments
    assert provenance["report"]["parameters"]["new"] == 0
    assert provenance["started_from"]["weights"] == "random"
    train(slices_first=True)
    assert "dx_slices" not in capfd.readouterr().err, "a complete fold needs no 2D counterpart"


@pytest.mark.slow
def test_a_restart_trains_both_networks_again(train: Callable[..., FoldFolder]) -> None:
    folder = train(slices_first=True)
    before = {file: file.stat().st_mtime_ns for file in (folder.latest, folder.slices.latest)}
    train(slices_first=True, restart=True)
    assert all(file.stat().st_mtime_ns > time for file, time in before.items())
