"""Which checkpoint a run resumes from, whether it may, and whether anything is left to train."""

import json
from copy import deepcopy
from typing import Any

from autocrossdim.models.hub import covers
from autocrossdim.records.checkpoint import PREVIOUS, Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed
from trainers.leaks import require_held_out
from trainers.run import Run
from trainers.settings import Settings, read_settings

NEUTRAL = frozenset({"workers", "augment_on_gpu", "compile", "monitor"})  # settings that do not influence the result
BUDGET = frozenset({"epochs", "max_seconds"})  # settings that may be increased once a run is complete
OF_CASCADE = frozenset({"stage_empty", "stage_morphology", "stage_component"})  # of no influence on other networks
SCHEDULE = BUDGET | {"patience", "cooldown"}  # settings that may change as long as a run is not complete


def existing_checkpoint(run: Run) -> Checkpoint | None:
    """Return the checkpoint that a run resumes from or ends with; None if it is to be started.

    With `--weights previous`, a run is started if the training cases of the fold, their files or the plan have changed.

    Raises:
        UserError: The checkpoint is damaged, or belongs to another run.
    """
    if not run.folder.latest.exists():
        return None
    checkpoint = Checkpoint.read(run.folder.latest)
    if run.task.weights == PREVIOUS:
        if _is_outdated(run, checkpoint):
            return None
        if checkpoint.complete and (not _is_continued(run, checkpoint) or _changed_settings(run, checkpoint)):
            require_held_out(run, checkpoint.trained_on)
            return checkpoint  # there is nothing new to learn from
    require_same_run(run, checkpoint)
    return checkpoint


def outgrown(run: Run, checkpoint: Checkpoint) -> str | None:
    """Return on which cases a checkpoint was trained if not on those of the fold (`Checkpoint.outgrown`)."""
    return checkpoint.outgrown(run.task.split.train, run.task.store.contents)


def require_same_run(run: Run, checkpoint: Checkpoint) -> None:
    """Raise a UserError unless a checkpoint belongs to a run: same weights, cases, plan and settings.

    A complete run may have been trained on fewer cases than the fold has now (`Checkpoint.outgrown`). It may also have
    continued from earlier weights of the fold, with other settings, after it was trained as requested.
    """
    file, task = run.folder.latest, run.task
    started_from, continued = checkpoint.provenance.get("asked", task.weights), was_continued(run, checkpoint)
    if not (covers(task.weights, started_from) or continued):
        raise UserError(
            f"{file}: started with --weights {started_from}, not {task.weights}. Resume with --weights {started_from}, "
            "or start over with --restart."
        )
    teachers = None if task.soft_labels is None else task.soft_labels.teachers
    if checkpoint.provenance.get("teachers") != teachers:
        raise UserError(
            f"{file}: learned from other teachers than `find_best` chooses now, or from their earlier versions. Start "
            "over with --restart."
        )
    require_held_out(run, checkpoint.trained_on)
    if not checkpoint.complete and checkpoint.split["train"] != list(task.split.train):
        raise UserError(
            f"{file}: interrupted while it was trained on other cases than the fold has now. Start from its weights "
            "with --weights previous, or start over with --restart."
        )
    if not checkpoint.complete and has_other_scans(run, checkpoint):
        raise UserError(
            f"{file}: interrupted while it learned from other unlabelled scans than imagesUn contains now. Restore "
            "them, or start over with --restart."
        )
    outdated = _corrected(run, checkpoint)
    if outdated:
        raise UserError(
            f"{file}: trained on earlier versions of {listed(outdated)}, whose files or annotated labels have changed"
            f"{_or_stage(run)}. Train again with --restart, or with --weights previous to start from its weights."
        )
    different = checkpoint.plan.differences(task.plan, [run.configuration.name])
    if checkpoint.configuration != run.configuration.name or different:
        raise UserError(
            f"{file}: trained under another plan (different: {', '.join(different) or checkpoint.configuration}). "
            "Train again with `autocrossdim train --restart`."
        )
    changed = {} if continued else _changed_settings(run, checkpoint)
    if changed:
        changes = ", ".join(f"{name}: {json.dumps(old)} -> {json.dumps(new)}" for name, (old, new) in changed.items())
        former = " ".join(f"--set {name}={json.dumps(old)}" for name, (old, _) in changed.items())
        state = "trained" if checkpoint.complete else "started"
        raise UserError(
            f"{file}: {state} with other settings ({changes}). Use the former settings ({former}), or start over with "
            "--restart."
        )


def _or_stage(run: Run) -> str:
    stage = run.configuration.previous_stage
    return "" if stage is None else f", or which {stage} has segmented again"


def split_of(run: Run) -> dict[str, list[str]]:
    """Return the names of the cases of a run as a checkpoint records them."""
    split = {"train": list(run.task.split.train), "val": list(run.task.split.val)}
    return {**split, "unlabelled": list(run.unlabelled)} if run.unlabelled else split


def has_other_scans(run: Run, checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint learned from other unlabelled scans than the run would, or earlier images of them."""
    scans = run.task.unlabelled
    if scans is None:
        return bool(checkpoint.split.get("unlabelled"))
    return not checkpoint.learned_from(scans.names, scans.store.image_hash)


def is_finished(run: Run, checkpoint: Checkpoint) -> bool:
    """Return whether a run is finished; one that was given more epochs or time is continued.

    A run on cases or unlabelled scans that are no longer those of the fold is not continued.
    """
    if not checkpoint.complete:
        return False
    if outgrown(run, checkpoint) or has_other_scans(run, checkpoint):
        return True
    if not _is_continued(run, checkpoint) or (run.task.weights == PREVIOUS and _changed_settings(run, checkpoint)):
        return True
    before, now = _saved_settings(run, checkpoint), run.requested
    return not any(_is_longer(getattr(now, name), getattr(before, name)) for name in BUDGET)


def settings_not_applied(run: Run, checkpoint: Checkpoint) -> list[str]:
    """Return the settings that are requested for a fold that was continued with other ones."""
    if not was_continued(run, checkpoint):
        return []
    before, now = _saved_settings(run, checkpoint), run.requested
    return sorted(
        name for name in Settings.model_fields.keys() - NEUTRAL if getattr(before, name) != getattr(now, name)
    )


def is_trained(run: Run) -> bool:
    """Return whether the network of a run is trained, so that nothing is left to train.

    Raises:
        UserError: As `existing_checkpoint`.
    """
    checkpoint = existing_checkpoint(run)
    return checkpoint is not None and is_finished(run, checkpoint)


def state_of(checkpoint: Checkpoint | None) -> RunState:
    """Return the state to resume from: that of the checkpoint, or a new one.

    A complete run is resumed when it was given more epochs or time. Its schedule is then open again.
    """
    if checkpoint is None:
        return RunState()
    state = deepcopy(checkpoint.run)
    if state.complete:
        state.complete, state.shortened_step, state.plateau_epoch = False, None, state.epoch
    return state


def _is_continued(run: Run, checkpoint: Checkpoint) -> bool:
    """Return whether the training of a checkpoint started from the weights that the run asks for."""
    return covers(run.task.weights, checkpoint.provenance.get("asked", run.task.weights))


def was_continued(run: Run, checkpoint: Checkpoint) -> bool:
    """Return whether a complete checkpoint continues a training from the requested weights (--weights previous)."""
    first = checkpoint.first_weights or run.task.weights
    return checkpoint.complete and checkpoint.is_continuation and covers(run.task.weights, first)


def _is_outdated(run: Run, checkpoint: Checkpoint) -> bool:
    """Return whether the training cases of the fold, their files or the plan changed since a checkpoint was written."""
    return bool(
        outgrown(run, checkpoint)
        or _corrected(run, checkpoint)
        or checkpoint.plan.differences(run.task.plan, [run.configuration.name])
    )


def _corrected(run: Run, checkpoint: Checkpoint) -> list[str]:
    """Return the training cases of the fold whose files have changed since they were trained on."""
    present = set(run.task.split.train)
    return run.task.store.changed_since({name: known for name, known in checkpoint.sources.items() if name in present})


def _changed_settings(run: Run, checkpoint: Checkpoint) -> dict[str, tuple[Any, Any]]:
    """Return the former and the requested value of each setting that gives another result."""
    before, now = _saved_settings(run, checkpoint), run.requested
    values = {name: (getattr(before, name), getattr(now, name)) for name in Settings.model_fields.keys() - NEUTRAL}
    for name in ("learning_rate", "augmentation"):
        default = getattr(run.configuration, name)  # the same before and now, as the configurations were compared
        values[name] = (getattr(before, name) or default, getattr(now, name) or default)
    increased = {name for name in BUDGET if not _is_longer(*values[name])}
    allowed = increased if checkpoint.complete else SCHEDULE
    if run.configuration.previous_stage is None:
        allowed |= OF_CASCADE
    return {name: values[name] for name in sorted(values) if name not in allowed and values[name][0] != values[name][1]}


def _is_longer(budget: float | None, other: float | None) -> bool:
    """Return whether a number of epochs or seconds is larger than another; None is no limit."""
    return other is not None and (budget is None or budget > other)


def _saved_settings(run: Run, checkpoint: Checkpoint) -> Settings:
    try:
        return read_settings(checkpoint.settings)
    except UserError as error:
        raise UserError(
            f"{run.folder.latest}: trained by another version of the trainer ({error}) Train again with --restart."
        ) from error
