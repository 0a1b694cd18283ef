"""`autocrossdim plan`: measure a dataset, decide between 2D and 3D, and size the networks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from autocrossdim.commands.arguments import DatasetArgument, ProcessesOption, WorkOption, numbers
from autocrossdim.commands.signature import Option, command
from autocrossdim.records.plan import Plan, PlanOptions
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.commands.project import Project
    from autocrossdim.records.fingerprint import Fingerprint

PlannerOption = Annotated[str, Option("Planner: auto, omnia, dx, ds, or one from an installed package.")]
OverwriteOption = Annotated[bool, Option("Recompute existing results.")]

RENAMED = {"memory_gb": "memory", "options": "memory', 'encoder' and so on, one keyword per option, not '"}


@command(options=PlanOptions, renamed=RENAMED)
def plan(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    planner: PlannerOption = "auto",
    processes: ProcessesOption = None,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> Plan:
    """Check and measure a dataset, decide between 2D and 3D, and show the plan.

    Args:
        dataset: Dataset directory, or its name or number below `$AUTOCROSSDIM_RAW` or `$nnUNet_raw`.
        work: Directory of all results (default: `$AUTOCROSSDIM_WORK`, else `./autocrossdim_work`).
        planner: Name of an installed planner.
        processes: Worker processes; each holds one case in memory.
        overwrite: Measure the dataset again and make new folds.
        **options: Choices that replace the planner's, by the fields of `PlanOptions`.

    Returns:
        The plan, which is also written to plan.json.

    Raises:
        UserError: The dataset has faults, or nothing fits the memory; nothing is written then.
    """
    from autocrossdim.commands.plugins import find_planner
    from autocrossdim.commands.project import Project
    from autocrossdim.data.splits import load_or_make_splits
    from autocrossdim.system.console import say
    from autocrossdim.system.files import write_json
    from autocrossdim.system.processes import default_processes

    project = Project.open(dataset, work=work, planned=False)
    chosen = _checked(options)
    planning = find_planner(planner)
    planning.check_options(chosen)
    workspace = project.workspace
    fingerprint = _fingerprint(project, processes or default_processes(), overwrite)
    result = planning.plan(project.dataset, fingerprint, chosen)
    write_json(workspace.dataset_json, project.dataset.description)
    fingerprint.write(workspace.fingerprint)
    if overwrite:
        workspace.splits.unlink(missing_ok=True)
    presence = {case.name: case.label_voxels.keys() for case in fingerprint.cases}
    _, folds = load_or_make_splits(project.dataset, workspace.splits, presence)
    result.write(workspace.plan)
    say(folds)
    say(f"Decision: {result.decision.configuration}. The plan was written to {workspace.plan}.")
    return result


def _checked(options: dict[str, Any]) -> PlanOptions:
    from pydantic import ValidationError

    from autocrossdim.system.errors import first_fault

    options = {**options, "patch_size": numbers(options.get("patch_size"), "--patch-size")}
    try:
        return PlanOptions.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0]).replace("_", "-")
        raise UserError(f"--{name}: {first_fault(error).partition(': ')[2]}.") from error


def _fingerprint(project: "Project", processes: int, overwrite: bool) -> "Fingerprint":
    """Return the stored fingerprint if it is of the same files, else a new one."""
    from autocrossdim.preprocessing.fingerprint import changed_cases, extract
    from autocrossdim.system.console import say
    from autocrossdim.system.files import read_json
    from autocrossdim.system.text import counted, listed

    dataset, workspace = project.dataset, project.workspace
    if not overwrite and workspace.fingerprint.exists():
        if {case.name for case in project.fingerprint.cases} != {case.name for case in dataset.training_cases()}:
            raise UserError(f"{dataset.path}: its cases changed since it was planned. Plan again with --overwrite.")
        if read_json(workspace.dataset_json) != dataset.description:
            raise UserError(
                f"{dataset.path / 'dataset.json'}: changed since it was planned. Plan again with --overwrite."
            )
        changed = changed_cases(dataset, project.fingerprint)
        if not changed:
            return project.fingerprint
        say(f"{counted(len(changed), 'case')} changed since the dataset was measured: {listed(changed, 10)}.")
    fingerprint, report = extract(dataset, processes)
    for warning in report.warnings:
        say(f"warning: {warning}")
    return fingerprint


def present(plan: Plan, *, dataset: str, work: Any, **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the data, the decision with its reasons, and the candidates."""
    from autocrossdim.commands.project import Project
    from autocrossdim.report.terminal import plan_text

    yield plan_text(plan, Project.open(dataset, work=work).fingerprint)
