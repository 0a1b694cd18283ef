"""Training budgets: a comparison of models says little about their design if one was trained for longer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.text import listed

SIMILAR = 1.1  # ratio up to which budgets count as equal. Ours: folds of one run differ by a few percent in time.

# Settings that change how fast or how a run is recorded, not what is learned; time is compared as it was spent.
ASIDE = frozenset({"max_seconds", "workers", "augment_on_gpu", "compile", "monitor", "seed"})


@dataclass(frozen=True)
class Budget:
    """What one fold was trained with, including its 2D twin and the trainings that it continues.

    Attributes:
        steps: Optimiser steps; None where the trainer does not record them.
        seconds: Training time; None where the trainer does not record it.
        settings: Hyper-parameters and starting weights, by name.
    """

    steps: int | None
    seconds: float | None
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint, folder: FoldFolder) -> "Budget":
        """Return the budget of a fold from its checkpoint, what that continues, and the 2D twin it started from.

        Raises:
            UserError: The checkpoint of the twin is damaged.
        """
        runs = [(checkpoint.run.step, checkpoint.run.seconds)]
        *continuations, first = checkpoint.provenances
        runs += [(before.get("steps", 0), before.get("seconds", 0.0)) for before in continuations]
        twin = folder.slices.latest
        if _same_place(first.get("model"), twin) and twin.exists():
            run = Checkpoint.read(twin).run
            runs.append((run.step, run.seconds))
        steps, seconds = zip(*runs, strict=True)
        settings = {name: value for name, value in checkpoint.settings.items() if name not in ASIDE}
        if "asked" in checkpoint.provenance:
            settings["weights"] = checkpoint.provenance["asked"]
        return cls(
            steps=sum(steps) if all(steps) else None,
            seconds=sum(seconds) if all(seconds) else None,
            settings=settings,
        )


def mean_steps(folds: Sequence[Budget]) -> float | None:
    """Return the mean number of optimiser steps per fold; None where it is unknown."""
    steps = [fold.steps for fold in folds if fold.steps is not None]
    return float(np.mean(steps)) if len(steps) == len(folds) else None


def mean_minutes(folds: Sequence[Budget]) -> float | None:
    """Return the mean training time per fold in minutes; None where it is unknown."""
    seconds = [fold.seconds for fold in folds if fold.seconds is not None]
    return float(np.mean(seconds)) / 60 if len(seconds) == len(folds) else None


def differences(budgets: Mapping[str, Sequence[Budget]]) -> list[str]:
    """Say how the budgets of configurations, and of the folds of each, differ; one sentence each.

    Budgets are equal if either the steps or the times are within 10 % of each other.

    Args:
        budgets: Budgets of the folds, in order, by configuration.
    """
    sentences = []
    for name, folds in budgets.items():
        uneven = _settings([(f"fold {index}", fold.settings) for index, fold in enumerate(folds)])
        if uneven:
            sentences.append(f"The folds of {name} were trained with different settings: {uneven}.")
    steps, minutes = ([mean(folds) for folds in budgets.values()] for mean in (mean_steps, mean_minutes))
    if len(budgets) > 1 and not (_similar(steps) or _similar(minutes)):
        differ = "may differ" if None in steps and None in minutes else "differ"
        spent = ", ".join(
            f"{name} {_number(mean_steps(folds), ',.0f')} steps in {_number(mean_minutes(folds), ',.1f')} minutes"
            for name, folds in budgets.items()
        )
        sentences.append(
            f"Training budgets per fold {differ}: {spent}. Part of the difference in Dice may come from this. "
            "To compare configurations at equal cost, train them with the same --max-time."
        )
    different = _settings([(name, folds[0].settings) for name, folds in budgets.items()])
    if different:
        sentences.append(f"The configurations were trained with different settings: {different}.")
    return sentences


def _similar(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return len(known) == len(values) and max(known) <= SIMILAR * min(known)


def _settings(owners: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the settings whose values differ between owners, with the values, in words."""
    names = dict.fromkeys(name for _, settings in owners for name in settings)
    different = []
    for name in names:
        values = {owner: settings.get(name, "not set") for owner, settings in owners}
        if len({repr(value) for value in values.values()}) > 1:
            different.append(f"{name} ({listed([f'{owner}: {value}' for owner, value in values.items()])})")
    return "; ".join(different)


def _number(value: float | None, form: str) -> str:
    return "an unknown number of" if value is None else format(value, form)


def _same_place(recorded: Any, path: Path) -> bool:
    """Whether a recorded path ends like `path`. The work folder may have been moved since."""
    parts = path.parts[-4:]  # configuration, slices, fold, checkpoint
    return isinstance(recorded, str) and Path(recorded).parts[-4:] == parts
