"""What is said while work goes on: a progress bar on a terminal, plain lines elsewhere, all of it on stderr."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)

SECONDS_BETWEEN_LINES = 15.0


def is_first_process() -> bool:
    """Whether this is the only process of its kind, or the first of several that train together (torchrun)."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Tell the user one thing, once; `text` is printed as it is, without markup."""
    if is_first_process():
        console.print(text, markup=False)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass `items` on while showing how many of `total` are done."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            yield from progress.track(items, total=total, description=description)
        return
    said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done == total or time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"{description}: {done}/{total}")
