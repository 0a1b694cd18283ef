"""Training of folds: as jobs on a cluster, side by side on this machine, or one after another in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.commands.arguments import Fold, sbatch_options
from autocrossdim.commands.restart import marked, train_locked
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

    work = root.parent.resolve()
    return {fold: words(name, dataset.resolve(), work=work, fold=fold, **own) for fold, own in options.items()}


def train_folds(
    trainer: "Trainer",
    tasks: "Sequence[FoldTask]",
    commands: Words,
    root: Path,
    *,
    parallel: int | None,
    slurm: str | Mapping[str, str] | None,
) -> bool:
    """Train folds, or submit them as jobs; return whether they are trained now.

    Args:
        trainer: Trains the folds that are left to this process.
        tasks: The folds, all of one configuration.
        commands: The command that trains each of them in a process of its own.
        root: Directory of the results of the dataset; scripts and logs of jobs are written to `slurm` in it.
        parallel: Number of folds at a time; as many as there are GPUs if None.
        slurm: Options of `sbatch`, to submit a job per fold; None trains here.

    Raises:
        UserError: A fold failed, or the jobs cannot be submitted.
        Interrupted: SIGTERM or SIGUSR1 arrived; a checkpoint was written first.
    """
    first = tasks[0]
    with marked([task.folder for task in tasks if task.restart]):
        if slurm is not None:
            _submit(commands, first.configuration.name, root, sbatch_options(slurm))
            return False
        if not _train_side_by_side(commands, parallel, first.device, devices=first.devices):
            for task in _in_turn(trainer, tasks):
                train_locked(trainer, task)
    return True


def _submit(commands: Words, configuration: str, root: Path, options: Mapping[str, str]) -> None:
    """Submit a SLURM job per fold, named after its configuration."""
    from autocrossdim.jobs.slurm import Job, submit

    submit({f"{configuration} fold {fold}": Job(words) for fold, words in commands.items()}, root / "slurm", options)


def _train_side_by_side(commands: Words, parallel: int | None, device: str, *, devices: int) -> bool:
    """Train folds in processes of their own, if that was requested or there are several GPUs; return whether."""
    from autocrossdim.jobs.local import run_together, slots, visible_gpus
    from autocrossdim.system.processes import under_torchrun

    gpus = visible_gpus(device) if len(commands) > 1 and not under_torchrun() else []
    at_a_time = 1 if under_torchrun() else min(parallel or len(gpus) // devices or 1, len(commands))
    if at_a_time <= 1:
        return False
    run_together({f"fold {fold}": words for fold, words in commands.items()}, slots(at_a_time, gpus, devices))
    return True


def _in_turn(trainer: "Trainer", tasks: "Sequence[FoldTask]") -> "list[FoldTask]":
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
