import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autocrossdim.inference.pipeline import overlapped
from autocrossdim.system.errors import UserError


@pytest.fixture(autouse=True)
def no_thread_remains() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Log:
    """Reads, computes and writes by waiting, and logs the order."""

    def __init__(self, seconds: float = 0.0, fails: str = "", error: Exception | None = None) -> None:
        self.seconds, self.fails, self.error = seconds, fails, error
        self.started: list[str] = []
        self.ended: list[str] = []

    def do(self, what: str) -> None:
        self.started.append(what)
        time.sleep(self.seconds)
        if what == self.fails:
            assert self.error is not None
            raise self.error
        self.ended.append(what)

    def run(self, count: int) -> list[int]:
        def read(item: int) -> int:
            self.do(f"read {item}")
            return item

        def compute(item: int, value: int) -> int:
            assert value == item
            # At most one item is read ahead, and at most one is still being written.
            assert sum(entry.startswith("read") for entry in self.started) <= item + 2
            assert sum(entry.startswith("write") for entry in self.ended) >= item - 2
            self.do(f"compute {item}")
            return item

        def write(item: int, _: int) -> None:
            self.do(f"write {item}")

        return list(overlapped(range(count), lambda item: f"case {item}", read, compute, write))


def test_items_are_yielded_in_order_once_they_are_written() -> None:
    assert Log().run(0) == []
    log = Log()
    assert log.run(5) == list(range(5))
    assert [entry for entry in log.ended if "write" in entry] == [f"write {i}" for i in range(5)]


def test_reading_computing_and_writing_overlap() -> None:
    log = Log(seconds=0.1)
    started = time.monotonic()
    log.run(6)
    assert time.monotonic() - started < 0.1 * 3 * 6 * 0.75  # 1.8 s in sequence, 0.8 s at best


@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_a_failure_ends_the_run_after_finished_items_are_written(step: str) -> None:
    log = Log(fails=f"{step} 2", error=UserError("no such thing"))
    with pytest.raises(UserError, match="case 2: no such thing"):
        log.run(6)
    assert [entry for entry in log.ended if "write" in entry] == ["write 0", "write 1"]
    assert "read 5" not in log.started


def test_running_out_of_memory_names_the_case_and_other_errors_get_a_note() -> None:
    with pytest.raises(UserError, match="case 1: memory ran out while reading it"):
        Log(fails="read 1", error=MemoryError()).run(2)
    with pytest.raises(UserError, match="case 0: memory ran out while predicting it"):
        Log(fails="compute 0", error=torch.OutOfMemoryError("CUDA out of memory")).run(2)
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    with pytest.raises(UserError, match="case 0: memory ran out while predicting it"):
        Log(fails="compute 0", error=refused.value).run(2)
    with pytest.raises(KeyError) as caught:
        Log(fails="write 1", error=KeyError("x")).run(2)
    assert caught.value.__notes__ == ["This happened while writing case 1."]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows sends Ctrl-C by other means")
def test_control_c_ends_the_run_and_completes_the_file_being_written(tmp_path: Path) -> None:
    code = """if True:
        import pathlib, time
        from autocrossdim.inference.pipeline import overlapped
        def compute(item, _):
            time.sleep(0.2 if item == 0 else 100)
        def write(item, _):
            pathlib.Path("started").touch()
            time.sleep(1)
            pathlib.Path("complete").touch()
        list(overlapped(range(5), str, lambda item: None, compute, write))
    """
    job = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGINT)
    _, errors = job.communicate(timeout=20)
    assert job.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert (tmp_path / "complete").exists()
