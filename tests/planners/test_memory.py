import pytest
import torch

from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from planners.memory import StepMemory, _LiveBytes, step_memory
from trainers.step import make_loss, make_optimizer, training_step


def plan(dims: int, **changes: object) -> NetworkPlan:
    fields = {
        "dims": dims,
        "encoder": "efficientnet_b0",
        "in_channels": 1,
        "num_outputs": 3,
        "strides": [[2] * dims] * 3,
        "kernel_sizes": [[3] * dims] * 4,
    }
    return NetworkPlan.model_validate(fields | changes)


def test_peak_of_three_tensors_of_which_two_are_freed() -> None:
    with _LiveBytes() as live:
        first = torch.empty(1000, device="meta")
        second = first + 1
        third = second * second
        del first, second
        assert live.now == third.nbytes
    assert live.peak == 3 * 4000


def test_views_and_in_place_operations_take_no_memory() -> None:
    with _LiveBytes() as live:
        tensor = torch.empty(10, 100, device="meta")
        tensor.view(1000).add_(1)
        tensor[2:5].mul_(2)
    assert live.peak == 4000


@pytest.mark.parametrize(("dims", "regions"), [(2, False), (2, True), (3, False)])
def test_the_computed_peak_is_that_of_a_real_step(dims: int, regions: bool) -> None:
    memory, patch = StepMemory(plan(dims), mixed=False, regions=regions), (32,) * dims
    network = build_network(memory.plan, None).train()
    optimizer, loss = make_optimizer(network, learning_rate=1e-3), make_loss(regions=regions)
    with _LiveBytes() as live:
        image, target = torch.randn(3, 1, *patch), torch.zeros(3, *([3] if regions else []), *patch, dtype=torch.int64)
        training_step(network, loss, optimizer, [(image, target)])
    assert (memory.training(patch, 3) - memory.fixed_bytes) / memory.overhead == pytest.approx(live.peak, rel=0.05)


def test_the_optimisers_moments_are_counted_once() -> None:
    # The smallest patch of a large encoder: weights, average, gradients and moments are most of the memory.
    memory = StepMemory(plan(2, strides=[[2, 2]] * 5, kernel_sizes=[[3, 3]] * 6), mixed=False)
    parameters = sum(parameter.nbytes for parameter in memory.network.parameters())
    assert memory.training((32, 32), 2) < memory.fixed_bytes + 2 * memory.overhead * parameters


def test_memory_grows_with_batch_and_patch_and_is_less_for_inference() -> None:
    memory = StepMemory(plan(2), mixed=False)
    assert memory.training((64, 64), 2) < memory.training((64, 64), 3) < memory.training((96, 64), 3)
    assert memory.inference((64, 64), 2) < memory.training((64, 64), 2)


def test_on_a_gpu_the_next_batch_is_counted() -> None:
    memory = StepMemory(plan(3), mixed=True)
    step = memory.overhead * memory.training_peak((32,) * 3, 2)
    image, target = 4 * 2 * 32**3, 8 * 2 * 32**3
    assert memory.training((32,) * 3, 2) == pytest.approx(memory.fixed_bytes + step + image + target, abs=1)


def test_sixteen_bits_take_little_more_than_half_the_memory() -> None:
    single, mixed = StepMemory(plan(3), mixed=False), StepMemory(plan(3), mixed=True)
    ratio = (mixed.training((32,) * 3, 8) - mixed.fixed_bytes) / (single.training((32,) * 3, 8) - single.fixed_bytes)
    assert 0.45 < ratio < 0.65


def test_multiply_adds_grow_with_the_patch() -> None:
    memory = StepMemory(plan(2), mixed=False)
    assert memory.multiply_adds((64, 64)) == pytest.approx(4 * memory.multiply_adds((32, 32)), rel=0.01)


def test_what_was_computed_is_kept_and_does_not_depend_on_the_order() -> None:
    network, patch = plan(2), (32, 32)
    kept = step_memory(network, mixed=False, regions=False)
    assert step_memory(plan(2), mixed=False, regions=False) is kept
    assert step_memory(network, mixed=True, regions=False) is not kept
    inference, training = kept.inference(patch, 2), kept.training(patch, 3)
    fresh = StepMemory(network, mixed=False)
    assert (fresh.training(patch, 3), fresh.inference(patch, 2)) == (training, inference)
