"""Soft Dice plus cross-entropy, for exclusive classes and for regions; ignored voxels are left out.

Where structures were not annotated in every case, a voxel of background may belong to one of them: its target is a set
of classes. The loss is then the marginal loss of Shi et al. (Medical Image Analysis 70, 2021), whose cross-entropy is
the target adaptive loss of Fang and Yan (IEEE Transactions on Medical Imaging 39, 2020): the probability of a set is
the sum over its classes, and the Dice of a class leaves out the voxels that may or may not belong to it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.distributed import averaged, summed

IGNORED = -1  # target of a voxel with the ignore label


class DiceCrossEntropy(nn.Module):
    """Weighted sum of batch Dice and cross-entropy (exclusive classes) or binary cross-entropy (regions).

    The Dice is computed over all patches of a batch together (nnU-Net's "batch Dice"), so that a class missing from one
    patch does not count as perfect or as failed there.

    Args:
        regions: Whether outputs are regions, which may overlap, rather than exclusive classes.
        dice_weight: Weight of the Dice loss.
        cross_entropy_weight: Weight of the cross-entropy.
        class_sets: Sets of classes; target K + i stands for "one of the classes of set i". For exclusive classes only.
    """

    def __init__(
        self,
        regions: bool,
        dice_weight: float = 1.0,
        cross_entropy_weight: float = 1.0,
        class_sets: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__()
        self.class_sets = class_sets
        self.regions = regions
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: Shape (B, K, *patch).
            target: Indices (B, *patch) of classes or of sets of classes, or regions (B, K, *patch) of 0 and 1; voxels
                of -1 are ignored.
        """
        logits = logits.float()
        if self.regions:
            known = (target != IGNORED).float()
            wanted = target.clamp(min=0).float()
            entropy = functional.binary_cross_entropy_with_logits(logits, wanted, weight=known, reduction="sum")
            entropy = entropy / averaged(known.sum()).clamp(min=1)
            dice = soft_dice(logits.sigmoid() * known, wanted * known)
        else:
            known = (target != IGNORED)[:, None]
            entropy = self._cross_entropy(logits, target) / averaged(known.sum()).clamp(min=1)
            if self.class_sets:
                known = known & ~open_classes(target, self.class_sets, logits.shape[1])
                target = target.masked_fill(target >= logits.shape[1], 0)
            one_hot = torch.zeros_like(logits).scatter_(1, target.clamp(min=0)[:, None], 1)
            # Background is left out of the Dice, as in nnU-Net.
            dice = soft_dice((logits.softmax(dim=1) * known)[:, 1:], (one_hot * known)[:, 1:])
        return self.cross_entropy_weight * entropy + self.dice_weight * (1 - dice.mean())

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the cross-entropy over all voxels that are not ignored."""
        if not self.class_sets:
            return functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
        single = logits.log_softmax(dim=1)
        # Not indexed by a list: it would be copied to the GPU, which a step would wait for.
        sets = [
            torch.stack([single[:, member] for member in members], dim=1).logsumexp(dim=1, keepdim=True)
            for members in self.class_sets
        ]
        return functional.nll_loss(torch.cat([single, *sets], dim=1), target, ignore_index=IGNORED, reduction="sum")


def open_classes(target: Tensor, class_sets: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Return whether each voxel may or may not belong to each class, bool (B, classes, *patch).

    Args:
        target: Indices of classes or of sets of classes, shape (B, *patch).
        class_sets: Sets of classes, the first of which has the index `classes`.
        classes: Number of classes.
    """
    result = torch.zeros(len(target), classes, *target.shape[1:], dtype=torch.bool, device=target.device)
    for index, members in enumerate(class_sets, start=classes):
        for member in members:
            result[:, member] |= target == index
    return result


def soft_dice(
    probabilities: Tensor, target: Tensor, intersection: Callable[[Tensor, Tensor], Tensor] = torch.mul
) -> Tensor:
    """Return the Dice of each class over the whole batch, the shares of all processes included, shape (K,).

    Args:
        probabilities: Shape (B, K, *patch).
        target: Zeros and ones or, with another `intersection` than the product, probabilities, shape (B, K, *patch).
        intersection: Intersection of the two in each voxel.
    """
    axes = (0, *range(2, probabilities.ndim))
    overlap = intersection(probabilities, target).sum(axes)
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
