"""3D layers that torch lacks: the counterparts (twins) of timm's 2D layers, with the same names of parameters."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pad_same(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], value: float = 0.0
) -> Tensor:
    """Pad as TensorFlow's "same" does: outputs have ceil(size / stride) voxels; an odd voxel is added at the end.

    Args:
        x: Features, shape (B, C, *spatial).
        kernel: Kernel extent per axis, in voxels.
        stride: Stride per axis.
        dilation: Dilation per axis.
        value: Value of the padding.
    """
    padding: list[int] = []
    for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        padding = [total // 2, total - total // 2, *padding]  # F.pad counts axes from the last
    return F.pad(x, padding, value=value) if any(padding) else x


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` that pads the depth axis itself where oneDNN would compute a wrong weight gradient.

    With PyTorch 2.14 on a CPU, that gradient is wrong, not finite, or ends the process for kernel 7, stride 2, padding
    3 and 5 to 7 voxels along the first spatial axis. Measured for 2 to 11 voxels along each axis, with one group and
    with one per channel; kernels 3 and 5, other strides and the gradient with respect to the input are right. Kernels 9
    and 11 are affected at sizes up to their own. If the input is padded beforehand, the gradient is right.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (torch.is_grad_enabled() and input.device.type == "cpu" and self._is_wrong_at(input.shape[-3])):
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        assert not isinstance(self.padding, str)  # see `_is_wrong_at`
        before, *others = self.padding
        padded = F.pad(input, [0, 0, 0, 0, before, before])
        return F.conv3d(padded, weight, bias, self.stride, (0, *others), self.dilation, self.groups)

    def _is_wrong_at(self, depth: int) -> bool:
        extent = self.kernel_size[0]
        padded = not isinstance(self.padding, str) and self.padding_mode == "zeros" and self.padding[0] > 0
        return extent >= 7 and self.stride[0] > 1 and padded and depth <= extent


class Conv3dSame(nn.Conv3d):
    """`Conv3d` with TensorFlow's "same" padding, as timm's Conv2dSame."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, O, ceil(Z / stride), ...)."""
        return super().forward(pad_same(x, self.kernel_size, self.stride, self.dilation))


class MaxPool3dSame(nn.MaxPool3d):
    """`MaxPool3d` with TensorFlow's "same" padding; kernel and stride are triples."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, C, ceil(Z / stride), ...)."""
        kernel, stride, dilation = (_triple(v) for v in (self.kernel_size, self.stride, self.dilation))
        pooled: Tensor = super().forward(pad_same(x, kernel, stride, dilation, float("-inf")))
        return pooled


class AvgPool3dSame(nn.AvgPool3d):
    """`AvgPool3d` with TensorFlow's "same" padding, padding counted as timm's AvgPool2dSame does."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, C, ceil(Z / stride), ...)."""
        return super().forward(pad_same(x, _triple(self.kernel_size), _triple(self.stride), (1, 1, 1)))


class PaddedAvgPool3d(nn.Module):
    """Average pooling with zero padding that counts as values along some axes only.

    `nn.AvgPool3d` accepts no input that is smaller than its window, and has one rule for all axes.

    Args:
        kernel: Extent of the window per axis.
        stride: Stride per axis.
        padding: Zeros on either side per axis.
        counted: Whether padding counts as values of zero, per axis.
    """

    def __init__(
        self, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], counted: Sequence[bool]
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = tuple(kernel), tuple(stride), tuple(padding)
        self.counted = tuple(counted)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, C, *spatial / stride)."""
        pads = [pad for pad in reversed(self.padding) for _ in range(2)]  # F.pad counts axes from the last
        mean = F.avg_pool3d(F.pad(x, pads), self.kernel_size, self.stride)
        for dim, counted in enumerate(self.counted):
            if not counted and self.padding[dim]:
                mean = mean / self._share(x.shape[2 + dim], dim, x)
        return mean

    def _share(self, size: int, dim: int, like: Tensor) -> Tensor:
        """Return the share of each window along one axis that is not padding, in a shape that broadcasts."""
        inside = F.pad(like.new_ones(1, 1, size), [self.padding[dim]] * 2)
        share = F.avg_pool1d(inside, self.kernel_size[dim], self.stride[dim])
        return share.view([-1 if axis == dim else 1 for axis in range(3)])


def he_normal(weight: Tensor, mode: Literal["fan_in", "fan_out"], groups: int = 1) -> None:
    """He initialisation (arXiv 1502.01852) of a convolution's weight (O, I / groups, *kernel), in place.

    As nn.init.kaiming_normal_ for ReLU, but with the real fan of grouped and depthwise convolutions.
    """
    channels = weight.shape[1] if mode == "fan_in" else weight.shape[0] / groups
    nn.init.normal_(weight, 0.0, math.sqrt(2.0 / (channels * math.prod(weight.shape[2:]))))


class TiledAvgPool(nn.Module):
    """Average pooling over adjacent windows, in 2D or 3D; the last window of an axis may be incomplete.

    Unlike torch's, it accepts inputs that are smaller than a window.
    """

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.kernel_size, self.stride = tuple(kernel), tuple(stride)
        self._pool = F.avg_pool2d if len(self.stride) == 2 else F.avg_pool3d

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *ceil(spatial / stride))."""
        kernel = [min(k, size) for k, size in zip(self.kernel_size, x.shape[2:], strict=True)]
        return self._pool(x, kernel, self.stride, ceil_mode=True, count_include_pad=False)


def _triple(value: int | Sequence[int]) -> Sequence[int]:
    return (value,) * 3 if isinstance(value, int) else value


class AcsConv3d(nn.Module):
    """A 2D convolution's weight applied in three planes of a volume (ACS convolution, arXiv 1911.10477).

    The output channels (or, in a grouped convolution, the groups) are divided into three runs of equal length; if that
    is not possible, the first runs are longer by one. The kernels of a run have extent 1 along one axis: `axis` for the
    first run, the other two axes, in order, for the others.

    Args:
        in_channels: Number of input channels C.
        out_channels: Number of output channels O.
        kernel: Extents of the 2D kernel.
        stride: Stride per axis of the volume.
        padding: Zeros on either side per axis of the 2D kernel, or "same" for TensorFlow's rule.
        dilation: Dilation per axis of the 2D kernel.
        groups: Number of groups.
        axis: Axis perpendicular to the first plane, 0 to 2.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int] | str,
        dilation: Sequence[int],
        groups: int = 1,
        axis: int = 0,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.padding = tuple(kernel), tuple(stride), padding
        self.dilation = tuple(dilation)
        self.across = (axis, *(other for other in range(3) if other != axis))
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel, device="meta"))
        self.register_parameter("bias", None)

    def runs(self) -> list[tuple[int, slice, slice, int]]:
        """Return the perpendicular axis, input channels, output channels and number of groups of each plane."""
        units = self.groups if self.groups > 1 else self.out_channels
        runs, start = [], 0
        for index, axis in enumerate(self.across):
            stop = start + units // 3 + (index < units % 3)
            each = self.out_channels // units
            inputs = slice(None)
            if self.groups > 1:
                width = self.in_channels // self.groups
                inputs = slice(start * width, stop * width)
            if stop > start:
                groups = stop - start if self.groups > 1 else 1
                runs.append((axis, inputs, slice(start * each, stop * each), groups))
            start = stop
        return runs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, O, *spatial)."""
        parts = []
        for axis, inputs, outputs, groups in self.runs():
            weight = self.weight[outputs].unsqueeze(2 + axis)
            bias = None if self.bias is None else self.bias[outputs]
            dilation = _insert(self.dilation, axis, 1)
            part = x[:, inputs]
            if isinstance(self.padding, str):
                # Pad as for a kernel with extent on all axes and take its middle, so that the planes meet.
                across = self.kernel_size[0]
                part = pad_same(part, _insert(self.kernel_size, axis, across), self.stride, dilation)
                part = part.narrow(2 + axis, (across - 1) // 2, part.shape[2 + axis] - across + 1)
                padding: tuple[int, ...] = (0, 0, 0)
            else:
                padding = _insert(self.padding, axis, 0)
            parts.append(F.conv3d(part, weight, bias, self.stride, padding, dilation, groups))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        """Return the options of the layer, for `print`."""
        return f"{self.in_channels}, {self.out_channels}, kernel={self.kernel_size}, stride={self.stride}"


def _insert(values: Sequence[int], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index:])


class BatchNormAct3d(nn.BatchNorm3d):
    """Batch normalisation, then an activation: the twin of timm's BatchNormAct2d."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        return self.act(self.drop(super().forward(x)))  # type: ignore[no-any-return]


class BlurPool(nn.Module):
    """A binomial filter with a stride, in 2D or 3D: timm's BlurPool2d with an extent and a stride per axis.

    An axis that is too short for padding by reflection is padded with its last value.

    Args:
        extents: Extent of the filter per axis; 1 does not blur along the axis.
        stride: Stride per axis.
        pad_mode: Mode of the padding, as for `F.pad`.
    """

    def __init__(self, extents: Sequence[int], stride: Sequence[int], pad_mode: str) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pad_mode = tuple(extents), tuple(stride), pad_mode
        self._conv = F.conv2d if len(self.stride) == 2 else F.conv3d

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *ceil(spatial / stride)), for odd extents."""
        filt = x.new_ones(())
        for extent in self.kernel_size:
            binomial = x.new_tensor([math.comb(extent - 1, k) for k in range(extent)]) / 2 ** (extent - 1)
            filt = filt[..., None] * binomial
        padding: list[int] = []
        at_short: list[int] = []
        for size, extent, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            pad = (stride - 1 + extent - 1) // 2 if extent > 1 else 0
            short = self.pad_mode == "reflect" and pad >= size
            padding = [0 if short else pad] * 2 + padding  # F.pad counts axes from the last
            at_short = [pad if short else 0] * 2 + at_short
        x = F.pad(x, padding, mode=self.pad_mode)
        if any(at_short):
            x = F.pad(x, at_short, mode="replicate")
        channels = x.shape[1]
        return self._conv(x, filt.expand(channels, 1, *filt.shape), stride=self.stride, groups=channels)


class LayerNorm3d(nn.LayerNorm):
    """Layer normalisation over the channels of every voxel: the twin of timm's LayerNorm2d."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
