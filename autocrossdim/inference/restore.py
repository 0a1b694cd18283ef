"""Logits from the network's grid to the original one, slice by slice along the coarsest axis.

What is held is a few slices of logits and the segmentation itself, whatever the number of classes.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from autocrossdim.data.labels import Labels
from autocrossdim.preprocessing.case import Placement
from autocrossdim.preprocessing.resample import axis_matrix, orders_for


def slices_at_original_resolution(slabs: Iterable[Tensor], placement: Placement) -> Iterator[Tensor]:
    """Yield logits (K, Y, X) for each slice of the cropped image at its original resolution, in order.

    Linear interpolation; nearest neighbour along a much coarser axis (nnU-Net's rule for probabilities).

    Args:
        slabs: consecutive logits (K, z, Y, X) in the network's grid.
        placement: of the case.
    """
    new, old = placement.cropped_shape, placement.shape
    orders = orders_for(1, placement.target, placement.spacing)
    along_z = axis_matrix(old[0], new[0], orders[0])
    first = (along_z != 0).argmax(axis=1)
    last = old[0] - (along_z[:, ::-1] != 0).argmax(axis=1)
    in_plane = [
        None if old[axis] == new[axis] else torch.from_numpy(axis_matrix(old[axis], new[axis], orders[axis]))
        for axis in (1, 2)
    ]
    held: Tensor | None = None
    start = 0  # index of the first slice held
    target = 0  # next slice to deliver
    for slab in slabs:
        held = slab if held is None else torch.cat([held, slab], dim=1)
        while target < new[0] and last[target] <= start + held.shape[1]:
            lo, hi = int(first[target]), int(last[target])
            weights = torch.from_numpy(along_z[target, lo:hi]).to(held)
            part = held[:, lo - start : hi - start]
            logits = part[:, 0] if len(weights) == 1 else torch.einsum("z,kzyx->kyx", weights, part)
            yield _resample_in_plane(logits, in_plane)
            target += 1
        keep_from = int(first[target]) if target < new[0] else start + held.shape[1]
        drop = min(keep_from - start, held.shape[1])
        held, start = held[:, drop:], start + drop
    assert target == new[0], "the slabs did not cover the case"


def _resample_in_plane(logits: Tensor, matrices: list[Tensor | None]) -> Tensor:
    rows, columns = matrices
    if rows is not None:
        logits = rows.to(logits) @ logits
    if columns is not None:
        logits = logits @ columns.to(logits).T
    return logits


def probabilities(logits: Tensor, labels: Labels) -> Tensor:
    """Softmax over exclusive labels, sigmoid a region; shape (K, ...)."""
    return logits.sigmoid() if labels.has_regions else logits.softmax(dim=0)


def to_label(values: Tensor, labels: Labels) -> np.ndarray:
    """Return label values, integers of shape (...), from probabilities (K, ...) on any device."""
    if labels.has_regions:
        return labels.from_regions((values > 0.5).cpu().numpy())
    return labels.from_index(values.argmax(dim=0).cpu().numpy())
