"""The last line of a command's output, which names the next command."""

from pathlib import Path

from autocrossdim.system.console import NEXT
from autocrossdim.system.text import command_line


def next_step(command: str, dataset: str | Path, *words: str, work: str | Path | None = None) -> str:
    """Return the line that names the next command; parameters as for `command_line`."""
    return NEXT + command_line(command, dataset, *words, work=work)
