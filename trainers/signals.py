"""Requests to stop, noticed between two steps, so that a checkpoint can be written first."""

import signal
import threading
from types import FrameType, TracebackType

from autocrossdim.system.signals import REQUESTS


class StopRequest:
    """Context in which SIGTERM and SIGUSR1 only set `received`; outside the main thread, it does nothing.

    SIGINT is left alone: Ctrl-C stops at once, and at most the running epoch is lost.

    Attributes:
        received: Name of the signal that arrived; None if none did.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in REQUESTS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
