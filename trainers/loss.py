"""Soft Dice plus cross-entropy, for exclusive labels and for regions, with voxels to be ignored left out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.distributed import summed

IGNORED = -1  # target of a voxel that was marked to be ignored


class DiceCrossEntropy(nn.Module):
    """Batch Dice of the foreground classes plus CE (exclusive labels) or BCE (regions), weighted.

    Dice is computed over the whole batch at once (nnU-Net's "batch Dice"), so that a class missing from one
    patch does not count as perfect or failed there.
    """

    def __init__(self, regions: bool, dice_weight: float = 1.0, cross_entropy_weight: float = 1.0) -> None:
        super().__init__()
        self.regions = regions
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: shape (B, K, ...).
            target: exclusive labels: (B, ...) indices; regions: (B, K, ...) 0 or 1. -1 is ignored.
        """
        logits = logits.float()
        if self.regions:
            known = (target != IGNORED).float()
            wanted = target.clamp(min=0).float()
            entropy = functional.binary_cross_entropy_with_logits(logits, wanted, weight=known, reduction="sum")
            entropy = entropy / known.sum().clamp(min=1)
            dice = soft_dice(logits.sigmoid() * known, wanted * known)
        else:
            known = (target != IGNORED)[:, None]
            entropy = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
            entropy = entropy / known.sum().clamp(min=1)
            one_hot = torch.zeros_like(logits).scatter_(1, target.clamp(min=0)[:, None], 1)
            # Background is left out of the Dice, as in nnU-Net.
            dice = soft_dice((logits.softmax(dim=1) * known)[:, 1:], (one_hot * known)[:, 1:])
        return self.cross_entropy_weight * entropy + self.dice_weight * (1 - dice.mean())


def soft_dice(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return the Dice of each class over the whole batch, all processes' parts together, shape (K,).

    Args:
        probabilities: shape (B, K, ...).
        target: the same shape, 0 or 1.
    """
    axes = (0, *range(2, probabilities.ndim))
    overlap = (probabilities * target).sum(axes)
    total = probabilities.sum(axes) + target.sum(axes)
    sums = summed(torch.stack([overlap, total]))
    # The constant keeps a class that is absent from the batch from dividing 0 by 0 (nnU-Net's 1e-5).
    return (2 * sums[0] + 1e-5) / (sums[1] + 1e-5)


class DeepSupervision(nn.Module):
    """A loss over logits at several resolutions, each half the weight of the finer one (nnU-Net), summing to 1."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | list[Tensor], target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: (B, K, ...) or a list of those, full resolution first.
            target: at full resolution, as the loss takes it; coarser ones are its nearest voxels.
        """
        if isinstance(logits, Tensor):
            return self.loss(logits, target)  # type: ignore[no-any-return]
        weights = [0.5**level for level in range(len(logits))]
        terms = [
            weight * self.loss(coarse, _nearest(target, coarse.shape[2:]))
            for weight, coarse in zip(weights, logits, strict=True)
        ]
        return torch.stack(terms).sum() / sum(weights)


def _nearest(target: Tensor, shape: torch.Size) -> Tensor:
    """Pick the voxels in the middle of each coarse one; spatial axes are the last `len(shape)`."""
    for axis, size in enumerate(shape, start=target.ndim - len(shape)):
        old = target.shape[axis]
        middle = ((torch.arange(size, device=target.device) + 0.5) * old / size).long().clamp(max=old - 1)
        target = target.index_select(axis, middle)
    return target
