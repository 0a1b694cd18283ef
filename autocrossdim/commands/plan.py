"""`autocrossdim plan`: measure a dataset, decide between 2D and 3D, and size the networks."""

import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autocrossdim.commands.arguments import DatasetArgument, ProcessesOption, WorkOption, numbers
from autocrossdim.commands.signature import Option, command
from autocrossdim.data.case_keys import KEYS
from autocrossdim.records.plan import Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.commands.growth import CaseChange
    from autocrossdim.commands.project import Project
    from autocrossdim.records.fingerprint import Fingerprint

PlannerOption = Annotated[
    str | None,
    Option(
        "Planner: auto (default), omnia, dx, ds, unet (a plain U-Net as a baseline), or one from an installed package."
    ),
]
OverwriteOption = Annotated[bool, Option("Recompute existing results.")]

RENAMED = {"memory_gb": "memory"}


@command(options=PlanOptions, renamed=RENAMED)
def plan(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    planner: PlannerOption = None,
    processes: ProcessesOption = None,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> Plan:
    """Check and measure a dataset, decide between 2D and 3D, and show the plan.

    If cases were added to a planned dataset or removed from it, the plan is kept and the folds are updated. If nothing
    changed, the plan is kept, too. Without planner and options, those of the existing plan apply.

    Args:
        dataset: Dataset directory, or its name or number below `$AUTOCROSSDIM_RAW` or `$nnUNet_raw`.
        work: Directory of all results (default: `$AUTOCROSSDIM_WORK`, else `./autocrossdim_work`).
        planner: `auto`, `omnia`, `dx`, `ds`, `unet`, or the name of one from an installed package. None: that of the
            existing plan if there are no options either, else `auto`.
        processes: Worker processes; each holds one case in memory. One per core, at most 8, if None.
        overwrite: Measure the dataset again and make new folds.
        **options: Choices that replace the planner's, by the fields of `PlanOptions`.

    Returns:
        The plan, which is also written to plan.json.

    Raises:
        UserError: The dataset has faults, nothing fits the memory, or dataset.json or the images changed so that the
            plan cannot be kept; nothing is written then.
    """
    from autocrossdim.commands.growth import CaseChange, explain_kept, find_change, kept_plan
    from autocrossdim.commands.plugins import find_planner
    from autocrossdim.commands.project import Project
    from autocrossdim.data.splits import load_or_make_splits
    from autocrossdim.system.console import advise, say
    from autocrossdim.system.files import write_json
    from autocrossdim.system.lock import locked
    from autocrossdim.system.processes import default_processes

    project = Project.open(dataset, work=work, planned=False)
    workspace = project.workspace
    with locked(workspace.lock, workspace.root):
        chosen, name = requested(project, options, planner)
        planning = find_planner(name)
        planning.check_options(chosen)
        change = CaseChange() if overwrite else find_change(project)
        fingerprint = _fingerprint(project, change, processes or default_processes(), overwrite)
        corrected = _is_corrected(project, fingerprint)
        made_from = _made_from(project, fingerprint, chosen, name)
        kept = kept_plan(project, fingerprint, chosen, name)
        ours = type(planning).__module__.partition(".")[0] == "planners"  # the code of a plug-in may have changed
        if kept is None and ours and not overwrite and (current := _current_plan(project, made_from)) is not None:
            same = "data, options, version and device are the same"
            say(f"The plan is kept: {same}. To renew it, delete {workspace.plan}.")
            result = current
        elif kept is None:
            say("Fitting the networks to the available memory, which can take a minute.")
            result = planning.plan(project.dataset, fingerprint, chosen)
            asked = chosen.overrides(None if name == "auto" else name)
            update = {"overrides": {**result.overrides, **asked}, "made_from": made_from}
            result = result.model_copy(update=update)
            fingerprint = fingerprint.model_copy(update={"grown": False})
        else:
            result = kept
            if change:
                candidate = planning.plan(project.dataset, fingerprint, chosen.model_copy(update={"trial": False}))
                for sentence in explain_kept(kept, candidate):
                    say(sentence)
        if change:
            _update(project, change, fingerprint)
        write_json(workspace.dataset_json, {**project.dataset.description, "numTraining": len(fingerprint.cases)})
        fingerprint.write(workspace.fingerprint)
        if overwrite:
            workspace.splits.unlink(missing_ok=True)
        _, folds = load_or_make_splits(project.dataset, workspace.splits, fingerprint.presence)
        result.write(workspace.plan)
        advise(folds)
        if change or corrected:
            _name_outgrown_folds(dataset, work)
    say(f"Decision: {result.decision.configuration}. The plan was written to {workspace.plan}.")
    return result


def requested(project: "Project", options: Mapping[str, Any], planner: str | None) -> tuple[PlanOptions, str]:
    """Return the options and the planner; those of the existing plan if none are given, as when cases are added.

    Args:
        project: The dataset.
        options: Options that are given; None and `trial` do not count.
        planner: The planner; None if none is given.

    Raises:
        UserError: A value is out of bounds.
    """
    from autocrossdim.report.commands import planning_words
    from autocrossdim.system.console import say

    chosen, plan = checked(options), None
    if planner is None and all(value is None for name, value in options.items() if name != "trial"):
        with suppress(UserError):  # there is none, or it is damaged and will be replaced
            plan = project.plan
    if plan is None or not plan.overrides:
        return chosen, planner or "auto"
    words = shlex.join(planning_words(plan))
    say(f"Planning with the options of the existing plan: {words}. To plan without them, add --planner auto.")
    return checked({**PlanOptions.values(plan.overrides), "trial": chosen.trial}), plan.overrides.get("planner", "auto")


def _made_from(project: "Project", fingerprint: "Fingerprint", options: PlanOptions, planner: str) -> str:
    """Return a digest of everything that a plan follows from; the memory budget may be that of the GPU."""
    from autocrossdim.system.device import choose_device, name_of, total_memory

    device = choose_device("auto")
    measured = fingerprint.model_dump_json(exclude={"grown"})
    machine = [version("autocrossdim"), name_of(device), total_memory(device)]
    keys = frozenset(KEYS) - {"codes", "groups", "numTraining"}  # no plan depends on these
    described = {key: value for key, value in project.dataset.description.items() if key in keys}
    content = [described, measured, options.model_dump_json(), planner, machine]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _current_plan(project: "Project", made_from: str) -> Plan | None:
    """Return the existing plan if planning again would give the same; None if there is none, or an invalid one."""
    with suppress(UserError):
        if project.plan.made_from == made_from:
            return project.plan
    return None


def _is_corrected(project: "Project", fingerprint: "Fingerprint") -> bool:
    """Return whether a case that was measured before has other files or other annotated labels now."""
    from autocrossdim.system.files import read_json

    if not project.workspace.fingerprint.exists():
        return False
    with suppress(UserError):  # a damaged file is replaced
        described = read_json(project.workspace.dataset_json)
        if described.get("annotated_labels", {}) != project.dataset.description.get("annotated_labels", {}):
            return True
        before = {case.name: [version.content for version in case.source] for case in project.fingerprint.cases}
        return any(
            before.get(case.name, now) != now
            for case in fingerprint.cases
            if (now := [version.content for version in case.source])
        )
    return False


def _update(project: "Project", change: "CaseChange", fingerprint: "Fingerprint") -> None:
    """Assign new cases to folds, and remove what is stored of cases that are gone.

    This comes before the fingerprint is written: after an interruption, the change is found again.
    """
    from autocrossdim.commands.growth import remove_stored, renamed_copies
    from autocrossdim.data.splits import update_splits
    from autocrossdim.system.console import say

    images = len(project.dataset.training_cases()[0].images)
    copies = renamed_copies(project.fingerprint, fingerprint, change.added, images)
    _, sentence = update_splits(
        project.dataset, project.workspace.splits, change.added, fingerprint.presence, copies=copies
    )
    say(sentence)
    if project.workspace.plan.exists():
        remove_stored(project, change.removed)


def _name_outgrown_folds(dataset: str | Path | int, work: Path | str | None) -> None:
    from autocrossdim.commands.growth import explain_outgrown, outgrown_folds
    from autocrossdim.commands.project import Project
    from autocrossdim.system.console import say

    for sentence in explain_outgrown(outgrown_folds(Project.open(dataset, work=work)), dataset=dataset, work=work):
        say(sentence)


def checked(options: Mapping[str, Any]) -> PlanOptions:
    """Return the choices that replace the planner's.

    Raises:
        UserError: A value is out of bounds.
    """
    from pydantic import ValidationError

    from autocrossdim.system.errors import first_fault

    options = {**options, "patch_size": numbers(options.get("patch_size"), "--patch-size")}
    try:
        return PlanOptions.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0]).replace("_", "-")
        raise UserError(f"--{name}: {first_fault(error).partition(': ')[2]}.") from error


def _fingerprint(project: "Project", change: "CaseChange", processes: int, overwrite: bool) -> "Fingerprint":
    """Return the stored fingerprint if it is of the same files, else a new one.

    All cases are measured again: percentiles of intensities cannot be updated, and checks compare cases.
    """
    from autocrossdim.preprocessing.fingerprint import changed_cases, extract
    from autocrossdim.system.console import advise, say
    from autocrossdim.system.text import counted, listed

    dataset, workspace = project.dataset, project.workspace
    grown = False
    if not overwrite and workspace.fingerprint.exists():
        grown = bool(change) or project.fingerprint.grown
        changed = changed_cases(dataset, project.fingerprint)
        if not changed and not change:
            return project.fingerprint
        if change:
            say(change.sentence)
        if changed:
            say(f"{counted(len(changed), 'case')} changed since the dataset was measured: {listed(changed, 10)}.")
    fingerprint, report = extract(dataset, processes)
    for warning in report.warnings:
        advise(warning, logging.WARNING)  # shown by `study` for the whole dataset
    return fingerprint.model_copy(update={"grown": grown})


def present(plan: Plan, *, dataset: str, work: Any, **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: data, decision with its reasons, candidates, and the next command."""
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.commands.project import Project
    from autocrossdim.report.commands import planning_words
    from autocrossdim.report.terminal import plan_text

    yield plan_text(plan, Project.open(dataset, work=work).fingerprint)
    yield next_step("plan_and_preprocess", dataset, *planning_words(plan), work=work)
