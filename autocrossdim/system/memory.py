"""How much memory this process may use, and what becomes of memory that it frees."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Parameters of glibc's mallopt, and its largest values for them when it chooses by itself.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
USUAL = {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}
UNLIMITED = 2**31 - 1


def total_memory() -> int | None:
    """Return the machine's memory in bytes, or the container's limit if that is lower; None if unknown (Windows)."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # absent outside containers; "max" is no number
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the tensors that follow, and return it to the system at the end.

    glibc returns blocks of more than 32 MiB as soon as they are freed, and every training step on a CPU would fetch
    them again, page by page. Where the C library is another one, nothing is changed.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (TypeError, AttributeError):  # Windows; macOS, musl
        yield
        return
    for parameter, value in USUAL.items():
        if not mallopt(parameter, UNLIMITED):  # older versions allow no more than the usual
            mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            mallopt(parameter, value)
        trim(0)
