"""Soft Dice plus cross-entropy, for exclusive classes and for regions; ignored voxels are left out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.distributed import summed

IGNORED = -1  # target of a voxel with the ignore label


class DiceCrossEntropy(nn.Module):
    """Weighted sum of batch Dice and cross-entropy (exclusive classes) or binary cross-entropy (regions).

    The Dice is computed over all patches of a batch together (nnU-Net's "batch Dice"), so that a class missing from one
    patch does not count as perfect or as failed there.

    Args:
        regions: Whether outputs are regions, which may overlap, rather than exclusive classes.
        dice_weight: Weight of the Dice loss.
        cross_entropy_weight: Weight of the cross-entropy.
    """

    def __init__(self, regions: bool, dice_weight: float = 1.0, cross_entropy_weight: float = 1.0) -> None:
        super().__init__()
        self.regions = regions
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: Shape (B, K, *patch).
            target: Class indices (B, *patch), or regions (B, K, *patch) of 0 and 1; voxels of -1 are ignored.
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
    """Return the Dice of each class over the whole batch, the shares of all processes included, shape (K,).

    Args:
        probabilities: Shape (B, K, *patch).
        target: Zeros and ones, shape (B, K, *patch).
    """
    axes = (0, *range(2, probabilities.ndim))
    overlap = (probabilities * target).sum(axes)
    total = probabilities.sum(axes) + target.sum(axes)
    sums = summed(torch.stack([overlap, total]))
    # The constant avoids 0 / 0 for a class that is absent from the batch (nnU-Net: 1e-5).
    return (2 * sums[0] + 1e-5) / (sums[1] + 1e-5)


class DeepSupervision(nn.Module):
    """A loss at several resolutions: each has half the weight of the next finer one, and weights sum to 1 (nnU-Net)."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | list[Tensor], target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: Shape (B, K, *patch), or a list of those at decreasing resolution.
            target: Target at full resolution, as the loss takes it; it is subsampled for the coarser ones.
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
    """Return the target at a coarser resolution: the voxel nearest to the centre of each coarse one."""
    for axis, size in enumerate(shape, start=target.ndim - len(shape)):
        old = target.shape[axis]
        middle = ((torch.arange(size, device=target.device) + 0.5) * old / size).long().clamp(max=old - 1)
        target = target.index_select(axis, middle)
    return target
