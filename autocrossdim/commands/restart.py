"""Folds that start over (--restart): each does so once, also if the command is interrupted and run again without it."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from autocrossdim.commands.arguments import Fold
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
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
        say(f"{configuration}: {counted(len(left), 'fold')} ({folds}) to start over, as requested with --restart.")
    return left


@contextmanager
def marked(folders: "Collection[FoldFolder]") -> Iterator[None]:
    """Mark the folds that start over until the trainer has discarded their checkpoints.

    A command that resumes, such as a job that SLURM queues again, therefore starts over once. If training fails, the
    folds that are left keep what they have learned.
    """
    from autocrossdim.system.console import is_first_process
    from autocrossdim.system.files import write_text

    if is_first_process():
        for folder in folders:
            write_text(folder.restart, "")
    try:
        yield
    except UserError:
        for folder in folders:
            folder.restart.unlink(missing_ok=True)
        raise
