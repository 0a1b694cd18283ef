"""NAdam over two groups of parameters, the encoder's and the others', with Lookahead around it if asked for."""

from typing import Any

import torch
from timm.optim.lookahead import Lookahead

from autocrossdim.networks.base import SegmentationNetwork
from trainers.settings import Settings


def make_optimizer(network: SegmentationNetwork, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimiser; each of its groups holds the factor on the learning rate it takes."""
    groups = [
        {"params": list(network.encoder_parameters()), "factor": settings.encoder_learning_rate},
        {"params": list(network.other_parameters()), "factor": 1.0},
    ]
    # The authors' repository: betas (0.9, 0.999), eps 1e-5, no weight decay.
    optimizer: Any = torch.optim.NAdam(groups, lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-5)
    if settings.lookahead:
        optimizer = Lookahead(optimizer, alpha=0.5, k=settings.lookahead)
    return optimizer  # type: ignore[no-any-return]


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Give every group `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
