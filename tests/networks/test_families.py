"""Every family of encoders, in 2D and 3D: one network over all of them."""

import itertools
import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from autocrossdim.networks.architecture import architecture
from autocrossdim.networks.build import build_network
from autocrossdim.networks.encoder import Encoder
from autocrossdim.networks.parity import perturb
from autocrossdim.networks.weights import EncoderWeights
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError

SMALL = [
    "test_efficientnet",
    "efficientnet_lite0",
    "tf_efficientnetv2_b0",
    "test_resnet",
    "resnet18",
    "resnet18d",
    "resnetblur18",
    "regnety_002",
    "test_convnext",
    "convnextv2_atto",
]
LARGE = (
    [f"efficientnet_b{i}" for i in range(5)]
    + [f"tf_efficientnet_b{i}" for i in range(5)]
    + ["tf_efficientnetv2_b3", "tf_efficientnetv2_s", "efficientnetv2_rw_t", "resnet34", "resnet50", "resnet50d"]
    + ["seresnet50", "resnext50_32x4d", "regnety_016", "regnetx_032", "convnext_tiny", "convnext_nano"]
)
ONE_OF_EACH = ("efficientnet_b0", "tf_efficientnetv2_s", "resnet50d", "regnetx_032", "convnext_nano")

GEOMETRY = {
    "2D": ([[2, 2]] * 5, [[3, 3]] * 6),
    "2D uneven": ([[1, 2], [2, 2], [2, 2]], [[1, 3], [3, 3], [3, 3], [3, 3]]),
    "3D": ([[2, 2, 2]] * 5, [[3, 3, 3]] * 6),
    "3D, depth late": ([[1, 2, 2]] * 2 + [[2, 2, 2]] * 2, [[1, 3, 3]] * 2 + [[3, 3, 3]] * 3),
    "3D, stem at stride 1": ([[1, 1, 1], [2, 2, 2], [2, 2, 2]], [[3, 3, 3]] * 4),
}
QUICK = ("2D uneven", "3D, depth late")  # the geometries in which every encoder is tested by the quick tests


def combinations(*geometries: str) -> list[Any]:
    """Every small encoder in these geometries; only timm's test encoders in all of them are quick tests."""

    def marks(encoder: str, geometry: str) -> Any:
        return () if encoder.startswith("test_") or geometry in QUICK else pytest.mark.slow

    return [pytest.param(*pair, marks=marks(*pair)) for pair in itertools.product(SMALL, geometries)]


def make_plan(encoder: str, geometry: str = "3D", **fields) -> NetworkPlan:
    strides, kernel_sizes = GEOMETRY[geometry]
    defaults = {"in_channels": 1, "num_outputs": 3, "decoder_widths": [32, 24, 16, 16, 8]}
    return NetworkPlan.model_validate(
        {"dims": len(strides[0]), "encoder": encoder, "strides": strides, "kernel_sizes": kernel_sizes}
        | defaults
        | fields
    )


def made_up_weights(encoder: str, seed: int = 0) -> EncoderWeights:
    """Random ones, with statistics and LayerScale as no initialisation leaves them."""
    torch.manual_seed(seed)
    model = timm.create_model(encoder, num_classes=0)
    perturb(model, seed)
    return EncoderWeights(encoder, model.state_dict(), "made up", None, None, "", (0.5,) * 3, (0.5,) * 3)


def relative_error(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(("encoder", "geometry"), combinations(*GEOMETRY))
def test_forward_and_backward_at_odd_sizes_with_1_to_4_channels(encoder: str, geometry: str) -> None:
    torch.manual_seed(0)
    channels = 1 + (SMALL.index(encoder) + list(GEOMETRY).index(geometry)) % 4
    plan = make_plan(encoder, geometry, in_channels=channels, drop_path=0.1)
    network = build_network(plan, None)
    size = (13, 35, 33)[-plan.dims :]
    logits = network(torch.randn(2, channels, *size))
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    assert torch.isfinite(logits).all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("encoder", SMALL)
def test_inputs_smaller_than_any_stride_work(encoder: str) -> None:
    for geometry, size in (("2D", (3, 1)), ("3D", (1, 2, 5))):
        network = build_network(make_plan(encoder, geometry), None).eval()
        assert network(torch.randn(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    "encoder", [name if name in ONE_OF_EACH else pytest.param(name, marks=pytest.mark.slow) for name in LARGE]
)
def test_larger_ones_build_and_run_in_3d_without_memory(encoder: str) -> None:
    mode = ("center", "acs")[LARGE.index(encoder) % 2]
    with torch.device("meta"):
        network = build_network(make_plan(encoder, "3D, depth late", inflation=mode), None)
        assert network(torch.zeros(1, 1, 20, 64, 64)).shape == (1, 3, 20, 64, 64)


@pytest.mark.parametrize(("encoder", "geometry"), combinations("3D", "3D, depth late", "3D, stem at stride 1"))
def test_center_gives_the_2d_features_at_every_tap(encoder: str, geometry: str) -> None:
    plan = make_plan(encoder, geometry, in_channels=2)
    weights = made_up_weights(encoder)
    flat = make_plan(
        encoder,
        in_channels=2,
        dims=2,
        strides=[entry[1:] for entry in plan.strides],
        kernel_sizes=[entry[1:] for entry in plan.kernel_sizes],
    )
    in_3d, in_2d = build_network(plan, weights).eval(), build_network(flat, weights).eval()
    x = torch.randn(1, 2, 35, 33)
    with torch.no_grad():
        features = in_3d.encoder(x.unsqueeze(2).repeat(1, 1, 21, 1, 1))
        for feature, expected in zip(features, in_2d.encoder(x), strict=True):
            assert relative_error(feature, expected.unsqueeze(2).expand_as(feature)) < 1e-5


def test_average_gives_the_2d_features_away_from_the_borders() -> None:
    """Without squeeze-and-excitation, which would carry the borders everywhere."""
    plan = make_plan("resnet18", inflation="average", strides=[[2] * 3] * 3, kernel_sizes=[[3] * 3] * 4)
    flat = make_plan("resnet18", "2D", strides=[[2] * 2] * 3, kernel_sizes=[[3] * 2] * 4)
    weights = made_up_weights("resnet18")
    in_3d, in_2d = build_network(plan, weights).eval(), build_network(flat, weights).eval()
    x = torch.randn(1, 1, 24, 24)
    with torch.no_grad():
        features = in_3d.encoder(x.unsqueeze(2).repeat(1, 1, 160, 1, 1))
        for feature, expected in zip(features, in_2d.encoder(x), strict=True):
            middle = feature.shape[2] // 2
            assert relative_error(feature[:, :, middle], expected) < 1e-5
        assert relative_error(features[-1][:, :, 0], expected) > 1e-2


def test_acs_keeps_the_2d_parameters_of_the_encoder() -> None:
    weights = made_up_weights("test_efficientnet")
    network = build_network(make_plan("test_efficientnet", in_channels=3, inflation="acs"), weights)
    for name, value in network.encoder.state_dict().items():
        if value.ndim < 5:  # others are 1x1 convolutions
            assert torch.equal(value, weights.state_dict[name]), name
        else:
            assert value.shape[2:] == (1, 1, 1)


@pytest.mark.parametrize("encoder", SMALL)
def test_2d_features_are_timms_own(encoder: str) -> None:
    weights = made_up_weights(encoder)
    network = build_network(make_plan(encoder, "2D", in_channels=3), weights).eval()
    model = timm.create_model(encoder, num_classes=0).eval()
    model.load_state_dict(weights.state_dict)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = dict(zip(network.encoder.levels, network.encoder(x), strict=True))
        theirs = model.forward_intermediates(x, intermediates_only=True)
        for feature in theirs:
            level = round(math.log2(64 / feature.shape[-1]))
            if (level == 1 and feature.shape != features[1].shape) or (
                encoder.startswith(("eff", "tf")) and level == 1
            ):
                continue  # timm's is the first stage's end, ours the stem's, as in the paper
            torch.testing.assert_close(features.pop(level), feature)
    assert set(features) <= {1}


def test_the_stride_2_skip_is_the_stem() -> None:
    with torch.device("meta"):
        assert Encoder(make_plan("efficientnet_b0"), 3).channels == [32, 24, 40, 112, 320]
        assert Encoder(make_plan("efficientnet_b4"), 3).channels == [48, 32, 56, 160, 448]
        assert Encoder(make_plan("resnet50"), 3).channels == [64, 256, 512, 1024, 2048]


def test_a_stem_of_stride_4_takes_two_levels_at_once() -> None:
    with torch.device("meta"):
        plan = make_plan("convnext_tiny", strides=[[1, 2, 2]] + [[2, 2, 2]] * 4)
        encoder = Encoder(plan, 1)
        assert encoder.levels == [2, 3, 4, 5]
        assert encoder(torch.zeros(1, 1, 16, 64, 64))[0].shape[2:] == (8, 16, 16)


def test_kernels_have_extent_where_the_plan_says() -> None:
    with torch.device("meta"):
        encoder = Encoder(make_plan("efficientnet_b0", "3D, depth late"), 1)
    kernels = {name: module.kernel_size for name, module in encoder.named_modules() if isinstance(module, nn.Conv3d)}
    assert kernels["conv_stem"] == (1, 3, 3)  # leads to level 1
    assert kernels["blocks.0.0.conv_dw"] == (1, 3, 3)
    assert kernels["blocks.1.0.conv_dw"] == (3, 3, 3)  # leads to level 2
    assert kernels["blocks.2.0.conv_dw"] == (5, 5, 5)


def test_an_encoder_that_is_cut_holds_nothing_behind_the_cut() -> None:
    with torch.device("meta"):
        encoder = Encoder(make_plan("efficientnet_b0", "3D, depth late"), 1)
    names = list(encoder.state_dict())
    assert names == [name for name in architecture("efficientnet_b0").keys if name in names]
    assert names[-1].startswith("blocks.4.2.")


def test_random_3d_convolutions_have_the_variance_of_their_real_fan() -> None:
    torch.manual_seed(0)
    encoder = Encoder(make_plan("resnet18"), 1)
    weight = encoder.get_parameter("layer3.0.conv2.weight")
    assert weight.shape == (256, 256, 3, 3, 3)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 27)), rel=0.01)
    assert weight[:, :, 0].std().item() == pytest.approx(weight[:, :, 1].std().item(), rel=0.01)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("efficientnetb0", "timm has no such model. Similar names: efficientnet_b0"),
        ("vit_tiny_patch16_224", "VisionTransformer cannot be an encoder.*convnext_tiny.dinov3_lvd1689m"),
        ("test_efficientnet", "6 strides, but the encoder can end at levels 1, 2, 3, 4, 5 only"),
        ("test_efficientnet_evos", r"test_efficientnet_evos, bn1: the layer EvoNorm2dS0 fails on a volume"),
        ("halonet26t", r"encoder halonet26t: .* cannot be an encoder: it does not run on 96 x 96 pixels"),
        (
            "lowformer_b0",
            r"encoder lowformer_b0: cannot inflate \w+[\w.]+: a ConvTranspose2d .* Choose another encoder",
        ),
    ],
)
def test_encoders_that_cannot_be_had_are_errors(encoder: str, message: str) -> None:
    plan = make_plan(encoder, strides=[[2] * 3] * 6, kernel_sizes=[[3] * 3] * 7, decoder_widths=[8] * 6)
    if encoder not in ("efficientnetb0", "test_efficientnet"):
        plan = make_plan(encoder)
    with pytest.raises(UserError, match=message):
        build_network(plan, None)
