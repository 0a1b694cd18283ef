"""A network under training, with everything that changes along with it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.records.checkpoint import PREVIOUS, Checkpoint
from autocrossdim.records.environment import Environment, extended
from autocrossdim.records.trained_on import TrainedOn
from autocrossdim.system.console import say
from autocrossdim.system.device import memory_format_for, name_of, precision_name
from autocrossdim.system.lightning import Fabric
from trainers.average import Average
from trainers.compiled import can_be_compiled
from trainers.leaks import require_held_out
from trainers.run import Run
from trainers.slices import follows_slices
from trainers.start import starting_network
from trainers.step import load_optimizer, make_loss, make_optimizer

Loss = Callable[[Any, Tensor], Tensor]


def usual_loss(run: Run) -> Loss:
    """Return Dice plus cross-entropy, weighted as the settings say."""
    return make_loss(
        regions=run.task.plan.labels.has_regions,
        dice_weight=run.settings.dice_weight,
        cross_entropy_weight=run.settings.cross_entropy_weight,
        class_sets=run.class_sets,
        soft_targets=run.task.soft_labels is not None,
    )


def usual_optimizer(run: Run, network: SegmentationNetwork) -> torch.optim.Optimizer:
    """Return NAdam with the learning rates and, if the settings ask for it, the Lookahead of a run."""
    return make_optimizer(
        network,
        learning_rate=run.learning_rate,
        encoder_factor=run.settings.encoder_learning_rate,
        lookahead=run.settings.lookahead,
    )


class Learner:
    """Network, running average and optimiser of a run.

    Args:
        run: The run.
        fabric: Launched devices and precision.
        resumed: Checkpoint to resume from; None starts the run.
        make_loss: Returns the loss of a run.
        make_optimizer: Returns the optimiser of a network.

    Attributes:
        network: The network itself.
        model: The network as it is trained: on its device, in its precision, synchronised between processes.
        average: Running average of the weights; None if the settings turn it off.
        optimizer: The optimiser.
        precision: Precision of training, which in float16 has a loss scale that changes along with the weights.
        loss: The loss.
        provenance: Where the starting weights came from, JSON-able.
        environments: Where and when the run, and the 2D network that it started from, were trained.

    Raises:
        UserError: The starting weights are unavailable.
    """

    def __init__(
        self,
        run: Run,
        fabric: Fabric,
        resumed: Checkpoint | None,
        *,
        make_loss: Callable[[Run], Loss] = usual_loss,
        make_optimizer: Callable[[Run, SegmentationNetwork], torch.optim.Optimizer] = usual_optimizer,
    ) -> None:
        settings, configuration = run.settings, run.configuration
        torch.manual_seed(settings.seed)
        self.network, self.provenance = _network(run, resumed)
        self.environments = extended(_environments(run, resumed), environment(fabric))
        self.network.to(memory_format=memory_format_for(configuration.dims))
        self.average = Average(self.network, settings.averaging) if settings.averaging else None
        if self.average is not None:
            self.average.network.to(fabric.device)
        shape = (configuration.batch_size, self.network.plan.in_channels, *configuration.patch_size)
        if settings.compile and can_be_compiled(self.network, shape, device=fabric.device, autocast=fabric.autocast):
            self.network.compile()
        self.model, self.optimizer = fabric.setup(self.network, make_optimizer(run, self.network))
        self.precision = fabric.strategy.precision
        self.loss = make_loss(run)
        if resumed is not None:
            self.load(resumed)

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this run: weights, their average, and the states of optimiser and loss scale."""
        self.network.load_state_dict(checkpoint.resume["network"])
        load_optimizer(self.optimizer, checkpoint.resume["optimizer"])
        if scale := checkpoint.resume.get("loss_scale"):  # only of a run in float16
            self.precision.load_state_dict(scale)
        if self.average is not None:
            self.average.network.load_state_dict(checkpoint.network)

    @property
    def evaluated(self) -> SegmentationNetwork:
        """The network that is evaluated and segments cases: the running average, where there is one."""
        return self.network if self.average is None else self.average.network

    def train(self, *, frozen: bool) -> None:
        """Switch to training mode.

        Args:
            frozen: Whether the weights of the encoder are frozen.
        """
        self.model.train()
        for parameter in self.network.encoder_parameters():
            parameter.requires_grad_(not frozen)

    def resume_state(self) -> dict[str, Any]:
        """Return what only resuming needs: the states of the trained network, the optimiser and the loss scale."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss_scale": self.precision.state_dict(),
        }


def environment(fabric: Fabric) -> Environment:
    """Return where training runs, today."""
    device = fabric.device
    return Environment.now(name_of(device), devices=fabric.world_size, precision=precision_name(device))


def _environments(run: Run, resumed: Checkpoint | None) -> list[Environment]:
    """Return where and when the run, and the 2D network that it starts from, were trained until now."""
    if resumed is not None:
        return resumed.environments
    return Checkpoint.read(run.folder.slices.latest).environments if follows_slices(run) else []


def _network(run: Run, resumed: Checkpoint | None) -> tuple[SegmentationNetwork, dict[str, Any]]:
    plan = run.task.plan.network_plan(run.configuration)
    if resumed is None:
        network, provenance = starting_network(plan, run.start, run.folder)
        source = None if run.task.weights == PREVIOUS else provenance.get("model")
        require_held_out(run, TrainedOn.of(provenance), source)
        say(f"Starting weights: {network.load_report}")
        teachers = {} if run.task.soft_labels is None else {"teachers": run.task.soft_labels.teachers}
        return network, {**provenance, "asked": run.task.weights, **teachers}
    return build_network(plan, None), resumed.provenance
