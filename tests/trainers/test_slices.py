from math import prod
from pathlib import Path

import pytest

from autocrossdim import api
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from trainers.settings import Settings
from trainers.slices import goes_by_slices, settings_after, twin_of, twin_settings, with_configuration


def plan_of(planned: tuple[Path, Path]) -> Plan:
    return Plan.read(Workspace.of(planned[0].name, planned[1]).plan)


def test_the_twin_is_the_same_network_without_the_coarsest_axis(planned: tuple[Path, Path]) -> None:
    plan = plan_of(planned)
    dx = plan.configuration("dx")
    twin = twin_of(dx)
    two, three = with_configuration(plan, twin).network_plan(twin), plan.network_plan(dx)
    assert two.dims == 2
    assert [stride[1:] for stride in three.strides] == two.strides
    assert two.encoder == three.encoder
    share = twin.batch_size * prod(twin.patch_size) / (dx.batch_size * prod(dx.patch_size))
    assert 0.1 < share < 0.2


def test_the_time_is_divided_and_epochs_are_doubled() -> None:
    settings = Settings(epochs=10, max_seconds=100, learning_rate=2e-3)
    twin, after = twin_settings(settings), settings_after(settings)
    assert twin.max_seconds is not None
    assert after.max_seconds is not None
    assert twin.max_seconds + after.max_seconds == 100
    assert (twin.epochs, after.epochs) == (20, 10)
    assert (twin.learning_rate, after.learning_rate) == (1e-3, 2e-3)
    assert settings_after(Settings()).max_seconds is None


@pytest.mark.parametrize("weights", ["imagenet", "random", "weights.pth", "efficientnet_b0.ra_in1k"])
def test_dx_goes_by_slices_from_encoder_weights(planned: tuple[Path, Path], weights: str) -> None:
    plan = plan_of(planned)
    assert goes_by_slices(plan.configuration("dx"), Settings(), weights)
    assert not goes_by_slices(plan.configuration("omnia"), Settings(), weights)
    assert not goes_by_slices(plan.configuration("dx"), Settings(slices_first=False), weights)


def test_a_model_or_the_papers_network_starts_at_once(planned: tuple[Path, Path], tmp_path: Path) -> None:
    dx = plan_of(planned).configuration("dx")
    for weights in ("omnia", str(tmp_path), "model.acd"):
        assert not goes_by_slices(dx, Settings(), weights)
    assert not goes_by_slices(dx.model_copy(update={"network": "paper"}), Settings(), "imagenet")


def test_dx_starts_from_all_of_its_trained_twin(
    planned: tuple[Path, Path], work: Path, quick: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {**quick, "slices_first": True}
    api.train(planned[0], work, fold=[0], weights="random", settings=settings)
    said = capfd.readouterr().err
    assert said.index("dx_slices fold 0: epoch 4") < said.index("dx fold 0: epoch 1")
    space = Workspace.of(planned[0].name, work)
    provenance = Checkpoint.read(space.fold("dx", 0).latest).provenance
    assert provenance["report"]["parameters"]["new"] == 0
    assert provenance["started_from"]["weights"] == "random"
    api.train(planned[0], work, fold=[0], weights="random", settings=settings)
    assert "dx_slices" not in capfd.readouterr().err, "what is trained is not begun again"
