"""What a 2D layer becomes in 3D: a registry with one function for each kind of layer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from timm import layers as tl
from timm.layers.cbam import ChannelAttn
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm_act import LayerNormAct2d, RmsNormAct2d
from timm.layers.pool2d_same import MaxPool2dSame
from timm.layers.selective_kernel import SelectiveKernelAttn
from timm.layers.split_attn import SplitAttn
from timm.layers.squeeze_excite import EffectiveSEModule
from timm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from timm.models import (
    _efficientnet_blocks,
    convnext,
    fastvit,
    ghostnet,
    hgnet,
    inception_next,
    metaformer,
)
from torch import nn

from autocrossdim.networks import blocks
from autocrossdim.networks import layers as ours
from autocrossdim.networks.depthwise import DepthwiseConv3d, DepthwiseConv3dSame
from autocrossdim.networks.kernels import Mode, fit_kernel
from autocrossdim.system.errors import UserError


class Geometry(NamedTuple):
    """Stride and kernel of one layer as planned.

    Attributes:
        stride: Stride per axis of the network that is built.
        flat: Whether the kernel has extent 1, per axis.
    """

    stride: tuple[int, ...]
    flat: tuple[bool, ...]


@dataclass(frozen=True)
class Spec:
    """How a layer is rebuilt.

    Attributes:
        dims: Number of axes of the network that is built, 2 or 3.
        mode: Rule of inflation.
        axis: The new axis in 3D, 0 to 2.
        geometry: Planned stride and kernel; None to keep those of the layer.
    """

    dims: int
    mode: Mode
    axis: int
    geometry: Geometry | None

    def axes(self, value: Any) -> tuple[int, ...]:
        """Return one number per axis, from the number or pair of a 2D layer; the new axis copies the first."""
        pair = (value, value) if isinstance(value, int) else tuple(value)
        return pair if self.dims == 2 else (*pair[: self.axis], pair[0], *pair[self.axis :])

    def plane(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Return the values of the two axes other than the new one."""
        return (*values[: self.axis], *values[self.axis + 1 :])

    def flatten(self, values: tuple[int, ...], flat: int) -> tuple[int, ...]:
        """Return the values, with `flat` for the axes along which the kernel has extent 1."""
        if self.geometry is None:
            return values
        return tuple(flat if none else value for value, none in zip(values, self.geometry.flat, strict=True))


Builder = Callable[[Any, Spec], nn.Module]


class Twin(NamedTuple):
    """How a kind of layer is rebuilt.

    Attributes:
        build: Returns the layer that takes the place of a 2D layer.
        shaped: Whether the layer has strides or kernels that a plan may change, in 2D too.
        whole: Whether `build` gets the layer with its 2D parts, because they have no twins of their own.
    """

    build: Builder
    shaped: bool
    whole: bool


TWINS: dict[type, Twin] = {}


def twin_of(*kinds: type, shaped: bool = False, whole: bool = False) -> Callable[[Builder], Builder]:
    """Register a function that builds the twins of these kinds of layers; the options are those of `Twin`."""

    def register(build: Builder) -> Builder:
        TWINS.update(dict.fromkeys(kinds, Twin(build, shaped, whole)))
        return build

    return register


# --- layers with strides or kernels


@dataclass(frozen=True)
class _Shape:
    """Strides and extents of a convolution's twin; `same` stands for TensorFlow's padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    same: bool


def _shape(layer: nn.Conv2d, spec: Spec, same: bool) -> _Shape:
    stride = spec.axes(layer.stride)
    if spec.geometry:
        # Patches laid side by side (ConvNeXt) get "same" padding: nothing at sizes that they divide, and
        # no voxel lost at others or where the plan takes a stride away.
        same = same or (layer.kernel_size == layer.stride and layer.kernel_size != (1, 1))
        stride = spec.geometry.stride
    padding = layer.padding if isinstance(layer.padding, str) else spec.flatten(spec.axes(layer.padding), 0)
    return _Shape(spec.flatten(spec.axes(layer.kernel_size), 1), stride, padding, spec.axes(layer.dilation), same)


@twin_of(nn.Conv2d, tl.Conv2dSame, shaped=True)
def _conv(layer: nn.Conv2d, spec: Spec) -> nn.Module:
    shape = _shape(layer, spec, isinstance(layer, tl.Conv2dSame))
    if spec.dims == 3 and spec.mode == "acs" and shape.kernel[spec.axis] > 1:
        return _acs(layer, shape, spec)
    depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
    types: dict[tuple[int, bool], Callable[..., nn.Module]] = {
        (2, False): nn.Conv2d,
        (2, True): tl.Conv2dSame,
        (3, False): DepthwiseConv3d if depthwise else ours.Conv3d,
        (3, True): DepthwiseConv3dSame if depthwise else ours.Conv3dSame,
    }
    options: dict[str, Any] = {"stride": shape.stride, "dilation": shape.dilation, "groups": layer.groups}
    options |= {"bias": layer.bias is not None, "device": "meta"}
    if not shape.same:
        options |= {"padding": shape.padding, "padding_mode": layer.padding_mode}
    twin = types[spec.dims, shape.same](layer.in_channels, layer.out_channels, shape.kernel, **options)
    twin.weight = nn.Parameter(fit_kernel(layer.weight.detach(), shape.kernel, spec.mode, spec.axis))
    twin.bias = layer.bias  # type: ignore[assignment]
    return twin


def _acs(layer: nn.Conv2d, shape: _Shape, spec: Spec) -> nn.Module:
    if layer.padding_mode != "zeros" or isinstance(shape.padding, str):
        raise UserError("by acs, a convolution needs padding with zeros. Choose the rule center, average or replicate.")
    keeps_size = all(
        2 * pad == dilation * (extent - 1)
        for pad, dilation, extent in zip(shape.padding, shape.dilation, shape.kernel, strict=True)
    )
    if not (keeps_size or shape.same or layer.kernel_size == layer.stride):
        raise UserError(
            "by acs, the three planes of a convolution without padding would have different sizes. Choose the rule "
            "center, average or replicate."
        )
    plane = spec.plane(shape.kernel)
    twin = ours.AcsConv3d(
        layer.in_channels,
        layer.out_channels,
        plane,
        shape.stride,
        "same" if shape.same else spec.plane(shape.padding),
        layer.dilation,
        layer.groups,
        spec.axis,
    )
    twin.weight = nn.Parameter(fit_kernel(layer.weight.detach(), plane, spec.mode))
    twin.bias = layer.bias  # type: ignore[assignment]
    return twin


@twin_of(StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, shaped=True)
def _standardised_conv(layer: Any, spec: Spec) -> nn.Module:
    if spec.dims == 3 and spec.mode == "acs":
        raise UserError(
            f"by acs, a convolution with standardised weights ({type(layer).__name__}) has no 3D form. Choose the rule "
            "center, average or replicate."
        )
    shape = _shape(layer, spec, getattr(layer, "same_pad", False))
    layer.kernel_size, layer.stride, layer.dilation = shape.kernel, shape.stride, shape.dilation
    layer.padding = (0,) * spec.dims if shape.same else shape.padding
    layer.weight = nn.Parameter(fit_kernel(layer.weight.detach(), shape.kernel, spec.mode, spec.axis))
    return blocks.StandardisedConv(layer, shape.same, spec.axis if spec.dims == 3 else None)


@twin_of(nn.ConvTranspose2d, shaped=True)
def _transposed(layer: nn.ConvTranspose2d, spec: Spec) -> nn.Module:
    if layer.kernel_size != layer.stride or layer.padding != (0, 0) or layer.output_padding != (0, 0):
        raise UserError(
            "a ConvTranspose2d needs windows that do not overlap: kernel and stride must be equal. Choose another "
            "encoder, or replace the layer."
        )
    kernel = spec.axes(layer.kernel_size)
    bias = layer.bias is not None
    conv_transpose: Callable[..., nn.Module] = nn.ConvTranspose3d
    twin = conv_transpose(
        layer.in_channels, layer.out_channels, kernel, kernel, groups=layer.groups, bias=bias, device="meta"
    )
    # Each output voxel gets one contribution only, so in every mode each depth gets the 2D kernel.
    twin.weight = nn.Parameter(fit_kernel(layer.weight.detach(), kernel, "replicate", spec.axis))
    twin.bias = layer.bias  # type: ignore[assignment]
    return twin


@twin_of(nn.MaxPool2d, MaxPool2dSame, nn.AvgPool2d, tl.AvgPool2dSame, shaped=True)
def _pool(layer: Any, spec: Spec) -> nn.Module:
    kernel, stride = spec.axes(layer.kernel_size), spec.axes(layer.stride)
    padding, ceil_mode = spec.flatten(spec.axes(layer.padding), 0), layer.ceil_mode
    if spec.geometry:
        tiles = kernel == stride  # and stay so
        stride = spec.geometry.stride
        kernel = spec.flatten(stride if tiles else kernel, 1)
        if tiles and type(layer) is nn.AvgPool2d:
            return ours.TiledAvgPool(kernel, stride)
        ceil_mode = ceil_mode or (tiles and type(layer) is nn.MaxPool2d)  # no voxel lost at the end
    if spec.dims == 2:
        layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode = kernel, stride, padding, ceil_mode
        return layer  # type: ignore[no-any-return]
    if isinstance(layer, nn.MaxPool2d):
        max_pool: Callable[..., nn.Module] = ours.MaxPool3dSame if isinstance(layer, MaxPool2dSame) else nn.MaxPool3d
        return max_pool(kernel, stride, padding, dilation=spec.axes(layer.dilation), ceil_mode=ceil_mode)
    if any(padding) and not ceil_mode:
        # Not along the new axis: a volume that is constant along it is to have the 2D means at its ends too.
        counted = [layer.count_include_pad and axis != spec.axis for axis in range(3)]
        return ours.PaddedAvgPool3d(kernel, stride, padding, counted)
    average_pool: Callable[..., nn.Module] = ours.AvgPool3dSame if isinstance(layer, tl.AvgPool2dSame) else nn.AvgPool3d
    return average_pool(kernel, stride, padding, ceil_mode=ceil_mode, count_include_pad=layer.count_include_pad)


@twin_of(tl.BlurPool2d, shaped=True)
def _blur(layer: tl.BlurPool2d, spec: Spec) -> nn.Module:
    stride = spec.geometry.stride if spec.geometry else spec.axes(layer.stride)
    # As other pools, it does along the new axis what it does along the others, whatever the mode.
    return ours.BlurPool(spec.flatten(spec.axes(layer.filt_size), 1), stride, layer.pad_mode)


@twin_of(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, shaped=True)
def _adaptive_pool(layer: Any, spec: Spec) -> nn.Module:
    if spec.dims == 2:
        return layer  # type: ignore[no-any-return]
    kind = nn.AdaptiveAvgPool3d if isinstance(layer, nn.AdaptiveAvgPool2d) else nn.AdaptiveMaxPool3d
    return kind(spec.axes(layer.output_size))


@twin_of(nn.Upsample)
def _upsample(layer: nn.Upsample, spec: Spec) -> nn.Module:
    scale = layer.scale_factor
    if layer.mode != "nearest" or not isinstance(scale, int | float):
        raise UserError(
            "an Upsample needs the mode `nearest` and one scale factor. Choose another encoder, or replace the layer."
        )
    return layer


# --- other layers that are written for two axes


def _with_state(twin: nn.Module, layer: nn.Module) -> nn.Module:
    twin.load_state_dict(layer.state_dict(), assign=True)
    return twin


_NORMS: dict[type, type[nn.BatchNorm3d] | type[nn.InstanceNorm3d]] = {
    nn.BatchNorm2d: nn.BatchNorm3d,
    tl.BatchNormAct2d: ours.BatchNormAct3d,
    nn.InstanceNorm2d: nn.InstanceNorm3d,
}


@twin_of(*_NORMS)
def _normalisation(layer: Any, _: Spec) -> nn.Module:
    twin = _NORMS[type(layer)](
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
    )
    for name, child in layer.named_children():  # BatchNormAct2d's dropout and activation
        twin.add_module(name, child)
    return _with_state(twin, layer)


@twin_of(nn.Dropout2d)
def _dropout(layer: nn.Dropout2d, _: Spec) -> nn.Module:
    return nn.Dropout3d(layer.p)


@twin_of(tl.LayerNorm2d)
def _layer_norm(layer: Any, _: Spec) -> nn.Module:
    affine = layer.elementwise_affine
    twin = ours.LayerNorm3d(layer.normalized_shape, layer.eps, affine, bias=layer.bias is not None, device="meta")
    return _with_state(twin, layer)


@twin_of(GlobalResponseNorm)
def _response_norm(layer: Any, _: Spec) -> nn.Module:
    last = layer.channel_dim == -1
    layer.spatial_dim = (1, 2, 3) if last else (2, 3, 4)
    layer.wb_shape = (1, 1, 1, 1, -1) if last else (1, -1, 1, 1, 1)
    return layer  # type: ignore[no-any-return]


@twin_of(metaformer.Scale)
def _scale(layer: Any, _: Spec) -> nn.Module:
    if len(layer.shape) > 1:  # channels first
        layer.shape = (*layer.shape, 1)
    return layer  # type: ignore[no-any-return]


@twin_of(tl.SEModule, EffectiveSEModule, hgnet.EseModule, _efficientnet_blocks.SqueezeExcite)
def _squeeze_excite(layer: Any, _: Spec) -> nn.Module:
    return blocks.SqueezeExcite3d(layer.named_children(), getattr(layer, "add_maxpool", False))


@twin_of(tl.EcaModule, whole=True)
def _efficient_channel_attention(layer: Any, _: Spec) -> nn.Module:
    return blocks.EfficientChannelAttention3d(layer)


_BLOCKS: dict[type, Callable[[Any], nn.Module]] = {
    ChannelAttn: blocks.ChannelAttention3d,
    convnext.ConvNeXtBlock: blocks.ConvNeXtBlock3d,
    tl.LayerScale2d: blocks.LayerScale3d,
    fastvit.LayerScale2d: blocks.LayerScale3d,
    tl.RmsNorm2d: blocks.RmsNorm3d,
    tl.SimpleNorm2d: blocks.SimpleNorm3d,
    RmsNormAct2d: blocks.RmsNorm3d,
    LayerNormAct2d: blocks.LayerNormAct3d,
    SelectiveKernelAttn: blocks.SelectiveKernelAttention3d,
    SplitAttn: blocks.SplitAttention3d,
    tl.GlobalContext: blocks.GlobalContext3d,
    inception_next.MetaNeXtBlock: blocks.MetaNeXtBlock3d,
    ghostnet.GhostModuleV2: blocks.GhostModule3d,
    hgnet.StemV2: blocks.PaddedStem3d,
}


@twin_of(metaformer.MetaFormerStage)
def _metaformer_stage(layer: Any, _: Spec) -> nn.Module:
    # Stages over sequences of tokens stay as they are, for the proof to refuse them.
    return blocks.MetaFormerStage3d(layer) if layer.use_nchw else layer


@twin_of(*_BLOCKS)
def _block(layer: nn.Module, _: Spec) -> nn.Module:
    return _BLOCKS[type(layer)](layer)
