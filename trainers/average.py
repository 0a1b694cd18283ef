"""The running average of the weights over the last part of training, with which cases are segmented."""

import copy

import torch

from autocrossdim.networks.base import SegmentationNetwork


class Average:
    """A running average whose span grows with the run, so that one setting suits short and long runs.

    The weights of step i contribute in proportion to a power of i (Karras et al. 2024, "power function EMA"): after
    step t the average moves by 1 - (1 - 1/t)^(gamma + 1) towards the newest weights. `width` is the standard deviation
    of that profile relative to the length of the run; 0.05 averages over about the last tenth of the run. Batch-norm
    statistics are averaged like the weights they belong to.

    Attributes:
        network: The averaged network; equal to the trained one until the first update.
    """

    def __init__(self, network: SegmentationNetwork, width: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.gamma = gamma_of(width)

    @torch.no_grad()
    def update(self, network: SegmentationNetwork, step: int) -> None:
        """Move the average towards the weights of `network` after its step number `step`, counted from 1."""
        towards = 1 - (1 - 1 / step) ** (self.gamma + 1)
        average, newest = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in floats], [newest[name] for name in floats], towards)
        counts = [name for name in average if name not in set(floats)]
        if counts:
            torch._foreach_copy_([average[name] for name in counts], [newest[name] for name in counts])


def gamma_of(width: float) -> float:
    """Return the exponent of the profile with this relative standard deviation.

    Solves width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), which decreases with gamma, by bisection.
    """
    low, high = 0.0, 1.0
    while (high + 1) / ((high + 2) ** 2 * (high + 3)) > width**2:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > width**2:
            low = middle
        else:
            high = middle
    return high
