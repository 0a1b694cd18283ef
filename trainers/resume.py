"""Which checkpoint a run resumes from, whether it may, and whether anything is left to train."""

import json
from copy import deepcopy
from typing import Any

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed
from trainers.run import Run
from trainers.settings import Settings, read_settings

NEUTRAL = frozenset({"workers", "compile", "monitor"})  # settings that do not influence the result
BUDGET = frozenset({"epochs", "max_seconds"})  # settings that may be increased once a run is complete
SCHEDULE = BUDGET | {"patience", "cooldown"}  # settings that may change as long as a run is not complete


def existing_checkpoint(run: Run) -> Checkpoint | None:
    """Return the checkpoint of a run; None if it was not started.

    Raises:
        UserError: The checkpoint is damaged, or belongs to another run.
    """
    if not run.folder.latest.exists():
        return None
    checkpoint = Checkpoint.read(run.folder.latest)
    require_same_run(run, checkpoint)
    return checkpoint


def require_same_run(run: Run, checkpoint: Checkpoint) -> None:
    """Raise a UserError unless a checkpoint belongs to a run: same weights, cases, plan and settings."""
    file, task = run.folder.latest, run.task
    started_from = checkpoint.provenance.get("asked", task.weights)
    if started_from != task.weights:
        raise UserError(
            f"{file}: started with --weights {started_from}, not {task.weights}. Resume with --weights {started_from}, "
            "or start over with --restart."
        )
    if checkpoint.split != split_of(task):
        raise UserError(f"{file}: trained on other cases than the fold has now. Train again with --restart.")
    outdated = task.store.changed_since(checkpoint.sources)
    if outdated:
        raise UserError(
            f"{file}: trained on earlier versions of {listed(outdated)}, whose files have changed. Train again with "
            "--restart."
        )
    different = checkpoint.plan.differences(task.plan, [run.configuration.name])
    if checkpoint.configuration != run.configuration.name or different:
        raise UserError(
            f"{file}: trained under another plan ({', '.join(different) or checkpoint.configuration} differs). Train "
            "again with --restart."
        )
    changed = _changed_settings(run, checkpoint)
    if changed:
        changes = ", ".join(f"{name}: {json.dumps(old)} -> {json.dumps(new)}" for name, (old, new) in changed.items())
        former = " ".join(f"--set {name}={json.dumps(old)}" for name, (old, _) in changed.items())
        state = "trained" if checkpoint.complete else "started"
        raise UserError(
            f"{file}: {state} with other settings ({changes}). Use the former settings ({former}), or start over with "
            "--restart."
        )


def split_of(task: FoldTask) -> dict[str, list[str]]:
    """Return the names of the cases of a fold as a checkpoint records them."""
    split = {"train": list(task.split.train), "val": list(task.split.val)}
    return split if task.unlabelled is None else {**split, "unlabelled": list(task.unlabelled.names)}


def is_finished(run: Run, checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint of a run is its end; a run that was given more epochs or time goes on."""
    before, now = _saved_settings(run, checkpoint), run.requested
    return checkpoint.complete and not any(_is_longer(getattr(now, name), getattr(before, name)) for name in BUDGET)


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


def _changed_settings(run: Run, checkpoint: Checkpoint) -> dict[str, tuple[Any, Any]]:
    """Return the former and the requested value of each setting that gives another result."""
    before, now = _saved_settings(run, checkpoint), run.requested
    values = {name: (getattr(before, name), getattr(now, name)) for name in Settings.model_fields.keys() - NEUTRAL}
    default = run.configuration.learning_rate  # the same before and now, as the configurations were compared
    values["learning_rate"] = (before.learning_rate or default, now.learning_rate or default)
    increased = {name for name in BUDGET if not _is_longer(*values[name])}
    allowed = increased if checkpoint.complete else SCHEDULE
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
