"""Training one fold of one configuration, from plan and store to a checkpoint and validated segmentations."""

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from autocrossdim.checkpoint import Checkpoint
from autocrossdim.console import say
from autocrossdim.data.splits import Split
from autocrossdim.data.store import Store
from autocrossdim.device import choose_device, memory_format_for, precision_for
from autocrossdim.errors import UserError
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.parallel import default_processes
from autocrossdim.plan import Configuration, Plan
from autocrossdim.workspace import FoldFolder
from trainers.history import History
from trainers.loader import PatchLoader, batches, to_device
from trainers.loss import DiceCrossEntropy
from trainers.pseudo_dice import PseudoDice
from trainers.schedule import Clock, learning_rate_factor
from trainers.settings import Settings
from trainers.start import starting_network
from trainers.validation import validate

EPOCHS_BETWEEN_PICTURES = 10
VALIDATION_SEED_OFFSET = 1_000_003  # validation patches are drawn from another stream than training patches


@dataclass
class Trainer:
    """Trains folds of one configuration.

    Attributes:
        plan: of the dataset.
        configuration: which of its configurations.
        store: its preprocessed cases.
        groups: the patient of a case, where cases share one.
        settings: every hyper-parameter.
        weights: where the network starts from; see `trainers.start.starting_network`.
        device: `auto`, `cpu` or `cuda`.
    """

    plan: Plan
    configuration: Configuration
    store: Store
    groups: Mapping[str, str]
    settings: Settings
    weights: str = "imagenet"
    device: str = "auto"

    defaults: ClassVar[dict[str, Any]] = {}

    @classmethod
    def create(
        cls,
        plan: Plan,
        configuration: Configuration,
        store: Store,
        groups: Mapping[str, str],
        weights: str,
        device: str,
        settings: dict[str, Any],
    ) -> "Trainer":
        """Return a trainer whose hyper-parameters are its defaults but for those in `settings`.

        Raises:
            UserError: a hyper-parameter that does not exist, or a value it cannot have.
        """
        try:
            checked = Settings.model_validate({**cls.defaults, **settings})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise UserError(f"Training setting '{name}' = {first['input']}: {first['msg']}.") from error
        return cls(plan, configuration, store, groups, checked, weights, device)

    def train(self, fold: int | str, split: Split, folder: FoldFolder, restart: bool = False) -> None:
        """Train and validate one fold, each from where it stopped; nothing is done twice.

        Args:
            fold: number, or "all".
            split: its training and validation cases.
            folder: where checkpoints, history and validation go.
            restart: forget what the fold had learned.

        Raises:
            UserError: weights cannot be had, a checkpoint is damaged or of another plan, or the loss is not finite.
        """
        self._fit(fold, split, folder, restart)
        validate(folder, self.store, split, self.groups, self.device)

    def _fit(self, fold: int | str, split: Split, folder: FoldFolder, restart: bool) -> None:
        device = choose_device(self.device)
        index = device.index or 0
        fabric = Fabric(
            accelerator=device.type,
            devices=[index] if device.type == "cuda" else 1,
            precision=precision_for(device),  # type: ignore[arg-type]
        )
        resumed = Checkpoint.read(folder.latest) if folder.latest.exists() and not restart else None
        if resumed is not None and self._finished(resumed, split, folder):
            say(f"{self.configuration.name} fold {fold}: already trained.")
            if not folder.progress.exists():  # killed between the last checkpoint and the picture
                History(folder.history, resumed.progress["epoch"]).draw(folder.progress)
            return
        torch.manual_seed(self.settings.seed)
        network, provenance = self._network(resumed, folder)
        if restart:  # only now that everything asked for is there
            shutil.rmtree(folder.root, ignore_errors=True)
        optimizer = self._optimizer(network)
        clock = Clock(self.settings)
        best = -math.inf
        epoch = 0
        layout = memory_format_for(self.configuration.dims)
        network.to(memory_format=layout)
        model, optimizer = fabric.setup(network, optimizer)
        if resumed is not None:
            optimizer.load_state_dict(resumed.optimizer)
            # What was validated before is not this model's any more.
            shutil.rmtree(folder.validation, ignore_errors=True)
            epoch, best = resumed.progress["epoch"], resumed.progress["best"]
            clock.step, clock.seconds_before = resumed.progress["step"], resumed.progress["seconds"]
            source = resumed.provenance["report"]["source"]
            say(f"{self.configuration.name} fold {fold}: going on after epoch {epoch} (started from {source}).")
        history = History(folder.history, epoch)
        loss_function = DiceCrossEntropy(
            self.plan.labels.has_regions, self.settings.dice_weight, self.settings.cross_entropy_weight
        )
        workers = self._workers()
        checks = self._validation_batches(split)
        with batches(self._loader(split.train, clock.step, workers), workers) as training:
            over = False
            while not over:
                # Everything drawn on this side (drop path) depends on the epoch alone, so a resumed run agrees.
                torch.manual_seed(self.settings.seed + epoch)
                started = time.monotonic()
                losses, waited = self._epoch(fabric, model, optimizer, loss_function, training, clock)
                # Asked once: the clock goes on, and what the checkpoint says must be what this loop does.
                over = clock.progress >= 1
                epoch += 1
                entry = {
                    "epoch": epoch,
                    "step": clock.step,
                    "loss": sum(losses) / len(losses),
                    **self._check(model, loss_function, checks, device),
                    "learning_rate": optimizer.param_groups[-1]["lr"],
                    "seconds": time.monotonic() - started,
                    "waited_for_data": waited,
                }
                score = entry["mean_pseudo_dice"]
                improved = score is not None and score > best
                best = score if improved else best
                checkpoint = Checkpoint(
                    plan=self.plan,
                    configuration=self.configuration.name,
                    fold=fold,
                    split=_names(split),
                    network=network.state_dict(),
                    settings=self.settings.model_dump(),
                    provenance=provenance,
                    progress={
                        "epoch": epoch,
                        "step": clock.step,
                        "seconds": clock.seconds,
                        "best": best,
                        "complete": over,
                    },
                    optimizer=optimizer.state_dict(),
                )
                history.add(entry)
                checkpoint.write(folder.latest)
                if improved:
                    checkpoint.write(folder.best)
                if over or epoch % EPOCHS_BETWEEN_PICTURES == 0:
                    history.draw(folder.progress)
                say(_line(self.configuration.name, fold, entry, clock))

    def _finished(self, checkpoint: Checkpoint, split: Split, folder: FoldFolder) -> bool:
        """Whether the checkpoint is the end of the run asked for; refuses one of another plan or of other cases."""
        if checkpoint.split != _names(split):
            raise UserError(
                f"{folder.latest}: trained on other cases than the fold now has. Train again with --restart."
            )
        theirs = checkpoint.plan.configuration(checkpoint.configuration)
        if not theirs.trains_like(self.configuration) or checkpoint.plan.labels != self.plan.labels:
            raise UserError(f"{folder.latest}: trained under another plan. Train again with --restart.")
        before = Settings.model_validate(checkpoint.settings)
        longer = self.settings.epochs > before.epochs or (
            before.max_seconds is not None
            and (self.settings.max_seconds is None or self.settings.max_seconds > before.max_seconds)
        )
        return checkpoint.complete and not longer

    def _network(self, resumed: Checkpoint | None, folder: FoldFolder) -> tuple[SegmentationNetwork, dict[str, Any]]:
        network_plan = self.plan.network_plan(self.configuration)
        if resumed is not None:
            network, provenance = build_network(network_plan, None), resumed.provenance
            network.load_state_dict(resumed.network)
        else:
            network, provenance = starting_network(network_plan, self.weights, folder)
            say(f"Starting weights: {network.load_report}")
        network.freeze_statistics = self.settings.freeze_statistics
        return network, provenance

    def _optimizer(self, network: SegmentationNetwork) -> torch.optim.Optimizer:
        rate, factor = self.settings.learning_rate, self.settings.encoder_learning_rate
        groups = [
            {"params": list(network.encoder_parameters()), "factor": factor},
            {"params": list(network.other_parameters()), "factor": 1.0},
        ]
        # The authors' repository: betas (0.9, 0.999), eps 1e-5, no weight decay.
        return torch.optim.NAdam(groups, lr=rate, betas=(0.9, 0.999), eps=1e-5)

    def _workers(self) -> int:
        if self.settings.workers is not None:
            return self.settings.workers
        return max(1, default_processes() - 1)

    def _loader(self, names: Sequence[str], first: int, workers: int) -> PatchLoader:
        return PatchLoader(
            self.store,
            names,
            self.configuration,
            self.plan.labels,
            self.settings.seed,
            first=first,
            foreground_share=self.settings.foreground_share,
            augment=self.settings.augment,
            workers=max(1, workers),
        )

    def _validation_batches(self, split: Split) -> list[dict[str, Any]]:
        """The same few patches after every epoch, so that epochs can be compared."""
        if not split.val:
            return []
        loader = PatchLoader(
            self.store,
            split.val,
            self.configuration,
            self.plan.labels,
            self.settings.seed + VALIDATION_SEED_OFFSET,
            foreground_share=1.0,
            augment=False,
        )
        return [loader.batch(number) for number in range(self.settings.validation_batches)]

    def _epoch(
        self,
        fabric: Fabric,
        model: Any,
        optimizer: Any,
        loss_function: DiceCrossEntropy,
        training: Iterator[dict[str, Any]],
        clock: Clock,
    ) -> tuple[list[float], float]:
        """Take the epoch's steps; return the losses and the seconds spent waiting for data."""
        model.train()
        frozen = clock.step < self.settings.frozen_epochs * self.settings.steps_per_epoch
        for parameter in model.module.encoder_parameters():
            parameter.requires_grad_(not frozen)
        losses: list[Tensor] = []
        waited = 0.0
        for _ in range(self.settings.steps_per_epoch):
            before = time.monotonic()
            batch = next(training)
            waited += time.monotonic() - before
            data, target = to_device(batch, fabric.device)
            factor = learning_rate_factor(clock.progress, self.settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * group["factor"] * factor
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(model(data), target)
            if not torch.isfinite(loss):
                raise UserError(
                    f"The loss is {loss.item()} at step {clock.step}, on cases {', '.join(batch['names'])}. "
                    "The last checkpoint is kept; look at these images, or lower the learning rate."
                )
            fabric.backward(loss)
            clip_grad_norm_(model.parameters(), self.settings.gradient_clip)
            optimizer.step()
            clock.step += 1
            losses.append(loss.detach())
            if clock.progress >= 1:
                break
        return [loss.item() for loss in losses], waited

    @torch.no_grad()
    def _check(
        self, model: Any, loss_function: DiceCrossEntropy, checks: list[dict[str, Any]], device: torch.device
    ) -> dict[str, Any]:
        """Return loss and pseudo-Dice on the validation patches."""
        if not checks:
            return {"validation_loss": None, "pseudo_dice": {}, "mean_pseudo_dice": None}
        model.eval()
        dice = PseudoDice(self.plan.labels)
        losses = []
        for batch in checks:
            data, target = to_device(batch, device)
            logits = model(data)
            losses.append(loss_function(logits, target).item())
            dice.add(logits, target)
        scores = dice.scores()
        known = [score for score in scores.values() if score is not None]
        return {
            "validation_loss": sum(losses) / len(losses),
            "pseudo_dice": scores,
            "mean_pseudo_dice": sum(known) / len(known) if known else None,
        }


class OmniaTrainer(Trainer):
    """Trains Omnia-Net on slices, at the authors' learning rate."""


class DXTrainer(Trainer):
    """Trains DX-Net on volumes, at twice that rate.

    Measured on one fold of Hippocampus, 200 steps from random weights: Dice 0.805, 0.819 and 0.810 at 1e-3, 2e-3 and
    4e-3 on the fold's validation cases, 0.794, 0.797 and 0.798 on 16 others.
    """

    defaults: ClassVar[dict[str, Any]] = {"learning_rate": 2e-3}


def _names(split: Split) -> dict[str, list[str]]:
    return {"train": list(split.train), "val": list(split.val)}


def _line(name: str, fold: int | str, entry: dict[str, Any], clock: Clock) -> str:
    dice = entry["mean_pseudo_dice"]
    left = clock.seconds * (1 - clock.progress) / max(clock.progress, 1e-6)
    return (
        f"{name} fold {fold}: epoch {entry['epoch']}, loss {entry['loss']:.3f}"
        + (f", pseudo-Dice {dice:.3f}" if dice is not None else "")
        + f", {entry['seconds']:.0f} s ({100 * entry['waited_for_data'] / entry['seconds']:.0f} % waiting for data), "
        f"{left / 60:.1f} min left"
    )
