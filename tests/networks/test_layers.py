"""Layers of our own against torch's, where torch's are right."""

import copy

import pytest
import torch
from torch import nn

from autocrossdim.networks.layers import Conv3d


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("depth", [6, 7, 8])
def test_the_weight_gradient_of_wide_kernels_is_right_for_few_slices(depth: int, groups: int) -> None:
    # Without the padding, oneDNN's gradient is wrong at depths 6 and 7. In fp64, torch does not ask oneDNN.
    torch.manual_seed(0)
    layer = Conv3d(16, 16, 7, stride=2, padding=3, groups=groups)
    exact = copy.deepcopy(layer).double()
    image = torch.randn(2, 16, depth, 12, 12)
    found, expected = layer(image), exact(image.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    found.square().mean().backward()
    expected.square().mean().backward()
    assert layer.weight.grad is not None
    assert exact.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.double(), exact.weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "depth"),
    [(3, 2, 6), (7, 1, 6), (7, 2, 12)],
)
def test_all_other_convolutions_are_torchs_own(kernel: int, stride: int, depth: int) -> None:
    torch.manual_seed(0)
    layer = Conv3d(4, 4, kernel, stride=stride, padding=kernel // 2)
    torchs = nn.Conv3d(4, 4, kernel, stride=stride, padding=kernel // 2)
    torchs.load_state_dict(layer.state_dict())
    image = torch.randn(1, 4, depth, 8, 8)
    assert torch.equal(layer(image), torchs(image))
