"""How far a run has come, and the learning rate that goes with it."""

import math
import time
from dataclasses import dataclass, field

from trainers.settings import Settings


@dataclass
class Clock:
    """Counts steps and training seconds; a run ends with its last epoch or its time, whichever comes first.

    Attributes:
        settings: epochs and seconds there are.
        step: optimiser steps taken, all sittings together.
        seconds_before: training seconds of earlier sittings.
    """

    settings: Settings
    step: int = 0
    seconds_before: float = 0.0
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
        return min(1.0, share)


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Return the share of the highest learning rate at a point of the run.

    A linear rise over `warmup`, then half a cosine down to 0. The paper multiplies by 0.95 an epoch, which never
    arrives; a decay that ends with the budget makes short runs comparable with long ones.
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
