"""The running average of the weights over the last part of training, with which cases are segmented."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

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
        self._tensors: _Tensors | None = None

    @torch.no_grad()
    def update(self, network: SegmentationNetwork, step: int) -> None:
        """Move the average towards the weights of `network` after its step number `step`, counted from 1.

        Args:
            network: The trained network, on its device; the same one in every call.
            step: Number of steps that were taken.
        """
        towards = 1 - (1 - 1 / step) ** (self.gamma + 1)
        if self._tensors is None:
            self._tensors = _Tensors.of(self.network, network)
        averages, newest, counts, newest_counts = self._tensors
        torch._foreach_lerp_(averages, newest, towards)
        if counts:
            torch._foreach_copy_(counts, newest_counts)


class _Tensors(NamedTuple):
    """Tensors of both networks, in the same order. Listing them takes milliseconds, for which a GPU would wait.

    Attributes:
        averages: Averages of weights and statistics.
        newest: The trained ones.
        counts: Integers, which are copied, in the averaged network.
        newest_counts: The same in the trained network.
    """

    averages: list[Tensor]
    newest: list[Tensor]
    counts: list[Tensor]
    newest_counts: list[Tensor]

    @classmethod
    def of(cls, averaged: SegmentationNetwork, trained: SegmentationNetwork) -> "_Tensors":
        pairs = list(zip(averaged.state_dict().values(), trained.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        return cls(*([pair[side] for pair in part] for part in (floats, counts) for side in (0, 1)))


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
