"""Worker processes that prepare batches, and the errors they end with."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event as EventOfProcesses
from queue import Empty, Queue
from threading import Event, Thread

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import NO_GUARD, have_failed_to_start, interrupts_blocked
from trainers.loader import Batch, PatchLoader, Regions

SECONDS_BETWEEN_LOOKS = 0.1  # at whether all workers are alive, while a batch is waited for


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
    has_ended = Event()
    watch = Thread(target=_watch, args=(started, has_ended, augmenter.abort_event), daemon=True)
    watch.start()
    try:
        with _without_traceback_of(augmenter.pin_memory_thread):
            yield _checked(_delivered(augmenter.pin_memory_queue, has_ended, started))
    finally:
        _end(augmenter, started)
        watch.join()


def _watch(workers: Sequence[BaseProcess], has_ended: Event, abort: EventOfProcesses) -> None:
    """When a worker has ended, set an event and ask the others to end."""
    wait([worker.sentinel for worker in workers])
    has_ended.set()
    abort.set()


def _end(augmenter: MultiThreadedAugmenter, workers: Sequence[BaseProcess]) -> None:
    """Kill the workers, which only read files.

    batchgenerators would ask them to end and empty their queues first. It reads for ever if a worker was killed while
    it was writing a batch, because other processes could still write the rest.
    """
    augmenter.abort_event.set()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    # So that its destructor finds nothing to end.
    augmenter._queues, augmenter._processes, augmenter.was_initialized = [], [], False


@contextmanager
def _without_traceback_of(thread: Thread) -> Iterator[None]:
    """Hide the error with which the thread of batchgenerators ends if a worker ends, which is reported anyway."""
    shown = threading.excepthook
    threading.excepthook = lambda error: None if error.thread is thread else shown(error)
    try:
        yield
    finally:
        threading.excepthook = shown


def _delivered(
    queue: "Queue[Batch | Regions | Exception]", has_ended: Event, workers: Sequence[BaseProcess]
) -> Iterator[Batch | Regions | Exception]:
    """Yield what the workers deliver.

    Args:
        queue: Where the thread of batchgenerators puts it.
        has_ended: Set when a worker has ended.
        workers: The workers.
    """
    while True:
        try:
            yield queue.get(timeout=SECONDS_BETWEEN_LOOKS)
        except Empty:
            if not has_ended.is_set():
                continue
            if have_failed_to_start(workers):
                raise UserError(f"Preparing training patches: {NO_GUARD} Or set workers=0.") from None
            raise UserError(
                "A process that prepares training patches was killed, most likely because memory ran out. Run the same "
                "command again to resume; fewer workers (--set workers=1) or a smaller batch need less memory."
            ) from None


def _checked(batches: Iterable[Batch | Regions | Exception]) -> Iterator[Batch | Regions]:
    """Yield batches; raise the error that a worker returned instead of one."""
    for batch in batches:
        if isinstance(batch, Exception):
            raise batch
        yield batch
