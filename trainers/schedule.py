"""How far a run has come, the learning rate that goes with it, and when a plateau ends it early."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from trainers.settings import Settings

BETTER = 0.002  # pseudo-Dice by which a score must exceed the best one to count: less is noise of a few patches


@dataclass
class Clock:
    """Counts steps and training seconds; a run ends with its last epoch, its time or after a plateau.

    Attributes:
        settings: epochs and seconds there are.
        step: optimiser steps taken, all sittings together.
        seconds_before: training seconds of earlier sittings.
        shortened: step and progress at which the rest of the schedule was shortened; None if it was not.
    """

    settings: Settings
    step: int = 0
    seconds_before: float = 0.0
    shortened: tuple[int, float] | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Training seconds, all sittings together."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """Share of the run that is over, 0 to 1."""
        share = self.step / (self.settings.epochs * self.settings.steps_per_epoch)
        if self.settings.max_seconds is not None:
            share = max(share, self.seconds / self.settings.max_seconds)
        if self.shortened is not None:
            step, before = self.shortened
            rest = (self.step - step) / (self.settings.cooldown * self.settings.steps_per_epoch)
            share = max(share, before + (1 - before) * rest)
        return min(1.0, share)

    def shorten(self) -> None:
        """From here on, let the rest of the schedule take `cooldown` epochs, or less where less is left."""
        self.shortened = (self.step, self.progress)


@dataclass
class Plateau:
    """Notices when the validation score has stopped rising.

    Attributes:
        patience: epochs without a better score that make a plateau; 0 for never.
        best: the score that has to be exceeded.
        epoch: at which it was reached.
    """

    patience: int
    best: float = -math.inf
    epoch: int = 0

    def reached(self, epoch: int, score: float | None) -> bool:
        """Take an epoch's score and say whether this is a plateau."""
        if score is not None and score > self.best + BETTER:
            self.best, self.epoch = score, epoch
        return 0 < self.patience <= epoch - self.epoch and score is not None

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, JSON-able."""
        return {"best": None if math.isinf(self.best) else self.best, "epoch": self.epoch}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.best = -math.inf if state["best"] is None else state["best"]
        self.epoch = state["epoch"]


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Return the share of the highest learning rate at a point of the run.

    A linear rise over `warmup`, then half a cosine down to 0. The paper multiplies by 0.95 an epoch, which never
    arrives; a decay that ends with the budget makes short runs comparable with long ones.
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
