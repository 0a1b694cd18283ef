"""Messages and progress on stderr, results on stdout.

Messages go through the logger `autocrossdim`, so that its level decides how much is shown. Text is printed as it is,
without markup. A terminal shows bars that are redrawn, and breaks messages between words; commands and paths without
spaces stay whole. Pipes, log files and notebooks get one line per message, which starts with the time, and no control
characters. Sentences among results are broken between words too, but the line with the next command is left to the
terminal, so that it can be copied.
"""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from autocrossdim.system.text import without_control, wrapped

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 15.0
REDRAWN_PER_SECOND = 4  # often enough for moving bars, at no noticeable cost
UNLIMITED = 10_000  # characters per line outside a terminal, where rich would assume 80
NEXT = "Next: "  # begins the line with the next command
RELAYED = "AUTOCROSSDIM_RELAYED"  # level of the process that shows the lines of this one and adds the time

logger = logging.getLogger("autocrossdim")


def _console(*, stderr: bool) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False, force_jupyter=False)


console = _console(stderr=True)


class _ConsoleHandler(logging.Handler):
    """Print messages on the console, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        _print_line(prefix + record.getMessage(), record.created)


if not logger.handlers:
    logger.addHandler(_ConsoleHandler())
    logger.propagate = False
if logger.level == logging.NOTSET:  # a program may have set it before this module, which commands import, was loaded
    logger.setLevel(int(os.environ.get(RELAYED, logging.INFO)))


def _print_line(text: str, seconds: float) -> None:
    """Print a line; outside a terminal, the local time precedes it.

    Args:
        text: The line.
        seconds: Time in seconds since the epoch.
    """
    text = without_control(text)
    if is_terminal():
        text = wrapped(text, console.width)
    elif not is_relayed():
        text = time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(seconds)) + text.lstrip("\n")
    console.print(text)


def is_terminal() -> bool:
    """Whether messages are shown on a terminal that can redraw lines.

    `console.is_terminal` is not used: if $FORCE_COLOR is set, as on many CI systems, it is true for log files as well.
    """
    return console.file.isatty() and not console.is_dumb_terminal


def is_relayed() -> bool:
    """Whether another process shows the lines of this one (--parallel)."""
    return RELAYED in os.environ


def is_first_process() -> bool:
    """Whether this is the only process, or the first of several that train together (torchrun)."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Show a message on stderr, once if several processes train together."""
    if is_first_process():
        logger.info("%s", text)


def trace(text: str) -> None:
    """Show a message for debugging on stderr, with `--verbose` only."""
    if is_first_process():
        logger.debug("%s", text)


def warn(text: str) -> None:
    """Show a warning on stderr, which `--quiet` does not suppress; `text` comes without "warning: "."""
    if is_first_process():
        logger.warning("%s", text)


def advise(text: str, level: int = logging.INFO) -> None:
    """Show what helps only the user of this very command, such as what to run next, unless a larger one calls it.

    Args:
        text: The message.
        level: Level of the message, `logging.INFO` or `logging.WARNING`.
    """
    if is_first_process():
        logger.log(level, "%s", text, extra={"is_advice": True})


@contextmanager
def without_advice() -> Iterator[None]:
    """Leave out advice during the block; all other messages and warnings are shown."""

    def is_shown(record: logging.LogRecord) -> bool:
        return not hasattr(record, "is_advice")

    logger.addFilter(is_shown)
    try:
        yield
    finally:
        logger.removeFilter(is_shown)


def relay(text: str) -> None:
    """Show a line of another process, which has already applied its level."""
    _print_line(text, time.time())


def show(*results: RenderableType) -> None:
    """Print results on stdout, such as tables: as wide as the terminal, and of any width elsewhere."""
    output = _console(stderr=False)
    if not output.is_terminal:
        output.width = UNLIMITED
    for each in results:
        if isinstance(each, str):
            text = without_control(each)
            output.print(text if text.startswith(NEXT) else wrapped(text, output.width))
        else:
            output.print(each, soft_wrap=False)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass `items` on while showing how many of `total` are done: a bar on a terminal, a line now and then elsewhere.

    Example:
        >>> for case in track(cases, "Reading cases", len(cases)):
        ...     read(case)
    """
    if not logger.isEnabledFor(logging.INFO) or not is_first_process():
        yield from items
        return
    if is_terminal():
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


class Bars:
    """Bars of a job that describes its state itself, one per row."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._rows: dict[str, TaskID] = {}

    @property
    def visible(self) -> bool:
        """Whether bars are shown."""
        return self._progress is not None

    def update(self, row: str, title: str, done: float, text: str) -> None:
        """Redraw a row: its title, its bar and the text beside it.

        Args:
            row: Name of the row, which is added at its first use.
            title: Text before the bar.
            done: Fraction that is done, 0 to 1.
            text: Text after the bar.
        """
        if self._progress is None:
            return
        if row not in self._rows:
            self._rows[row] = self._progress.add_task(title, total=1.0, text=text)
        title, text = without_control(title), without_control(text)
        self._progress.update(self._rows[row], description=title, completed=done, text=text)


@contextmanager
def bars() -> Iterator[Bars]:
    """Show bars below all messages, and remove them at the end; show none outside a terminal or in other processes."""
    if not (logger.isEnabledFor(logging.INFO) and is_first_process() and is_terminal()):
        yield Bars(None)
        return
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
    )
    with Progress(
        *columns, console=console, expand=True, transient=True, refresh_per_second=REDRAWN_PER_SECOND
    ) as progress:
        yield Bars(progress)
