"""Which axis is halved at which level of the encoder, and which kernels reach along it."""

from dataclasses import dataclass

SMALLEST_FEATURE_MAP = 4  # voxels an axis is never halved below (nnU-Net)
JOIN_RATIO = 2.0  # an axis joins halving, and gets its kernels, once within this factor of the finest (nnU-Net)


@dataclass(frozen=True)
class Topology:
    """Strides, one entry an encoder level, and kernel extents (1 or 3), one a resolution level."""

    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides, an axis: what a patch must be a multiple of."""
        totals = [1] * len(self.kernel_sizes[0])
        for stride in self.strides:
            totals = [total * s for total, s in zip(totals, stride, strict=True)]
        return tuple(totals)


def topology(shape: tuple[int, ...], spacing: tuple[float, ...], levels: int) -> Topology:
    """Spend the encoder's halvings on the axes that can bear them.

    Level by level, an axis is halved when at least 4 voxels remain and its spacing is within 2x of the finest axis
    that can still be halved; levels at which nothing can be halved are dropped. A kernel reaches along an axis
    once its spacing has come within 2x of the finest axis, and from then on.

    Args:
        shape: voxels an axis, 2 or 3 of them.
        spacing: mm an axis.
        levels: halvings the encoder has (5 for an EfficientNet).
    """
    size, mm = list(shape), list(spacing)
    axes = range(len(size))
    kernel = [_kernel(mm, size, axis) for axis in axes]
    strides: list[tuple[int, ...]] = []
    kernels = [tuple(kernel)]
    while len(strides) < levels:
        able = [axis for axis in axes if size[axis] >= 2 * SMALLEST_FEATURE_MAP]
        if not able:
            break
        finest = min(mm[axis] for axis in able)
        halved = [axis for axis in able if mm[axis] < JOIN_RATIO * finest]
        stride = tuple(2 if axis in halved else 1 for axis in axes)
        size = [-(-n // s) for n, s in zip(size, stride, strict=True)]
        mm = [m * s for m, s in zip(mm, stride, strict=True)]
        kernel = [max(old, _kernel(mm, size, axis)) for axis, old in zip(axes, kernel, strict=True)]
        strides.append(stride)
        kernels.append(tuple(kernel))
    if not strides:
        # The network needs one level, even where there is nothing to halve.
        return Topology((tuple(1 for _ in axes),), (kernels[0], kernels[0]))
    return Topology(tuple(strides), tuple(kernels))


def _kernel(mm: list[float], size: list[int], axis: int) -> int:
    return 3 if size[axis] > 1 and mm[axis] < JOIN_RATIO * min(mm) else 1


def padded(shape: tuple[int, ...], multiple: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest multiples of `multiple` that hold `shape`."""
    return tuple(-(-n // m) * m for n, m in zip(shape, multiple, strict=True))
