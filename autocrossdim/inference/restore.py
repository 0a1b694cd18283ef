"""Logits from the network's grid to the original one, slice by slice along the coarsest axis.

What is held is a few slices of logits and the segmentation itself, whatever the number of classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autocrossdim.preprocessing.case import Placement
from autocrossdim.preprocessing.resample import axis_matrix, orders_for
from autocrossdim.records.labels import Labels


@dataclass(frozen=True)
class Axis:
    """Linear or nearest interpolation along one axis: each new voxel lies between two old ones, or on one.

    Attributes:
        first: index of the one before it, for each new voxel.
        last: index of the one after it.
        share: what the one after it weighs, 0 to 1.
    """

    first: Tensor
    last: Tensor
    share: Tensor

    @classmethod
    def between(cls, old: int, new: int, order: int) -> "Axis":
        """From `old` to `new` voxels by splines of `order` 0 or 1."""
        matrix = torch.from_numpy(axis_matrix(old, new, order))
        first = (matrix != 0).int().argmax(dim=1)
        last = old - 1 - (matrix.flip(1) != 0).int().argmax(dim=1)
        share = matrix.gather(1, last[:, None])[:, 0]
        return cls(first, last, torch.where(first == last, 0, share))

    def part(self, new: slice) -> tuple["Axis", slice]:
        """Return the same for some of the new voxels, and which of the old ones they need."""
        first, last = self.first[new], self.last[new]
        start = int(first.min())
        return Axis(first - start, last - start, self.share[new]), slice(start, int(last.max()) + 1)

    def along_lines(self, values: Tensor) -> Tensor:
        """Interpolate the lines of `values` (K, Y, X)."""
        first, last, share = (tensor.to(values.device) for tensor in (self.first, self.last, self.share))
        return torch.lerp(values[:, first], values[:, last], share[:, None])


def axes_of(placement: Placement) -> tuple[Axis, Axis]:
    """Return what brings slices and lines of logits back to the cropped image's resolution."""
    orders = orders_for(1, placement.target, placement.spacing)
    z, y = (Axis.between(placement.shape[a], placement.cropped_shape[a], orders[a]) for a in (0, 1))
    return z, y


def strips_of(placement: Placement, count: int) -> list[slice]:
    """Return the lines of the cropped image in at most `count` strips."""
    lines = placement.cropped_shape[1]
    height = -(-lines // count)
    return [slice(start, min(start + height, lines)) for start in range(0, lines, height)]


def places(placement: Placement, strips: int) -> Iterator[tuple[int, slice]]:
    """Yield where each of the slices goes that a case is delivered in: strip after strip, each from the first slice."""
    for strip in strips_of(placement, strips):
        for z in range(placement.cropped_shape[0]):
            yield z, strip


def lines_for(placement: Placement, strip: slice) -> slice:
    """Return the lines of the network's grid that the cropped image's lines `strip` are interpolated from."""
    return axes_of(placement)[1].part(strip)[1]


def slices_at_original_resolution(
    slabs: Iterable[Tensor], placement: Placement, strip: slice | None = None
) -> Iterator[Tensor]:
    """Yield logits (K, Y, X) for each slice of the cropped image at its original resolution, in order.

    Linear interpolation; nearest neighbour along a much coarser axis (nnU-Net's rule for probabilities).

    Args:
        slabs: consecutive logits (K, z, Y, X) in the network's grid.
        placement: of the case.
        strip: only these lines of the cropped image; the slabs hold those that `lines_for` names.
    """
    z, y = axes_of(placement)
    if strip is not None:
        y, _ = y.part(strip)
    same_lines = placement.shape[1] == placement.cropped_shape[1]
    x = None
    if placement.shape[2] != placement.cropped_shape[2]:
        order = orders_for(1, placement.target, placement.spacing)[2]
        x = torch.from_numpy(axis_matrix(placement.shape[2], placement.cropped_shape[2], order))
    for logits in _interpolated((logits for slab in slabs for logits in slab.unbind(dim=1)), z):
        # A matrix along columns, which lie side by side in memory, and a gather along lines: the fastest of four
        # ways tried (3 classes, 256 x 256 to 512 x 512: 2.8 ms; matrices only 5.2 ms).
        logits = logits if x is None else logits @ x.to(logits).T
        yield logits if same_lines else y.along_lines(logits)


def _interpolated(slices: Iterator[Tensor], axis: Axis) -> Iterator[Tensor]:
    """Interpolate between slices (K, Y, X) as they come; two are held."""
    held: dict[int, Tensor] = {}
    numbered = enumerate(slices)
    for first, last, share in zip(axis.first.tolist(), axis.last.tolist(), axis.share.tolist(), strict=True):
        held = {index: logits for index, logits in held.items() if index >= first}
        while last not in held:
            index, logits = next(numbered)
            if index >= first:
                held[index] = logits
        yield held[first] if first == last else torch.lerp(held[first], held[last], share)


def probabilities(logits: Tensor, labels: Labels) -> Tensor:
    """Softmax over exclusive labels, sigmoid a region; shape (K, ...)."""
    return logits.sigmoid() if labels.has_regions else logits.softmax(dim=0)


def to_label(values: Tensor, labels: Labels) -> np.ndarray:
    """Return label values, integers of shape (...), from probabilities (K, ...) on any device."""
    if labels.has_regions:
        return labels.from_regions((values > 0.5).cpu().numpy())
    return labels.from_index(values.argmax(dim=0).cpu().numpy())
