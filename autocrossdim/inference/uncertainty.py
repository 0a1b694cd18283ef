"""Uncertainty of a segmentation: entropy and disagreement per voxel, confidence and agreement per label.

Slices are added one by one, so only the maps and a few sums per label are held in memory.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocrossdim.inference.restore import segmented
from autocrossdim.preprocessing.case import Placement
from autocrossdim.records.labels import Labels

Where = tuple[int, slice]  # slice and lines of the cropped case, in the plan's axis order


@dataclass
class Uncertainty:
    """Uncertainty of a segmentation.

    Attributes:
        entropy: Entropy of the probabilities per voxel in nats, float32 (Z, Y, X): 0 to log K. For regions, that of
            the least certain region: 0 to log 2.
        disagreement: Share of the ensemble's members (folds × configurations) whose own label differs from the
            ensemble's, float32 (Z, Y, X), 0 to 1. None if the ensemble has a single member.
        confidence: Expected Dice per label or region, computed from the probabilities alone (`soft_dice`); NaN for
            labels that were not found.
        agreement: Mean Dice between any two members per label or region; NaN for labels that no member found. None if
            the ensemble has a single member.
    """

    entropy: NDArray[np.float32]
    disagreement: NDArray[np.float32] | None
    confidence: dict[str, float]
    agreement: dict[str, float] | None


def temper(values: Tensor, labels: Labels, temperature: float) -> Tensor:
    """Return probabilities (K, ...) after temperature scaling, same shape.

    Probabilities are raised to 1 / temperature and normalised; each region is scaled on its own. Temperature scaling
    changes neither the order of a voxel's labels nor which regions have a probability above 0.5.
    """
    if temperature == 1:
        return values
    if labels.has_regions:
        return (torch.logit(values.float(), eps=1e-12) / temperature).sigmoid()
    return (values.float().clamp(min=1e-12).log() / temperature).softmax(dim=0)


def entropy(values: Tensor, labels: Labels) -> Tensor:
    """Return the entropy in nats, shape (...), of probabilities (K, ...); for regions, the largest of theirs."""
    if labels.has_regions:
        return -(torch.xlogy(values, values) + torch.xlogy(1 - values, 1 - values)).amin(dim=0)
    return -torch.xlogy(values, values).sum(dim=0)


def soft_dice_sums(values: Tensor, labels: Labels, *, found: Tensor | None = None) -> Tensor:
    """Return the sums over a slice from which `soft_dice` is computed, shape (3, labels), on the device of `values`.

    Args:
        values: Probabilities, shape (K, Y, X).
        labels: Labels of the dataset.
        found: What they segment, if it is known; temperature scaling does not change it, up to rounding.
    """
    flat = values.flatten(1)
    found = segmented(values, labels) if found is None else found
    if labels.has_regions:
        inside = found.flatten(1)
        sums = [(flat * inside).sum(dim=1), flat.sum(dim=1), inside.sum(dim=1)]
    else:
        # Line by line, which is more accurate. Not with bincount, which would make the CPU wait for a GPU.
        zeros = values.new_zeros(len(found), len(values))
        within = zeros.scatter_add(1, found, values.gather(0, found[None])[0]).sum(dim=0)
        size = zeros.scatter_add(1, found, torch.ones_like(values[0])).sum(dim=0)
        sums = [part[1:] for part in (within, flat.sum(dim=1), size)]
    return torch.stack([part.to(flat.dtype) for part in sums])


def soft_dice(sums: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the Dice that the probabilities predict for their own segmentation, shape (..., labels).

    It is NaN for labels that were not found.

    Args:
        sums: Sums of `soft_dice_sums`, shape (..., 3, labels): probability inside the segmentation, probability
            everywhere, and number of segmented voxels.
    """
    inside, everywhere, segmented = np.moveaxis(np.asarray(sums, np.float64), -2, 0)
    dice: NDArray[np.floating[Any]] = np.divide(
        2 * inside, everywhere + segmented, out=np.full(inside.shape, np.nan), where=segmented > 0
    )
    return dice


class UncertaintyMaps:
    """Collects the slices of one case, in the plan's axis order, into maps on the original grid.

    Args:
        labels: Labels of the dataset.
        placement: Placement of the case.
        members: Number of members (folds × configurations) of the ensemble.
    """

    def __init__(self, labels: Labels, placement: Placement, *, members: int) -> None:
        self.labels, self.placement = labels, placement
        self._entropy = np.zeros(placement.cropped_shape, np.float32)
        self._disagreement = np.zeros(placement.cropped_shape, np.float32) if members > 1 else None
        count = len(labels.foreground)
        self._sums = np.zeros((3, count))
        self._overlaps = np.zeros((count, members, members))

    def add(self, where: Where, values: Tensor, *, label: NDArray[Any], members: NDArray[Any]) -> None:
        """Add lines of a slice.

        Args:
            where: Slice and lines in the cropped case.
            values: Calibrated probabilities of the ensemble, shape (K, Y, X).
            label: Label values of the ensemble, shape (Y, X).
            members: Label values of each member by itself, shape (members, Y, X).
        """
        self._entropy[where] = entropy(values, self.labels).cpu().numpy()
        self._sums += soft_dice_sums(values, self.labels).cpu().numpy()
        if self._disagreement is None:
            return
        self._disagreement[where] = (members != label).mean(axis=0)
        present = set(np.unique(members).tolist())
        for index, wanted in enumerate(self.labels.foreground.values()):
            if present.intersection(wanted):
                masks = np.isin(members, wanted).reshape(len(members), -1).astype(np.float32)
                self._overlaps[index] += masks @ masks.T

    def result(self) -> Uncertainty:
        """Return the uncertainty of the case; voxels that were cropped away are certain."""
        names = self.labels.names
        confidence = dict(zip(names, soft_dice(self._sums).tolist(), strict=True))
        if self._disagreement is None:
            return Uncertainty(self.placement.restore(self._entropy), None, confidence, None)
        agreement = {name: _pairwise_dice(overlaps) for name, overlaps in zip(names, self._overlaps, strict=True)}
        return Uncertainty(
            self.placement.restore(self._entropy),
            self.placement.restore(self._disagreement),
            confidence,
            agreement,
        )


def _pairwise_dice(overlaps: NDArray[np.float64]) -> float:
    """Return the mean Dice over all pairs of members, leaving out pairs that both found nothing; NaN if none is left.

    Args:
        overlaps: Number of voxels that each two members have in common, shape (members, members).
    """
    sizes = np.diag(overlaps)
    first, second = np.triu_indices(len(sizes), 1)
    total = sizes[first] + sizes[second]
    found = total > 0
    return float((2 * overlaps[first, second][found] / total[found]).mean()) if found.any() else math.nan
