"""How far a run has come, how much longer it will take, its learning rate, and when a plateau shortens it."""

import math
import time
from collections.abc import Callable

from autocrossdim.records.run_state import RunState
from trainers.settings import Settings

BETTER = 0.002  # pseudo-Dice by which a score must exceed the best one; smaller gains are noise of a few patches


class Clock:
    """Adds the training time to the state of a run.

    Args:
        state: State of the run.
        share: Returns the first process's value of a number in every process. Needed where several train together
            within a time limit: all have to agree after which step it is over. The state then changes in `agree` only,
            because sharing a number waits for the devices.
    """

    def __init__(self, state: RunState, share: Callable[[float], float] | None = None) -> None:
        self.state = state
        self._share = share
        self._last = time.monotonic()
        self._added = 0.0

    def tick(self) -> float:
        """Add the seconds since the last call (or since the clock was created), and return them."""
        last, self._last = self._last, time.monotonic()
        self._added += self._last - last
        if self._share is None:
            self.agree()
        return self._last - last

    def agree(self) -> None:
        """Add the seconds since the last call to the state; every process takes the first one's value."""
        seconds, self._added = self.state.seconds + self._added, 0.0
        self.state.seconds = seconds if self._share is None else self._share(seconds)


def progress(state: RunState, settings: Settings) -> float:
    """Return the fraction of the run that is over, 0 to 1.

    A run ends with its last epoch, with its time, or at the end of a schedule that a plateau has shortened.
    """
    fraction = state.step / (settings.epochs * settings.steps_per_epoch)
    if settings.max_seconds is not None:
        fraction = max(fraction, state.seconds / settings.max_seconds)
    if state.shortened_step is not None:
        before = state.shortened_progress
        rest = (state.step - state.shortened_step) / (settings.cooldown * settings.steps_per_epoch)
        fraction = max(fraction, before + (1 - before) * rest)
    return min(1.0, fraction)


def seconds_left(state: RunState, settings: Settings, *, seconds_per_step: float) -> float:
    """Return the training time until the end of the run, if its steps stay as fast as they are.

    Args:
        state: State of the run.
        settings: Settings of the run.
        seconds_per_step: Training time per step.
    """
    left = max(0, _last_step(state, settings) - state.step) * seconds_per_step
    return left if settings.max_seconds is None else min(left, max(0.0, settings.max_seconds - state.seconds))


def last_epoch(state: RunState, settings: Settings) -> int | None:
    """Return the number of the run's last epoch, from 1, or None if a time limit decides which one it will be."""
    if settings.max_seconds is not None:
        return None
    return math.ceil(_last_step(state, settings) / settings.steps_per_epoch)


def _last_step(state: RunState, settings: Settings) -> int:
    last = settings.epochs * settings.steps_per_epoch
    if state.shortened_step is None:
        return last
    return min(last, state.shortened_step + settings.cooldown * settings.steps_per_epoch)


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Return the learning rate as a fraction of its peak: a linear rise over `warmup`, then half a cosine down to 0.

    The paper multiplies by 0.95 per epoch, which never reaches 0. A decay that ends with the run makes short runs
    comparable with long ones.
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def reaches_plateau(state: RunState, score: float | None, patience: int) -> bool:
    """Record the validation score of an epoch and return whether the run is on a plateau.

    Args:
        state: State of the run after the epoch.
        score: Validation score of the epoch; None if there is none.
        patience: Epochs without a better score that make a plateau; 0 for never.
    """
    if score is None:
        return False
    if state.plateau_score is None or score > state.plateau_score + BETTER:
        state.plateau_score, state.plateau_epoch = score, state.epoch
    return 0 < patience <= state.epoch - state.plateau_epoch


def shorten(state: RunState, settings: Settings) -> None:
    """Let the rest of the schedule take `cooldown` epochs from here on, or less where less is left."""
    state.shortened_progress, state.shortened_step = progress(state, settings), state.step
