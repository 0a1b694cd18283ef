"""What a GPU computes, with tensors that have a device but no values: no GPU is needed.

PyTorch refuses them where tensors of two devices meet, and where a value is read, which would make the CPU wait for the
GPU. Backward passes need a real GPU.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from autocrossdim.inference import sliding_window
from autocrossdim.inference.body import Body
from autocrossdim.inference.restore import segmented, to_probabilities
from autocrossdim.inference.sliding_window import Window, logits_by_slab
from autocrossdim.inference.uncertainty import entropy, soft_dice_sums, temper
from autocrossdim.networks.build import build_network
from autocrossdim.records.labels import Labels
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.device import memory_format_for
from trainers.augment import blur, change_contrast, drop_channels, lower_resolution
from trainers.average import Average
from trainers.pseudo_dice import PseudoDice
from trainers.step import make_loss, make_optimizer
from trainers.strength import STRONG
from trainers.warp import _grid, draw_warp, source_shape

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="this build of PyTorch does not know CUDA"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),  # by copy.deepcopy
]
GPU = torch.device("cuda", 0)
CLASSES = Labels.from_dataset_json({"background": 0, "a": 1, "b": 2})
SIDE = 16


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """Return the context in which tensors have no values; those that exist already are copied when they are used."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    return FakeTensorMode(allow_non_fake_inputs=True)


def network_on_gpu(dims: int, fake: FakeTensorMode) -> Any:
    """Return a network whose tensors are on the GPU."""
    plan = {
        "dims": dims,
        "encoder": "test_efficientnet",
        "in_channels": 1,
        "num_outputs": 3,
        "strides": [[2] * dims] * 3,
        "kernel_sizes": [[3] * dims] * 4,
    }
    network = build_network(NetworkPlan.model_validate(plan), None)
    with fake:
        for module in network.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(torch.empty(weight.shape, device=GPU)))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU))
    return network


def batch(dims: int, *, regions: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    patch = (SIDE,) * dims
    image = torch.randn(2, 1, *patch, device=GPU).contiguous(memory_format=memory_format_for(dims))
    return image, torch.zeros(2, *([3] if regions else []), *patch, dtype=torch.int64, device=GPU)


def test_reading_a_value_and_mixing_devices_are_refused(fake: FakeTensorMode) -> None:
    with fake:
        with pytest.raises(DataDependentOutputException):
            torch.ones(2, device=GPU).sum().item()
        with pytest.raises(Exception, match="devices"):
            torch.ones(2, device=GPU) + torch.ones(2)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("regions", "class_sets", "soft"),
    [(False, (), False), (True, (), False), (False, ((0, 1),), False), (False, (), True)],
    ids=["classes", "regions", "incomplete annotation", "teachers"],
)
def test_no_part_of_a_training_step_waits(
    dims: int, regions: bool, class_sets: tuple[tuple[int, ...], ...], soft: bool, fake: FakeTensorMode
) -> None:
    network = network_on_gpu(dims, fake).train()
    loss = make_loss(regions=regions, class_sets=class_sets, soft_targets=soft)
    with fake:
        image, target = batch(dims, regions=regions)
        if soft:
            target = torch.rand(2, 3, *image.shape[2:], device=GPU)
        with torch.no_grad():
            value = loss(network(image), target)
        assert (value.device, value.shape) == (GPU, ())
        optimizer, average = make_optimizer(network, learning_rate=1e-3), Average(network, 0.05)
        for step in range(1, 3):
            for weight in network.parameters():
                weight.grad = torch.empty_like(weight)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimizer.step()
            average.update(network, step)


def test_scores_are_read_only_when_they_are_asked_for(fake: FakeTensorMode) -> None:
    dice = PseudoDice(CLASSES)
    with fake:
        dice.add(torch.randn(2, 3, SIDE, SIDE, device=GPU), batch(2)[1])
        with pytest.raises(DataDependentOutputException):
            dice.scores()


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # to autocast
@pytest.mark.parametrize(("dims", "masks"), [(2, ()), (3, ()), (3, ((1,), (2,)))], ids=["2D", "3D", "cascade"])
def test_no_part_of_sliding_window_prediction_waits(
    dims: int, masks: tuple[tuple[int, ...], ...], fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert (x.device, x.shape[1]) == (GPU, 1 + len(masks))
            return x[:, :1].expand(-1, 3, *x.shape[2:]).contiguous()

    patch = (8, 8, 8) if dims == 3 else (1, 8, 8)
    window = Window(dims, patch, 3, mirror_axes=(0, 1), masks=masks)
    monkeypatch.setattr(sliding_window, "gaussian", torch.ones)  # values of the real one are read, on the CPU
    with fake:
        body = Body(np.ones((12, 13, 14), bool), torch.zeros(3))
        image = torch.randn(2 if masks else 1, 12, 13, 14, device=GPU)
        slices = 0
        for slab in logits_by_slab([Network(), Network()], image, 3, window, body=body, device=GPU):
            values = temper(to_probabilities(slab[:, 0], CLASSES), CLASSES, 1.3)
            found = segmented(values, CLASSES)
            assert soft_dice_sums(values, CLASSES, found=found).device == entropy(values, CLASSES).device == GPU
            slices += slab.shape[1]
    assert slices == 12


@pytest.mark.parametrize("patch", [(20, 20), (16, 16, 16), (3, 20, 20)])
def test_patches_are_resampled_on_the_gpu(patch: tuple[int, ...], fake: FakeTensorMode) -> None:
    warps = [draw_warp(patch, np.random.default_rng(seed), STRONG) for seed in range(30)]
    warp = next(warp for warp in warps if warp is not None and warp.bend is not None)
    axes = patch[-len(warp.matrix) :]
    with fake:
        assert _grid(axes, source_shape(patch, warp)[-len(axes) :], warp, GPU).device == GPU
        image = torch.randn(2, *patch, device=GPU)
        for channel in image:
            blur(channel, np.full(channel.ndim, 0.7))
            change_contrast(channel, 1.2)
            lower_resolution(channel, 0.6)
        drop_channels(image, 0.5, np.random.default_rng(0))
