from typing import Any

import pytest

from autocrossdim.records.network import NetworkPlan
from planners.memory import StepMemory
from planners.trial import Outcome, Trial, attempt, try_out

PLAN = NetworkPlan(
    dims=2,
    encoder="resnet18",
    in_channels=1,
    num_outputs=2,
    strides=[[2, 2]] * 2,
    kernel_sizes=[[3, 3]] * 3,
)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that were requested on a machine without a GPU; each of them takes a second per step."""
    requested: list[Trial] = []

    def quick(trial: Trial) -> Outcome:
        requested.append(trial)
        return Outcome(seconds=1.0)

    monkeypatch.setattr("planners.trial.attempt", quick)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return requested


def network(**changes: Any) -> NetworkPlan:
    three_axes = {"dims": 3, "strides": [[1, 2, 2]] * 2, "kernel_sizes": [[3, 3, 3]] * 3}
    return NetworkPlan.model_validate({**PLAN.model_dump(), **three_axes, **changes})


@pytest.mark.slow
def test_a_step_runs_in_a_separate_process() -> None:
    outcome = attempt(Trial(network=PLAN, patch=(32, 32), batch=2, mixed=False))
    assert outcome.fits
    assert outcome.seconds is not None
    assert 0 < outcome.seconds < 30


def test_the_time_of_a_long_step_is_extrapolated_from_a_smaller_one(tried: list[Trial]) -> None:
    memory = StepMemory(PLAN, mixed=False)
    outcome = try_out(memory, (2048, 2048), 8)
    assert tried[0].patch < (2048, 2048)
    larger = memory.multiply_adds((2048, 2048)) * 8 / (memory.multiply_adds(tried[0].patch) * tried[0].batch)
    assert outcome.seconds == pytest.approx(larger)


def test_thin_patches_shrink_in_plane(tried: list[Trial]) -> None:
    try_out(StepMemory(network(), mixed=False), (10, 512, 512), 2)
    assert tried[0].patch == (10, 32, 32)


def test_a_plain_unet_is_tried_with_two_voxels_at_its_coarsest_level(tried: list[Trial]) -> None:
    levels = {"strides": [[2, 2, 2]] * 5, "kernel_sizes": [[3, 3, 3]] * 6}
    try_out(StepMemory(network(kind="plain", encoder="none", **levels), mixed=False), (128, 128, 128), 2)
    assert tried[0].patch == (16, 16, 64)


def test_ds_net_is_tried_at_its_own_depth(tried: list[Trial]) -> None:
    try_out(StepMemory(network(kind="ds", depth=48), mixed=False), (48, 256, 256), 2)
    assert tried[0].patch[0] == 48
    assert tried[0].patch[1:] < (256, 256)
