"""How much memory this process may use."""

import os
from contextlib import suppress
from pathlib import Path


def total_memory() -> int | None:
    """Return the machine's memory in bytes, or the container's limit if that is lower; None if unknown (Windows)."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # absent outside containers; "max" is no number
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total
