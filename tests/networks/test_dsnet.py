"""DS-Net: 3D -> 2D -> 3D."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from autocrossdim.networks.build import build_network
from autocrossdim.networks.dsnet import depth_strides
from autocrossdim.records.network import NetworkPlan


def small_plan(**fields) -> NetworkPlan:
    defaults = {"encoder": "test_efficientnet", "strides": [[1, 2, 2]] * 3, "kernel_sizes": [[3, 3, 3]] * 4}
    return NetworkPlan.paper("ds", 4, 3, **defaults | {"depth": 20} | fields)


def test_the_papers_depths_and_kernels() -> None:
    with torch.device("meta"):
        network = build_network(NetworkPlan.paper("ds", 4, 3), None)
        depths, x = [], torch.zeros(2, 4, 128, 32, 32)
        for layer in [*network.down, *network.up]:
            x = layer(x)
            depths.append(x.shape[1:3])
    assert depths[:5] == [(16, 128), (32, 43), (48, 22), (96, 11), (4, 3)]
    assert depths[5:] == [(96, 11), (48, 22), (32, 43), (16, 128)]
    up = [m for m in network.up.modules() if isinstance(m, nn.ConvTranspose3d)]
    on_depth = [(m.kernel_size[0], m.stride[0], m.padding[0]) for m in up]
    assert on_depth == [(5, 3, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1)]


@given(st.integers(5, 700))
def test_depth_strides_leave_three_slices(depth: int) -> None:
    strides = depth_strides(depth)
    assert math.ceil(depth / math.prod(strides)) == 3
    for stride in strides:
        depth = -(-depth // stride)
    assert depth == 3


@pytest.mark.parametrize("depth", [5, 7, 16, 20, 33, 64, 97, 160])
def test_any_depth_any_plane_any_batch(depth: int) -> None:
    network = build_network(small_plan(depth=depth), None)
    x = torch.randn(1 + depth % 3, 4, depth, 17, 24)
    logits = network(x)
    assert logits.shape == (x.shape[0], 3, depth, 17, 24)
    logits.square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_cases_of_a_batch_do_not_mix() -> None:
    network = build_network(small_plan(), None).eval()
    x = torch.randn(3, 4, 20, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), atol=1e-4, rtol=1e-4)


def test_another_depth_than_the_plans_is_an_error() -> None:
    with pytest.raises(ValueError, match="patches of depth 20, not 21"):
        build_network(small_plan(), None)(torch.randn(1, 4, 21, 16, 16))


def test_depth_is_not_strided_twice() -> None:
    with pytest.raises(ValidationError, match="depth strides follow from its depth"):
        small_plan(strides=[[2, 2, 2]] * 3)
