"""How the kernel of a convolution gets other spatial extents."""

from typing import Literal

from torch import Tensor

Mode = Literal["center", "average", "replicate", "acs"]


def fit_kernel(weight: Tensor, extents: tuple[int, ...], mode: Mode, axis: int = 0) -> Tensor:
    """Return the weight of a convolution with other spatial extents.

    An extent of 1 grows by the rule `mode` (`acs` as `center`: a dense kernel has one plane). To become 1, a kernel is
    summed along the axis, which preserves its response to anything constant along that axis.

    Args:
        weight: Weight of shape (O, I, *kernel), with 2 or 3 spatial axes.
        extents: New extent per axis; one more than `weight` has inserts a new axis at `axis`.
        mode: Rule of inflation, as for `autocrossdim.networks.inflate`.
        axis: Position of a new axis, as for `inflate`.

    Raises:
        ValueError: An extent would have to change between two numbers larger than 1.
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
