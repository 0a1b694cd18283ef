"""Whole trained networks into networks of other dimensions, channels and labels."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from autocrossdim.networks.build import build_network
from autocrossdim.networks.transfer import transfer
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError


def make_plan(dims: int, levels: int = 3, **fields) -> NetworkPlan:
    defaults = {"encoder": "test_efficientnet", "dims": dims, "in_channels": 1, "num_outputs": 3}
    defaults |= {"strides": [[2] * dims] * levels, "kernel_sizes": [[3] * dims] * (levels + 1)}
    return NetworkPlan.model_validate(defaults | fields)


def trained(plan: NetworkPlan, seed: int = 0) -> nn.Module:
    """As if: with all statistics and parameters moved."""
    torch.manual_seed(seed)
    network = build_network(plan, None).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim == 1:
            value.add_(torch.randn_like(value) * 0.1)
    return network


def error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return ((result - expected).abs().max() / expected.abs().max()).item()


def test_dx_from_omnia_is_the_same_function_on_depth_constant_volumes() -> None:
    """The whole network crosses: encoder, decoder, pre-block, head, statistics."""
    source_plan, target_plan = make_plan(2), make_plan(3)
    source, target = trained(source_plan), build_network(target_plan, None).eval()
    report = transfer(source.state_dict(), source_plan, target, "this dataset's omnia, fold 0")
    assert report.parameters["new"] == 0
    assert report is target.load_report
    x = torch.randn(1, 1, 32, 40)
    with torch.no_grad():
        logits = target(x.unsqueeze(2).repeat(1, 1, 19, 1, 1))
        assert error(logits, source(x).unsqueeze(2).expand_as(logits)) < 1e-5


@pytest.mark.parametrize("up", ["nearest", "transpose"])
def test_the_same_with_late_depth_strides_and_either_up_sampling(up: str) -> None:
    source_plan = make_plan(2, up=up)
    strides = {"strides": [[1, 2, 2], [1, 2, 2], [2, 2, 2]], "kernel_sizes": [[1, 3, 3]] * 2 + [[3, 3, 3]] * 2}
    source, target = trained(source_plan), build_network(make_plan(3, up=up, **strides), None).eval()
    assert transfer(source.state_dict(), source_plan, target).parameters["new"] == 0
    x = torch.randn(1, 1, 32, 40)
    with torch.no_grad():
        logits = target(x.unsqueeze(2).repeat(1, 1, 9, 1, 1))
        assert error(logits, source(x).unsqueeze(2).expand_as(logits)) < 1e-5


@pytest.mark.parametrize("mode", ["average", "replicate", "acs"])
def test_the_other_rules(mode: str) -> None:
    source_plan = make_plan(2)
    source, target = trained(source_plan), build_network(make_plan(3, inflation=mode), None)
    transfer(source.state_dict(), source_plan, target)
    theirs, ours = source.state_dict(), target.state_dict()
    kernel, name = theirs["decoder.level0.conv1.conv.weight"], "decoder.level0.conv1.conv.weight"
    expected = {"average": kernel / 3, "replicate": kernel, "acs": torch.zeros_like(kernel)}[mode]
    torch.testing.assert_close(ours[name][:, :, 0], expected)
    if mode == "acs":
        assert torch.equal(ours["encoder.conv_stem.weight"], theirs["encoder.conv_stem.weight"])


def test_other_channels_and_labels_are_adapted_and_new_and_reported() -> None:
    source_plan, target_plan = make_plan(2), make_plan(3, in_channels=4, num_outputs=2)
    source, target = trained(source_plan), build_network(target_plan, None)
    head = target.head.weight.clone()
    report = transfer(source.state_dict(), source_plan, target)
    layers = {name: (status, why) for name, status, why in report.layers}
    stem = ("adapted", "channels 1 -> 4, kernel 3x3 -> 3x3x3 by center")
    assert layers["encoder.conv_stem.weight"] == layers["pre.conv.weight"] == stem
    assert layers["decoder.level1.conv2.norm.running_mean"] == ("matched", "")
    assert layers["head.weight"] == ("new", "shape 3x16x3x3 in the source, 2x16x3x3x3 here")
    assert {name for name, (status, _) in layers.items() if status == "new"} == {"head.weight", "head.bias"}
    assert torch.equal(target.head.weight, head)
    torch.testing.assert_close(target.pre.conv.weight[:, :, 1].sum(1), source.pre.conv.weight[:, 0])
    assert json.loads(json.dumps(asdict(report)))["source"] == "a trained model"


def test_masks_of_a_previous_stage_start_without_effect_and_are_kept_where_there_are_as_many() -> None:
    plain, cascade = make_plan(3), make_plan(3, in_channels=3, mask_channels=2)
    source, target = trained(plain), build_network(cascade, None).eval()
    transfer(source.state_dict(), plain, target)
    image, masks = torch.randn(1, 1, 16, 16, 16), torch.ones(1, 2, 16, 16, 16)
    torch.testing.assert_close(target(torch.cat([image, masks], dim=1)), source(image))

    again = trained(cascade)
    more_channels = build_network(make_plan(3, in_channels=4, mask_channels=2), None)
    transfer(again.state_dict(), cascade, more_channels)
    assert torch.equal(more_channels.pre.conv.weight[:, -2:], again.pre.conv.weight[:, -2:])


def test_a_shallower_network_takes_what_it_has_room_for() -> None:
    source_plan = make_plan(2, levels=4)
    source, target = trained(source_plan), build_network(make_plan(3, levels=3), None)
    report = transfer(source.state_dict(), source_plan, target)
    new = {name for name, status, _ in report.layers if status == "new"}
    # The deepest block of the decoder now gets the encoder's feature instead of a block's.
    assert new == {"decoder.level2.conv1.conv.weight"}
    assert any(name.startswith("decoder.level3.") for name in report.unused)


def test_3d_to_3d_copies() -> None:
    plan = make_plan(3, inflation="acs")
    source, target = trained(plan), build_network(plan, None).eval()
    report = transfer(source.state_dict(), plan, target)
    assert {status for _, status, _ in report.layers} == {"matched"}
    x = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(source(x), target(x))


def test_the_papers_networks_cross_too() -> None:
    """Its transposed convolutions, which Omnia-Net does not have, are all that is new."""
    small = {"encoder": "test_efficientnet", "strides": [[2, 2]] * 3, "kernel_sizes": [[3, 3]] * 4}
    source_plan = NetworkPlan.paper("omnia", 1, 5, **small)
    small = {"encoder": "test_efficientnet", "strides": [[2, 2, 2]] * 3, "kernel_sizes": [[3, 3, 3]] * 4}
    target = build_network(NetworkPlan.paper("dx", 1, 5, **small), None)
    report = transfer(trained(source_plan).state_dict(), source_plan, target)
    new = {name for name, status, _ in report.layers if status == "new"}
    assert new == {f"decoder.level{level}.up.{kind}" for level in range(3) for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ({"dims": 3}, {"dims": 2}, "is 3D: its weights cannot start a 2D network"),
        ({"dims": 2}, {"dims": 3, "encoder": "test_resnet"}, "encoder is test_efficientnet, the plan's test_resnet"),
        ({"dims": 2}, {"dims": 2, "network": "paper"}, "network is default, the plan's paper"),
        (
            {"dims": 2},
            {"dims": 3, "kind": "ds", "depth": 20, "strides": [[1, 2, 2]] * 3},
            "kind is unet, the plan's ds",
        ),
        ({"dims": 3, "inflation": "acs"}, {"dims": 3}, "inflated by acs, the plan says center"),
    ],
)
def test_what_cannot_cross_is_an_error(source, target, message: str) -> None:
    source_plan = make_plan(**source)
    with torch.device("meta"):
        state = build_network(source_plan, None).state_dict()
        network = build_network(make_plan(**target), None)
    with pytest.raises(UserError, match=message):
        transfer(state, source_plan, network)


def test_a_state_without_anything_in_common_is_an_error() -> None:
    network = build_network(make_plan(2), None)
    with pytest.raises(UserError, match="none of its tensors fits the planned network"):
        transfer({"layer.weight": torch.zeros(3)}, make_plan(2), network)
