"""Which axis is halved at which level of the encoder, and which kernels extend along it."""

from collections.abc import Collection
from dataclasses import dataclass

SMALLEST_FEATURE_MAP = 4  # voxels that remain on an axis after the last halving, at least (nnU-Net)
JOIN_RATIO = 2.0  # an axis is halved, and gets kernels of 3, once it is within this factor of the finest (nnU-Net)


@dataclass(frozen=True)
class Topology:
    """Strides and kernels of a network.

    Attributes:
        strides: Stride per axis, one entry per encoder level.
        kernel_sizes: Kernel extent (1 or 3) per axis, one entry per resolution level, full resolution first.
    """

    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides per axis, of which a patch must be a multiple."""
        totals = [1] * len(self.kernel_sizes[0])
        for stride in self.strides:
            totals = [total * s for total, s in zip(totals, stride, strict=True)]
        return tuple(totals)

    def ending_at(self, depths: Collection[int]) -> "Topology":
        """Return the topology with levels of stride 1 appended until its depth is one of `depths`.

        An encoder whose stem has stride 4, such as ConvNeXt, cannot end at level 1.
        """
        missing = min(depth for depth in depths if depth >= len(self.strides)) - len(self.strides)
        flat = (1,) * len(self.kernel_sizes[0])
        return Topology(self.strides + (flat,) * missing, self.kernel_sizes + self.kernel_sizes[-1:] * missing)


def topology(shape: tuple[int, ...], spacing: tuple[float, ...], levels: int) -> Topology:
    """Distribute the encoder's halvings over the axes.

    Level by level, an axis is halved if at least 4 voxels remain and its spacing is within 2x of the finest axis that
    can still be halved. Levels at which no axis can be halved are dropped. A kernel extends along an axis from the
    level at which the axis' spacing is within 2x of the finest.

    Args:
        shape: Patch shape in voxels, 2 or 3 axes.
        spacing: Spacing in mm per axis.
        levels: Number of halvings of the encoder.
    """
    size, mm = list(shape), list(spacing)
    axes = range(len(size))
    kernel = [_kernel(mm, size, axis) for axis in axes]
    strides: list[tuple[int, ...]] = []
    kernels = [tuple(kernel)]
    while len(strides) < levels:
        divisible = [axis for axis in axes if size[axis] >= 2 * SMALLEST_FEATURE_MAP]
        if not divisible:
            break
        finest = min(mm[axis] for axis in divisible)
        halved = [axis for axis in divisible if mm[axis] < JOIN_RATIO * finest]
        stride = tuple(2 if axis in halved else 1 for axis in axes)
        size = [-(-n // s) for n, s in zip(size, stride, strict=True)]
        mm = [m * s for m, s in zip(mm, stride, strict=True)]
        kernel = [max(old, _kernel(mm, size, axis)) for axis, old in zip(axes, kernel, strict=True)]
        strides.append(stride)
        kernels.append(tuple(kernel))
    if not strides:
        # A network has at least one level, even if no axis can be halved.
        return Topology((tuple(1 for _ in axes),), (kernels[0], kernels[0]))
    return Topology(tuple(strides), tuple(kernels))


def _kernel(mm: list[float], size: list[int], axis: int) -> int:
    return 3 if size[axis] > 1 and mm[axis] < JOIN_RATIO * min(mm) else 1


def padded(shape: tuple[int, ...], multiple: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest shape that contains `shape` and is a multiple of `multiple` on every axis."""
    return tuple(-(-n // m) * m for n, m in zip(shape, multiple, strict=True))
