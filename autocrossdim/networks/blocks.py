"""3D twins of timm's blocks whose forward pass is written for two axes, made of their (already inflated) parts."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autocrossdim.networks.layers import pad_same

_SPATIAL = (2, 3, 4)


class Parts(nn.Module):
    """A module that takes over parts, parameters and options of a 2D layer, under the same names.

    Args:
        layer: timm's layer, whose children are twins already.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.__dict__.update(layer.__dict__)


def per_channel(values: Tensor) -> Tensor:
    """View (C,) so that it broadcasts over (B, C, Z, Y, X)."""
    return values.view(1, -1, 1, 1, 1)


class StandardisedConv(Parts):
    """A convolution with standardised weights, in 2D or 3D: timm's StdConv2d and ScaledStdConv2d.

    In 3D, mean and variance are those of the 2D kernel that the sum over the new axis leaves, and the mean is
    subtracted in the middle slice. A kernel inflated by `center` then gives the 2D kernel's response exactly.

    Args:
        layer: timm's layer, with kernel, strides and padding for the axes of the network that is built.
        same: Whether to pad as TensorFlow's "same" does.
        axis: The new axis, 0 to 2; None in 2D.
    """

    weight: Tensor
    bias: Tensor | None
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    eps: float
    gain: Tensor  # of ScaledStdConv2d, with its scale
    scale: float

    def __init__(self, layer: Any, same: bool, axis: int | None) -> None:
        super().__init__(layer)
        self.same, self.axis = same, axis

    def standardised(self) -> Tensor:
        """Return the kernel (O, I / groups, *kernel) with mean 0 and variance 1, times the gain if there is one."""
        in_plane = self.weight if self.axis is None else self.weight.sum(2 + self.axis)
        var, mean = torch.var_mean(in_plane.flatten(1), 1, correction=0)
        factor = torch.rsqrt(var + self.eps)
        if hasattr(self, "gain"):
            factor = factor * self.gain.flatten() * self.scale
        shape = (-1, *(1 for _ in self.weight.shape[1:]))
        mean, factor = mean.view(shape), factor.view(shape)
        if self.axis is not None:
            extent = self.weight.shape[2 + self.axis]
            middle = torch.arange(extent, device=mean.device) == (extent - 1) // 2
            mean = mean * middle.view(-1, *(1 for _ in range(2 - self.axis)))
        return (self.weight - mean) * factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, *spatial) -> (B, O, *spatial / stride)."""
        if self.same:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        conv = F.conv2d if x.ndim == 4 else F.conv3d
        return conv(x, self.standardised(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class LayerScale3d(Parts):
    """The twin of timm's LayerScale2d."""

    gamma: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        return x * per_channel(self.gamma)


class RmsNorm3d(Parts):
    """Root-mean-square normalisation over the channels: the twin of timm's RmsNorm2d and RmsNormAct2d."""

    weight: Tensor | None
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + self.eps)
        x = x if self.weight is None else x * per_channel(self.weight)
        for child in self.children():  # dropout and activation
            x = child(x)
        return x


class SimpleNorm3d(Parts):
    """Division by the standard deviation over the channels: the twin of timm's SimpleNorm2d."""

    weight: Tensor | None
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        x = x * torch.rsqrt(x.var(1, keepdim=True) + self.eps)
        return x if self.weight is None else x * per_channel(self.weight)


class LayerNormAct3d(Parts):
    """Layer normalisation over the channels, then an activation: the twin of timm's LayerNormAct2d."""

    normalized_shape: tuple[int, ...]
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        x = F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)
        return self.act(self.drop(x))  # type: ignore[no-any-return]


class SqueezeExcite3d(nn.Module):
    """x times a gate computed from its mean over all spatial axes: squeeze-and-excitation and its relatives.

    Args:
        children: The layers between the mean and the value of the gate, in order, with their names in timm.
        add_maxpool: Whether the mean of mean and maximum is used in place of the mean.
    """

    def __init__(self, children: Iterable[tuple[str, nn.Module]], add_maxpool: bool = False) -> None:
        super().__init__()
        self.add_maxpool = add_maxpool
        for name, child in children:
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        gate = x.mean(_SPATIAL, keepdim=True)
        if self.add_maxpool:
            gate = 0.5 * gate + 0.5 * x.amax(_SPATIAL, keepdim=True)
        for child in self.children():
            gate = child(gate)
        return x * gate


class ChannelAttention3d(Parts):
    """x times a gate from its mean and its maximum, each through the same two layers: the twin of CBAM's first half."""

    fc1: nn.Module
    act: nn.Module
    fc2: nn.Module
    gate: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        pooled = (x.mean(_SPATIAL, keepdim=True), x.amax(_SPATIAL, keepdim=True))
        mean, largest = (self.fc2(self.act(self.fc1(values))) for values in pooled)
        return x * self.gate(mean + largest)  # type: ignore[no-any-return]


class EfficientChannelAttention3d(Parts):
    """x times a gate computed by 1D convolutions over the channels' means: the twin of timm's EcaModule."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        gate: Tensor = x.mean(_SPATIAL).unsqueeze(1)
        for child in self.children():
            gate = child(gate)
        return x * gate.reshape(*x.shape[:2], 1, 1, 1)


class ConvNeXtBlock3d(Parts):
    """The twin of timm's ConvNeXtBlock."""

    use_conv_mlp: bool
    conv_dw: nn.Module
    norm: nn.Module
    mlp: nn.Module
    gamma: Tensor | None
    shortcut: nn.Module
    drop_path: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, O, Z, Y, X)."""
        y: Tensor = self.conv_dw(x)
        if self.use_conv_mlp:
            y = self.mlp(self.norm(y))
        else:  # layer norm and linear layers expect channels last
            y = self.mlp(self.norm(y.movedim(1, -1))).movedim(-1, 1)
        if self.gamma is not None:
            y = y * per_channel(self.gamma)
        return self.drop_path(y) + self.shortcut(x)  # type: ignore[no-any-return]


class SelectiveKernelAttention3d(Parts):
    """Weights of parallel paths from the mean of their sum: the twin of timm's SelectiveKernelAttn."""

    num_paths: int
    fc_reduce: nn.Module
    bn: nn.Module
    act: nn.Module
    fc_select: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, paths, C, Z, Y, X) -> (B, paths, C, 1, 1, 1)."""
        mean = x.sum(1).mean(_SPATIAL, keepdim=True)
        weights: Tensor = self.fc_select(self.act(self.bn(self.fc_reduce(mean))))
        return weights.reshape(len(x), self.num_paths, -1, 1, 1, 1).softmax(1)


class SplitAttention3d(Parts):
    """A convolution whose groups are weighted by a gate: the twin of timm's SplitAttn (ResNeSt)."""

    radix: int
    conv: nn.Module
    bn0: nn.Module
    drop: nn.Module
    act0: nn.Module
    fc1: nn.Module
    bn1: nn.Module
    act1: nn.Module
    fc2: nn.Module
    rsoftmax: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, O, Z, Y, X)."""
        x = self.act0(self.drop(self.bn0(self.conv(x))))
        x = x.reshape(len(x), self.radix, -1, *x.shape[2:])
        gate: Tensor = self.fc2(self.act1(self.bn1(self.fc1(x.sum(1).mean(_SPATIAL, keepdim=True)))))
        gate = self.rsoftmax(gate).reshape(len(x), self.radix, -1, 1, 1, 1)
        return (x * gate).sum(1)


class GlobalContext3d(Parts):
    """A gate from a weighted mean over all voxels: the twin of timm's GlobalContext."""

    conv_attn: nn.Module | None
    mlp_scale: nn.Module | None
    mlp_add: nn.Module | None
    gate: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        if self.conv_attn is None:
            context = x.mean(_SPATIAL, keepdim=True)
        else:
            attention: Tensor = self.conv_attn(x).flatten(2).softmax(-1)  # (B, 1, Z * Y * X)
            context = (x.flatten(2) * attention).sum(-1)[..., None, None, None]
        if self.mlp_scale is not None:
            x = x * self.gate(self.mlp_scale(context))
        return x if self.mlp_add is None else x + self.mlp_add(context)


class MetaNeXtBlock3d(Parts):
    """The twin of timm's MetaNeXtBlock (InceptionNeXt)."""

    token_mixer: nn.Module
    norm: nn.Module
    mlp: nn.Module
    gamma: Tensor | None
    drop_path: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        y: Tensor = self.mlp(self.norm(self.token_mixer(x)))
        if self.gamma is not None:
            y = y * per_channel(self.gamma)
        return self.drop_path(y) + x  # type: ignore[no-any-return]


class MetaFormerStage3d(Parts):
    """The twin of timm's MetaFormerStage, for stages that keep channels first (PoolFormer)."""

    downsample: nn.Module
    blocks: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, O, *spatial / stride)."""
        return self.blocks(self.downsample(x))  # type: ignore[no-any-return]


class GhostModule3d(Parts):
    """Half of the channels from cheap convolutions, with a gate at half the resolution: the twin of GhostModuleV2."""

    out_chs: int
    primary_conv: nn.Module
    cheap_operation: nn.Module
    short_conv: nn.Module
    gate_fn: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, O, Z, Y, X)."""
        half = F.avg_pool3d(x, [min(2, size) for size in x.shape[2:]])  # an axis of one voxel cannot be halved
        gate = self.gate_fn(self.short_conv(half))
        primary = self.primary_conv(x)
        features = torch.cat([primary, self.cheap_operation(primary)], dim=1)[:, : self.out_chs]
        return features * F.interpolate(gate, features.shape[2:], mode="nearest")


class PaddedStem3d(Parts):
    """The twin of PP-HGNetV2's stem, which pads after the last voxel of each axis before kernels of extent 2."""

    stem1: nn.Module
    stem2a: nn.Module
    stem2b: nn.Module
    stem3: nn.Module
    stem4: nn.Module
    pool: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, O, *spatial / 4)."""
        x = self._padded(self.stem1(x))
        y = self.stem2b(self._padded(self.stem2a(x)))
        return self.stem4(self.stem3(torch.cat([self.pool(x), y], dim=1)))  # type: ignore[no-any-return]

    def _padded(self, x: Tensor) -> Tensor:
        extents: tuple[int, ...] = self.pool.kernel_size  # type: ignore[assignment]
        return F.pad(x, [pad for extent in reversed(extents) for pad in (0, extent - 1)])
