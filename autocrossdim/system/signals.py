"""Signals that ask a process to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What job schedulers send before they take a machine away; Windows has no SIGUSR1.
REQUESTS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


@contextmanager
def on_request(handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call a function when this process is asked to stop; afterwards, the former handlers are back.

    Outside the main thread, where Python allows no handlers, nothing changes.

    Args:
        handle: Takes the signal. What it raises is raised where the process is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _: handle(signal.Signals(number))) for number in REQUESTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
