"""Dice of hard predictions over all validation patches together: cheap, and only for watching a run."""

import torch
from torch import Tensor

from autocrossdim.records.labels import Labels
from trainers.loss import IGNORED


class PseudoDice:
    """Adds up overlaps batch by batch."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.names = list(labels.foreground)
        self.overlap = torch.zeros(len(self.names), dtype=torch.float64)
        self.total = torch.zeros(len(self.names), dtype=torch.float64)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch: logits (B, K, ...), target as the loss takes it."""
        for index in range(len(self.names)):
            if self.labels.has_regions:
                known = target[:, index] != IGNORED
                predicted, wanted = logits[:, index] > 0, target[:, index] == 1
            else:
                known = target != IGNORED
                predicted, wanted = logits.argmax(dim=1) == index + 1, target == index + 1
            self.overlap[index] += float((predicted & wanted & known).sum())
            self.total[index] += float((predicted & known).sum() + (wanted & known).sum())

    def scores(self) -> dict[str, float | None]:
        """Return Dice a class; None for a class that was neither there nor predicted."""
        return {
            name: float(2 * overlap / total) if total > 0 else None
            for name, overlap, total in zip(self.names, self.overlap, self.total, strict=True)
        }
