"""Messages and progress on stderr, results on stdout.

Messages go through the logger `autocrossdim`, so that its level decides how much is shown. Text is printed as it is,
without markup; lines are wrapped by the terminal alone, so that paths stay whole in files and pipes.
"""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autocrossdim.system.text import without_control

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 15.0
UNLIMITED = 10_000  # characters per line outside a terminal, where rich would assume 80

logger = logging.getLogger("autocrossdim")


def _console(*, stderr: bool) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


console = _console(stderr=True)


class _ConsoleHandler(logging.Handler):
    """Print messages on the console, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        console.print(prefix + without_control(record.getMessage()))


if not logger.handlers:
    logger.addHandler(_ConsoleHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def is_first_process() -> bool:
    """Whether this is the only process, or the first of several that train together (torchrun)."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Show a message on stderr, once if several processes train together."""
    if is_first_process():
        logger.info("%s", text)


def warn(text: str) -> None:
    """Show a warning on stderr, which `--quiet` does not suppress; `text` comes without "warning: "."""
    if is_first_process():
        logger.warning("%s", text)


def show(*results: RenderableType) -> None:
    """Print results on stdout, such as tables: as wide as the terminal, and of any width elsewhere."""
    output = _console(stderr=False)
    if not output.is_terminal:
        output.width = UNLIMITED
    output.print(*(without_control(each) if isinstance(each, str) else each for each in results), sep="\n")


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass `items` on while showing how many of `total` are done: a bar on a terminal, a line now and then elsewhere.

    Example:
        >>> for case in track(cases, "Reading cases", len(cases)):
        ...     read(case)
    """
    if not logger.isEnabledFor(logging.INFO) or not is_first_process():
        yield from items
        return
    if console.is_terminal:
        text = TextColumn("{task.description}", markup=False)
        with Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as progress:
            yield from progress.track(items, total=total, description=description)
        return
    shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done == total or time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            say(f"{description}: {done}/{total}")
