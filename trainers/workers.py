"""Worker processes that prepare batches, and the errors they end with."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Process, active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from threading import Thread

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import NO_GUARD, have_failed_to_start, interrupts_blocked
from trainers.loader import Batch, PatchLoader, Regions

SECONDS_TO_END = 3.0  # that workers have to end by themselves before they are terminated


@contextmanager
def batches(loader: PatchLoader, workers: int) -> Iterator[Iterator[Batch | Regions]]:
    """Run a loader in worker processes and yield the iterator over its batches.

    Args:
        loader: Loader, created for this number of workers.
        workers: Number of processes; 0 prepares batches in this one.

    Raises:
        UserError: A case is damaged, or a worker was killed.
    """
    if workers == 0:
        yield _checked(loader)
        return
    augmenter = MultiThreadedAugmenter(loader, None, workers, num_cached_per_queue=2, seeds=None)
    others = active_children()
    with interrupts_blocked():
        augmenter.restart()  # starts the workers
    started = [child for child in active_children() if child not in others]
    watch = Thread(target=_abort_when_one_ends, args=(started, augmenter), daemon=True)
    watch.start()
    try:
        with _without_traceback_of(augmenter.pin_memory_thread):
            yield _checked(_from_workers(augmenter, started))
    finally:
        # batchgenerators offers no public way of ending workers at a definite time.
        augmenter._finish(timeout=SECONDS_TO_END)
        watch.join()


@contextmanager
def _without_traceback_of(thread: Thread) -> Iterator[None]:
    """Hide the error with which the thread of batchgenerators ends if a worker ends: `next` reports it."""
    shown = threading.excepthook
    threading.excepthook = lambda error: None if error.thread is thread else shown(error)
    try:
        yield
    finally:
        threading.excepthook = shown


def _abort_when_one_ends(workers: list[Process], augmenter: MultiThreadedAugmenter) -> None:
    """Make `next` fail as soon as a worker has ended.

    batchgenerators does so itself, except while it reads an incomplete batch of a killed worker. That would never end,
    because other processes could still write the rest. So all workers are killed, and this process cannot write either.
    """
    wait([worker.sentinel for worker in workers])
    augmenter.abort_event.set()
    if any(worker.exitcode for worker in workers):
        for worker in workers:
            worker.kill()
            worker.join()
        for queue in augmenter._queues:
            queue._writer.close()


def _from_workers(
    augmenter: MultiThreadedAugmenter, workers: Sequence[BaseProcess]
) -> Iterator[Batch | Regions | Exception]:
    while True:
        try:
            batch = next(augmenter)
        except RuntimeError as error:
            if have_failed_to_start(workers):
                raise UserError(f"Preparing training patches: {NO_GUARD} Or set workers=0.") from error
            raise UserError(
                "A process that prepares training patches was killed, most likely because memory ran out. Run the same "
                "command again to resume; fewer workers (--set workers=1) or a smaller batch need less memory."
            ) from error
        yield batch


def _checked(batches: Iterable[Batch | Regions | Exception]) -> Iterator[Batch | Regions]:
    """Yield batches; raise the error that a worker returned instead of one."""
    for batch in batches:
        if isinstance(batch, Exception):
            raise batch
        yield batch
