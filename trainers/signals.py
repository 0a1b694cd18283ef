"""Requests to stop: noticed between two steps, so that a checkpoint can be written first."""

import signal
import threading
from types import FrameType, TracebackType

REQUESTS = (signal.SIGTERM, signal.SIGUSR1)  # what job schedulers send before they take a machine away


class StopRequest:
    """While it is entered, SIGTERM and SIGUSR1 only set `received`; outside the main thread it does nothing.

    SIGINT stays as it is: Ctrl-C ends at once, and at most the running epoch is lost.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in REQUESTS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
