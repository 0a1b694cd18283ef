"""How far the training of a fold has come."""

from dataclasses import field
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(config=ConfigDict(extra="forbid"))
class RunState:
    """State of a training run that is stored with the weights, so that the run can be resumed exactly.

    Attributes:
        epoch: Number of finished epochs.
        step: Number of optimiser steps taken.
        seconds: Training time so far.
        complete: Whether training has reached its end.
        best: Best validation score so far; None before the first one.
        losses: Losses of the steps of the unfinished epoch.
        epoch_seconds: Training time of the unfinished epoch.
        epoch_waited: Part of `epoch_seconds` spent waiting for batches.
        plateau_score: Validation score that has to be exceeded for the run not to be on a plateau; None before any.
        plateau_epoch: Epoch of `plateau_score`.
        shortened_step: Step at which the rest of the schedule was shortened; None if it was not.
        shortened_progress: Progress of the run at that step, 0 to 1.
        taught_steps: Number of steps that used unlabelled scans.
        taught_from: Last validation score before unlabelled scans were used, or the first one if they were used in the
            first epoch already; None without any.
        untaught: Whether unlabelled scans are no longer used, because the validation score fell.
    """

    epoch: Count = 0
    step: Count = 0
    seconds: Seconds = 0.0
    complete: bool = False
    best: float | None = None
    losses: list[float] = field(default_factory=list)
    epoch_seconds: Seconds = 0.0
    epoch_waited: Seconds = 0.0
    plateau_score: float | None = None
    plateau_epoch: Count = 0
    shortened_step: Count | None = None
    shortened_progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    taught_steps: Count = 0
    taught_from: float | None = None
    untaught: bool = False
