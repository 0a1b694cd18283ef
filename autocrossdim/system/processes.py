"""Worker processes: apply a function to many cases; if one fails, its original error is raised."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import TypeVar

from autocrossdim.system.console import track
from autocrossdim.system.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

SECONDS_TO_END = 5.0  # that a worker of a broken pool has to end
NO_GUARD = (
    "a worker process ended with an error before it could start (see above). In a script, put all calls of "
    'autocrossdim below `if __name__ == "__main__":`, because worker processes import the script.'
)


def default_processes() -> int:
    """Return the default number of worker processes: one per usable core, at most 8, as each holds one case."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int, description: str
) -> list[Result]:
    """Return `[function(item) for item in items]`, computed by worker processes.

    Each worker holds one item in memory. The first exception ends the job: it is raised here as it was raised
    in the worker, with the worker's traceback. Ctrl-C ends the job at once.

    Args:
        function: Function of one item; it and the items are pickled.
        items: Items, such as the cases of a dataset.
        processes: Number of workers; with one, everything is computed in this process.
        description: Name of the job, for its progress bar.

    Raises:
        UserError: A worker was killed, typically by the system because memory ran out, or could not start.
    """
    if processes <= 1 or len(items) <= 1:
        return list(track(map(function, items), description, len(items)))
    # "spawn": forking a process in which threads of torch or ITK run can deadlock.
    executor = ProcessPoolExecutor(min(processes, len(items)), get_context("spawn"), initializer=_use_one_thread)
    try:
        with interrupts_blocked():
            futures = {executor.submit(function, item): index for index, item in enumerate(items)}
        workers = list((executor._processes or {}).values())
        finished: Iterator[tuple[int, Result]] = (
            (futures[future], future.result()) for future in as_completed(futures)
        )
        results = dict(track(finished, description, len(items)))
    except BrokenProcessPool as error:
        if have_failed_to_start(workers):
            raise UserError(f"{description}: {NO_GUARD} Or use a single process (processes=1).") from error
        raise UserError(
            f"{description}: a worker process was killed, most likely because memory ran out. "
            f"Try again with fewer processes (--processes {max(1, processes // 2)})."
        ) from error
    except BaseException:
        for worker in list((executor._processes or {}).values()):
            worker.terminate()
        raise
    finally:
        # Waiting matters: Python closes the pool's pipes in a thread, and a program that ends at the same moment would
        # write to a closed pipe ("Bad file descriptor", after about 1 of 30 commands).
        executor.shutdown(cancel_futures=True)
    return [results[index] for index in range(len(items))]


def have_failed_to_start(workers: Sequence[BaseProcess]) -> bool:
    """Whether a process has ended by itself with an error, instead of being killed.

    Workers return errors of their work. Those of Python itself end them: most often, they import a script that starts
    the same work again.
    """
    for worker in workers:
        worker.join(SECONDS_TO_END)
    return any(worker.exitcode is not None and worker.exitcode > 0 for worker in workers)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C for workers started inside; a terminal sends it to every process.

    A worker interrupted between two items can leave the pool waiting forever (seen in 1 of 8 tries).
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _use_one_thread() -> None:
    """Limit a worker to one thread, because there are as many workers as cores."""
    import SimpleITK
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def under_torchrun() -> bool:
    """Whether torchrun has started this process together with others."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def processes_here(devices: int) -> int:
    """Return how many processes of a training share this machine: those that torchrun started, else one per device.

    Args:
        devices: Devices that train one fold together, all of this machine.
    """
    return int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun() else devices


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent, process `parent`, ends in any way (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the request
            os._exit(1)
