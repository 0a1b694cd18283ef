from typing import Any

import pytest

from autocrossdim.records.network import NetworkPlan
from planners import sizing
from planners.memory import StepMemory
from planners.sizing import Sizer
from planners.trial import Outcome, Trial, attempt, try_out

PLAN = NetworkPlan(
    dims=2,
    encoder="resnet18",
    in_channels=1,
    num_outputs=2,
    strides=[[2, 2]] * 2,
    kernel_sizes=[[3, 3]] * 3,
)


def test_a_real_step_is_run_in_a_process_of_its_own() -> None:
    outcome = attempt(Trial(network=PLAN, patch=(32, 32), batch=2, mixed=False))
    assert outcome.fits
    assert outcome.seconds is not None
    assert 0 < outcome.seconds < 30


def test_a_step_too_long_for_a_cpu_is_scaled_up_from_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Trial] = []

    def quick(trial: Trial) -> Outcome:
        tried.append(trial)
        return Outcome(seconds=1.0)

    monkeypatch.setattr("planners.trial.attempt", quick)
    monkeypatch.setattr("planners.trial.torch.cuda.is_available", lambda: False)
    memory = StepMemory(PLAN, mixed=False)
    outcome = try_out(memory, (2048, 2048), 8)
    assert tried[0].patch < (2048, 2048)
    larger = memory.multiply_adds((2048, 2048)) * 8 / (memory.multiply_adds(tried[0].patch) * tried[0].batch)
    assert outcome.seconds == pytest.approx(larger)


def test_a_plan_steps_down_until_the_gpu_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[Any] = []

    def full_gpu(memory: StepMemory, patch: tuple[int, ...], batch: int) -> Outcome:
        sizes.append((patch, batch))
        return Outcome(fits=len(sizes) == 3, peak_bytes=123)

    monkeypatch.setattr(sizing, "try_out", full_gpu)
    sizer = Sizer(
        channels=1,
        num_outputs=2,
        encoder="resnet18",
        network="default",
        inflation="center",
        slices=1,
        mixed=False,
        budget_bytes=2**30,
        trial=True,
    )
    size, outcome = sizer.size_that_runs((256, 256), (1.0, 1.0), 10**9)
    assert outcome.peak_bytes == 123
    assert len(sizes) == 3
    assert sizes[0][1] > sizes[1][1] > sizes[2][1] == size.batch
