"""nnU-Net's network beside ours: built as nnU-Net builds it, from the plan of ours."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from autocrossdim.commands.nnunet_network import PACKAGE, nnunet_network
from autocrossdim.records.network import NetworkPlan

PLANS = {
    2: NetworkPlan(
        dims=2,
        encoder="test_efficientnet",
        in_channels=3,
        num_outputs=4,
        strides=[[2, 2]] * 5,
        kernel_sizes=[[3, 3]] * 6,
    ),
    3: NetworkPlan(
        dims=3,
        encoder="test_efficientnet",
        in_channels=1,
        num_outputs=3,
        strides=[[1, 2, 2], [2, 2, 2]],
        kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    ),
}


@pytest.mark.parametrize(("dims", "features"), [(2, [32, 64, 128, 256, 512, 512]), (3, [32, 64, 128])])
def test_features_double_up_to_a_limit_and_the_first_level_has_stride_1(
    dims: int, features: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def build(**options: Any) -> nn.Module:
        asked.update(options)
        return nn.Identity()

    monkeypatch.setitem(sys.modules, f"{PACKAGE}.architectures.unet", SimpleNamespace(PlainConvUNet=build))
    assert not nnunet_network(PLANS[dims]).training
    assert asked["features_per_stage"] == features
    assert asked["n_stages"] == len(asked["strides"]) == len(asked["kernel_sizes"])
    assert asked["strides"] == [[1] * dims, *PLANS[dims].strides]


@pytest.mark.parametrize("dims", PLANS)
def test_it_segments_what_ours_segments(dims: int) -> None:
    pytest.importorskip(PACKAGE, reason="nnU-Net is not installed")
    plan = PLANS[dims]
    image = torch.randn(1, plan.in_channels, *(32, 64, 64)[-dims:])
    with torch.no_grad():
        assert nnunet_network(plan)(image).shape == (1, plan.num_outputs, *image.shape[2:])
