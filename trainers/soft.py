"""Distillation: a network learns the probabilities that an ensemble of teachers assigns to every voxel.

The target of a voxel is the mean of its label and of the teachers' probabilities (Hinton et al. 2015). Where no label
is known, the teachers decide alone: in unlabelled scans, in slices or structures that were not annotated, and where
the label is to be ignored. Every voxel has one soft target, so exclusive classes, regions and incomplete annotation
need nothing else. The Dice loss is that of "Dice semimetric losses" (Wang et al. 2023), whose intersection is the
minimum. It equals the usual one for targets of 0 and 1, and is smallest where the probability equals the target; the
usual one, with the product, is not.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.distributed import averaged
from trainers.loss import DiceCrossEntropy, soft_dice

TEACHERS = 0.5  # weight of the teachers where the label is known; not tuned


def soft_target(target: np.ndarray, soft: np.ndarray, *, regions: bool) -> np.ndarray:
    """Return the target of each voxel as probabilities of all outputs, shape (K, *patch), float32.

    Args:
        target: Class indices (*patch) or regions (K, *patch); negative where the label is unknown.
        soft: The teachers' probabilities of the foreground classes (K - 1, *patch) or regions (K, *patch).
        regions: Whether outputs are regions, which may overlap, rather than exclusive classes.
    """
    if regions:
        known, hard = target >= 0, target
    else:
        soft = np.concatenate([1 - soft.sum(axis=0, keepdims=True), soft]).clip(0, 1)
        known, hard = (target >= 0)[None], target[None] == np.arange(len(soft)).reshape(-1, *[1] * target.ndim)
    return np.where(known, (1 - TEACHERS) * hard + TEACHERS * soft, soft).astype(np.float32)


class SoftLoss(nn.Module):
    """Dice plus cross-entropy of soft targets; integer targets, as those of validation patches, have the usual loss.

    Args:
        usual: The usual loss, whose weights are used.
    """

    def __init__(self, usual: DiceCrossEntropy) -> None:
        super().__init__()
        self.usual = usual

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: Shape (B, K, *patch).
            target: Probabilities (B, K, *patch), or what the usual loss takes.
        """
        if not target.is_floating_point():
            return self.usual(logits, target)  # type: ignore[no-any-return]
        logits = logits.float()
        if self.usual.regions:
            entropy = functional.binary_cross_entropy_with_logits(logits, target)
            dice = soft_dice(logits.sigmoid(), target, torch.minimum)
        else:
            entropy = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
            dice = soft_dice(logits.softmax(dim=1)[:, 1:], target[:, 1:], torch.minimum)
        patches = logits.new_full((), len(logits))
        entropy = entropy * (patches / averaged(patches))
        return self.usual.cross_entropy_weight * entropy + self.usual.dice_weight * (1 - dice.mean())
