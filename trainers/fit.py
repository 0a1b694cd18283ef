"""One fold from its start, or from where it stopped, to its last checkpoint: the training script."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from autocrossdim.data.splits import Split
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.console import say
from autocrossdim.system.device import memory_format_for
from autocrossdim.system.errors import Interrupted, UserError
from trainers.average import Average
from trainers.compiled import try_to_compile
from trainers.distributed import SyncedBatchNorm, summed
from trainers.history import History
from trainers.loader import PatchLoader, batches, to_device
from trainers.loss import DeepSupervision, DiceCrossEntropy
from trainers.monitor import monitor_for
from trainers.optimiser import make_optimizer, set_learning_rate
from trainers.pseudo_dice import PseudoDice
from trainers.schedule import Clock, Plateau, learning_rate_factor
from trainers.settings import Settings
from trainers.signals import StopRequest
from trainers.start import starting_network

if TYPE_CHECKING:
    from trainers.trainer import Trainer

EPOCHS_BETWEEN_PICTURES = 10
VALIDATION_SEED_OFFSET = 1_000_003  # validation patches are drawn from another stream than training patches


class Fit:
    """Everything the loop touches, in the process it runs in.

    Args:
        trainer: plan, store and hyper-parameters.
        fabric: devices and precision, launched.
        fold: number, or "all".
        split: its training and validation cases.
        folder: where checkpoints and history go.
        resumed: the checkpoint to go on from; None starts anew.

    Raises:
        UserError: the starting weights cannot be had.
    """

    def __init__(
        self,
        trainer: "Trainer",
        fabric: Fabric,
        fold: int | str,
        split: Split,
        folder: FoldFolder,
        resumed: Checkpoint | None,
    ) -> None:
        self.trainer, self.settings, self.fabric = trainer, trainer.settings, fabric
        self.configuration, self.labels = trainer.configuration, trainer.plan.labels
        self.fold, self.split, self.folder = fold, split, folder
        self.name = f"{self.configuration.name} fold {fold}"

        torch.manual_seed(self.settings.seed)
        self.network, self.provenance = self._network(resumed)
        self.network.to(memory_format=memory_format_for(self.configuration.dims))
        self.network.freeze_statistics = self.settings.freeze_statistics
        self.average = Average(self.network, self.settings.averaging) if self.settings.averaging else None
        if self.average is not None:
            self.average.network.to(fabric.device)
        patch = (self.configuration.batch_size, self.network.plan.in_channels, *self.configuration.patch_size)
        if self.settings.compile and try_to_compile(self.network, patch):
            self.network.compile()
        self.model, self.optimizer = fabric.setup(self.network, make_optimizer(self.network, self.settings))

        dice_cross_entropy = DiceCrossEntropy(
            self.labels.has_regions, self.settings.dice_weight, self.settings.cross_entropy_weight
        )
        self.loss = DeepSupervision(dice_cross_entropy)
        self.clock, self.plateau = Clock(self.settings), Plateau(self.settings.patience)
        self.epoch, self.best = 0, -math.inf
        self.losses: list[float] = []  # of the running epoch
        self.seconds = self.waited = 0.0  # of the running epoch, earlier sittings included
        if resumed is not None:
            self._go_on(resumed)

    def run(self) -> None:
        """Train until the clock has run out, with a checkpoint after every epoch.

        Raises:
            UserError: the loss is not finite, or the batches cannot be had.
            Interrupted: SIGTERM or SIGUSR1 came; a checkpoint was written first.
        """
        history = History(self.folder.history, self.epoch, monitor_for(self.settings.monitor, self.folder))
        checks = self._validation_batches()
        with ExitStack() as stack:
            if self.fabric.world_size > 1:
                stack.enter_context(SyncedBatchNorm())
            stop = stack.enter_context(StopRequest())
            training = stack.enter_context(self._training_batches())
            over = False
            while not over:
                self._epoch(training, stop)
                # Asked once: the clock goes on, and what the checkpoint says must be what this loop does.
                over = self.clock.progress >= 1
                self.epoch += 1
                entry = {
                    "epoch": self.epoch,
                    "step": self.clock.step,
                    "loss": sum(self.losses) / len(self.losses),
                    **self._check(checks),
                    "learning_rate": self.optimizer.param_groups[-1]["lr"],
                    "seconds": self.seconds,
                    "waited_for_data": self.waited,
                    "patches": len(self.losses) * self.settings.accumulate * self.configuration.batch_size,
                }
                score = entry["mean_pseudo_dice"]
                improved = score is not None and score > self.best
                self.best = score if improved else self.best
                if not over and self.clock.shortened is None and self.plateau.reached(self.epoch, score):
                    self.clock.shorten()
                    self._say(
                        f"{self.name}: no better validation score for {self.settings.patience} epochs, so the rest of "
                        f"the schedule is shortened to {self.settings.cooldown} (--set patience=0 trains to the end)."
                    )
                self.losses, self.seconds, self.waited = [], 0.0, 0.0
                if self.fabric.is_global_zero:
                    history.add(entry)
                    checkpoint = self._checkpoint(over)
                    checkpoint.write(self.folder.latest)
                    if improved:
                        checkpoint.write(self.folder.best)
                    if over or self.epoch % EPOCHS_BETWEEN_PICTURES == 0:
                        history.draw(self.folder.progress)
                self._say(_line(self.name, entry, self.clock))
        self.fabric.barrier()

    def _epoch(self, training: Iterator[dict[str, Any]], stop: StopRequest) -> None:
        """Take the epoch's steps that are left."""
        started = time.monotonic() - self.seconds
        self.model.train()
        frozen = self.epoch < self.settings.frozen_epochs
        for parameter in self.network.encoder_parameters():
            parameter.requires_grad_(not frozen)
        while len(self.losses) < self.settings.steps_per_epoch and (not self.losses or self.clock.progress < 1):
            # Everything drawn on this side (drop path) depends on the step alone, so a resumed run agrees.
            torch.manual_seed(self.settings.seed + self.clock.step)
            factor = learning_rate_factor(self.clock.progress, self.settings.warmup)
            set_learning_rate(self.optimizer, self.settings.learning_rate * factor)
            loss, asked_to_stop = self._step(training, stop)
            self.clock.step += 1
            self.losses.append(loss)
            self.seconds = time.monotonic() - started
            if self.average is not None:
                self.average.update(self.network, self.clock.step)
            if asked_to_stop:
                self._interrupt(stop)

    def _step(self, training: Iterator[dict[str, Any]], stop: StopRequest) -> tuple[float, bool]:
        """Take one optimiser step; return its loss, and whether any process was asked to stop."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        names: list[str] = []
        for number in range(1, self.settings.accumulate + 1):
            before = time.monotonic()
            batch = next(training)
            self.waited += time.monotonic() - before
            names += batch["names"]
            data, target = to_device(batch, self.fabric.device)
            with self.fabric.no_backward_sync(self.model, enabled=number < self.settings.accumulate):
                loss = self.loss(self.model(data), target)
                self.fabric.backward(loss / self.settings.accumulate)
            losses.append(loss.detach())
        told = torch.stack([torch.stack(losses).mean(), losses[0].new_tensor(float(stop.received is not None))])
        mean, asked = (summed(told) / self.fabric.world_size).tolist()
        if not math.isfinite(mean):
            raise UserError(
                f"The loss is {mean} at step {self.clock.step}, on cases {', '.join(names)}. "
                "The last checkpoint is kept; look at these images, or lower the learning rate."
            )
        self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.settings.gradient_clip, error_if_nonfinite=False
        )
        self.optimizer.step()
        return mean, asked > 0

    def _interrupt(self, stop: StopRequest) -> None:
        """Write what there is in the middle of an epoch, and leave."""
        if self.fabric.is_global_zero:
            self._checkpoint(False).write(self.folder.latest)
        self.fabric.barrier()
        raise Interrupted(
            f"{self.name}: stopped by {stop.received or 'a signal'} after step {self.clock.step}; a checkpoint was "
            "written. Type the same command again to go on."
        )

    @torch.no_grad()
    def _check(self, checks: list[dict[str, Any]]) -> dict[str, Any]:
        """Return loss and pseudo-Dice of the evaluated weights on the validation patches."""
        if not checks:
            return {"validation_loss": None, "pseudo_dice": {}, "mean_pseudo_dice": None}
        network = self.network if self.average is None else self.average.network
        network.eval()
        dice = PseudoDice(self.labels)
        losses = []
        for batch in checks:
            data, target = to_device(batch, self.fabric.device)
            with self.fabric.autocast():
                logits = network(data)
            losses.append(self.loss(logits, target).item())
            dice.add(logits, target)
        scores = dice.scores()
        known = [score for score in scores.values() if score is not None]
        return {
            "validation_loss": sum(losses) / len(losses),
            "pseudo_dice": scores,
            "mean_pseudo_dice": sum(known) / len(known) if known else None,
        }

    def _network(self, resumed: Checkpoint | None) -> tuple[SegmentationNetwork, dict[str, Any]]:
        plan = self.trainer.plan.network_plan(self.configuration)
        if resumed is None:
            network, provenance = starting_network(plan, self.trainer.weights, self.folder)
            self._say(f"Starting weights: {network.load_report}")
            return network, {**provenance, "asked": self.trainer.asked or self.trainer.weights}
        network = build_network(plan, None)
        network.load_state_dict(resumed.resume["network"])
        return network, resumed.provenance

    def _go_on(self, resumed: Checkpoint) -> None:
        progress = resumed.progress
        self.optimizer.load_state_dict(resumed.resume["optimizer"])
        if self.average is not None:
            self.average.network.load_state_dict(resumed.network)
        self.epoch, self.best, self.losses = progress["epoch"], progress["best"], progress["losses"]
        self.seconds, self.waited = progress["epoch_seconds"], progress["epoch_waited"]
        self.clock.step, self.clock.seconds_before = progress["step"], progress["seconds"]
        # A finished run is only gone on with when it was given more time: then all of its schedule is open again.
        self.clock.shortened = None if resumed.complete else progress["shortened"]
        self.plateau.load(progress["plateau"])
        if resumed.complete:
            self.plateau.epoch = self.epoch
        source = resumed.provenance["report"]["source"]
        self._say(f"{self.name}: going on after step {self.clock.step} (started from {source}).")

    def _checkpoint(self, complete: bool) -> Checkpoint:
        evaluated = self.network if self.average is None else self.average.network
        return Checkpoint(
            plan=self.trainer.plan,
            configuration=self.configuration.name,
            fold=self.fold,
            split={"train": list(self.split.train), "val": list(self.split.val)},
            network=evaluated.state_dict(),
            settings=self.settings.model_dump(),
            provenance=self.provenance,
            progress={
                "epoch": self.epoch,
                "step": self.clock.step,
                "seconds": self.clock.seconds,
                "best": self.best,
                "losses": self.losses,
                "epoch_seconds": self.seconds,
                "epoch_waited": self.waited,
                "shortened": self.clock.shortened,
                "plateau": self.plateau.state(),
                "complete": complete,
            },
            resume={"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()},
        )

    def _training_batches(self) -> Any:
        workers = self.trainer.workers
        loader = PatchLoader(
            self.trainer.store,
            self.split.train,
            self.configuration,
            self.labels,
            self.settings.seed,
            first=self.clock.step * self.settings.accumulate,
            foreground_share=self.settings.foreground_share,
            augment=self.settings.augment,
            affine=self.settings.affine,
            elastic=self.settings.elastic,
            workers=max(1, workers),
            share=slice(self.fabric.global_rank, None, self.fabric.world_size),
        )
        return batches(loader, workers)

    def _validation_batches(self) -> list[dict[str, Any]]:
        """The same few patches after every epoch, so that epochs can be compared."""
        if not self.split.val:
            return []
        loader = PatchLoader(
            self.trainer.store,
            self.split.val,
            self.configuration,
            self.labels,
            self.settings.seed + VALIDATION_SEED_OFFSET,
            foreground_share=1.0,
            augment=False,
        )
        return [loader.batch(number) for number in range(self.settings.validation_batches)]

    def _say(self, text: str) -> None:
        if self.fabric.is_global_zero:
            say(text)


def is_finished(trainer: "Trainer", checkpoint: Checkpoint, split: Split, folder: FoldFolder) -> bool:
    """Whether a checkpoint is the end of the run asked for.

    Raises:
        UserError: it is of another plan or of other cases, or was started from other weights.
    """
    asked = trainer.asked or trainer.weights
    before_asked = checkpoint.provenance.get("asked", asked)
    if before_asked != asked:
        raise UserError(
            f"{folder.latest}: started with --weights {before_asked}, not {asked}. Go on with --weights {before_asked}"
            ", or start anew with --restart."
        )
    if checkpoint.split != {"train": list(split.train), "val": list(split.val)}:
        raise UserError(f"{folder.latest}: trained on other cases than the fold now has. Train again with --restart.")
    theirs = checkpoint.plan.configuration(checkpoint.configuration)
    if not theirs.trains_like(trainer.configuration) or checkpoint.plan.labels != trainer.plan.labels:
        raise UserError(f"{folder.latest}: trained under another plan. Train again with --restart.")
    before, now = Settings.model_validate(checkpoint.settings), trainer.settings
    longer = now.epochs > before.epochs or (
        before.max_seconds is not None and (now.max_seconds is None or now.max_seconds > before.max_seconds)
    )
    return checkpoint.complete and not longer


def _line(name: str, entry: dict[str, Any], clock: Clock) -> str:
    left = clock.seconds * (1 - clock.progress) / max(clock.progress, 1e-6)
    dice = [
        f"{label} {'-' if score is None else format(score, '.3f')}" for label, score in entry["pseudo_dice"].items()
    ]
    return (
        f"{name}: epoch {entry['epoch']}, loss {entry['loss']:.3f}"
        + (f", pseudo-Dice {', '.join(dice)}" if dice else "")
        + f", {entry['patches'] / entry['seconds']:.1f} patches/s"
        f" ({100 * entry['waited_for_data'] / entry['seconds']:.0f} % waiting for data), {left / 60:.1f} min left"
    )
