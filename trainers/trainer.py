"""The trainer of Omnia-Net, DX-Net and DS-Net: trains a fold and segments its validation cases."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.evaluation.diagnosis import plan_sentences
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.records.checkpoint import PREVIOUS, Checkpoint
from autocrossdim.system.console import advise, is_first_process, say
from autocrossdim.system.files import remove_directory, remove_leftovers
from autocrossdim.system.lightning import Fabric
from autocrossdim.system.text import listed
from trainers.forecast import outline
from trainers.history import History
from trainers.launch import launch
from trainers.leaks import require_scans_held_out
from trainers.learner import Learner, Loss, usual_loss, usual_optimizer
from trainers.loop import train
from trainers.resume import (
    existing_checkpoint,
    has_other_scans,
    is_finished,
    is_trained,
    outgrown,
    settings_not_applied,
    was_continued,
)
from trainers.run import Run
from trainers.settings import read_settings
from trainers.slices import run_on_slices, run_on_volumes, starts_on_slices
from trainers.validation import validate

CONTINUE = "It is kept. To train on the present cases, continue from its weights with --weights previous."


class DefaultTrainer:
    """Trains folds; see `autocrossdim.commands.plugins.Trainer`.

    A trainer with another loss or optimiser subclasses it and overrides `make_loss` or `make_optimizer`.
    """

    def make_loss(self, run: Run) -> Loss:
        """Return the loss, which takes the output of the network and the target.

        The output is a tensor (B, K, *patch) or, with deep supervision, a list of those at decreasing resolution; the
        target is as `trainers.loss.DiceCrossEntropy.forward` takes it. `trainers.loss.DeepSupervision` turns a loss on
        one output into a loss on a list of outputs. Where structures were not annotated in every case, targets may also
        name the sets of classes of `run.class_sets`.
        """
        return usual_loss(run)

    def make_optimizer(self, run: Run, network: SegmentationNetwork) -> torch.optim.Optimizer:
        """Return the optimiser of a network.

        The schedule sets the learning rate of each parameter group, times its `factor` if the group has one.
        """
        return usual_optimizer(run, network)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise a UserError for a setting that does not exist or is out of bounds."""
        read_settings(settings)

    def is_trained(self, task: FoldTask) -> bool:
        """Return whether nothing of a fold is left to train; see `autocrossdim.commands.plugins.KnowsTrained`."""
        run = Run.of(task)
        return not task.restart and is_trained(run_on_volumes(run) if starts_on_slices(run) else run)

    def train_fold(self, task: FoldTask) -> None:
        """Train one fold and segment its validation cases; resume what was interrupted, skip what is complete.

        Raises:
            UserError: The weights are unavailable, existing checkpoints are damaged or belong to another run, or the
                loss is not finite.
            Interrupted: SIGTERM or SIGUSR1 arrived; a checkpoint was written first.
        """
        run = Run.of(task)
        if task.turn[0] == 1:
            say(outline(run))
            # A student has the dimensions of its teachers, which were chosen on held-out cases.
            for sentence in plan_sentences(task.plan, task.configuration.name) if task.soft_labels is None else ():
                advise(sentence, logging.WARNING)
        # Previous weights are kept until the first new checkpoint replaces them.
        discarded = [task.folder.root] if task.restart and task.weights != PREVIOUS else []
        if starts_on_slices(run):
            if task.restart or not task.folder.latest.exists():
                slices = run_on_slices(run)
                # The fold is discarded at once, together with the network it started from.
                launch(partial(self._train, run=slices, discarded=[slices.folder.root, *discarded]), slices)
                discarded = []
            run = run_on_volumes(run)
        launch(partial(self._train, run=run, discarded=discarded), run)
        if is_first_process():
            validate(task)

    def _train(self, fabric: Fabric, run: Run, discarded: Sequence[Path]) -> None:
        """Train one network in this process, one of those that `fabric` has launched.

        Args:
            fabric: Launched devices.
            run: What to train.
            discarded: Directories to start over from; they are removed once the starting weights were loaded.
        """
        is_new = bool(discarded) or (run.task.restart and run.task.weights == PREVIOUS)
        resumed = None if is_new else existing_checkpoint(run)
        if resumed is not None and is_finished(run, resumed):
            _report_finished(run, resumed, fabric)
            return
        learner = Learner(run, fabric, resumed, make_loss=self.make_loss, make_optimizer=self.make_optimizer)
        require_scans_held_out(run)
        if run.task.prepare is not None:  # may take long, so everything that can be refused has been
            run.task.prepare()
        fabric.barrier()  # every process has read the checkpoint
        if fabric.is_global_zero:
            # Existing validation results are those of another state of the network.
            remove_directory(run.folder.validation)
            for path in discarded:
                remove_directory(path, first=run.folder.latest.name)  # before the mark of --restart
            remove_leftovers(run.folder.root, alone=True)
        train(run, learner, fabric, resumed)


def _report_finished(run: Run, trained: Checkpoint, fabric: Fabric) -> None:
    """Say that nothing is left to train, and which requested settings are not applied."""
    again = ", last with --weights previous" if was_continued(run, trained) else ""
    other_cases = outgrown(run, trained)
    say(f"{run.name}: {f'{other_cases}. {CONTINUE}' if other_cases else f'already trained{again}.'}")
    if ignored := settings_not_applied(run, trained):
        say(
            f"{run.name}: the requested settings differ from those of its last training ({listed(ignored)}) and "
            "are not applied. Add --weights previous to train further with them, or --restart to start over."
        )
    if has_other_scans(run, trained):
        say(f"{run.name}: trained with other unlabelled scans than are used now; --restart uses these.")
    history = History(run.folder.history, epochs=trained.run.epoch)
    if fabric.is_global_zero and not history.is_drawn(run.folder.progress):  # killed before it was drawn
        history.draw(run.folder.progress)


default = DefaultTrainer()
