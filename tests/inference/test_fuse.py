from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autocrossdim.inference.fuse import FusedDecoderBlock, fuse
from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.device import memory_format_for


def trained(**fields: object) -> nn.Module:
    """Return a network whose batch norms have statistics as after training."""
    dims = fields.get("dims", 2)
    defaults = {"dims": dims, "encoder": "efficientnet_b0", "in_channels": 1, "num_outputs": 3}
    defaults |= {"strides": [[2] * dims] * 3, "kernel_sizes": [[3] * dims] * 4}
    torch.manual_seed(0)
    network = build_network(NetworkPlan.model_validate(defaults | fields), None)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, (64, 48)),
        ({}, (37, 50)),  # not a multiple of the strides, so upsampled features are cropped
        ({"encoder": "tf_efficientnet_b0"}, (32, 32)),
        ({"encoder": "resnet18"}, (32, 32)),
        ({"encoder": "regnety_002"}, (32, 32)),
        ({"encoder": "convnext_atto"}, (32, 32)),  # its stem skips a level
        ({"encoder": "repvit_m0_9"}, (32, 32)),  # a norm is registered behind a convolution that it does not follow
        ({"dims": 3}, (16, 24, 16)),
        ({"dims": 3, "inflation": "acs"}, (16, 16, 16)),
        ({"dims": 3, "network": "paper"}, (16, 16, 16)),
        (
            {
                "dims": 3,
                "strides": [[1, 2, 2], [2, 2, 2], [2, 1, 2]],
                "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
            },
            (5, 24, 16),
        ),
        ({"dims": 3, "kind": "ds", "depth": 8, "strides": [[1, 2, 2]] * 3}, (8, 32, 32)),
    ],
)
def test_the_function_of_the_network_stays_the_same(fields: dict[str, object], shape: tuple[int, ...]) -> None:
    network = trained(**fields)
    image = torch.randn(2, 1, *shape)
    with torch.inference_mode():
        expected = network(image)
    fuse(network)
    network.to(memory_format=memory_format_for(len(shape)))
    with torch.inference_mode():
        found = network(image)
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(
    "fields", [{}, {"encoder": "resnet18"}, {"encoder": "densenet121"}, {"encoder": "resnetv2_18"}, {"dims": 3}]
)
def test_with_image_statistics_every_batch_norm_sees_the_image(fields: dict[str, object]) -> None:
    network = trained(**fields)
    images = torch.randn(2, 1, *[32] * int(str(fields.get("dims", 2))))
    by_hand = deepcopy(network)
    for module in by_hand.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(mix_statistics)
    with torch.inference_mode():
        expected = torch.cat([deepcopy(by_hand)(image[None]) for image in images])
    fuse(network, image_statistics=0.3)
    with torch.inference_mode():
        found = network(images)
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def mix_statistics(norm: _BatchNorm, inputs: tuple[torch.Tensor]) -> None:
    """Give a batch norm 70 % of its own statistics and 30 % of those of the one image that follows."""
    (image,) = inputs
    values = image.movedim(1, 0).flatten(1)
    norm.running_mean.mul_(0.7).add_(0.3 * values.mean(1))
    norm.running_var.mul_(0.7).add_(0.3 * values.var(1, correction=0))


def test_image_statistics_make_contrast_matter_less() -> None:
    network, image = trained(), torch.randn(1, 1, 32, 32)

    def change(network: nn.Module) -> float:
        with torch.inference_mode():
            return float((network(image) - network(3 * image + 1)).abs().mean())

    adapted = deepcopy(network)
    fuse(adapted, image_statistics=0.9)
    assert change(adapted) < 0.5 * change(network)


def test_batch_norms_and_upsampling_are_gone() -> None:
    network = trained(dims=3)
    fuse(network)
    assert not any(isinstance(module, _BatchNorm) for module in network.modules())
    assert sum(isinstance(module, FusedDecoderBlock) for module in network.modules()) == 3
