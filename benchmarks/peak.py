"""Resident memory of this process, as Linux reports it.

Not `getrusage`: the peak that it reports is inherited from the process that started this one, so that a small process
seems to need what its parent once needed.
"""

from pathlib import Path

STATUS = Path("/proc/self/status")


def resident() -> int:
    """Return the bytes of this process that are in memory now."""
    return _bytes("VmRSS")


def peak() -> int:
    """Return the highest number of bytes so far, or since `forget_peak`."""
    return _bytes("VmHWM")


def forget_peak() -> None:
    """Let the peak start again at the present memory."""
    Path("/proc/self/clear_refs").write_text("5")


def _bytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
