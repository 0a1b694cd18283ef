"""torch.compile where it works, and a message where it does not."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.system.console import warn
from autocrossdim.system.device import memory_format_for


def can_be_compiled(
    network: SegmentationNetwork,
    shape: tuple[int, ...],
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> bool:
    """Try to compile a copy of a network and to run it forward and backward as in training; say why if that fails.

    Args:
        network: Network, which is left unchanged.
        shape: Shape of a batch, (B, C, *patch).
        device: Device to train on, for which other compilers are used than for a CPU.
        autocast: Returns the context that sets the precision.
    """
    trial = copy.deepcopy(network).to(device).train()
    image = torch.zeros(shape, device=device)
    try:
        trial.compile()
        with autocast():
            logits = trial(image.contiguous(memory_format=memory_format_for(network.plan.dims)))
        (logits[0] if isinstance(logits, list) else logits).sum().backward()
    except Exception as error:  # compilers raise errors of their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warn(f"torch.compile does not work here ({reason[0]}). Training continues without it.")
        return False
    return True
