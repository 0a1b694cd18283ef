"""The proof finds what is wrong in 3D, names it, and runs no more often than it has to."""

import pytest
import timm
import torch
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from autocrossdim.networks import inflate, inflation
from autocrossdim.networks.architecture import architecture
from autocrossdim.networks.build import build_network
from autocrossdim.networks.encoder import prove, prove_chain
from autocrossdim.networks.parity import perturb, relative_error
from autocrossdim.networks.weights import resolve_weights
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError


class Gate(nn.Module):
    """Multiplies by a mean over some axes."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean(self.axes, keepdim=True)


class Branch(nn.Module):
    """A branch that is switched off at the start, as by LayerScale or a batch norm of weight zero."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.branch = branch
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.gain * self.branch(x)


class AnySize(nn.Module):
    """Right in any number of axes, with its convolutions out of sight."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() * x.shape[1]


@pytest.mark.parametrize("axes", [(2, 3), (-2, -1)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mean_over_two_axes_is_found_in_a_branch_that_starts_at_zero(axes: tuple[int, int], axis: int) -> None:
    with pytest.raises(UserError, match=r"cannot inflate branch\.1: the layer Gate does not give the 2D features"):
        inflate(Branch(nn.Sequential(nn.ReLU(), Gate(axes))), axis=axis)


RARE = {
    "Softmax": lambda: nn.Softmax(dim=2),
    "Softmax2d": nn.Softmax2d,
    "GLU": lambda: nn.GLU(dim=2),
    "AvgPool2d of another divisor": lambda: nn.AvgPool2d(3, 2, 1, divisor_override=4),
    "AvgPool2d that counts padding": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 4, 2, 2, dilation=2),
    "MaxPool2d with indices": lambda: nn.MaxPool2d(2, return_indices=True),
    "Flatten": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", RARE)
def test_layers_of_torch_that_are_wrong_in_3d_with_these_options_are_refused(name: str, axis: int) -> None:
    where = "the module: the layer Sequential gives" if "indices" in name else "1"  # its output is a tuple
    with pytest.raises(UserError, match=f"cannot inflate {where}"):
        inflate(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), RARE[name]()), axis=axis)


class Weighted(nn.Module):
    """Softmax along an axis of the image, as a function."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(self.dim)


@pytest.mark.parametrize(
    ("layer", "axis"), [(nn.Softmax(dim=-1), 2), (nn.GLU(), 2), (Weighted(2), 0), (Weighted(-1), 2)]
)
def test_what_is_wrong_along_the_new_axis_alone_is_refused(layer: nn.Module, axis: int) -> None:
    with pytest.raises(UserError, match="cannot inflate 1"):
        inflate(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), layer), axis=axis)


def test_layers_that_are_right_along_their_axis_are_accepted() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(dim=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        assert relative_error(inflate(model)(x.unsqueeze(2).expand(-1, -1, 9, -1, -1)), model(x)) < 1e-5


def test_a_composite_that_is_right_passes_and_gives_the_2d_features() -> None:
    model = Branch(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))).eval()
    perturb(model)
    x = torch.randn(1, 3, 8, 9)
    with torch.no_grad():
        result = inflate(model)(x.unsqueeze(2).expand(-1, -1, 5, -1, -1))
        torch.testing.assert_close(result, model(x).unsqueeze(2).expand_as(result))


def test_a_module_without_convolutions_needs_an_example() -> None:
    with pytest.raises(UserError, match="Pass `example`"):
        inflate(AnySize())
    with pytest.raises(UserError, match="the layer Gate does not give"):
        inflate(Gate((2, 3)), example=torch.randn(1, 3, 6, 8))
    assert inflate(AnySize(), example=torch.randn(1, 3, 6, 8))(torch.ones(1, 2, 3, 3, 3)).max() == 2


def test_the_proof_runs_once_for_an_architecture_and_leaves_random_numbers_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proofs = []
    find_fault = inflation.find_fault
    monkeypatch.setattr(inflation, "_proven", {})
    monkeypatch.setattr(inflation, "find_fault", lambda *args: proofs.append(args) or find_fault(*args))
    models = [timm.create_model(name, features_only=True) for name in ("lcnet_035", "lcnet_035", "lcnet_050")]
    state = torch.get_rng_state()
    for model in models:
        inflate(model)
    assert len(proofs) == 2 * 2  # two architectures, along two axes
    assert torch.equal(torch.get_rng_state(), state)
    inflate(timm.create_model("test_resnet"))  # every layer is known
    assert len(proofs) == 4


@pytest.mark.parametrize("wrapper", ["list", "hook", "dict"])
def test_features_only_models_give_all_their_features(wrapper: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", features_only=True, feature_cls=wrapper).eval()
    perturb(model)
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        expected, results = model(x), inflate(model)(x.unsqueeze(2).expand(-1, -1, 33, -1, -1))
    if wrapper == "dict":
        expected, results = list(expected.values()), list(results.values())
    assert len(results) == len(expected) >= 4
    for result, feature in zip(results, expected, strict=True):
        assert relative_error(result, feature.unsqueeze(2).expand_as(result)) < 1e-5


@pytest.mark.slow
def test_a_head_that_is_wrong_in_3d_is_dropped() -> None:
    """RepViT's takes the mean over two axes by itself."""
    model = timm.create_model("repvit_m0_9").eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        result, expected = inflate(model)(x.unsqueeze(2).expand(-1, -1, 32, -1, -1)), model.forward_features(x)
    assert relative_error(result, expected.unsqueeze(2).expand_as(result)) < 1e-4


def plan_for(encoder: str, dims: int = 3, **fields: object) -> NetworkPlan:
    strides, kernels = [[1, 2, 2], [1, 2, 2], [2, 2, 2]], [[1, 3, 3]] * 2 + [[3, 3, 3]] * 2
    shape = {"strides": [s[-dims:] for s in strides], "kernel_sizes": [k[-dims:] for k in kernels]}
    return NetworkPlan.model_validate(
        {"encoder": encoder, "dims": dims, "in_channels": 3, "num_outputs": 2} | shape | fields
    )


@pytest.mark.parametrize("encoder", ["mobilenetv3_small_050", "repghostnet_050", "inception_next_atto"])
def test_encoders_of_other_families_have_the_2d_features_on_anisotropic_volumes(encoder: str) -> None:
    torch.manual_seed(0)
    volume, flat = (build_network(plan_for(encoder, dims), None).encoder.eval() for dims in (3, 2))
    perturb(flat)
    for name, value in flat.state_dict().items():
        own = volume.state_dict()[name]
        if own.ndim == value.ndim:
            own.copy_(value)
        else:
            own.zero_().select(2, (own.shape[2] - 1) // 2).copy_(value)
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        for result, feature in zip(volume(x.unsqueeze(2).expand(-1, -1, 5, -1, -1)), flat(x), strict=True):
            assert relative_error(result, feature.unsqueeze(2).expand_as(result)) < 1e-4


def test_encoders_are_timms_own_features_in_2d() -> None:
    prove_chain("dla34")  # its blocks have blocks inside
    assert not architecture("dla34").known
    assert architecture("efficientnet_b0").known


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("hrnet_w18_small", "HighResolutionNet cannot be an encoder: stage2 does not give one feature map"),
        ("convmixer_768_32", "leaves 36 of 256 pixels, not a power of two"),
        ("vit_tiny_patch16_224", "cannot be an encoder.*--weights convnext_tiny.dinov3_lvd1689m"),
        (
            "edgenext_xx_small",
            r"edgenext_xx_small, stages\.0\.blocks\.0: the layer ConvBlock fails on a volume",
        ),
    ],
)
def test_encoders_that_do_not_fit_are_errors_that_say_why(encoder: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=message):  # as the planner builds it
        build_network(plan_for(encoder), None)


def test_strides_that_a_family_cannot_take_are_an_error() -> None:
    with pytest.raises(UserError, match=r"poolformer_s12 cannot take the strides .* a feature has size \(4, 4\), not"):
        prove("poolformer_s12", ((2, 2), (2, 2), (2, 2)), ((3, 3),) * 4)


def test_a_tag_that_does_not_exist_is_an_error_that_names_the_tags() -> None:
    with pytest.raises(UserError, match=r"encoder resnet18\.typo: resnet18 has no tag typo; it has a1_in1k, .*tv_in1k"):
        resolve_weights("random", "resnet18.typo")
    assert resolve_weights("random", "resnet18.tv_in1k") is None


# --- ConvNeXt, which DINOv3's weights are of


def test_dinov3s_convnext_is_of_a_known_family() -> None:
    assert "convnext_tiny.dinov3_lvd1689m" in timm.list_pretrained("convnext_tiny.*")
    assert architecture("convnext_tiny").known


@pytest.mark.parametrize("channels_last", [True, False])
def test_convnexts_layer_scale_and_stochastic_depth_are_those_of_2d(channels_last: bool) -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(8, drop_path=0.5, ls_init_value=0.1, conv_mlp=not channels_last)
    nn.init.normal_(block.gamma)
    twin = inflate(block)
    x = torch.randn(16, 8, 6, 7)
    cube = x.unsqueeze(2).expand(-1, -1, 5, -1, -1)
    with torch.no_grad():
        expected = block.eval()(x).unsqueeze(2).expand_as(cube)
        torch.testing.assert_close(twin.eval()(cube), expected, atol=1e-5, rtol=1e-5)
        branch = (twin.train()(cube) - cube).flatten(1)
    kept = branch.abs().amax(1) > 0  # by sample, and then twice as large
    assert 0 < kept.sum() < 16
    torch.testing.assert_close(branch[kept], 2 * (expected - cube).flatten(1)[kept], atol=1e-4, rtol=1e-4)
