"""`autocrossdim doctor`: versions, devices, memory, and whether pretrained weights can be downloaded."""

import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autocrossdim.commands.signature import Option, command
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import check_output, write_text
from autocrossdim.system.text import counted

if TYPE_CHECKING:
    import torch
    from rich.console import RenderableType

    from autocrossdim.commands.device_report import DeviceReport

PACKAGES = ("autocrossdim", "torch", "timm", "SimpleITK", "batchgenerators", "numpy")
HUB = "huggingface.co"
SECONDS_TO_WAIT = 3.0


@command()
def doctor(
    *,
    device: Annotated[
        str | None,
        Option("Also run the networks, training and prediction on this device: auto, cpu, cuda, cuda:N or mps."),
    ] = None,
    output: Annotated[
        str | Path | None, Option("Markdown file for the results of --device.", Path | None, ("-o", "--output"))
    ] = None,
) -> "list[str] | DeviceReport":
    """Show versions, devices, memory, and whether pretrained weights can be downloaded; or measure a device.

    With --device, networks are planned, trained and used for prediction on generated data. Their results are compared
    with those on the CPU, and memory and speed are measured. On a CPU, the networks are tiny, so the times say little
    about networks of realistic size. Without a GPU, the same is run on the CPU, and the results say so.

    Args:
        device: Device to measure; if None, nothing is measured. If the machine has no GPU of this type, the CPU is
            measured instead.
        output: Markdown file for the measurements.

    Returns:
        One finding per line, or the measurements.

    Raises:
        UserError: There is no such device, it cannot train, or `output` cannot be written.
    """
    findings = list(_findings())
    if device is None:
        if output is not None:
            raise UserError("--output is the file for the results of --device. Add --device, or omit --output.")
        return findings
    from autocrossdim.commands.device_check import check
    from autocrossdim.commands.device_report import DeviceReport, defaults
    from autocrossdim.system.console import warn
    from autocrossdim.system.device import name_of, require_training

    if output is not None:
        check_output(Path(output))
    started = time.monotonic()
    chosen, replaced = _measured(device)
    if replaced:
        warn(replaced)
        findings.append(replaced)
    require_training(chosen)
    with tempfile.TemporaryDirectory() as folder:
        sections = check(chosen, Path(folder))
    seconds = time.monotonic() - started
    advice = defaults(sections, tiny=chosen.type == "cpu")
    report = DeviceReport(f"{chosen} ({name_of(chosen)})", findings, sections, advice, seconds)
    if output is not None:
        write_text(Path(output), report.markdown())
    return report


def present(result: "list[str] | DeviceReport", **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: one finding per line, then the tables."""
    yield from result if isinstance(result, list) else result.terminal()


def _measured(name: str) -> "tuple[torch.device, str]":
    """Return the device to measure and, if that is the CPU because the machine has no GPU of the type, a sentence."""
    from autocrossdim.system.device import BACKENDS, CPU, choose_device, count

    kind, _, number = name.partition(":")
    is_gpu = kind in BACKENDS and kind != CPU.type and (number.isdecimal() or name == kind)
    if not is_gpu or count(kind):
        return choose_device(name), ""
    return CPU, (
        f"--device {name}: this machine has no such GPU that PyTorch can use. The same code runs on the CPU instead, "
        "with tiny networks, which only shows that the code works."
    )


def _findings() -> Iterator[str]:
    yield f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in PACKAGES:
        yield f"{name} {version(name)}"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    yield f"{counted(cores, 'CPU core')}, {_memory()}"
    yield from _devices()
    yield _hub()


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "memory unknown"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{total / 1024**3:.0f} GB of memory"


def _devices() -> Iterator[str]:
    from autocrossdim.system.device import BACKENDS, gpus, name_of, precision_name, total_memory

    found = gpus()
    if not found:
        yield "No usable GPU: training runs on the CPU, and plans assume 8 GB of memory unless --memory is set."
    for device in found:
        precision = precision_name(device)
        does = f"trains in {precision}" if BACKENDS[device.type].trains else f"predicts in {precision}, cannot train"
        memory = total_memory(device)
        size = "shares the memory of the CPU" if memory is None else f"{memory / 1024**3:.0f} GB"
        yield f"{device}: {name_of(device)}, {size}, {does}"


def _hub() -> str:
    try:
        socket.create_connection((HUB, 443), timeout=SECONDS_TO_WAIT).close()
    except OSError as error:
        return (
            f"Pretrained weights: {HUB} cannot be reached ({error}). Use weights that are in the cache, "
            "`--weights FILE` for a file that was downloaded elsewhere, or `--weights random`."
        )
    return f"Pretrained weights: {HUB} can be reached."
