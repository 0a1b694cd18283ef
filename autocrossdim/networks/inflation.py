"""2D modules into their 3D twins, weights included."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from timm import layers as tl
from timm.layers.cbam import CbamModule, ChannelAttn, SpatialAttn
from timm.layers.grn import GlobalResponseNorm
from timm.layers.pool2d_same import MaxPool2dSame
from timm.layers.squeeze_excite import EffectiveSEModule
from timm.models import _efficientnet_blocks, convnext, efficientnet, regnet, resnet
from torch import Tensor, nn

from autocrossdim.networks import layers as ours
from autocrossdim.networks.depthwise import DepthwiseConv3d, DepthwiseConv3dSame
from autocrossdim.system.errors import UserError

Mode = Literal["center", "average", "replicate", "acs"]


class Geometry(NamedTuple):
    """What a plan asks of one strided or extended layer, in the axes of the network that is built."""

    stride: tuple[int, ...]
    flat: tuple[bool, ...]
    """Axes along which the kernel has no extent."""


def inflate(module: nn.Module, mode: Mode = "center", axis: int = 0) -> nn.Module:
    """Turn a 2D module, working on (B, C, H, W), into its 3D twin, weights included.

    The new axis copies extent, stride and padding of the module's first spatial axis; names of parameters stay
    as they are. The modes say what a k x k kernel becomes:

    - `center`: the 2D kernel in the middle slice, zeros elsewhere. On a volume that is constant along the new
      axis the twin gives the 2D features, borders included.
    - `average`: the 2D kernel divided by k at each of k depths, as in I3D (arXiv 1705.07750). The same, but
      only away from the borders of the new axis, where zero padding enters.
    - `replicate`: the 2D kernel, undivided, at each depth (the paper's words). Responses grow by k, which a
      batch-norm in training mode takes back.
    - `acs`: the 2D kernel stays as it is and trains as it is; a third of the output channels applies it in each of
      the three planes (arXiv 1911.10477).

    Args:
        module: the 2D module; it is left as it is. A composite of one's own is taken to work in any number of
            axes once its parts do.
        mode: see above.
        axis: which spatial axis of the 3D twin is the new one, 0 to 2.

    Raises:
        UserError: the module holds a layer whose 3D twin is not known, or mode or axis are none of the above.
    """
    if mode not in get_args(Mode) or axis not in (0, 1, 2):
        raise UserError(f"inflate: mode must be one of {', '.join(get_args(Mode))} and axis 0, 1 or 2.")
    twin = rebuild(copy.deepcopy(module), 3, mode, axis)
    for name, parameter in module.named_parameters():
        twin.get_parameter(name).requires_grad_(parameter.requires_grad)
    return twin.train(module.training)


def rebuild(
    module: nn.Module,
    dims: int,
    mode: Mode,
    axis: int = 0,
    geometry: Mapping[str, Geometry] | None = None,
    name: str = "",
) -> nn.Module:
    """Change a 2D module (which is used up) to `dims` axes, with the strides and kernels of `geometry`.

    Args:
        module: the 2D module.
        dims: 2 or 3.
        mode: as in `inflate`.
        axis: as in `inflate`.
        geometry: strides and kernels by the layers' names; layers that are not in it keep their own.
        name: the module's own name, where it is part of a larger one.

    Raises:
        UserError: a layer's 3D twin is not known.
    """
    done: dict[nn.Module, nn.Module] = {}  # a layer used twice has one twin

    def visit(module: nn.Module, name: str) -> nn.Module:
        if module not in done and dims == 3 and type(module) in _WHOLE:
            done[module] = _WHOLE[type(module)](module)
        if module not in done:
            for key, child in module._modules.items():
                if child is not None:
                    setattr(module, key, visit(child, f"{name}.{key}" if name else key))
            done[module] = _twin(module, name, _Spec(dims, mode, axis, (geometry or {}).get(name)))
        return done[module]

    return visit(module, name)


def _twin(module: nn.Module, name: str, spec: "_Spec") -> nn.Module:
    kind = type(module)
    if kind in _SHAPED and (spec.dims == 3 or spec.geometry):
        return _SHAPED[kind](module, spec)
    if spec.dims == 2:
        return module
    if kind in _TWINS:
        return _TWINS[kind](module)
    if not _works_in_any_dims(module):
        raise UserError(
            f"cannot inflate {name or 'the module'}: no 3D twin is known for the layer {kind.__qualname__} "
            f"of {kind.__module__}. Choose another encoder, or replace the layer."
        )
    return module


def fit_kernel(weight: Tensor, extents: tuple[int, ...], mode: Mode, axis: int = 0) -> Tensor:
    """Give a convolution's weight the spatial extents asked for.

    An extent of 1 that has to grow is spread by `mode` (`acs` as `center`: a dense kernel has one plane);
    an extent that has to become 1 is summed, which keeps the response to anything constant along that axis.

    Args:
        weight: (O, I, *kernel), with 2 or 3 spatial axes.
        extents: as many spatial extents as wanted; one more than `weight` has puts a new axis at `axis`.
        mode: as in `inflate`.
        axis: as in `inflate`.

    Raises:
        ValueError: an extent would have to change between two numbers larger than 1.
    """
    if len(extents) == weight.ndim - 1:
        weight = weight.unsqueeze(2 + axis)
    if len(extents) != weight.ndim - 2:
        raise ValueError(f"a kernel of {weight.ndim - 2} axes cannot become one of {len(extents)}")
    for dim, extent in enumerate(extents, start=2):
        have = weight.shape[dim]
        if extent == have:
            continue
        if extent == 1:
            weight = weight.sum(dim, keepdim=True)
        elif have == 1:
            weight = _spread(weight, dim, extent, mode)
        else:
            raise ValueError(f"a kernel's extent of {have} cannot become {extent}")
    return weight.contiguous()


def _spread(weight: Tensor, dim: int, extent: int, mode: Mode) -> Tensor:
    shape = [*weight.shape[:dim], extent, *weight.shape[dim + 1 :]]
    if mode == "replicate":
        return weight.expand(shape)
    if mode == "average":
        return weight.expand(shape) / extent
    spread = weight.new_zeros(shape)
    # With an even extent and "same" padding the left of the two middles is never on the padding.
    spread.narrow(dim, (extent - 1) // 2, 1).copy_(weight)
    return spread


@dataclass(frozen=True)
class _Spec:
    """What is asked of the layer at hand."""

    dims: int
    mode: Mode
    axis: int
    geometry: Geometry | None

    def axes(self, value: Any) -> tuple[int, ...]:
        """One number an axis, from a 2D layer's number or pair; the new axis copies the first."""
        pair = (value, value) if isinstance(value, int) else tuple(value)
        return pair if self.dims == 2 else (*pair[: self.axis], pair[0], *pair[self.axis :])

    def plane(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """What `values` says of the two axes beside the new one."""
        return (*values[: self.axis], *values[self.axis + 1 :])

    def flatten(self, values: tuple[int, ...], flat: int) -> tuple[int, ...]:
        """Put `flat` for the axes without extent."""
        if self.geometry is None:
            return values
        return tuple(flat if none else value for value, none in zip(values, self.geometry.flat, strict=True))


def _conv(layer: nn.Conv2d, spec: _Spec) -> nn.Module:
    kernel, dilation = spec.flatten(spec.axes(layer.kernel_size), 1), spec.axes(layer.dilation)
    stride = spec.axes(layer.stride)
    padding = layer.padding if isinstance(layer.padding, str) else spec.flatten(spec.axes(layer.padding), 0)
    same = isinstance(layer, tl.Conv2dSame)
    if spec.geometry:
        # Patches laid side by side (ConvNeXt) get "same" padding: nothing at sizes that they divide, and
        # no voxel lost at others or where the plan takes a stride away.
        same = same or (layer.kernel_size == layer.stride and layer.kernel_size != (1, 1))
        stride = spec.geometry.stride
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": layer.groups}
    options |= {"bias": layer.bias is not None, "device": "meta"}
    if not same:
        options |= {"padding": padding, "padding_mode": layer.padding_mode}
    twin: nn.Module
    if spec.dims == 3 and spec.mode == "acs" and kernel[spec.axis] > 1:
        if layer.padding_mode != "zeros" or isinstance(padding, str):
            raise UserError("cannot inflate by acs: a convolution with other padding than zeros.")
        twin = ours.AcsConv3d(
            layer.in_channels,
            layer.out_channels,
            spec.plane(kernel),
            stride,
            "same" if same else spec.plane(padding),
            layer.dilation,
            layer.groups,
            spec.axis,
        )
        weight = fit_kernel(layer.weight.detach(), spec.plane(kernel), spec.mode)
    else:
        depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
        types: dict[tuple[int, bool], Callable[..., nn.Module]] = {
            (2, False): nn.Conv2d,
            (2, True): tl.Conv2dSame,
            (3, False): DepthwiseConv3d if depthwise else nn.Conv3d,
            (3, True): DepthwiseConv3dSame if depthwise else ours.Conv3dSame,
        }
        twin = types[spec.dims, same](layer.in_channels, layer.out_channels, kernel, **options)
        weight = fit_kernel(layer.weight.detach(), kernel, spec.mode, spec.axis)
    twin.weight = nn.Parameter(weight)
    twin.bias = layer.bias  # type: ignore[assignment]
    return twin


def _transposed(layer: nn.ConvTranspose2d, spec: _Spec) -> nn.Module:
    if layer.kernel_size != layer.stride or layer.padding != (0, 0) or layer.output_padding != (0, 0):
        raise UserError("cannot inflate a ConvTranspose2d whose windows overlap: kernel and stride must be equal.")
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


def _pool(layer: Any, spec: _Spec) -> nn.Module:
    kernel, stride = spec.axes(layer.kernel_size), spec.axes(layer.stride)
    padding = spec.flatten(spec.axes(layer.padding), 0)
    if spec.geometry:
        tiles = kernel == stride  # and stay so
        stride = spec.geometry.stride
        kernel = spec.flatten(stride if tiles else kernel, 1)
        if tiles and type(layer) is nn.AvgPool2d:
            return ours.TiledAvgPool(kernel, stride)
    if spec.dims == 2:
        layer.kernel_size, layer.stride, layer.padding = kernel, stride, padding
        return layer  # type: ignore[no-any-return]
    options: dict[str, Any] = {"ceil_mode": layer.ceil_mode}
    if isinstance(layer, nn.MaxPool2d):
        max_pool: Callable[..., nn.Module] = ours.MaxPool3dSame if isinstance(layer, MaxPool2dSame) else nn.MaxPool3d
        return max_pool(kernel, stride, padding, dilation=spec.axes(layer.dilation), **options)
    average_pool: Callable[..., nn.Module] = ours.AvgPool3dSame if isinstance(layer, tl.AvgPool2dSame) else nn.AvgPool3d
    return average_pool(kernel, stride, padding, count_include_pad=layer.count_include_pad, **options)


def _blur(layer: tl.BlurPool2d, spec: _Spec) -> nn.Module:
    stride = spec.geometry.stride if spec.geometry else spec.axes(layer.stride)
    # As other pools, it does along the new axis what it does along the others, whatever the mode.
    return ours.BlurPool(spec.flatten(spec.axes(layer.filt_size), 1), stride, layer.pad_mode)


# Layers with strides or kernels, that a plan's geometry may change.
_SHAPED: dict[type, Callable[[Any, _Spec], nn.Module]] = {
    nn.Conv2d: _conv,
    tl.Conv2dSame: _conv,
    nn.ConvTranspose2d: _transposed,
    nn.MaxPool2d: _pool,
    MaxPool2dSame: _pool,
    nn.AvgPool2d: _pool,
    tl.AvgPool2dSame: _pool,
    tl.BlurPool2d: _blur,
    nn.AdaptiveAvgPool2d: lambda layer, spec: nn.AdaptiveAvgPool3d(spec.axes(layer.output_size)),
    nn.AdaptiveMaxPool2d: lambda layer, spec: nn.AdaptiveMaxPool3d(spec.axes(layer.output_size)),
}


def _with_state(twin: nn.Module, layer: nn.Module) -> nn.Module:
    twin.load_state_dict(layer.state_dict(), assign=True)
    return twin


def _normalised(kind: type[nn.BatchNorm3d] | type[nn.InstanceNorm3d]) -> Callable[[Any], nn.Module]:
    def twin_of(layer: Any) -> nn.Module:
        twin = kind(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
        )
        for name, child in layer.named_children():  # BatchNormAct2d's dropout and activation
            twin.add_module(name, child)
        return _with_state(twin, layer)

    return twin_of


def _layer_norm(layer: Any) -> nn.Module:
    affine = layer.elementwise_affine
    twin = ours.LayerNorm3d(layer.normalized_shape, layer.eps, affine, bias=layer.bias is not None, device="meta")
    return _with_state(twin, layer)


def _response_norm(layer: Any) -> nn.Module:
    last = layer.channel_dim == -1
    layer.spatial_dim = (1, 2, 3) if last else (2, 3, 4)
    layer.wb_shape = (1, 1, 1, 1, -1) if last else (1, -1, 1, 1, 1)
    return layer  # type: ignore[no-any-return]


def _squeeze_excite(layer: Any) -> nn.Module:
    return ours.SqueezeExcite3d(layer.named_children(), getattr(layer, "add_maxpool", False))


# Other layers that are written for two axes.
_TWINS: dict[type, Callable[[Any], nn.Module]] = {
    nn.BatchNorm2d: _normalised(nn.BatchNorm3d),
    tl.BatchNormAct2d: _normalised(ours.BatchNormAct3d),
    nn.InstanceNorm2d: _normalised(nn.InstanceNorm3d),
    nn.Dropout2d: lambda layer: nn.Dropout3d(layer.p),
    tl.LayerNorm2d: _layer_norm,
    GlobalResponseNorm: _response_norm,
    tl.SEModule: _squeeze_excite,
    EffectiveSEModule: _squeeze_excite,
    _efficientnet_blocks.SqueezeExcite: _squeeze_excite,
    ChannelAttn: ours.ChannelAttention3d,
    convnext.ConvNeXtBlock: ours.ConvNeXtBlock3d,
}

# Layers whose parts would have no twins by themselves.
_WHOLE: dict[type, Callable[[Any], nn.Module]] = {tl.EcaModule: ours.EfficientChannelAttention3d}

# What is written for any number of spatial axes, or computes over channels only.
_DIMENSION_FREE: frozenset[type] = frozenset(
    {
        *(nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Flatten, nn.Dropout),
        *(nn.Linear, nn.PReLU, nn.GroupNorm, nn.LayerNorm, tl.LayerNorm),
        *(tl.GroupNorm, tl.GroupNorm1, tl.GroupNormAct, tl.DropPath),
        *(CbamModule, SpatialAttn, tl.ConvNormAct, tl.Mlp, tl.GlobalResponseNormMlp),
        *(tl.SelectAdaptivePool2d, tl.ClassifierHead, tl.NormMlpClassifierHead),
        *(efficientnet.EfficientNet, _efficientnet_blocks.ConvBnAct, _efficientnet_blocks.EdgeResidual),
        *(_efficientnet_blocks.DepthwiseSeparableConv, _efficientnet_blocks.InvertedResidual),
        *(resnet.ResNet, resnet.BasicBlock, resnet.Bottleneck),
        *(regnet.RegNet, regnet.RegStage, regnet.Bottleneck, regnet.PreBottleneck),
        *(convnext.ConvNeXt, convnext.ConvNeXtStage, convnext.Downsample),
    }
)
_ELEMENTWISE = ("torch.nn.modules.activation", "timm.layers.activations")


def _works_in_any_dims(module: nn.Module) -> bool:
    kind = type(module)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        return False
    if kind in _DIMENSION_FREE:
        return True
    own_state = any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(False))
    if own_state:
        return False
    return kind.__module__.startswith(_ELEMENTWISE) or kind.__module__.split(".")[0] not in ("torch", "timm")
