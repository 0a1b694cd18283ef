"""Batches on a device, one ahead; the GPU is played by a fake whose streams record what waits for what."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.device import BACKENDS, CPU
from autocrossdim.system.errors import UserError
from trainers.loader import Batch, Placed
from trainers.prefetch import placed

CUDA = torch.device("cuda")


def numbered(count: int) -> Iterator[Batch]:
    """Yield batches of one number each."""
    for number in range(count):
        yield Batch(np.full((1, 1, 2, 2), number, np.float32), np.zeros((1, 2, 2), np.int16), [str(number)])


@dataclass
class Stream:
    """Work that is done in order, and after what the stream was told to wait for."""

    gpu: "Gpu"
    before_next: set[int] = field(default_factory=set)

    def do(self, what: tuple[str, int]) -> int:
        """Queue work, and return its number."""
        with self.gpu.lock:
            number = len(self.gpu.work)
            self.gpu.work.append((what, frozenset(self.before_next)))
            self.before_next = {number}
        return number

    def record_event(self) -> frozenset[int]:
        return frozenset(self.before_next)

    def wait_event(self, event: frozenset[int]) -> None:
        self.before_next |= event


class Gpu:
    """What the prefetcher needs of `torch.cuda`, and an allocator that uses memory again once its tensor is gone."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.work: list[tuple[tuple[str, int], frozenset[int]]] = []
        self.free: list[int] = []
        self.memory: dict[int, int] = {}  # of each batch
        self.computation = Stream(self)
        self.current = threading.local()

    def Stream(self, _: torch.device) -> Stream:
        return Stream(self)

    def current_stream(self, _: torch.device | None = None) -> Stream:
        return getattr(self.current, "stream", self.computation)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.current.stream = stream
        yield
        del self.current.stream

    def place(self, batch: Batch, _: object) -> Placed:
        """Copy a batch to memory in the current stream."""
        number = int(batch.names[0])
        data = torch.from_numpy(batch.data)
        self.memory[number] = self.free.pop() if self.free else number
        weakref.finalize(data, self.free.append, self.memory[number])
        self.current_stream().do(("copy", number))
        return Placed((data, torch.from_numpy(batch.target)), batch.names)

    def is_before(self, first: tuple[str, int], second: tuple[str, int]) -> bool:
        """Return whether the second work always waits for the first."""
        numbers = {what: number for number, (what, _) in enumerate(self.work)}
        open_, seen = [numbers[second]], set()
        while open_:
            number = open_.pop()
            if number == numbers[first]:
                return True
            if number not in seen:
                seen.add(number)
                open_ += self.work[number][1]
        return False


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    fake = Gpu()
    monkeypatch.setattr(torch, "get_device_module", lambda _: fake)
    return fake


def assert_safe(gpu: Gpu, count: int) -> None:
    """Assert that each of the first batches is copied before it is used, and used before its memory is used again."""
    for number in range(count):
        assert gpu.is_before(("copy", number), ("compute", number))
        for earlier in range(number):
            if gpu.memory[earlier] == gpu.memory[number]:
                assert gpu.is_before(("compute", earlier), ("copy", number))


@pytest.mark.parametrize("per_step", [1, 3])
def test_copies_run_beside_steps_and_never_overwrite_what_is_still_read(gpu: Gpu, per_step: int) -> None:
    count = 8 * per_step
    with placed(nullcontext(numbered(100)), CUDA, gpu.place) as batches:
        for _ in range(8):
            taken = [next(batches) for _ in range(per_step)]
            for batch in taken:
                gpu.computation.do(("compute", int(batch.names[0])))
    assert_safe(gpu, count)
    assert len(set(gpu.memory.values())) <= 2 * per_step + 2
    for number in range(per_step, count - 1):
        assert not gpu.is_before(("compute", number), ("copy", number + 1))


def test_the_memory_of_a_batch_that_is_no_longer_referred_to_is_not_overwritten_either(gpu: Gpu) -> None:
    drawn = threading.Semaphore(1)

    def slow() -> Iterator[Batch]:
        for batch in numbered(100):
            assert drawn.acquire(timeout=10)
            yield batch

    with placed(nullcontext(slow()), CUDA, gpu.place) as batches:
        for number in range(8):
            next(batches)  # released at once, while it is computed and before the next one is copied
            gpu.computation.do(("compute", number))
            drawn.release()
    assert_safe(gpu, 8)


def test_a_thread_places_the_next_batch_while_the_present_one_is_used(gpu: Gpu) -> None:
    threads, done = [], [threading.Event() for _ in range(4)]

    def place(batch: Batch, device: torch.device) -> Any:
        threads.append(threading.current_thread())
        done[int(batch.names[0])].set()
        return gpu.place(batch, device)

    with placed(nullcontext(numbered(4)), CUDA, place) as batches:
        assert next(batches).names == ["0"]
        assert done[1].wait(10)
        assert [batch.names for batch in batches] == [["1"], ["2"], ["3"]]
    assert len(set(threads)) == 1
    assert threads[0] not in (threading.main_thread(), *threading.enumerate())


def test_an_error_of_the_loader_is_raised_where_its_batch_is_needed(gpu: Gpu) -> None:
    def damaged() -> Iterator[Batch]:
        yield from numbered(2)
        raise UserError("case_01.json is damaged.")

    with placed(nullcontext(damaged()), CUDA, gpu.place) as batches:
        assert [next(batches).names, next(batches).names] == [["0"], ["1"]]
        with pytest.raises(UserError, match=r"case_01\.json is damaged"):
            next(batches)


def test_an_interruption_does_not_wait_for_the_next_batch(gpu: Gpu) -> None:
    ended = threading.Event()

    def stalling() -> Iterator[Batch]:
        yield from numbered(1)
        assert ended.wait(20)

    @contextmanager
    def drawn() -> Iterator[Iterator[Batch]]:
        try:
            yield stalling()
        finally:
            ended.set()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), placed(drawn(), CUDA, gpu.place) as batches:
        next(batches)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 10


def test_on_a_cpu_batches_are_placed_when_they_are_needed() -> None:
    drawn = numbered(3)
    with placed(nullcontext(drawn), CPU, Batch.to) as batches:
        (data, target), names = next(batches), next(drawn).names
    assert (data.mean().item(), target.dtype, names) == (0, torch.int64, ["1"])


@pytest.mark.parametrize("settings", [{}, {"augment_on_gpu": True, "workers": 1}])
def test_training_with_batches_one_ahead_is_bitwise_the_same(
    another_work: Callable[[str], Path],
    train: Callable[..., FoldFolder],
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = train(work=another_work("plain"), accumulate=2)
    monkeypatch.setitem(BACKENDS, "cpu", replace(BACKENDS["cpu"], asynchronous=True))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    found = train(work=another_work("ahead"), accumulate=2, **settings)
    networks = (Checkpoint.read(folder.latest).resume["network"] for folder in (expected, found))
    for one, other in zip(*(network.values() for network in networks), strict=True):
        assert torch.equal(one, other)
