"""Worker processes that prepare batches, and the errors they end with."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import NO_GUARD, have_failed_to_start, interrupts_blocked
from trainers.loader import Batch, PatchLoader, Regions

SECONDS_BETWEEN_CHECKS = 0.1  # that all workers are alive, while waiting for a batch
SECONDS_TO_END = 3.0  # that the thread of batchgenerators has to end


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
    with _noting_errors_of(augmenter) as errors:
        try:
            with interrupts_blocked():
                augmenter.restart()  # starts the workers
            yield _checked(_delivered(augmenter, errors))
        finally:
            _end(augmenter)


@contextmanager
def _noting_errors_of(augmenter: MultiThreadedAugmenter) -> Iterator[list[object]]:
    """Collect the errors of batchgenerators' thread instead of showing them."""
    errors: list[object] = []
    shown = threading.excepthook

    def note(error: threading.ExceptHookArgs) -> None:
        if error.thread is augmenter.pin_memory_thread:
            errors.append(error.exc_value)
        else:
            shown(error)

    threading.excepthook = note
    try:
        yield errors
    finally:
        threading.excepthook = shown


def _delivered(augmenter: MultiThreadedAugmenter, errors: Sequence[object]) -> Iterator[Batch | Regions | Exception]:
    """Yield what the workers deliver.

    Args:
        augmenter: Owner of the workers, and of the thread that receives from them.
        errors: Errors with which this thread ended.
    """
    while True:
        try:
            yield augmenter.pin_memory_queue.get(timeout=SECONDS_BETWEEN_CHECKS)
            continue
        except Empty:
            ended = [worker for worker in augmenter._processes if not worker.is_alive()]
        if have_failed_to_start(ended):
            raise UserError(f"Preparing training patches: {NO_GUARD} Or set workers=0.")
        if ended:
            raise UserError(
                "A process that prepares training patches was killed, most likely because memory ran out. Run the same "
                "command again to resume; fewer workers (--set workers=1) or a smaller batch need less memory."
            )
        if not augmenter.pin_memory_thread.is_alive():
            raise UserError(
                f"Training patches could not be received from the processes that prepare them: {errors!r}. If memory "
                "ran out, fewer workers (--set workers=1) need less. Run the same command again to resume."
            )


def _end(augmenter: MultiThreadedAugmenter) -> None:
    """Kill the workers, which only read files, and end the thread that receives from them.

    batchgenerators would ask them to end, and read what they have sent. It reads for ever if a worker is killed while
    it is writing a batch. It also takes a lock that a killed worker may hold.
    """
    for worker in augmenter._processes:
        worker.kill()
    for worker in augmenter._processes:
        worker.join()
    for queue in augmenter._queues:
        queue._writer.close()  # now nobody can write, and whoever reads an incomplete batch finds its end
    if augmenter.pin_memory_thread is not None:
        augmenter.pin_memory_thread.join(SECONDS_TO_END)
    # Its destructor must not do it again.
    augmenter._queues, augmenter._processes, augmenter.was_initialized = [], [], False


def _checked(batches: Iterable[Batch | Regions | Exception]) -> Iterator[Batch | Regions]:
    """Yield batches; raise the error that a worker returned instead of one."""
    for batch in batches:
        if isinstance(batch, Exception):
            raise batch
        yield batch
