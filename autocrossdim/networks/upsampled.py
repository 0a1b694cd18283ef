"""Convolution of upsampled features and a skip connection, without computing the upsampled features."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def spread(weight: Tensor, scale: Sequence[int]) -> Tensor:
    """Return the kernel of the transposed convolution that equals nearest-neighbour upsampling and a convolution.

    Each extent k becomes k + s - 1: the flipped kernel is added up at every shift below s.

    Args:
        weight: Weight of the convolution, (O, I, *kernel), with odd extents and padding k // 2.
        scale: Factor of the upsampling per axis.

    Returns:
        Weight of shape (I, O, *extents), for stride `scale` and the same padding.
    """
    result: Tensor = _Spread.apply(weight, tuple(scale))
    return result


class _Spread(torch.autograd.Function):
    """`spread`, with a backward pass that takes a quarter of the time of autograd's, which copies at every shift.

    It can be differentiated once.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: tuple[int, ...]) -> Tensor:
        kernel = weight.flip(tuple(range(2, weight.ndim))).transpose(0, 1)
        extents = (k + s - 1 for k, s in zip(kernel.shape[2:], scale, strict=True))
        result = kernel.new_zeros(*kernel.shape[:2], *extents)
        ctx.windows = list(_windows(kernel.shape[2:], scale))
        for window in ctx.windows:
            result[window] += kernel
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        first, *others = (grad[window] for window in ctx.windows)
        total = first.clone()
        for other in others:
            total += other
        return total.transpose(0, 1).flip(tuple(range(2, grad.ndim))), None


def _windows(kernel: Sequence[int], scale: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Yield the position of the kernel at every shift below `scale`, as an index."""
    for shift in itertools.product(*map(range, scale)):
        yield (..., *(slice(n, n + k) for n, k in zip(shift, kernel, strict=True)))


def conv_upsampled(x: Tensor, skip: Tensor, weight: Tensor, scale: Sequence[int]) -> Tensor:
    """Convolve the concatenation of `x`, upsampled to the nearest neighbour, and a skip connection.

    The same products are added in another order: a convolution of two concatenated inputs is the sum of two
    convolutions, and one of repeated voxels is a transposed convolution of the small input. In 3D with scale 2 and 3^3
    kernels, this takes 8 instead of 27 products per voxel. Neither the upsampled features nor the concatenation is
    computed or kept for the backward pass.

    Measured on one core (AVX-512), forward + backward of the last block of a DX-Net at 2 x 40 x 56 x 40: 91 ms instead
    of 200 ms; at 2 x 96 x 96 x 96: 1.03 s instead of 2.51 s. Not measured on a GPU.

    Args:
        x: Features of the coarser level, (B, C, *small).
        skip: Skip connection, (B, S, *spatial), with spatial = small * scale.
        weight: Weight of the convolution, (O, C + S, *kernel), with odd extents; the output has the size of `skip`.
        scale: Factor of the upsampling per axis.
    """
    conv, transposed = (F.conv3d, F.conv_transpose3d) if x.ndim == 5 else (F.conv2d, F.conv_transpose2d)
    padding = [k // 2 for k in weight.shape[2:]]
    of_x, of_skip = weight[:, : x.shape[1]], weight[:, x.shape[1] :]
    y = conv(skip, of_skip, None, 1, padding)
    return y + transposed(x, spread(of_x, scale), None, tuple(scale), padding)
