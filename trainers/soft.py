"""Distillation: a network learns the probabilities that an ensemble of teachers assigns to every voxel.

The target of a voxel is the mean of its label and of the teachers' probabilities (Hinton et al. 2015). Where no label
is known, the teachers decide alone: in unlabelled scans, in slices or structures that were not annotated, and where
the label is to be ignored. Every voxel has one soft target, so exclusive classes, regions and incomplete annotation
need nothing else. The Dice loss is that of "Dice semimetric losses" (Wang et al. 2023), which equals the usual one for
targets of 0 and 1, and is smallest where the probability equals the target; the usual one is not.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.preprocessing.soft_labels import SoftLabels
from autocrossdim.preprocessing.store import Store, StoredCase
from trainers.distributed import summed
from trainers.loss import DiceCrossEntropy

TEACHERS = 0.5  # weight of the teachers where the label is known; not tuned


@dataclass(frozen=True)
class TaughtCases:
    """The cases a student learns from: what a `PatchLoader` needs of a store.

    Attributes:
        labelled: Store of the training cases.
        unlabelled: Store of the unlabelled scans; None without any.
        soft_labels: Soft labels of all of them.
        training: Names of the training cases.
    """

    labelled: Store
    unlabelled: Store | None
    soft_labels: SoftLabels
    training: tuple[str, ...]

    @classmethod
    def of(cls, task: FoldTask) -> "TaughtCases":
        """Return the cases of a fold that has soft labels."""
        assert task.soft_labels is not None
        scans = None if task.unlabelled is None else task.unlabelled.store
        return cls(task.store, scans, task.soft_labels, task.split.train)

    def open(self, name: str) -> StoredCase:
        """Open a case with its soft labels; of an unlabelled scan, no label counts as annotated.

        Patches also come from slices that were not annotated. Where annotation is incomplete, those centred on a class
        are where the teachers see it.
        """
        soft = self.soft_labels.open(name)
        if self.unlabelled is not None and name not in self.training:
            voxels = self.soft_labels.voxels(name)
            return replace(self.unlabelled.open(name), soft_label=soft, annotated_labels=(), voxels=voxels)
        case = self.labelled.open(name)
        if case.annotated_labels is None and case.annotated_slices is None:
            return replace(case, soft_label=soft)
        voxels = case.voxels | self.soft_labels.voxels(name)
        return replace(case, soft_label=soft, annotated_slices=None, voxels=voxels)


def learned_from(task: FoldTask) -> tuple[Store | TaughtCases, tuple[str, ...]]:
    """Return the cases that a fold learns from, and the names to draw from.

    Of a student, training cases are repeated so that, with many scans, about half of the patches are labelled.
    """
    if task.soft_labels is None:
        return task.store, task.split.train
    scans = () if task.unlabelled is None else task.unlabelled.names
    return TaughtCases.of(task), task.split.train * max(1, round(len(scans) / len(task.split.train))) + scans


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
            dice = semimetric_dice(logits.sigmoid(), target)
        else:
            entropy = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
            dice = semimetric_dice(logits.softmax(dim=1)[:, 1:], target[:, 1:])
        return self.usual.cross_entropy_weight * entropy + self.usual.dice_weight * (1 - dice.mean())


def semimetric_dice(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return the Dice of each class over the whole batch for soft targets, shape (K,).

    Args:
        probabilities: Shape (B, K, *patch).
        target: Probabilities, shape (B, K, *patch).
    """
    axes = (0, *range(2, probabilities.ndim))
    overlap = torch.minimum(probabilities, target).sum(axes)  # the product, where the target is 0 or 1
    sums = summed(torch.stack([overlap, probabilities.sum(axes) + target.sum(axes)]))
    return (2 * sums[0] + 1e-5) / (sums[1] + 1e-5)
