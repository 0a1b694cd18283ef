import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase

from autocrossdim.preprocessing.store import Store
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError
from trainers.loader import Batch, PatchLoader
from trainers.settings import Settings
from trainers.workers import batches


@pytest.fixture
def make_loader(planned: tuple[Path, Path]) -> Callable[..., PatchLoader]:
    def make(workers: int = 1, store: Path | None = None) -> PatchLoader:
        raw, work = planned
        workspace = Workspace.of(raw.name, work)
        plan = Plan.read(workspace.plan)
        return PatchLoader(
            Store(store or workspace.preprocessed("dx")),
            [f"case_{i:02d}" for i in range(5)],
            configuration=plan.configuration("dx"),
            labels=plan.labels,
            settings=Settings(),
            workers=workers,
        )

    return make


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_delivers_the_same_batches(make_loader: Callable[..., PatchLoader], workers: int) -> None:
    expected = [make_loader().batch(number).data for number in range(5)]
    with batches(make_loader(max(1, workers)), workers) as delivered:
        for data in expected:
            np.testing.assert_array_equal(next(delivered).data, data)
    assert not active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_says_which_case_is_damaged(
    make_loader: Callable[..., PatchLoader], workers: int, tmp_path: Path
) -> None:
    started = time.monotonic()
    loader = make_loader(store=tmp_path)
    with pytest.raises(UserError, match=r"case_0\d.json.*damaged"), batches(loader, workers) as delivered:
        next(delivered)
    assert time.monotonic() - started < 10


def test_a_killed_worker_ends_the_run_and_no_process_is_left(make_loader: Callable[..., PatchLoader]) -> None:
    with batches(make_loader(2), 2) as delivered:
        next(delivered)
        workers = active_children()
        assert len(workers) == 2
        os.kill(workers[0].pid or 0, signal.SIGKILL)
        with pytest.raises(UserError, match="was killed"):
            for _ in range(200):
                next(delivered)
    assert not any(worker.is_alive() for worker in workers)


class LargeBatches(SlimDataLoaderBase):
    """Batches that no pipe can hold, so that a worker is always writing one."""

    def __init__(self) -> None:
        super().__init__(None, 1, 1)

    def generate_train_batch(self) -> Batch:
        return Batch(np.zeros((1, 1, 2**21), np.float32), np.zeros((1, 2**21), np.int16), ["case"])


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside other workers"])
def test_a_worker_that_is_killed_while_it_writes_a_batch_ends_the_run(beside: bool) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(20)
    try:
        with ExitStack() as stack:
            delivered = stack.enter_context(batches(LargeBatches(), 1))  # type: ignore[arg-type]
            (worker,) = active_children()
            if beside:  # they inherit what the first worker writes to
                next(stack.enter_context(batches(LargeBatches(), 1)))  # type: ignore[arg-type]
            next(delivered)
            time.sleep(1)  # until as many batches as may be kept are kept, and the next one is being written
            os.kill(worker.pid or 0, signal.SIGKILL)
            time.sleep(0.5)  # until its end was noticed
            with pytest.raises(UserError, match="was killed"):
                for _ in range(200):
                    next(delivered)
        assert not active_children()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


OPEN_FILES = Path("/proc/self/fd")


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="open files are counted on Linux")
def test_nothing_is_left_after_training_many_times_in_one_process() -> None:
    counts = []
    for _ in range(6):
        with batches(LargeBatches(), 2) as delivered:  # type: ignore[arg-type]
            next(delivered)
        gc.collect()
        counts.append((threading.active_count(), len([*OPEN_FILES.iterdir()])))
    assert counts[1:] == [counts[1]] * 5


class Unreadable:
    """Cannot be received."""

    names = ("case",)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise MemoryError",)


class UnreadableBatches(LargeBatches):
    def generate_train_batch(self) -> Any:
        return Unreadable()


def test_a_batch_that_cannot_be_received_ends_the_run() -> None:
    with (
        pytest.raises(UserError, match=r"could not be received .*MemoryError"),
        batches(UnreadableBatches(), 1) as delivered,  # type: ignore[arg-type]
    ):
        next(delivered)


def test_ctrl_c_leaves_no_process(make_loader: Callable[..., PatchLoader]) -> None:
    def interrupted() -> None:
        with batches(make_loader(2), 2) as delivered:
            next(delivered)
            for worker in active_children():
                os.kill(worker.pid or 0, signal.SIGINT)  # as a terminal does
            next(delivered)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not active_children()
