"""Requests to stop, noticed between two steps, so that a checkpoint can be written first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from autocrossdim.system.signals import on_request


@dataclass
class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        received: Name of the signal that arrived; None if none did.
    """

    received: str | None = None


@contextmanager
def noting_requests() -> Iterator[StopRequest]:
    """Yield a record in which SIGTERM and SIGUSR1 are only noted.

    SIGINT is left alone: Ctrl-C stops at once, and at most the running epoch is lost.
    """
    request = StopRequest()

    def note(received: signal.Signals) -> None:
        request.received = received.name

    with on_request(note):
        yield request
