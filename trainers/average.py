"""The average of the weights over the last part of training, which is what is evaluated and predicted with."""

import copy

import torch

from autocrossdim.networks.base import SegmentationNetwork


class Average:
    """A running average whose reach grows with the run, so that one number serves long and short runs.

    The weight of a past step falls with a power of its age relative to the run (Karras et al. 2024, "power function
    EMA"): after step t the average moves by 1 - (1 - 1/t)^(gamma + 1) towards the newest weights. `width` is the
    relative standard deviation of that profile: 0.05 averages over about the last tenth of the run. Batch-norm
    statistics are averaged with the weights they belong to.

    Attributes:
        network: the averaged network; equal to the trained one until the first update.
    """

    def __init__(self, network: SegmentationNetwork, width: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.gamma = gamma_of(width)

    @torch.no_grad()
    def update(self, network: SegmentationNetwork, step: int) -> None:
        """Move towards `network` after its step number `step`, counted from 1."""
        towards = 1 - (1 - 1 / step) ** (self.gamma + 1)
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], towards)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])


def gamma_of(width: float) -> float:
    """Return the exponent whose profile has this relative standard deviation.

    From width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), which falls as gamma grows; found by bisection.
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
