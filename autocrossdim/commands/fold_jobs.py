"""The folds of a training shared among processes of this machine, or among jobs on a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.commands.arguments import Fold
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from autocrossdim.commands.plugins import FoldTask, Trainer

Words = Mapping[Fold, Sequence[str]]
"""The command that trains each fold in a process of its own."""


def fold_commands(
    name: str, dataset: Path, root: Path, options: Mapping[Fold, Mapping[str, Any]]
) -> dict[Fold, list[str]]:
    """Return the command that trains each fold.

    Args:
        name: Name of the command, such as `train`.
        dataset: Directory of the dataset.
        root: Directory of its results.
        options: Options of each fold, besides `work` and `fold`.
    """
    from autocrossdim.jobs import command as words

    place = {"work": root.parent.resolve()}
    return {
        fold: words(name, dataset.resolve(), **place, fold=fold, **own_options) for fold, own_options in options.items()
    }


def submit_folds(commands: Words, configuration: str, root: Path, options: Mapping[str, str]) -> None:
    """Submit a SLURM job per fold.

    Args:
        commands: The commands.
        configuration: Name of the configuration, which is part of the names of the jobs.
        root: Directory of the results of the dataset; scripts and logs are written to `slurm` in it.
        options: Options of `sbatch`.

    Raises:
        UserError: The jobs cannot be submitted.
    """
    from autocrossdim.jobs.slurm import Job, submit

    submit({f"{configuration} fold {fold}": Job(words) for fold, words in commands.items()}, root / "slurm", options)


def train_side_by_side(commands: Words, parallel: int | None, device: str, *, devices: int = 1) -> bool:
    """Train folds in processes of their own, if that was requested or there are several GPUs; return whether.

    Args:
        commands: The commands.
        parallel: Number of folds at a time; as many as there are GPUs if None.
        device: Device, as for `--device`.
        devices: Number of devices that train one fold together.

    Raises:
        UserError: Folds failed; the others are complete.
        Interrupted: SIGTERM or SIGUSR1 arrived.
    """
    from autocrossdim.jobs.local import run_together, slots, visible_gpus
    from autocrossdim.system.processes import under_torchrun

    gpus = visible_gpus(device) if len(commands) > 1 and not under_torchrun() else []
    at_a_time = 1 if under_torchrun() else min(parallel or len(gpus) // devices or 1, len(commands))
    if at_a_time <= 1:
        return False
    run_together({f"fold {fold}": words for fold, words in commands.items()}, slots(at_a_time, gpus, devices))
    return True


def in_turn(trainer: "Trainer", tasks: "Sequence[FoldTask]") -> "list[FoldTask]":
    """Return the folds with their turns among those that are left to train in this process, one after another."""
    left = [task.fold for task in tasks if not _is_trained(trainer, task)]
    turns = {fold: position for position, fold in enumerate(left, start=1)}
    return [replace(task, turn=(turns.get(task.fold, 0), len(left))) for task in tasks]


def _is_trained(trainer: "Trainer", task: "FoldTask") -> bool:
    from autocrossdim.commands.plugins import KnowsTrained

    try:
        return isinstance(trainer, KnowsTrained) and trainer.is_trained(task)
    except UserError:  # the trainer reports it when it is the turn of the fold
        return False
