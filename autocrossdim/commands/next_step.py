"""The last line of a command's output, which names the next command."""

import shlex
from pathlib import Path

from autocrossdim.system.console import NEXT


def next_step(command: str, dataset: str | Path, *words: str, work: str | Path | None = None) -> str:
    """Return the line that names the next command.

    Args:
        command: Name of the command.
        dataset: The dataset or model, as the user named it.
        words: Further words of the command line.
        work: Directory of all results, as the user gave it.
    """
    place = [] if work is None else ["--work", str(work)]
    return f"{NEXT}{shlex.join(['autocrossdim', command, str(dataset), *place, *words])}"
