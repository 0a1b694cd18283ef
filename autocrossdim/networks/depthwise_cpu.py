"""A depthwise 3D convolution whose backward pass on a CPU is as cheap as its forward pass.

oneDNN, which computes convolutions for PyTorch on a CPU, has a fast kernel for the forward pass of a depthwise 3D
convolution, but none for its two gradients: they take general kernels that waste 15 of 16 lanes or copy patches. Both
gradients can be written as depthwise convolutions again, with the same products in another order:

- with respect to the input: a convolution of the output's gradient with the flipped kernel for each phase of the stride
  (one for stride 1, eight for stride 2);
- with respect to the weight, slice by slice. For kernels up to 3 wide: the weight gradient of a 2D convolution for each
  depth of the kernel, for which oneDNN is fast. For wider ones, for which it is not: 2D convolutions of slices of the
  input, with slices of the output's gradient as kernels.

Measured by benchmarks/depthwise.py (ms, one core of a Xeon with AVX-512, PyTorch 2.15, batch 2), gradients with respect
to input + weight, at stages of an inflated EfficientNet-B0 for patches of 40 x 56 x 40 and 96 x 96 x 96, and of a
ConvNeXt:

| channels, input, kernel, stride | conv3d | conv3d, channels last | here |
|---|---|---|---|
| 32, 20 x 28 x 20, 3, 1 | 26.7 + 18.9 | 8.4 + 9.1 | 1.2 + 2.7 |
| 96, 20 x 28 x 20, 3, 2 | 15.2 + 8.8 | 13.9 + 7.9 | 7.6 + 5.1 |
| 144, 10 x 14 x 10, 5, 2 | 7.6 + 7.9 | 14.4 + 6.9 | 2.3 + 1.6 |
| 240, 5 x 7 x 5, 5, 1 | 9.1 + 10.3 | 19.2 + 9.8 | 0.7 + 1.4 |
| 32, 48 x 48 x 48, 3, 1 | 198.4 + 175.5 | 68.9 + 212.1 | 8.7 + 22.1 |
| 96, 48 x 48 x 48, 3, 2 | 174.6 + 72.1 | 100.1 + 287.2 | 97.5 + 46.1 |
| 144, 24 x 24 x 24, 3, 1 | 130.4 + 96.5 | 52.0 + 68.7 | 6.1 + 17.8 |
| 144, 24 x 24 x 24, 5, 2 | 72.2 + 58.3 | 63.3 + 32.9 | 15.1 + 10.4 |
| 240, 12 x 12 x 12, 5, 1 | 103.9 + 81.7 | 84.6 + 31.1 | 3.0 + 11.6 |
| 480, 6 x 6 x 6, 5, 1 | 21.8 + 22.2 | 88.1 + 42.0 | 1.1 + 2.5 |
| 672, 6 x 6 x 6, 5, 2 | 6.0 + 7.7 | 65.0 + 44.5 | 3.3 + 2.0 |
| 1152, 3 x 3 x 3, 5, 1 | 7.2 + 9.7 | 88.7 + 14.5 | 0.8 + 1.6 |
| 96, 24 x 24 x 24, 7, 1 | 729.8 + 803.3 | 758.8 + 243.6 | 20.9 + 44.0 |

With AVX2 alone, the gains are similar. A training step of a DX-Net with EfficientNet-B0 at 2 x 40 x 56 x 40 takes
0.71 s of CPU time instead of 0.79 s.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from autocrossdim.networks.depthwise_slices import taps

NARROW = 3  # kernels up to this width have a fast 2D weight gradient in oneDNN


def with_cheap_gradients(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """Return a depthwise convolution, whose gradients are computed as described above, in channels last.

    Args:
        x: Input, (B, C, Z, Y, X).
        weight: Weight, (C, 1, *kernel).
        stride: Stride per axis.
        padding: Padding per axis.
    """
    result: Tensor = _CheapGradients.apply(x, weight, stride, padding)
    return result


class _CheapGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv3d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = input_gradient(grad, weight, x.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(grad, x, weight, ctx.stride, ctx.padding)
        return of_input, of_weight, None, None


def input_gradient(
    grad: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Return the gradient of a depthwise convolution with respect to its input, (B, C, *shape) in channels last.

    Args:
        grad: Gradient with respect to the output, (B, C, Z, Y, X) in channels last.
        weight: Weight, shape (C, 1, *kernel).
        shape: Spatial shape of the input.
        stride: Stride per axis.
        padding: Padding per axis.
    """
    sizes = zip(stride, padding, weight.shape[2:], shape, grad.shape[2:], strict=True)
    phases = itertools.product(*([_phase(r, *axis) for r in range(min(axis[0], axis[3]))] for axis in sizes))
    if max(stride) == 1:
        return _of_phase(grad, weight, *phases)
    # A kernel narrower than the stride leaves some voxels unseen.
    all_seen = all(k >= s for k, s in zip(weight.shape[2:], stride, strict=True))
    make = grad.new_empty if all_seen else grad.new_zeros
    result = make(len(grad), *shape, len(weight)).movedim(-1, 1)
    for z, y, x in phases:
        if weight[:, :, z.taps, y.taps, x.taps].numel():
            result[:, :, z.voxels, y.voxels, x.voxels] = _of_phase(grad, weight, (z, y, x))
    return result


class _Phase(NamedTuple):
    """Voxels r, r + stride, ... of an axis, all of which are seen by the same taps of the kernel.

    Attributes:
        voxels: The voxels.
        taps: The taps.
        padding: Padding of the convolution, the same at both ends.
        wanted: Part of the result of that convolution that belongs to the voxels.
    """

    voxels: slice
    taps: slice
    padding: int
    wanted: slice


def _phase(r: int, stride: int, padding: int, kernel: int, size: int, outputs: int) -> _Phase:
    first = (r + padding) % stride
    taps, voxels = len(range(first, kernel, stride)), len(range(r, size, stride))
    before = taps - 1 - (r + padding) // stride
    both = max(before, voxels + taps - 1 - before - outputs, 0)
    start = both - before
    return _Phase(slice(r, None, stride), slice(first, None, stride), both, slice(start, start + voxels))


def _of_phase(grad: Tensor, weight: Tensor, phase: tuple[_Phase, ...]) -> Tensor:
    z, y, x = phase
    flipped = weight[:, :, z.taps, y.taps, x.taps].flip(2, 3, 4)
    pad = [axis.padding for axis in phase]
    if len(weight) == flipped.numel() and not any(pad):
        part = grad * flipped[:, 0]  # on one thread PyTorch does not give one tap to oneDNN: 25 ms instead of 3 ms
    else:
        part = F.conv3d(grad, flipped, None, 1, pad, 1, len(weight))
    return part[:, :, z.wanted, y.wanted, x.wanted]


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """Return the gradient of a depthwise convolution with respect to its weight, (C, 1, *kernel).

    Args:
        grad: Gradient with respect to the output, (B, C, Z, Y, X) in channels last.
        x: Input, (B, C, *spatial) in channels last.
        weight: Weight, shape (C, 1, *kernel).
        stride: Stride per axis.
        padding: Padding per axis.
    """
    result = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    by_taps = max(weight.shape[3:]) <= NARROW
    for sample, of_output in zip(x.transpose(1, 2), grad.transpose(1, 2), strict=True):  # (Z, C, Y, X)
        if by_taps:
            _add_by_taps(result, of_output, sample, stride, padding)
        else:
            _add_by_slices(result, of_output, sample, stride, padding)
    return result


def _add_by_taps(result: Tensor, grad: Tensor, x: Tensor, stride: Sequence[int], padding: Sequence[int]) -> None:
    for tap, outputs, inputs in taps(result.shape[2], len(x), len(grad), stride[0], padding[0]):
        shape, along = result[:, :, tap].shape, (tuple(stride[1:]), tuple(padding[1:]))
        result[:, :, tap] += conv2d_weight(x[inputs], shape, grad[outputs], *along, 1, len(result))  # type: ignore[no-untyped-call]


def _add_by_slices(result: Tensor, grad: Tensor, x: Tensor, stride: Sequence[int], padding: Sequence[int]) -> None:
    _, _, depth, height, width = result.shape
    for z, kernel in enumerate(grad):
        start = z * stride[0] - padding[0]
        low, high = max(0, -start), min(depth, len(x) - start)
        if low < high:
            seen = x[start + low : start + high]
            # Stride and dilation change places: neighbouring outputs see inputs that are a stride apart.
            part = F.conv2d(seen, kernel[:, None], None, 1, tuple(padding[1:]), tuple(stride[1:]), len(result))
            result[:, 0, low:high] += part[:, :, :height, :width].transpose(0, 1)
