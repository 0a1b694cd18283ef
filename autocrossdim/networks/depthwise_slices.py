"""A depthwise 3D convolution as 2D convolutions of slices, for GPUs.

cuDNN has fast kernels for depthwise 2D convolutions, but computes many depthwise 3D convolutions in 16 bits with
channels last one channel after the other. Here, all slices are convolved at once with each depth of the kernel, and the
results are added. On an H200 with PyTorch 2.11, a training step of a DX-Net with EfficientNet-B0 at 2 x 96 x 160 x 160
takes 74 ms instead of 347 ms, and a forward pass 23 ms instead of 90 ms.

Sums over the depths of the kernel are rounded to the type of the features: in bfloat16, the relative error of a layer
is 0.004 instead of 0.003.

Single layers (ms, bfloat16 autocast, batch 2), forward and backward:

| channels, input, kernel, stride | conv3d, channels last | conv3d, contiguous | here |
|---|---|---|---|
| 32, 96 x 96 x 96, 3, 1 | 12.5 | 7.3 | 3.4 |
| 96, 24 x 24 x 24, 7, 1 | 10.3 | 3.9 | 2.8 |
| 32, 48 x 48 x 48, 3, 1 | 1.8 | 1.0 | 1.5 |
| 96, 48 x 48 x 48, 3, 2 | 35.9 | 1.4 | 1.9 |
| 144, 24 x 24 x 24, 5, 2 | 6.8 | 1.4 | 2.0 |
| 240, 12 x 12 x 12, 5, 1 | 2.8 | 0.7 | 1.9 |
| 1152, 3 x 3 x 3, 5, 1 | 24.8 | 0.7 | 2.0 |

If input and weight are contiguous, PyTorch takes a kernel of its own, which is faster for layers with little to
compute: there, the time of this function is that of starting its many kernels. Whether converting the tensors of small
layers pays in a network has not been measured.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def by_slices(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """Return a depthwise convolution, computed slice by slice, in channels last.

    Args:
        x: Input, (B, C, Z, Y, X).
        weight: Weight, (C, 1, *kernel).
        stride: Stride per axis.
        padding: Padding per axis.
    """
    result: Tensor = _BySlices.apply(x, weight, stride, padding)
    return result


class _BySlices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        axes = zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
        size = [(n + 2 * p - k) // s + 1 for n, p, k, s in axes]
        result = x.new_zeros(len(x), *size, len(weight)).movedim(-1, 1)
        for tap, outputs, inputs in taps(weight.shape[2], x.shape[2], size[0], stride[0], padding[0]):
            y = F.conv2d(_slices(x[:, :, inputs]), weight[:, :, tap], None, stride[1:], padding[1:], 1, len(weight))
            result[:, :, outputs] += _volumes(y, len(x))
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_input = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        wanted = [of_input is not None, of_weight is not None, False]
        for tap, outputs, inputs in taps(weight.shape[2], x.shape[2], grad.shape[2], ctx.stride[0], ctx.padding[0]):
            by_input, by_weight, _ = torch.ops.aten.convolution_backward(
                _slices(grad[:, :, outputs]),
                _slices(x[:, :, inputs]),
                weight[:, :, tap],
                None,
                ctx.stride[1:],
                ctx.padding[1:],
                (1, 1),
                False,
                (0, 0),
                len(weight),
                wanted,
            )
            if of_input is not None:
                of_input[:, :, inputs] += _volumes(by_input, len(x))
            if of_weight is not None:
                of_weight[:, :, tap] = by_weight
        return of_input, of_weight, None, None


def taps(kernel: int, inputs: int, outputs: int, stride: int, padding: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each depth of the kernel, the slices of the output that see something through it, and what they see."""
    for tap in range(kernel):
        offset = tap - padding  # output z sees input z * stride + offset
        low, high = max(0, -(offset // stride)), min(outputs, (inputs - 1 - offset) // stride + 1)
        if low < high:
            yield tap, slice(low, high), slice(low * stride + offset, (high - 1) * stride + offset + 1, stride)


def _slices(x: Tensor) -> Tensor:
    """Return the slices (B * Z, C, Y, X), channels last, of volumes (B, C, Z, Y, X)."""
    return x.movedim(1, -1).flatten(0, 1).movedim(-1, 1)


def _volumes(slices: Tensor, batch: int) -> Tensor:
    """Return the volumes (B, C, Z, Y, X) of slices (B * Z, C, Y, X)."""
    return slices.reshape(batch, -1, *slices.shape[1:]).transpose(1, 2)
