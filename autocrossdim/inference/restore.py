"""Resampling logits from the network's grid to the original one, slice by slice along the coarsest axis.

Only a few slices of logits and the segmentation itself are held in memory, whatever the number of classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autocrossdim.preprocessing.case import Placement
from autocrossdim.preprocessing.resample import axis_matrix
from autocrossdim.records.labels import Labels


@dataclass(frozen=True)
class Axis:
    """Linear or nearest-neighbour interpolation along one axis.

    Each new voxel lies between two old voxels, or on one.

    Attributes:
        first: Index of the old voxel before each new voxel.
        last: Index of the old voxel after it.
        share: Weight of the old voxel after it, 0 to 1.
    """

    first: Tensor
    last: Tensor
    share: Tensor

    @classmethod
    def between(cls, old: int, new: int, order: int) -> "Axis":
        """Return the interpolation from `old` to `new` voxels by splines of `order` 0 or 1."""
        matrix = torch.from_numpy(axis_matrix(old, new, order))
        first = (matrix != 0).int().argmax(dim=1)
        last = old - 1 - (matrix.flip(1) != 0).int().argmax(dim=1)
        share = matrix.gather(1, last[:, None])[:, 0]
        return cls(first, last, torch.where(first == last, 0, share))

    def part(self, new: slice) -> tuple["Axis", slice]:
        """Return the interpolation of some of the new voxels, and the old voxels it needs."""
        first, last = self.first[new], self.last[new]
        start = int(first.min())
        return Axis(first - start, last - start, self.share[new]), slice(start, int(last.max()) + 1)

    def along_lines(self, values: Tensor) -> Tensor:
        """Interpolate the lines of `values` (K, Y, X)."""
        return torch.lerp(values[:, self.first], values[:, self.last], self.share[:, None])

    def on(self, device: torch.device) -> "Axis":
        """Return the interpolation on a device."""
        return Axis(self.first.to(device), self.last.to(device), self.share.to(device))


def axes_of(placement: Placement) -> tuple[Axis, Axis]:
    """Return the interpolation along slices and along lines to the resolution of the cropped image."""
    orders = placement.orders_back(1)
    z, y = (Axis.between(placement.shape[a], placement.cropped_shape[a], orders[a]) for a in (0, 1))
    return z, y


def strips_of(placement: Placement, count: int) -> list[slice]:
    """Return the lines of the cropped image, divided into at most `count` strips."""
    lines = placement.cropped_shape[1]
    height = -(-lines // count)
    return [slice(start, min(start + height, lines)) for start in range(0, lines, height)]


def places(placement: Placement, strips: int) -> Iterator[tuple[int, slice]]:
    """Yield the position (slice, lines) of each slice as they are delivered: all slices of a strip, then the next."""
    for strip in strips_of(placement, strips):
        for z in range(placement.cropped_shape[0]):
            yield z, strip


def lines_for(placement: Placement, strip: slice) -> slice:
    """Return the lines of the network's grid from which the lines `strip` of the cropped image are interpolated."""
    return axes_of(placement)[1].part(strip)[1]


def slices_at_original_resolution(
    slabs: Iterable[Tensor], placement: Placement, strip: slice | None = None
) -> Iterator[Tensor]:
    """Yield logits (K, Y, X) for each slice of the cropped image at its original resolution, in order.

    Interpolation is linear, and nearest-neighbour along a much coarser axis (nnU-Net's rule for probabilities).

    Args:
        slabs: Consecutive logits (K, z, Y, X) in the network's grid.
        placement: Placement of the case.
        strip: Lines of the cropped image; all if None. The slabs hold the lines that `lines_for` returns for them.
    """
    z, y = axes_of(placement)
    if strip is not None:
        y, _ = y.part(strip)
    same_lines = placement.shape[1] == placement.cropped_shape[1]
    x = None
    if placement.shape[2] != placement.cropped_shape[2]:
        order = placement.orders_back(1)[2]
        x = torch.from_numpy(axis_matrix(placement.shape[2], placement.cropped_shape[2], order))
    for logits in _interpolated((logits for slab in slabs for logits in slab.unbind(dim=1)), z):
        # A matrix product along columns, which are contiguous in memory, and a gather along lines: the fastest of four
        # variants measured (3 classes, 256 x 256 to 512 x 512: 2.8 ms; matrix products only: 5.2 ms).
        if x is not None:
            x = x.to(logits)  # sent to a GPU once
            logits = logits @ x.T
        if not same_lines:
            y = y.on(logits.device)
            logits = y.along_lines(logits)
        yield logits


def _interpolated(slices: Iterator[Tensor], axis: Axis) -> Iterator[Tensor]:
    """Interpolate between consecutive slices (K, Y, X), holding two at a time."""
    held: dict[int, Tensor] = {}
    numbered = enumerate(slices)
    for first, last, share in zip(axis.first.tolist(), axis.last.tolist(), axis.share.tolist(), strict=True):
        held = {index: logits for index, logits in held.items() if index >= first}
        while last not in held:
            index, logits = next(numbered)
            if index >= first:
                held[index] = logits
        yield held[first] if first == last else torch.lerp(held[first], held[last], share)


def to_probabilities(logits: Tensor, labels: Labels) -> Tensor:
    """Return the softmax over exclusive labels, or the sigmoid of each region, shape (K, ...)."""
    return logits.sigmoid() if labels.has_regions else logits.softmax(dim=0)


def segmented(values: Tensor, labels: Labels) -> Tensor:
    """Return what probabilities (K, ...) segment: indices of labels (...), or masks of regions (K, ...)."""
    return values > 0.5 if labels.has_regions else values.max(dim=0).indices  # argmax takes 2 to 10 times as long


def to_label(values: Tensor, labels: Labels) -> np.ndarray:
    """Return label values, integers of shape (...), from probabilities (K, ...) on any device."""
    found = segmented(values, labels).cpu().numpy()
    return labels.from_regions(found) if labels.has_regions else labels.from_index(found)
