"""How much memory a process may use, and what becomes of memory that it frees."""

import os
import platform
import subprocess
import sys

import pytest

from autocrossdim.system.memory import freed_memory_kept

# In a process of its own: in one that has run other tests, the heap may have no room to grow.
PROGRAM = """
import resource
import numpy as np
from autocrossdim.system.memory import freed_memory_kept

def faults_of_one_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**26, np.uint8).fill(1)  # more bytes than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults_of_one_block()
with freed_memory_kept():
    faults_of_one_block()
    kept = faults_of_one_block()
print(before, kept, faults_of_one_block())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told so")
def test_freed_memory_is_used_again_until_the_end() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    before, kept, afterwards = map(int, run.stdout.split())
    assert kept < 10 < min(before, afterwards)


def test_without_glibc_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())  # a library without `mallopt`
    with freed_memory_kept():
        pass
