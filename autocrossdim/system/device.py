"""What torch can do on each type of device, and which device, memory format and precision to use.

Everything else asks here whether a device exists, how much memory it has and in which precision it computes.
docs/how-to/devices.md says what has and has not been run.
"""

import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autocrossdim.system.errors import UserError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Backend:
    """What torch and lightning-fabric can do on one type of device.

    Attributes:
        title: Name for users.
        half: Whether networks train and predict in 16 bits, under autocast.
        asynchronous: Whether copies from pinned memory run beside the computation.
        memory: Whether it has memory of its own of which torch reports the size and the use.
        trains: Whether lightning-fabric can train on it.
    """

    title: str
    half: bool = False
    asynchronous: bool = False
    memory: bool = False
    trains: bool = True


BACKENDS = {
    "cpu": Backend("CPU"),
    "cuda": Backend("NVIDIA GPU, or AMD GPU through ROCm", half=True, asynchronous=True, memory=True),
    # lightning-fabric has no accelerator for Intel's GPUs.
    "xpu": Backend("Intel GPU", half=True, asynchronous=True, memory=True, trains=False),
    # In 32 bits: autocast on Apple's GPUs is recent, and has not been tried here.
    "mps": Backend("Apple GPU"),
}
"""The types of devices, by torch's name. ROCm presents AMD's GPUs as `cuda`."""


def choose_device(name: str) -> torch.device:
    """Return the device for `auto`, or of a type in `BACKENDS`, such as `cuda` or `cuda:1`.

    `auto` is a CUDA or ROCm GPU if there is one, else the CPU. Other GPUs must be asked for by name, because nothing
    has been run on them.

    Raises:
        UserError: The device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if count("cuda") else "cpu")
    known = f"use auto, {', '.join(BACKENDS)} or, with several GPUs, cuda:N."
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: unknown; {known}") from None
    if device.type not in BACKENDS:
        raise UserError(f"--device {name}: not supported; {known}")
    if (device.index or 0) >= count(device.type):
        raise UserError(f"--device {name}: no such GPU, or it cannot be used. `autocrossdim doctor` lists the devices.")
    return device


def require_training(device: torch.device) -> None:
    """Refuse a device on which networks cannot be trained.

    Raises:
        UserError: The device is not supported by lightning-fabric.
    """
    if not BACKENDS[device.type].trains:
        raise UserError(
            f"--device {device}: lightning-fabric cannot train on an {BACKENDS[device.type].title}. Train on another "
            "device; prediction works here."
        )


def count(kind: str) -> int:
    """Return the number of usable devices of a type."""
    module: Any = torch.get_device_module(kind)
    return int(module.device_count()) if module.is_available() else 0


def gpus() -> list[torch.device]:
    """Return all GPUs that torch can use, of any type."""
    return [torch.device(kind, index) for kind in BACKENDS if kind != "cpu" for index in range(count(kind))]


def name_of(device: torch.device) -> str:
    """Return the name of a device for users, such as that of the card or the processor."""
    if device.type in ("cuda", "xpu"):
        return str(_module(device).get_device_name(device))
    return (_processor() if device.type == "cpu" else "") or BACKENDS[device.type].title


def _processor() -> str:
    """Return the name of the processor; empty if the system does not tell."""
    with suppress(OSError):  # Linux; platform.processor() is empty or only the architecture there
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor()


def total_memory(device: torch.device) -> int | None:
    """Return the memory of a GPU in bytes; None for a CPU and for an Apple GPU, which shares the memory of the CPU."""
    if not BACKENDS[device.type].memory:
        return None
    return int(_module(device).get_device_properties(device).total_memory)


def free_memory(device: torch.device) -> float:
    """Return the free memory of a GPU in bytes; infinite where `total_memory` is None, because it is not checked.

    It includes what torch keeps for further tensors of this process, which after training is most of the GPU.
    """
    if not BACKENDS[device.type].memory:
        return float("inf")
    module = _module(device)
    kept = module.memory_reserved(device) - module.memory_allocated(device)
    return float(module.mem_get_info(device)[0] + kept)


def reset_peak_memory(device: torch.device) -> None:
    """Reset the recorded peak memory, and release cached memory."""
    if BACKENDS[device.type].memory:
        _module(device).empty_cache()
        _module(device).reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the peak memory of tensors since `reset_peak_memory` in bytes; None where torch does not report it."""
    return int(_module(device).max_memory_allocated(device)) if BACKENDS[device.type].memory else None


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device, without waiting for a copy from the CPU where the device allows that."""
    device = torch.device(device)
    if tensor.device.type == "cpu" and BACKENDS[device.type].asynchronous:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def synchronize(device: torch.device) -> None:
    """Wait until everything that was queued on a device has been computed."""
    _module(device).synchronize()


def memory_format_for(dims: int) -> torch.memory_format:
    """Return the memory format in which convolutions over `dims` axes are fastest: channels last.

    Measured on one core, DX-Net-B0 at 2 x 40 x 56 x 40: a step takes 0.66 s instead of 0.79 s of CPU time on two
    threads, 0.63 s instead of 0.72 s on one. It pays off only if every layer keeps it, from the image on.
    """
    return torch.channels_last_3d if dims == 3 else torch.channels_last


def precision_for(device: torch.device) -> str:
    """Return lightning-fabric's name of the fastest safe precision: bf16 if the GPU computes in it, else fp16.

    NVIDIA's GPUs do from compute capability 8.0 (Ampere) on. Older ones emulate bf16, slowly, which is why
    `torch.cuda.is_bf16_supported()` is not asked: it counts emulation.
    """
    if not BACKENDS[device.type].half:
        return "32-true"
    emulated = device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) < (8, 0)
    return "16-mixed" if emulated else "bf16-mixed"


def precision_name(device: torch.device) -> str:
    """Return the precision in which networks train on a device, as users know it: bf16, fp16 or fp32."""
    return {"bf16-mixed": "bf16", "16-mixed": "fp16", "32-true": "fp32"}[precision_for(device)]


def autocast_for(device: torch.device) -> torch.autocast:
    """Return the context in which networks predict, in the precision in which they train."""
    dtype = torch.float16 if precision_for(device) == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=BACKENDS[device.type].half)


def _module(device: torch.device) -> Any:
    """Return `torch.cuda`, `torch.xpu` and so on."""
    return torch.get_device_module(device)
