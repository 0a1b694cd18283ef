import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    assert map_cases(math.isqrt, [0, 1, 4, 9, 16, 25], processes, "Roots") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_original_error_of_a_worker_is_raised(processes: int) -> None:
    with pytest.raises(ValueError, match="nonnegative"):
        map_cases(math.isqrt, [0, 1, -4, 9, 16], processes, "Roots")


def test_an_error_does_not_wait_for_other_items() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="non-negative"):
        map_cases(time.sleep, [100, -1, 100, 100], 2, "Sleeping")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("items", [[0, 1, 4], [0, -1, 4]], ids=["success", "error"])
def test_no_worker_and_no_thread_outlives_the_job(items: list[int]) -> None:
    """Otherwise a program that ends right afterwards may write to a pipe that such a thread has closed."""
    threads = set(threading.enumerate())
    with suppress(ValueError):
        map_cases(math.isqrt, items, 2, "Roots")
    assert multiprocessing.active_children() == []
    assert set(threading.enumerate()) <= threads


def test_a_killed_worker_is_an_error_within_seconds() -> None:
    started = time.monotonic()
    harmless = signal.SIGCONT
    with pytest.raises(UserError, match="killed.*--processes 1"):
        map_cases(signal.raise_signal, [harmless, signal.SIGKILL, harmless, harmless], 2, "Signals")
    assert time.monotonic() - started < 20


def test_a_script_without_guard_is_told_to_have_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    code = (
        "import math\nfrom autocrossdim.system.processes import map_cases\nmap_cases(math.isqrt, [1, 4], 2, 'Roots')\n"
    )
    script.write_text(code, encoding="utf-8")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode != 0
    # Python may warn of semaphores of the killed processes after the error.
    last = [line for line in run.stderr.splitlines() if "UserError" in line][-1]
    assert 'put all calls of autocrossdim below `if __name__ == "__main__":`' in last
    assert "memory" not in last


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows sends Ctrl-C by other means")
def test_control_c_ends_the_job_and_its_workers_at_once(tmp_path: Path) -> None:
    work = "import pathlib, time; pathlib.Path('started').touch(); time.sleep(100)"
    code = f"from autocrossdim.system.processes import map_cases; map_cases(exec, [{work!r}] * 6, 2, 'Sleeping')"
    job = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does
    # The pipe closes when the last worker, which shares it, has ended.
    _, errors = job.communicate(timeout=20)
    assert job.returncode != 0
    assert errors.count("Traceback") == 1, "workers end without a message"
    assert errors.rstrip().endswith("KeyboardInterrupt")
