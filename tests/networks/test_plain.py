"""The plain U-Net: nnU-Net's layers, and what it shares with the other networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from autocrossdim.inference.fuse import fuse
from autocrossdim.networks.build import build_network
from autocrossdim.networks.transfer import transfer
from autocrossdim.networks.weights import resolve_weights
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError

COARSE_FIRST_AXIS = {
    "strides": [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    "kernel_sizes": [[1, 3, 3]] * 2 + [[3, 3, 3]] * 4,
}


def plain_plan(dims: int = 2, levels: int = 2, **fields: Any) -> NetworkPlan:
    defaults = {"kind": "plain", "encoder": "none", "dims": dims, "in_channels": 1, "num_outputs": 3}
    defaults |= {"strides": [[2] * dims] * levels, "kernel_sizes": [[3] * dims] * (levels + 1)}
    return NetworkPlan.model_validate(defaults | fields)


@pytest.mark.parametrize(
    ("plan", "count"),
    [
        (plain_plan(3, 3), 5_602_595),
        (plain_plan(3, 5), 31_194_083),
        (plain_plan(2, 7), 46_320_611),
        (plain_plan(3, **COARSE_FIRST_AXIS), 30_337_443),
    ],
)
def test_it_has_the_parameters_of_nnunets_network(plan: NetworkPlan, count: int) -> None:
    # Counted with dynamic_network_architectures' PlainConvUNet, without its heads at coarser levels.
    with torch.device("meta"):
        network = build_network(plan, None)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(("dims", "shape"), [(2, (13, 22)), (3, (8, 9, 11))])
def test_it_takes_any_size_and_uses_every_parameter(dims: int, shape: tuple[int, ...]) -> None:
    network = build_network(plain_plan(dims, in_channels=2), None)
    logits = network(torch.randn(2, 2, *shape))
    assert logits.shape == (2, 3, *shape)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert {id(p) for p in network.encoder_parameters()} < {id(p) for p in network.parameters()}
    assert [feature.shape[1] for feature in network.encode(torch.randn(1, 2, *shape))] == [32, 64, 128]


def test_deep_supervision_adds_logits_of_coarser_levels_in_training() -> None:
    network = build_network(plain_plan(deep_supervision=True), None)
    image = torch.randn(2, 1, 16, 12)
    assert [logits.shape[2:] for logits in network(image)] == [(16, 12), (8, 6)]
    assert network.eval()(image).shape == (2, 3, 16, 12)


def test_prediction_computes_the_same() -> None:
    network = build_network(plain_plan(3), None).eval()
    image = torch.randn(1, 1, 8, 12, 12)
    with torch.inference_mode():
        expected = network(image)
        fuse(network)
        torch.testing.assert_close(network(image), expected)


def test_a_trained_one_starts_another_with_more_channels_or_axes() -> None:
    source = build_network(plain_plan(2), None)
    for target in (build_network(plain_plan(2, in_channels=3), None), build_network(plain_plan(3), None)):
        report = transfer(source.state_dict(), source.plan, target)
        assert report.parameters["new"] == 0


def test_no_pretrained_weights_fit_it() -> None:
    assert resolve_weights("random", "none") is None
    with pytest.raises(UserError, match="--weights imagenet: a plain U-Net has no pretrained encoder"):
        resolve_weights("imagenet", "none")


@pytest.mark.parametrize("fields", [{"encoder": "resnet18"}, {"kind": "unet"}])
def test_it_alone_has_no_encoder(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="a plain network, and no other, has the encoder 'none'"):
        plain_plan(**fields)


@pytest.mark.slow
def test_onnx_computes_the_same(write_model: Callable[..., Any], tmp_path: Any) -> None:
    from autocrossdim.models import onnx
    from autocrossdim.models.pack import pack

    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = write_model(tmp_path / "model", dims=2, kind="plain", encoder="none")
    (written,) = onnx.write_networks(pack(model, tmp_path / "model.acd"), tmp_path)
    assert written.difference < 1e-4 < written.largest
