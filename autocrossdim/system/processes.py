"""One function over many cases in worker processes, with the real error when one fails."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from autocrossdim.system.console import track
from autocrossdim.system.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_processes() -> int:
    """Worker processes used unless told otherwise: one a usable core, at most 8 (each holds one case)."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int, description: str
) -> list[Result]:
    """Return `[function(item) for item in items]`, computed in `processes` workers, in the order of `items`.

    At most one item a worker is in memory. The first failure ends the whole job: an exception is raised
    here as it was raised there, with the worker's traceback. Ctrl-C ends it at once.

    Raises:
        UserError: a worker was killed (typically by the system, for want of memory).
    """
    if processes <= 1 or len(items) <= 1:
        return list(track(map(function, items), description, len(items)))
    # "spawn": forking a process in which torch or ITK threads run can deadlock.
    executor = ProcessPoolExecutor(min(processes, len(items)), get_context("spawn"), initializer=_one_thread)
    try:
        with _interrupts_held_back():
            futures = {executor.submit(function, item): index for index, item in enumerate(items)}
        finished: Iterator[tuple[int, Result]] = (
            (futures[future], future.result()) for future in as_completed(futures)
        )
        results = dict(track(finished, description, len(items)))
    except BrokenProcessPool as error:
        raise UserError(
            f"{description}: a worker process was killed, most likely because memory ran out. "
            f"Try again with fewer processes (--processes {max(1, processes // 2)})."
        ) from error
    except KeyboardInterrupt:
        for worker in list(executor._processes.values()):
            worker.terminate()
        raise
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    return [results[index] for index in range(len(items))]


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Workers started inside never see Ctrl-C, which a terminal sends to every process.

    One that is interrupted between two items can leave the pool waiting for ever (seen in 1 of 8 tries).
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _one_thread() -> None:
    """Keep a worker to one thread: there are as many workers as cores."""
    import SimpleITK
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def under_torchrun() -> bool:
    """Whether torchrun has started this process beside others."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent, process `parent`, ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before this
            os._exit(1)
