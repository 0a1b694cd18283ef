"""How much memory a process may use, and what becomes of memory that it frees."""

import platform

import numpy as np
import pytest

from autocrossdim.system.memory import freed_memory_kept

resource = pytest.importorskip("resource", reason="Windows does not count page faults this way")

BLOCK = 2**26  # bytes, more than glibc keeps by itself


def faults_of_one_block() -> int:
    """Return the number of page faults while a block is allocated, filled and freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(BLOCK, np.uint8).fill(1)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told so")
def test_freed_memory_is_used_again_until_the_end() -> None:
    with freed_memory_kept():
        faults_of_one_block()
        kept = faults_of_one_block()
    afterwards = faults_of_one_block()

    assert kept < 10 < afterwards


def test_without_glibc_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())  # a library without `mallopt`
    with freed_memory_kept():
        faults_of_one_block()
