"""torch.compile where it works, and a line where it does not."""

import copy

import torch

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.system.console import say
from autocrossdim.system.device import memory_format_for


def try_to_compile(network: SegmentationNetwork, shape: tuple[int, ...]) -> bool:
    """Compile a copy and run it forward and backward; say why if that fails.

    Args:
        network: stays as it is.
        shape: of a batch, (B, C, *patch).
    """
    trial = copy.deepcopy(network).train()
    image = torch.zeros(shape, device=next(trial.parameters()).device)
    try:
        trial.compile()
        logits = trial(image.contiguous(memory_format=memory_format_for(network.plan.dims)))
        (logits[0] if isinstance(logits, list) else logits).sum().backward()
    except Exception as error:
        # Whatever its compilers raise: their classes are not torch's alone.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        say(f"warning: torch.compile does not work here ({reason[0]}); training goes on without it.")
        return False
    return True
