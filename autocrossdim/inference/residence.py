"""Where the networks of an ensemble are: on the GPU for good, or, where there is no room for all, in turns."""

import threading
from typing import Any

import torch
from torch import nn


def room_on(device: torch.device) -> float:
    """Return the bytes free on a GPU; a CPU's memory is not counted."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def settle(network: nn.Module, device: torch.device, layout: torch.memory_format, kept_free: int) -> nn.Module:
    """Move a network to `device`: for good, or for the time of each call if less than `kept_free` bytes would be left.

    One that comes and goes serves one thread at a time.

    Args:
        network: in eval mode, on the CPU.
        device: to compute on.
        layout: of its weights.
        kept_free: bytes that tiles and their sums take.
    """
    network.to(memory_format=layout)
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if room_on(device) - size >= kept_free:
        return network.to(device)
    one_at_a_time = threading.Lock()

    def come(module: nn.Module, _: Any) -> None:
        one_at_a_time.acquire()
        module.to(device)

    def go(module: nn.Module, *_: Any) -> None:
        module.to("cpu")
        one_at_a_time.release()

    network.register_forward_pre_hook(come)
    network.register_forward_hook(go, always_call=True)
    return network
