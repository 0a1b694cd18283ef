"""The training script: from the first step, or the last checkpoint, to the end of a run."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from lightning_fabric import Fabric

from autocrossdim.evaluation.diagnosis import history_sentences
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.environment import extended
from autocrossdim.records.run_state import RunState
from autocrossdim.system.console import bars, say, warn
from autocrossdim.system.errors import Interrupted
from autocrossdim.system.processes import default_processes, processes_here
from autocrossdim.system.text import counted
from trainers.display import Display
from trainers.distributed import SyncedBatchNorm
from trainers.history import History, epoch_line
from trainers.learner import Learner, environment
from trainers.loader import Batch, PatchLoader
from trainers.losses import Losses
from trainers.monitor import monitor_for
from trainers.pseudo_dice import Scores, score
from trainers.resume import split_of, state_of
from trainers.run import Run
from trainers.schedule import Clock, learning_rate_factor, progress, reaches_plateau, shorten
from trainers.signals import StopRequest
from trainers.soft import learned_from
from trainers.step import set_learning_rate, training_step
from trainers.teacher import begins, has_collapsed, lesson
from trainers.workers import batches

EPOCHS_BETWEEN_FIGURES = 10
VALIDATION_SEED_OFFSET = 1_000_003  # validation patches come from another random stream than training patches


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
    settings, folder, labels = run.settings, run.folder, run.task.plan.labels
    state = state_of(resumed)
    sources = {name: run.task.store.source_hash(name) for name in run.task.split.train}
    history = History(folder.history, epochs=state.epoch, monitor=monitor_for(run))
    checks = _validation_batches(run)
    if resumed is not None:
        source = resumed.provenance["report"]["source"]
        say(f"{run.name}: resuming after step {state.step} (started from {source}).")
    if run.unlabelled:
        say(f"{run.name}: also learns from {counted(len(run.unlabelled), 'unlabelled scan')}.")
    with ExitStack() as stack:
        if fabric.world_size > 1:
            stack.enter_context(SyncedBatchNorm())
        # Workers start inside: a SIGTERM to all processes must not end them before the last step.
        stop = stack.enter_context(StopRequest())
        training = stack.enter_context(_training_batches(run, state, fabric))
        has_teacher = bool(run.unlabelled) and run.task.soft_labels is None  # else they are among the training batches
        taught = stack.enter_context(_unlabelled_batches(run, state, fabric)) if has_teacher else None
        # After the workers, because they are forked: the display must not be in use at that time.
        display = Display(run, state, stack.enter_context(bars()))
        is_limited_together = fabric.world_size > 1 and settings.max_seconds is not None
        clock = Clock(state, share=fabric.broadcast if is_limited_together else None)
        losses = Losses(fabric.device, fabric.world_size)

        def read_losses() -> None:
            values, is_stopping = losses.read(stopping=stop.received is not None)
            state.losses += values
            state.epoch_seconds += clock.tick()
            if is_stopping:
                _write(run, learner, state, sources, fabric)
                raise _interrupted(run, state, stop)

        while not state.complete:
            learner.train(frozen=state.epoch < settings.frozen_epochs)
            clock.tick()
            while (taken := len(state.losses) + len(losses)) < settings.steps_per_epoch and (
                taken == 0 or progress(state, settings) < 1
            ):
                # What is random in the network (drop path) depends on the step alone, so a resumed run is the same.
                torch.manual_seed(settings.seed + state.step)
                factor = learning_rate_factor(progress(state, settings), settings.warmup)
                set_learning_rate(learner.optimizer, run.learning_rate * factor)

                started = time.monotonic()
                accumulated = [next(training) for _ in range(settings.accumulate)]
                state.epoch_waited += time.monotonic() - started

                shown = [batch.to(fabric.device) for batch in accumulated]
                weights = [1 / len(shown)] * len(shown)
                if taught is not None and begins(state, progress(state, settings)):
                    accumulated.append(next(taught))
                    clean, changed = accumulated[-1].unlabelled(fabric.device)
                    with fabric.autocast():
                        shown.append(lesson(learner.evaluated, clean, changed, regions=labels.has_regions))
                    weights.append(settings.unlabelled)
                    state.taught_steps += 1
                computed = training_step(
                    learner.model,
                    learner.loss,
                    learner.optimizer,
                    shown,
                    weights=weights,
                    gradient_clip=settings.gradient_clip,
                    engine=fabric,
                )
                # Unlabelled scans do not count in the loss that is reported, but have to have a finite one too.
                labelled = computed[: settings.accumulate].mean()
                loss = torch.where(computed.isfinite().all(), labelled, torch.nan)
                losses.add(state.step, loss, [name for batch in accumulated for name in batch.names])
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
            scores = score(
                learner.evaluated,
                checks,
                loss=learner.loss,
                labels=labels,
                class_sets=run.class_sets,
                device=fabric.device,
                autocast=fabric.autocast,
            )
            entry = _entry(run, state, scores, learner.optimizer.param_groups[-1]["lr"])
            is_best = scores.mean_dice is not None and (state.best is None or scores.mean_dice > state.best)
            state.best = scores.mean_dice if is_best else state.best
            state.losses, state.epoch_seconds, state.epoch_waited = [], 0.0, 0.0
            if taught is not None and state.taught_steps and not state.untaught:
                state.untaught = has_collapsed(state, scores.mean_dice)
                if state.untaught:
                    say(
                        f"{run.name}: the validation score fell from {state.taught_from:.3f} to {scores.mean_dice:.3f} "
                        "while learning from unlabelled scans. The rest of the training leaves them out."
                    )
            is_shortened = state.complete or state.shortened_step is not None
            if not is_shortened and reaches_plateau(state, scores.mean_dice, settings.patience):
                shorten(state, settings)
                say(
                    f"{run.name}: no better validation score for {settings.patience} epochs. The remaining schedule is "
                    f"shortened to {settings.cooldown} epochs (--set patience=0 turns this off)."
                )
            if fabric.is_global_zero:
                history.add(entry)
            _write(run, learner, state, sources, fabric, is_best=is_best)
            # After the checkpoint: a figure that cannot be written costs no training.
            if fabric.is_global_zero and (state.complete or state.epoch % EPOCHS_BETWEEN_FIGURES == 0):
                history.draw(folder.progress)
            say(epoch_line(run.name, entry, left=display.epoch(scores.mean_dice)))
    for sentence in history_sentences(history.lines):
        warn(f"{run.name}: {sentence}")


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
        "patches": steps * run.settings.accumulate * run.configuration.batch_size,
    }


def _interrupted(run: Run, state: RunState, stop: StopRequest) -> Interrupted:
    return Interrupted(
        f"{run.name}: stopped by {stop.received or 'a signal'} after step {state.step}; a checkpoint was written."
    )


def _write(
    run: Run, learner: Learner, state: RunState, sources: dict[str, str], fabric: Fabric, *, is_best: bool = False
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
            sources=sources,
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


def _training_batches(run: Run, state: RunState, fabric: Fabric) -> AbstractContextManager[Iterator[Batch]]:
    """Return the batches from the next step on, this process's share of each."""
    workers = _workers(run)
    is_student = run.task.soft_labels is not None  # whose targets are soft, so that it needs no sets of classes
    cases, names = learned_from(run.task)
    loader = PatchLoader(
        cases,
        names,
        configuration=run.configuration,
        labels=run.task.plan.labels,
        class_sets=() if is_student else run.class_sets,
        settings=run.settings,
        first=state.step * run.settings.accumulate,
        workers=max(1, workers),
        share=slice(fabric.global_rank, None, fabric.world_size),
    )
    return batches(loader, workers)


def _unlabelled_batches(run: Run, state: RunState, fabric: Fabric) -> AbstractContextManager[Iterator[Batch]]:
    """Return the batches of unlabelled scans from the next one on, as `_training_batches`."""
    assert run.task.unlabelled is not None
    workers = _workers(run)
    loader = PatchLoader(
        run.task.unlabelled.store,
        run.unlabelled,
        configuration=run.configuration,
        labels=run.task.plan.labels,
        settings=run.settings,
        first=state.taught_steps,
        workers=max(1, workers),
        share=slice(fabric.global_rank, None, fabric.world_size),
        unlabelled=True,
    )
    return batches(loader, workers)


def _workers(run: Run) -> int:
    """Return the number of processes that prepare batches for this process."""
    workers = run.settings.workers
    return max(1, default_processes() // processes_here(run.task.devices) - 1) if workers is None else workers


def _validation_batches(run: Run) -> list[Batch]:
    """Return a few fixed batches of foreground patches, the same in every epoch, so that scores can be compared."""
    if not run.task.split.val:
        return []
    changes: dict[str, Any] = {"foreground_share": 1.0, "augment": False, "channel_dropout": 0.0}
    loader = PatchLoader(
        run.task.store,
        run.task.split.val,
        configuration=run.configuration,
        labels=run.task.plan.labels,
        class_sets=run.class_sets,
        settings=run.settings.model_copy(update={**changes, "seed": run.settings.seed + VALIDATION_SEED_OFFSET}),
    )
    return [loader.batch(number) for number in range(run.settings.validation_batches)]
