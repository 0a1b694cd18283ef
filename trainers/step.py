"""One optimisation step: the loss, the optimiser, and how a batch changes the weights.

Planning runs the very same step to compute its memory and to measure its time.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from timm.optim.lookahead import Lookahead
from torch import Tensor

from autocrossdim.networks.base import SegmentationNetwork
from trainers.loss import DeepSupervision, DiceCrossEntropy
from trainers.settings import GRADIENT_CLIP
from trainers.soft import SoftLoss


class Engine(Protocol):
    """What depends on devices and precision; a `lightning_fabric.Fabric` is one."""

    def backward(self, tensor: Tensor) -> None:
        """Add the gradients of `tensor` to those of the parameters."""
        ...

    def clip_gradients(
        self, module: Any, optimizer: Any, *, max_norm: float, error_if_nonfinite: bool
    ) -> Tensor | None:
        """Scale the gradients so that their norm is at most `max_norm`."""
        ...

    def no_backward_sync(self, module: Any, enabled: bool) -> AbstractContextManager[Any]:
        """Return a context in which processes keep their gradients to themselves."""
        ...


class OneDevice:
    """The engine of a single device without gradient scaling."""

    def backward(self, tensor: Tensor) -> None:
        """As `Engine.backward`."""
        tensor.backward()  # type: ignore[no-untyped-call]

    def clip_gradients(self, module: Any, optimizer: Any, *, max_norm: float, error_if_nonfinite: bool) -> Tensor:
        """As `Engine.clip_gradients`."""
        return torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite)

    def no_backward_sync(self, module: Any, enabled: bool) -> AbstractContextManager[Any]:
        """As `Engine.no_backward_sync`."""
        return nullcontext()


def make_loss(
    *,
    regions: bool,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    class_sets: Sequence[Sequence[int]] = (),
    soft_targets: bool = False,
) -> DeepSupervision:
    """Return the loss: Dice plus cross-entropy, at every supervised resolution.

    Args:
        regions: Whether outputs are regions, which may overlap, rather than exclusive classes.
        dice_weight: Weight of the Dice loss.
        cross_entropy_weight: Weight of the cross-entropy loss.
        class_sets: Sets of classes that targets may name, see `DiceCrossEntropy`.
        soft_targets: Whether targets may also be probabilities, see `SoftLoss`.
    """
    usual = DiceCrossEntropy(regions, dice_weight, cross_entropy_weight, class_sets)
    return DeepSupervision(SoftLoss(usual) if soft_targets else usual)


def make_optimizer(
    network: SegmentationNetwork, *, learning_rate: float, encoder_factor: float = 1.0, lookahead: int = 0
) -> torch.optim.Optimizer:
    """Return NAdam with the settings of the authors' repository: betas (0.9, 0.999), eps 1e-5, no weight decay.

    Args:
        network: Network to train; its encoder and its other parameters form two groups.
        learning_rate: Learning rate.
        encoder_factor: Factor on the learning rate of the encoder.
        lookahead: Steps between two updates of the slow weights of Lookahead; 0 leaves it out.
    """
    groups = [
        {"params": list(network.encoder_parameters()), "factor": encoder_factor},
        {"params": list(network.other_parameters()), "factor": 1.0},
    ]
    optimizer: Any = torch.optim.NAdam(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-5)
    if lookahead:
        optimizer = Lookahead(optimizer, alpha=0.5, k=lookahead)
    return optimizer  # type: ignore[no-any-return]


def load_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Load the state of an optimiser.

    torch moves NAdam's running product of momenta, one number per parameter, to the device of the parameter. Each step
    reads it, and would wait for a GPU once per parameter. A new optimiser keeps it on the CPU.
    """
    optimizer.load_state_dict(saved)
    for number, state in optimizer.state_dict()["state"].items():
        if "mu_product" in state:
            state["mu_product"] = saved["state"][number]["mu_product"].cpu().clone()


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Set the learning rate of every parameter group to `rate` times the factor of the group, where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def training_step(
    network: Any,
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: Any,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    weights: Sequence[float] | None = None,
    gradient_clip: float = GRADIENT_CLIP,
    engine: Engine | None = None,
) -> Tensor:
    """Change the weights once, by the weighted sum of the gradients of one or several batches.

    Args:
        network: Network in training mode.
        loss: Takes the output of the network and the target.
        optimizer: Optimiser of the network's parameters.
        batches: Pairs of data (B, C, *patch) and target, on the device of the network.
        weights: Weight of the loss of each batch (default: all equal, with sum 1).
        gradient_clip: Maximum norm of the gradient.
        engine: What depends on devices and precision (default: one device).

    Returns:
        Loss of each batch, detached, shape (n,).
    """
    engine = engine or OneDevice()
    optimizer.zero_grad(set_to_none=True)
    weights = [1 / len(batches)] * len(batches) if weights is None else weights
    losses: list[Tensor] = []
    for number, ((data, target), weight) in enumerate(zip(batches, weights, strict=True), start=1):
        with engine.no_backward_sync(network, enabled=number < len(batches)):
            value = loss(network(data), target)
            engine.backward(value * weight)
        losses.append(value.detach())
    engine.clip_gradients(network, optimizer, max_norm=gradient_clip, error_if_nonfinite=False)
    optimizer.step()
    return torch.stack(losses)
