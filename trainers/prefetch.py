"""Batches on the device of training, on a GPU one ahead: the next one is copied while the GPU computes a step."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar

import torch

from autocrossdim.system.device import BACKENDS

Drawn = TypeVar("Drawn")  # a batch in the memory of the CPU
Placed = TypeVar("Placed")  # the same on a device


@contextmanager
def placed(
    drawn: AbstractContextManager[Iterator[Drawn]],
    device: torch.device,
    place: Callable[[Drawn, torch.device], Placed],
) -> Iterator[Iterator[Placed]]:
    """Yield the iterator over batches on a device.

    Args:
        drawn: Context in which batches are delivered in the memory of the CPU.
        device: Device of training.
        place: Returns a batch on a device.
    """
    if not BACKENDS[device.type].asynchronous:
        with drawn as batches:
            yield (place(batch, device) for batch in batches)
        return
    # The thread is waited for last: it may be waiting for a batch, which is not delivered once `drawn` has ended.
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread, drawn as batches:
        yield _Prefetched(batches, device, place, thread)


class _Prefetched(Generic[Drawn, Placed]):
    """Iterates over batches on a GPU; a thread pins and copies the next one, in a stream of its own.

    torch reuses the memory of a tensor as soon as nothing refers to it, in the stream in which it was allocated: here
    that of the copies, while the computation may still read it. Hence a copy waits for what was queued before it was
    asked for, and each batch is referred to until then. (`Tensor.record_stream` would do as well, but would hold the
    batches of all steps that are queued.)

    Args:
        batches: Batches in the memory of the CPU.
        device: The GPU.
        place: Returns a batch on a device.
        thread: One thread, which fetches and copies.
    """

    def __init__(
        self,
        batches: Iterator[Drawn],
        device: torch.device,
        place: Callable[[Drawn, torch.device], Placed],
        thread: ThreadPoolExecutor,
    ) -> None:
        self.batches, self.device, self.place, self.thread = batches, device, place, thread
        self.module: Any = torch.get_device_module(device)
        self.stream = self.module.Stream(device)
        self._next: Future[tuple[Placed, Any]] | None = None
        self._held: Placed | None = None

    def __iter__(self) -> "_Prefetched[Drawn, Placed]":
        return self

    def __next__(self) -> Placed:
        self._next = self._next or self._ask()
        batch, copied = self._next.result()
        self._next = self._ask()
        self._held = batch  # releases the one before; only the copy that was just asked for can take its memory
        self._computation.wait_event(copied)
        return batch

    @property
    def _computation(self) -> Any:
        """The stream in which steps are computed."""
        return self.module.current_stream(self.device)

    def _ask(self) -> "Future[tuple[Placed, Any]]":
        """Ask the thread for the next batch."""
        return self.thread.submit(self._fetch, self._computation.record_event())

    def _fetch(self, queued: Any) -> tuple[Placed, Any]:
        """Return the next batch on the device, and the event that its copy has ended.

        Args:
            queued: Event after which the memory of earlier batches may be overwritten.
        """
        batch = next(self.batches)
        with self.module.stream(self.stream):
            self.stream.wait_event(queued)
            return self.place(batch, self.device), self.stream.record_event()
