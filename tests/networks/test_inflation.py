"""What a 2D module becomes in 3D, layer by layer and as a whole."""

import pytest
import timm
import torch
from timm import layers as tl
from timm.layers.cbam import CbamModule
from timm.layers.split_attn import SplitAttn
from torch import Tensor, nn
from torch.nn import functional as F

from autocrossdim.networks import inflate
from autocrossdim.networks.kernels import fit_kernel
from autocrossdim.networks.layers import AcsConv3d
from autocrossdim.system.errors import UserError


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """With batch-norm statistics and affine parameters as no initialisation leaves them, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for values in (layer.running_var, layer.weight):
                values.data.uniform_(0.5, 1.5, generator=generator)
            for values in (layer.running_mean, layer.bias):
                values.data.normal_(0.0, 0.2, generator=generator)
    return module.eval()


def relative_error(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).abs().max() / expected.abs().max()).item()


def along(x: Tensor, size: int, axis: int = 0) -> Tensor:
    """(B, C, H, W) -> a volume that is constant along the new axis."""
    return x.unsqueeze(2 + axis).repeat_interleave(size, 2 + axis)


LAYERS = {
    "conv": lambda: nn.Conv2d(4, 6, 3, 2, 1),
    "depthwise 5": lambda: nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "padding by word": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "reflect": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "conv same": lambda: tl.Conv2dSame(4, 6, 3, stride=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, 2),
    "batch norm": lambda: randomised(nn.BatchNorm2d(4)),
    "batch norm act": lambda: randomised(tl.BatchNormAct2d(4, act_layer=nn.SiLU)),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "layer norm": lambda: tl.LayerNorm2d(4),
    "group norm": lambda: tl.GroupNorm(4, 2),
    "response norm": lambda: tl.GlobalResponseNormMlp(4, 8, use_conv=True),
    "squeeze-excite": lambda: tl.SEModule(4, rd_channels=2),
    "squeeze-excite with maximum": lambda: tl.SEModule(4, rd_channels=2, add_maxpool=True),
    "effective squeeze-excite": lambda: tl.EffectiveSEModule(4),
    "drop path": lambda: tl.DropPath(0.5),
    "max pool": lambda: nn.MaxPool2d(3, 2, 1),
    "max pool same": lambda: tl.create_pool2d("max", 3, 2, padding="same"),
    "average pool": lambda: nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    "average pool same": lambda: tl.create_pool2d("avg", 2, 2, padding="same"),
    "adaptive pools": lambda: nn.Sequential(nn.AdaptiveMaxPool2d((8, 6)), nn.AdaptiveAvgPool2d(2)),
    "global pool": lambda: tl.SelectAdaptivePool2d(pool_type="avg", flatten=True),
    "dropout": lambda: nn.Dropout2d(0.5),
    "blur pool": lambda: tl.BlurPool2d(4),
    "blur pool 5": lambda: tl.BlurPool2d(filt_size=5, stride=3),
    "efficient channel attention": lambda: tl.EcaModule(4),
    "efficient channel attention in two layers": lambda: tl.EcaModule(4, use_mlp=True),
    "standardised conv": lambda: randomised(tl.StdConv2d(4, 6, 3, stride=2)),
    "scaled standardised conv": lambda: randomised(tl.ScaledStdConv2d(4, 6, 3, groups=2)),
    "scaled standardised conv same": lambda: tl.ScaledStdConv2dSame(4, 6, 3, stride=2),
    "average pool with padding": lambda: nn.AvgPool2d(3, 2, 1),
    "average pool with padding not counted": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "upsample": lambda: nn.Upsample(scale_factor=2, mode="nearest"),
    "layer scale": lambda: tl.LayerScale2d(4, 0.5),
    "rms norm": lambda: tl.RmsNorm2d(4),
    "simple norm": lambda: tl.SimpleNorm2d(4),
    "layer norm act": lambda: tl.LayerNormAct2d(4),
    "selective kernels": lambda: tl.SelectiveKernel(4, 6, split_input=False),
    "split attention": lambda: SplitAttn(4, 6),
    "global context": lambda: tl.GlobalContext(4, rd_channels=2, fuse_add=True),
    "channel and spatial attention": lambda: CbamModule(4, rd_channels=2, spatial_kernel_size=5),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_center_gives_the_2d_result_on_a_constant_axis_borders_included(layer, axis: int) -> None:
    torch.manual_seed(0)
    layer_2d = layer().eval()
    x = torch.randn(2, 4, 12, 12)
    expected = layer_2d(x)
    result = inflate(layer_2d, "center", axis)(along(x, 12, axis))
    if expected.ndim == 4:
        expected = along(expected, result.shape[2 + axis], axis)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_average_gives_the_2d_result_away_from_the_borders() -> None:
    conv = nn.Conv2d(3, 5, 5, padding=2)
    x = torch.randn(1, 3, 9, 9)
    result, expected = inflate(conv, "average")(along(x, 9)), along(conv(x), 9)
    torch.testing.assert_close(result[:, :, 2:-2], expected[:, :, 2:-2], atol=1e-5, rtol=1e-5)
    assert relative_error(result[:, :, 0], expected[:, :, 0]) > 0.1  # zero padding enters in depth


def test_replicate_puts_the_undivided_kernel_at_every_depth() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    weight = inflate(conv, "replicate").weight
    assert weight.shape == (5, 3, 3, 3, 3)
    for depth in range(3):
        assert torch.equal(weight[:, :, depth], conv.weight)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("channels", "groups"), [(7, 1), (8, 8), (12, 4), (4, 2)])
@pytest.mark.parametrize("same", [False, True])
def test_acs_is_the_2d_kernel_in_three_planes(channels: int, groups: int, same: bool, axis: int) -> None:
    torch.manual_seed(0)
    kind = tl.Conv2dSame if same else nn.Conv2d
    conv = kind(groups * 2, channels, 3, stride=2, padding=1, groups=groups)
    twin = inflate(conv, "acs", axis)
    assert isinstance(twin, AcsConv3d)
    assert torch.equal(twin.weight, conv.weight)

    dense = conv.weight.new_zeros(channels, 2, 3, 3, 3)
    planes = [axis, *(other for other in range(3) if other != axis)]
    per_group = channels // groups
    units = groups if groups > 1 else channels
    for channel in range(channels):
        unit = channel // per_group if groups > 1 else channel
        bounds = [(units + 2) // 3, (units + 2) // 3 + (units + 1) // 3]
        plane = planes[sum(unit >= bound for bound in bounds)]
        dense[channel].select(1 + plane, 1).copy_(conv.weight[channel].detach())
    x = torch.randn(2, groups * 2, 8, 9, 10)
    if same:
        x_padded = F.pad(x, (0, 1, 1, 1, 0, 1))
        expected = F.conv3d(x_padded, dense, conv.bias, 2, 0, 1, groups)
    else:
        expected = F.conv3d(x, dense, conv.bias, 2, 1, 1, groups)
    torch.testing.assert_close(twin(x), expected, atol=1e-5, rtol=1e-5)


WHOLE = "test_efficientnet test_resnet test_convnext convnextv2_atto regnety_002 resnet18d resnetblur18 mobilenetv2_050"


@pytest.mark.parametrize("name", WHOLE.split())
def test_whole_timm_models_keep_their_classifier_too(name: str) -> None:
    torch.manual_seed(0)
    model = randomised(timm.create_model(name, num_classes=7))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        twin = inflate(model)
        assert relative_error(twin(along(x, 33)), model(x)) < 1e-5
    assert list(twin.state_dict()) == list(model.state_dict())


def test_the_2d_module_is_left_as_it_is_and_the_twin_is_its_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    model[0].weight.requires_grad_(False)
    twin = inflate(model.eval())
    assert not twin.training
    assert [p.requires_grad for p in twin.parameters()] == [False, True, True, True]
    twin(torch.randn(1, 1, 5, 5, 5)).sum().backward()
    twin[1].running_mean.add_(1.0)
    assert model[1].running_mean.sum() == 0
    assert all(p.grad is None for p in model.parameters())
    assert model(torch.randn(1, 1, 5, 5)).shape == (1, 2, 3, 3)


def test_a_layer_used_twice_has_one_twin() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    twin = inflate(nn.Sequential(conv, nn.ReLU(), conv))
    assert twin[0] is twin[2]


class Scaled(nn.Module):
    """A composite with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale


class MyConv(nn.Conv2d):
    """Does who knows what."""


UNKNOWN = {
    "Scaled": Scaled,
    "MyConv": lambda: MyConv(4, 4, 3),
    "Bilinear": lambda: nn.Bilinear(4, 4, 4),
    "CecaModule": lambda: tl.create_attn("ceca", 4),  # a Conv1d inside
    "LightCbamModule": lambda: tl.create_attn("lcbam", 32),  # computes over axes 2 and 3 without own parameters
    "PixelShuffle": lambda: nn.PixelShuffle(2),
    "LayerNorm": lambda: nn.LayerNorm([4, 8, 8]),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 4, 3, 2),
}


NAMED = {"CecaModule": "Conv1d", "LightCbamModule": "LightChannelAttn"}  # by the part that is in the way


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_layer_without_a_known_twin_is_an_error_that_names_it(name: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match=NAMED.get(name, name)):
        inflate(nn.Sequential(nn.ReLU(), UNKNOWN[name]()))


def test_an_attention_whose_hidden_units_are_all_off_is_not_taken_for_right() -> None:
    attention = tl.create_attn("lcbam", 32)
    with torch.no_grad():
        attention.channel.fc1.weight.abs_().neg_()  # off for every image that is positive
    with pytest.raises(UserError, match="LightChannelAttn"):
        inflate(nn.Sequential(nn.ReLU(), attention))


class GatedClassifier(nn.Module):
    """A classifier as timm's are, with a gate whose mean leaves out the new axis: in 3D, its values are wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * x.mean((2, 3), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x))


def test_a_classifier_whose_features_are_wrong_in_3d_is_refused() -> None:
    with pytest.raises(UserError, match="the layer GatedClassifier does not give the 2D features on a volume"):
        inflate(GatedClassifier())


def test_the_error_says_where_the_layer_is() -> None:
    with pytest.raises(UserError, match=r"inflate 1\.0: .*Bilinear"):
        inflate(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Bilinear(4, 4, 4))))


@pytest.mark.parametrize(
    ("layer", "mode", "remedy"),
    [
        (nn.Upsample(scale_factor=2, mode="bilinear"), "center", "replace the layer"),
        (nn.ConvTranspose2d(4, 4, 3, 2), "center", "replace the layer"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "acs", "Choose the rule center"),
        (nn.Conv2d(4, 4, 3), "acs", "Choose the rule center"),
        (tl.StdConv2d(4, 4, 3, padding=1), "acs", "Choose the rule center"),
    ],
)
def test_a_layer_whose_options_have_no_3d_form_is_named_with_a_remedy(layer: nn.Module, mode, remedy: str) -> None:
    with pytest.raises(UserError, match=rf"cannot inflate 1\.0: .*{remedy}"):
        inflate(nn.Sequential(nn.ReLU(), nn.Sequential(layer)), mode)


@pytest.mark.parametrize(("mode", "axis"), [("centre", 0), ("center", 3)])
def test_unknown_modes_and_axes_are_errors(mode: str, axis: int) -> None:
    with pytest.raises(UserError, match="mode must be one of center, average, replicate, acs"):
        inflate(nn.Conv2d(1, 1, 3), mode, axis)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["center", "average", "replicate", "acs"])
def test_a_new_axis_of_extent_1_keeps_the_kernel_in_every_mode(mode) -> None:
    weight = torch.randn(4, 2, 3, 5)
    assert torch.equal(fit_kernel(weight, (1, 3, 5), mode), weight[:, :, None])


def test_an_extent_that_goes_is_summed() -> None:
    weight = torch.randn(4, 2, 3, 5)
    torch.testing.assert_close(fit_kernel(weight, (1, 5), "center"), weight.sum(2, keepdim=True))


def test_an_extent_cannot_change_otherwise() -> None:
    with pytest.raises(ValueError, match="extent of 3 cannot become 5"):
        fit_kernel(torch.randn(4, 2, 3, 3), (5, 3), "center")
