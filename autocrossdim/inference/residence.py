"""Placement of the networks of an ensemble: on the GPU throughout, or only while they compute if memory is short."""

import threading

import torch
from torch import Tensor, nn

from autocrossdim.system.device import free_memory


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


def settle(network: nn.Module, device: torch.device, kept_free: int) -> nn.Module:
    """Move a network to a device, or wrap it in `Visiting` if less than `kept_free` bytes would remain there.

    Args:
        network: Network in eval mode, on the CPU.
        device: Device to compute on.
        kept_free: Memory in bytes for a batch of tiles and the accumulated logits.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    return network.to(device) if free_memory(device) - size >= kept_free else Visiting(network, device)
