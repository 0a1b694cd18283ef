"""Folds that start over (--restart): each exactly once, even if the command is interrupted and run again without it."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from autocrossdim.commands.arguments import Fold
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from autocrossdim.commands.plugins import FoldTask, Trainer
    from autocrossdim.records.workspace import FoldFolder


def starting_over(folders: "Mapping[Fold, FoldFolder]", configuration: str, restart: bool) -> list[Fold]:
    """Return the folds that start over: all with --restart; without it, those left by an interrupted --restart."""
    from autocrossdim.system.console import say
    from autocrossdim.system.text import counted

    if restart:
        return list(folders)
    left = [number for number, folder in folders.items() if folder.restart.exists()]
    if left:
        folds = ", ".join(map(str, left))
        say(f"{configuration}: {counted(len(left), 'fold')} ({folds}) will start over, as requested with --restart.")
    return left


def train_locked(trainer: "Trainer", task: "FoldTask") -> None:
    """Train a fold while no other process does, and remove its mark once it has started over.

    Raises:
        UserError: Another process trains the fold, or the training fails.
    """
    from autocrossdim.system.console import is_first_process
    from autocrossdim.system.lock import locked

    # Other processes of the same training rely on the lock of the first one.
    with locked(task.folder.lock, task.folder.root) if is_first_process() else nullcontext():
        trainer.train_fold(task)
        if task.restart:
            task.folder.restart.unlink(missing_ok=True)


@contextmanager
def marked(folders: "Collection[FoldFolder]") -> Iterator[None]:
    """Mark the folds that start over until the trainer has discarded their checkpoints.

    A command that resumes, such as a job that SLURM queues again, therefore starts over once. If training fails, the
    folds that this call has marked and not yet discarded keep what they have learned.

    Raises:
        UserError: Another process trains one of the folds, or a mark cannot be written.
    """
    from autocrossdim.system.console import is_first_process
    from autocrossdim.system.files import write_text
    from autocrossdim.system.lock import locked

    new = [folder for folder in folders if not folder.restart.exists()] if is_first_process() else []
    try:
        for folder in new:
            with locked(folder.lock, folder.root):
                write_text(folder.restart, "")
        yield
    except UserError:
        for folder in new:
            folder.restart.unlink(missing_ok=True)
        raise
