"""Placement of the networks of an ensemble: on the GPU throughout, or only while they compute if memory is short."""

import threading

import torch
from torch import Tensor, nn


class Visiting(nn.Module):
    """A network that is moved to its device for each call and back afterwards. It serves one thread at a time.

    Args:
        network: Network in eval mode, on the CPU.
        device: Device to compute on.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device
        self._one_at_a_time = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        """Compute the network's output."""
        with self._one_at_a_time:
            try:
                result: Tensor = self.network.to(self.device)(x)
                return result
            finally:
                self.network.to("cpu")


def room_on(device: torch.device) -> float:
    """Return the free memory of a GPU in bytes; infinite for a CPU, whose memory is not checked."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def settle(network: nn.Module, device: torch.device, kept_free: int) -> nn.Module:
    """Move a network to a device, or wrap it in `Visiting` if less than `kept_free` bytes would remain there.

    Args:
        network: Network in eval mode, on the CPU.
        device: Device to compute on.
        kept_free: Memory in bytes for a batch of tiles and the accumulated logits.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    return network.to(device) if room_on(device) - size >= kept_free else Visiting(network, device)
