"""Omnia-Net and DX-Net: the paper's to the channel, and what the plan's fields do."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan

PAPER = [  # with 1 input and 5 classes, counted by running the authors' files
    ("omnia", "efficientnet_b0", 5_846_113),
    ("omnia", "efficientnet_b4", 19_427_965),
    ("dx", "efficientnet_b0", 12_542_401),
]


def small_plan(dims: int = 2, **fields) -> NetworkPlan:
    defaults = {
        "dims": dims,
        "encoder": "test_efficientnet",
        "in_channels": 1,
        "num_outputs": 3,
        "strides": [[2] * dims] * 3,
        "kernel_sizes": [[3] * dims] * 4,
        "decoder_widths": [32, 16, 8],
    }
    return NetworkPlan.model_validate(defaults | fields)


@pytest.mark.parametrize(("kind", "encoder", "count"), PAPER)
def test_the_papers_networks_have_the_papers_parameters(kind, encoder: str, count: int) -> None:
    with torch.device("meta"):
        network = build_network(NetworkPlan.paper(kind, 1, 5, encoder=encoder), None)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_every_parameter_of_the_papers_network_is_in_use() -> None:
    network = build_network(NetworkPlan.paper("omnia", 1, 5, drop_path=0.0), None)
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("kind", ["omnia", "dx"])
def test_the_papers_details(kind) -> None:
    with torch.device("meta"):
        network = build_network(NetworkPlan.paper(kind, 1, 5), None)
    kinds = [type(module) for module in network.modules()]
    assert network.encoder.conv_stem.in_channels == 16
    assert (nn.ConvTranspose3d in kinds) == (kind == "dx")
    assert (nn.ReLU in kinds) == (kind == "omnia")
    drops = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]
    assert drops == pytest.approx([0.4 * i / 16 for i in range(1, 16)])


def test_the_default_keeps_the_stem_for_the_image() -> None:
    network = build_network(small_plan(in_channels=2), None).eval()
    x = torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        before = network.encoder(x)
        network.pre.conv.weight.zero_()
        assert network.encoder.conv_stem.in_channels == 2
        torch.testing.assert_close(network.encoder(x), before)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("up", ["nearest", "transpose"])
def test_up_sampling_is_a_field(dims: int, up: str) -> None:
    network = build_network(small_plan(dims, up=up), None)
    kinds = [type(module).__name__ for module in network.decoder.modules()]
    assert any(kind.startswith("ConvTranspose") for kind in kinds) == (up == "transpose")
    size = (19, 33, 26)[-dims:]
    assert network(torch.randn(2, 1, *size)).shape == (2, 3, *size)


def test_nearest_up_sampling_stays_aligned_with_the_skip_at_odd_sizes() -> None:
    block = build_network(small_plan(), None).decoder["level0"]
    small = torch.arange(5.0).reshape(1, 1, 1, 5)
    enlarged = block.up(small)[..., :9]
    assert enlarged[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_deep_supervision_gives_coarser_logits_in_training_only() -> None:
    network = build_network(small_plan(deep_supervision=True), None)
    x = torch.randn(2, 1, 32, 48)
    assert [logits.shape for logits in network(x)] == [(2, 3, 32, 48), (2, 3, 16, 24), (2, 3, 8, 12)]
    assert network.eval()(x).shape == (2, 3, 32, 48)


def test_channels_last_gives_the_same_logits_and_gradients() -> None:
    torch.manual_seed(0)
    for inflation in ("center", "acs"):
        network = build_network(small_plan(3, inflation=inflation), None)
        x = torch.randn(2, 1, 16, 24, 20)
        expected = network(x)
        expected.square().mean().backward()
        gradient = network.encoder.conv_stem.weight.grad.clone()
        network.zero_grad()
        network.to(memory_format=torch.channels_last_3d)
        assert network.decoder["level0"].conv1.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
        result = network(x.to(memory_format=torch.channels_last_3d))
        result.square().mean().backward()
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(network.encoder.conv_stem.weight.grad, gradient, atol=1e-4, rtol=1e-3)


def test_on_the_meta_device_nothing_is_allocated() -> None:
    with torch.device("meta"):
        network = build_network(small_plan(3), None)
        logits = network(torch.zeros(2, 1, 64, 512, 512))
    assert logits.is_meta
    assert all(tensor.is_meta for tensor in network.state_dict().values())


def test_parameters_come_in_two_groups() -> None:
    network = build_network(small_plan(), None)
    encoder, others = list(network.encoder_parameters()), list(network.other_parameters())
    assert {id(p) for p in encoder} == {id(p) for p in network.encoder.parameters()}
    assert len(encoder) + len(others) == len(list(network.parameters()))


def test_a_plan_survives_json_and_a_state_dict_its_network() -> None:
    plan = small_plan(3, inflation="acs")
    again = NetworkPlan.model_validate_json(plan.model_dump_json())
    assert again == plan
    one, two = build_network(plan, None), build_network(again, None)
    two.load_state_dict(one.state_dict())
    x = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(one.eval()(x), two.eval()(x))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strides": []}, "at least one level"),
        ({"kernel_sizes": [[3, 3]] * 3}, "3 strides need 4 entries"),
        ({"strides": [[2, 2, 2]] * 3}, "every entry needs 2 numbers"),
        ({"strides": [[4, 4]] * 3}, "1 or 2"),
        ({"kernel_sizes": [[5, 5]] * 4}, "1 or 3"),
        ({"decoder_widths": [8]}, "at least 3 widths"),
        ({"kind": "ds"}, "needs dims = 3 and the patch's depth"),
        ({"widths": [8]}, "Extra inputs"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(fields, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small_plan(**fields)
