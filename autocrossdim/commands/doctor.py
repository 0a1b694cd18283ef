"""`autocrossdim doctor`: versions, devices, memory, and whether pretrained weights can be downloaded."""

import os
import platform
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import version

from autocrossdim.commands.signature import command

PACKAGES = ("autocrossdim", "torch", "timm", "SimpleITK", "batchgenerators", "numpy")
HUB = "huggingface.co"
SECONDS_TO_WAIT = 3.0


@command()
def doctor() -> list[str]:
    """Show versions, devices, memory, and whether pretrained weights can be downloaded."""
    return list(_findings())


def present(findings: list[str], **_: object) -> Iterator[str]:
    """Yield what the command line prints: one finding per line."""
    yield from findings


def _findings() -> Iterator[str]:
    yield f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in PACKAGES:
        yield f"{name} {version(name)}"
    yield f"{len(os.sched_getaffinity(0)) if sys.platform == 'linux' else os.cpu_count()} CPU cores, {_memory()}"
    yield from _devices()
    yield _hub()


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "memory unknown"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{total / 1024**3:.0f} GB of memory"


def _devices() -> Iterator[str]:
    from autocrossdim.system.device import BACKENDS, gpus, name_of, precision_for, total_memory

    found = gpus()
    if not found:
        yield "No usable GPU: training runs on the CPU, and plans are sized for 8 GB unless --memory says otherwise."
    for device in found:
        precision = {"bf16-mixed": "bf16", "16-mixed": "fp16", "32-true": "fp32"}[precision_for(device)]
        does = f"trains in {precision}" if BACKENDS[device.type].trains else f"predicts in {precision}, cannot train"
        memory = total_memory(device)
        size = "shares the memory of the CPU" if memory is None else f"{memory / 1024**3:.0f} GB"
        yield f"{device}: {name_of(device)}, {size}, {does}"


def _hub() -> str:
    try:
        socket.create_connection((HUB, 443), timeout=SECONDS_TO_WAIT).close()
    except OSError as error:
        return (
            f"Pretrained weights: {HUB} cannot be reached ({error}). Use `--weights FILE` or `--weights random`, "
            "or weights already in the cache."
        )
    return f"Pretrained weights: {HUB} can be reached."
