"""What a GPU holds during prediction: networks, the image and logits, as far as its free memory allows."""

import math
import threading

import numpy as np
import torch
from torch import Tensor, nn

from autocrossdim.system.device import free_memory

HELD_BYTES = 2 * 1024**3  # most memory for accumulated logits on a CPU, and of held-out cases on every device
HELD_SHARE = 0.25  # of the free memory of a GPU, the most for accumulated logits
LEAST_HELD = 64 * 1024**2  # with less, a GPU would predict seams again and again


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


def settle(network: nn.Module, device: torch.device, inference_bytes: int) -> nn.Module:
    """Move a network to a device, or wrap it in `Visiting` if it would leave too little room for its predictions.

    Args:
        network: Network in eval mode, on the CPU.
        device: Device to compute on.
        inference_bytes: Memory of predicting a batch of tiles.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    is_settled = free_memory(device) - size >= inference_bytes + _reserved(device)
    return network.to(device) if is_settled else Visiting(network, device)


def room_for_logits(device: torch.device) -> int:
    """Return how many bytes accumulated logits may take; if they need more, images are processed in strips."""
    free = free_memory(device)
    return HELD_BYTES if math.isinf(free) else max(LEAST_HELD, int(HELD_SHARE * free))


def _reserved(device: torch.device) -> int:
    """Return how many bytes are kept free for logits; those of held-out cases may take `HELD_BYTES` on every device."""
    return max(HELD_BYTES, room_for_logits(device))


def place(image: np.ndarray, device: torch.device, *, size: int, inference_bytes: int) -> Tensor:
    """Return an image on a device, where tiles are cut from it, or on the CPU if that would fill the device.

    Args:
        image: Preprocessed image, shape (C, Z, Y, X).
        device: Device to compute on.
        size: Bytes that the image takes there, with padded copies.
        inference_bytes: Memory of predicting a batch of tiles.
    """
    remaining = free_memory(device) - _reserved(device) - inference_bytes
    # Half remains, for a few slices of logits at the original resolution.
    return torch.from_numpy(image).to(device if size <= remaining / 2 else "cpu")
