"""How much time a part of a benchmark takes: wall time, and processor time with that of child processes."""

import multiprocessing
import os
import time
from types import TracebackType


class Clock:
    """Context manager that measures its body.

    Processor time is what a shared machine leaves comparable: a run that waits for others does not pay for it.

    Attributes:
        wall_seconds: Wall time.
        cpu_seconds: Processor time of this process and of the child processes that ended in the body.
    """

    def __enter__(self) -> "Clock":
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_seconds = time.perf_counter() - self._wall
        self.cpu_seconds = _cpu_seconds() - self._cpu

    def record(self) -> dict[str, float]:
        """Return both times, in seconds, as a record holds them."""
        return {"wall_seconds": round(self.wall_seconds, 1), "cpu_seconds": round(self.cpu_seconds, 1)}


def _cpu_seconds() -> float:
    multiprocessing.active_children()  # waits for those that have ended; only then does the system count their time
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
