"""Where the networks of an ensemble are: on the GPU for good, or, where there is no room for all, in turns."""

import threading

import torch
from torch import Tensor, nn


class Visiting(nn.Module):
    """A network that is on its device for the time of each call only; it serves one thread at a time.

    Args:
        network: in eval mode, on the CPU.
        device: to compute on.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device
        self._one_at_a_time = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        """Compute as the network does."""
        with self._one_at_a_time:
            try:
                result: Tensor = self.network.to(self.device)(x)
                return result
            finally:
                self.network.to("cpu")


def room_on(device: torch.device) -> float:
    """Return the bytes free on a GPU; a CPU's memory is not counted."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def settle(network: nn.Module, device: torch.device, kept_free: int) -> nn.Module:
    """Move a network to `device` for good, or let it visit if less than `kept_free` bytes would be left there.

    Args:
        network: in eval mode, on the CPU.
        device: to compute on.
        kept_free: bytes that tiles and their sums take.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    return network.to(device) if room_on(device) - size >= kept_free else Visiting(network, device)
