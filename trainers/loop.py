"""The training loop: from the first step, or the last checkpoint, to the end of a run."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from autocrossdim.evaluation.diagnosis import history_sentences
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.environment import extended
from autocrossdim.records.run_state import RunState
from autocrossdim.system.console import bars, say, warn
from autocrossdim.system.errors import Interrupted
from autocrossdim.system.lightning import Fabric
from autocrossdim.system.memory import freed_memory_kept
from autocrossdim.system.text import counted
from trainers.data import training_batches, unlabelled_batches, validation_batches
from trainers.display import Display
from trainers.distributed import SyncedBatchNorm
from trainers.history import History, epoch_line
from trainers.learner import Learner, environment
from trainers.loader import Placed
from trainers.losses import Losses
from trainers.monitor import monitor_for
from trainers.pseudo_dice import Scores, score
from trainers.resume import split_of, state_of
from trainers.run import Run
from trainers.schedule import Clock, last_epoch, learning_rate_factor, progress, reaches_plateau, shorten
from trainers.settings import Settings
from trainers.signals import StopRequest, noting_requests
from trainers.step import set_learning_rate, training_step
from trainers.teacher import has_collapsed, is_teaching, pseudo_labelled

EPOCHS_BETWEEN_FIGURES = 10


def train(run: Run, learner: Learner, fabric: Fabric, resumed: Checkpoint | None) -> None:
    """Train until the run has ended, with a checkpoint after every epoch.

    Args:
        run: The run.
        learner: Network and optimiser, in the state of `resumed`.
        fabric: Launched devices and precision.
        resumed: Checkpoint to resume from; None starts the run.

    Raises:
        UserError: The loss is not finite, or a batch could not be prepared.
        Interrupted: SIGTERM or SIGUSR1 arrived; a checkpoint was written first.
    """
    settings, labels = run.settings, run.task.plan.labels
    state = state_of(resumed)
    hashes = _content_hashes(run)
    history = History(run.folder.history, epochs=state.epoch, monitor=monitor_for(run))
    validation = validation_batches(run)
    if resumed is not None:
        source = resumed.provenance["report"]["source"]
        say(f"{run.name}: resuming after step {state.step} (started from {source}).")
    if run.unlabelled:
        say(f"{run.name}: also learns from {counted(len(run.unlabelled), 'unlabelled scan')}.")
    elif run.task.unlabelled is not None:
        say(f"{run.name}: no unlabelled scan to learn from, because all are of patients (groups) that it validates.")
    with ExitStack() as stack:
        if fabric.world_size > 1:
            stack.enter_context(SyncedBatchNorm())
        # Workers start inside: a SIGTERM to all processes must not end them before the last step.
        stop = stack.enter_context(noting_requests())
        training = stack.enter_context(training_batches(run, state, fabric))
        unlabelled = stack.enter_context(unlabelled_batches(run, state, fabric)) if run.has_mean_teacher else None
        # After the workers, because they are forked: the display must not be in use at that time.
        display = Display(run, state, stack.enter_context(bars()))
        if fabric.device.type == "cpu":
            stack.enter_context(freed_memory_kept())
        shares_time_limit = fabric.world_size > 1 and settings.max_seconds is not None
        clock = Clock(state, share=fabric.broadcast if shares_time_limit else None)
        losses = Losses(fabric.device, fabric.world_size)

        def read_losses() -> None:
            values, is_stopping = losses.read(stopping=stop.received is not None)
            state.losses += values
            state.epoch_seconds += clock.tick()
            clock.agree()
            if is_stopping:
                _write_checkpoint(run, learner, state, hashes, fabric)
                raise _interrupted(run, state, stop)

        while not state.complete:
            learner.train(frozen=state.epoch < settings.frozen_epochs)
            clock.tick()
            while not _ends_epoch(len(state.losses) + len(losses), state, settings):
                # What is random in the network (drop path) depends on the step alone, so a resumed run is the same.
                torch.manual_seed(settings.seed + state.step)
                factor = learning_rate_factor(progress(state, settings), settings.warmup)
                set_learning_rate(learner.optimizer, run.learning_rate * factor)

                started = time.monotonic()
                batches = [next(training) for _ in range(settings.accumulate)]
                state.epoch_waited += time.monotonic() - started
                scans = None
                if unlabelled is not None and is_teaching(state, progress(state, settings)):
                    scans = next(unlabelled)
                    state.taught_steps += 1
                loss = _step(run, learner, fabric, batches, scans)
                names = [name for batch in batches for name in batch.names]
                losses.add(state.step, loss, names if scans is None else names + scans.names)
                state.step += 1
                state.epoch_seconds += clock.tick()
                if learner.average is not None:
                    learner.average.update(learner.network, state.step)
                if losses.is_due(stopping=stop.received is not None):
                    read_losses()
                display.step(state.losses[-1] if state.losses else None)

            read_losses()
            state.complete = progress(state, settings) >= 1
            state.epoch += 1
            # Those of the first process in all: devices round differently, but have to agree on where training ends.
            scores = fabric.broadcast(
                score(
                    learner.evaluated,
                    validation,
                    loss=learner.loss,
                    labels=labels,
                    class_sets=run.class_sets,
                    device=fabric.device,
                    autocast=fabric.autocast,
                )
            )
            collapses = run.has_mean_teacher and not state.untaught and has_collapsed(state, scores.mean_dice)
            state.untaught |= collapses
            entry = _entry(run, state, scores, learner.optimizer.param_groups[-1]["lr"])
            is_best = scores.mean_dice is not None and (state.best is None or scores.mean_dice > state.best)
            state.best = scores.mean_dice if is_best else state.best
            state.losses, state.epoch_seconds, state.epoch_waited = [], 0.0, 0.0
            if collapses:
                _fall_back(run, learner, state, scores.mean_dice)
            _shorten_on_plateau(run, state, scores.mean_dice)
            if fabric.is_global_zero:
                history.add(entry)
            _write_checkpoint(run, learner, state, hashes, fabric, is_best=is_best)
            # After the checkpoint: a figure that cannot be written costs no training.
            if fabric.is_global_zero and (state.complete or state.epoch % EPOCHS_BETWEEN_FIGURES == 0):
                history.draw(run.folder.progress)
            left = display.epoch(scores.mean_dice)
            say(epoch_line(run.name, entry, last=last_epoch(state, settings), left=left))
    for sentence in history_sentences(history.lines):
        warn(f"{run.name}: {sentence}")


def _ends_epoch(steps: int, state: RunState, settings: Settings) -> bool:
    """Return whether an epoch ends after this number of its steps; an epoch has at least one."""
    return steps >= settings.steps_per_epoch or (steps > 0 and progress(state, settings) >= 1)


def _step(run: Run, learner: Learner, fabric: Fabric, batches: Sequence[Placed], scans: Placed | None) -> Tensor:
    """Change the weights once, and return the mean loss of the labelled batches, shape ().

    Args:
        run: The run.
        learner: Network and optimiser.
        fabric: Launched devices and precision.
        batches: Labelled batches, whose gradients are averaged.
        scans: Batch of unlabelled scans; None if the step does not use them.
    """
    pairs = [batch.tensors for batch in batches]
    weights = [1 / len(batches)] * len(batches)
    if scans is not None:
        clean, changed = scans.tensors
        with fabric.autocast():
            pairs.append(pseudo_labelled(learner.evaluated, clean, changed, regions=run.task.plan.labels.has_regions))
        weights.append(run.settings.unlabelled)
    losses = training_step(
        learner.model,
        learner.loss,
        learner.optimizer,
        pairs,
        weights=weights,
        gradient_clip=run.settings.gradient_clip,
        engine=fabric,
    )
    # Unlabelled scans do not count in the loss that is reported, but have to have a finite one too.
    return torch.where(losses.isfinite().all(), losses[: len(batches)].mean(), torch.nan)


def _fall_back(run: Run, learner: Learner, state: RunState, score: float | None) -> None:
    """Go back to the best weights so far, because unlabelled scans have made the network worse."""
    best = Checkpoint.read(run.folder.best)
    learner.load(best)
    say(
        f"{run.name}: the validation score fell from {state.taught_from:.3f} to {score:.3f} while learning from "
        f"unlabelled scans. The rest of the training leaves them out and starts from the weights of epoch "
        f"{best.run.epoch}, the best so far."
    )


def _shorten_on_plateau(run: Run, state: RunState, score: float | None) -> None:
    """Shorten the remaining schedule if the validation score has not improved for `patience` epochs."""
    settings, is_shortened = run.settings, state.complete or state.shortened_step is not None
    if not is_shortened and reaches_plateau(state, score, settings.patience):
        shorten(state, settings)
        say(
            f"{run.name}: no better validation score for {settings.patience} epochs. The remaining schedule is "
            f"shortened to {settings.cooldown} epochs (--set patience=0 turns this off)."
        )


def _entry(run: Run, state: RunState, scores: Scores, learning_rate: float) -> dict[str, Any]:
    """Return an epoch as a line of the history."""
    steps = len(state.losses)
    return {
        "epoch": state.epoch,
        "step": state.step,
        "loss": sum(state.losses) / steps,
        "validation_loss": scores.loss,
        "pseudo_dice": scores.dice,
        "mean_pseudo_dice": scores.mean_dice,
        "learning_rate": learning_rate,
        "seconds": state.epoch_seconds,
        "waited_for_data": state.epoch_waited,
        "training_cases": len(run.task.split.train),
        "unlabelled_steps": state.taught_steps,
        **({"collapsed_from": state.taught_from} if state.untaught else {}),
        "patches": steps * run.settings.accumulate * run.configuration.batch_size,
    }


def _interrupted(run: Run, state: RunState, stop: StopRequest) -> Interrupted:
    return Interrupted(
        f"{run.name}: stopped by {stop.received or 'a signal'} after step {state.step}; a checkpoint was written."
    )


def _content_hashes(run: Run) -> dict[str, dict[str, str]]:
    """Return what a checkpoint records of the files that a run learns from (`sources` and `images`)."""
    store, names = run.task.store, run.task.split.train
    images = {name: store.image_hash(name) for name in names}
    if run.task.unlabelled is not None:
        images |= {name: run.task.unlabelled.store.image_hash(name) for name in run.unlabelled}
    return {"sources": {name: store.source_hash(name) for name in names}, "images": images}


def _write_checkpoint(
    run: Run,
    learner: Learner,
    state: RunState,
    hashes: dict[str, dict[str, str]],
    fabric: Fabric,
    *,
    is_best: bool = False,
) -> None:
    """Write a checkpoint from the first process; the others wait for it."""
    if fabric.is_global_zero:
        task = run.task
        checkpoint = Checkpoint(
            plan=task.plan,
            configuration=run.configuration.name,
            fold=task.fold,
            split=split_of(run),
            network=learner.evaluated.state_dict(),
            settings=run.requested.model_dump(),
            provenance=learner.provenance,
            run=state,
            **hashes,
            requested=sorted(run.requested.model_dump(exclude_defaults=True)),
            environments=extended(learner.environments, environment(fabric)),
            resume=learner.resume_state(),
        )
        if is_best:
            checkpoint.write(run.folder.best)
        elif state.best is None:
            run.folder.best.unlink(missing_ok=True)  # of an earlier training that this one started from
        checkpoint.write(run.folder.latest)
        if task.restart:
            run.folder.restart.unlink(missing_ok=True)
    fabric.barrier()
