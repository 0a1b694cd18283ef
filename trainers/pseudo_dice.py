"""Scores on a few fixed validation patches after every epoch: cheap, and good enough to watch a run."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autocrossdim.records.labels import Labels
from trainers.loader import Batch
from trainers.loss import IGNORED, open_classes


@dataclass(frozen=True)
class Scores:
    """Scores of one epoch.

    Attributes:
        loss: Mean validation loss; None if there are no validation cases.
        dice: Dice of each class or region over all validation patches; None if it is neither labelled nor predicted.
    """

    loss: float | None
    dice: dict[str, float | None]

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the classes that have one."""
        known = [score for score in self.dice.values() if score is not None]
        return sum(known) / len(known) if known else None


@torch.no_grad()
def score(
    network: nn.Module,
    batches: Sequence[Batch],
    *,
    loss: Callable[[Any, Tensor], Tensor],
    labels: Labels,
    class_sets: Sequence[Sequence[int]] = (),
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Scores:
    """Return the scores of a network on validation patches.

    Args:
        network: Network to score; it is switched to evaluation mode.
        batches: Validation patches.
        loss: Takes the output of the network and the target.
        labels: Labels of the dataset.
        class_sets: Sets of classes that targets may name, see `trainers.partial`.
        device: Device of the network.
        autocast: Returns the context that sets the precision.
    """
    if not batches:
        return Scores(None, {})
    network.eval()
    dice = PseudoDice(labels, class_sets)
    losses: list[Tensor] = []
    for batch in batches:
        data, target = batch.to(device)
        with autocast():
            logits = network(data)
        losses.append(loss(logits, target))
        dice.add(logits, target)
    return Scores(sum(torch.stack(losses).tolist()) / len(losses), dice.scores())


class PseudoDice:
    """Dice of hard predictions over all patches together. Counts stay on the device until the scores are asked for.

    Args:
        labels: Labels of the dataset.
        class_sets: Sets of classes that targets may name. Voxels of a set are left out of the Dice of its classes.
    """

    def __init__(self, labels: Labels, class_sets: Sequence[Sequence[int]] = ()) -> None:
        self.labels = labels
        self.class_sets = class_sets
        self.names = list(labels.foreground)
        self._counts: list[Tensor] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            logits: Shape (B, K, *patch).
            target: Target as the loss takes it.
        """
        unclear = open_classes(target, self.class_sets, logits.shape[1]) if self.class_sets else None
        classes = None if self.labels.has_regions else logits.argmax(dim=1)
        counts = []
        for index in range(len(self.names)):
            if classes is None:
                known = target[:, index] != IGNORED
                predicted, wanted = logits[:, index] > 0, target[:, index] == 1
            else:
                known = target != IGNORED if unclear is None else (target != IGNORED) & ~unclear[:, index + 1]
                predicted, wanted = classes == index + 1, target == index + 1
            counts += [(predicted & wanted & known).sum(), (predicted & known).sum() + (wanted & known).sum()]
        self._counts.append(torch.stack(counts))

    def scores(self) -> dict[str, float | None]:
        """Return the Dice of each class or region; None if it is neither labelled nor predicted."""
        counts = torch.stack(self._counts).sum(dim=0).reshape(-1, 2).tolist()
        return {
            name: 2 * overlap / total if total else None
            for name, (overlap, total) in zip(self.names, counts, strict=True)
        }
