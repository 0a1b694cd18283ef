import pytest
import torch

from autocrossdim.system.errors import UserError
from trainers.losses import STEPS_BETWEEN_READS, Losses

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # only the name of the GPU matters


def filled(losses: Losses, *values: float) -> Losses:
    for step, value in enumerate(values):
        losses.add(step, torch.tensor(value), [f"case_{step}", "another"])
    return losses


def test_a_cpu_reads_every_loss_after_its_step() -> None:
    assert filled(Losses(CPU, 1), 0.5).is_due(stopping=False)


def test_a_gpu_is_waited_for_every_few_steps() -> None:
    losses = filled(Losses(GPU, 1), *[0.5] * (STEPS_BETWEEN_READS - 1))
    assert not losses.is_due(stopping=False)
    losses.add(9, torch.tensor(0.25), ["case_9"])
    assert losses.is_due(stopping=False)
    assert losses.read(stopping=False) == ([0.5] * 9 + [0.25], False)
    assert len(losses) == 0


def test_a_request_to_stop_is_followed_at_once_by_a_process_on_its_own() -> None:
    losses = filled(Losses(GPU, 1), 0.5)
    assert losses.is_due(stopping=True)
    assert losses.read(stopping=True) == ([0.5], True)


def test_processes_that_train_together_read_after_the_same_step() -> None:
    assert not filled(Losses(GPU, 2), 0.5).is_due(stopping=True)
    assert Losses(GPU, 2).read(stopping=True) == ([], False), "the others do not take part"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named_with_its_own_step_and_cases(value: float) -> None:
    with pytest.raises(UserError, match=f"The loss is {value} at step 2, on the cases case_2, another"):
        filled(Losses(GPU, 1), 1.0, 2.0, value, float("nan"), 1.0).read(stopping=False)
