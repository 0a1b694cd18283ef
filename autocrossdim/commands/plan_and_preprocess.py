"""`autocrossdim plan_and_preprocess`: plan a dataset, and preprocess it for the configuration decided on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from autocrossdim.commands.arguments import DatasetArgument, ProcessesOption, SlurmOption, WorkOption, sbatch_options
from autocrossdim.commands.plan import RENAMED, OverwriteOption, PlannerOption, requested
from autocrossdim.commands.plan import plan as plan_command
from autocrossdim.commands.signature import command
from autocrossdim.records.plan import Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from autocrossdim.commands.project import Project


@overload
def plan_and_preprocess(dataset: str | Path | int, *, slurm: None = None, **options: Any) -> Plan: ...
@overload
def plan_and_preprocess(dataset: str | Path | int, *, slurm: str | Mapping[str, str], **options: Any) -> None: ...
@command(options=PlanOptions, renamed=RENAMED)
def plan_and_preprocess(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    planner: PlannerOption = None,
    processes: ProcessesOption = None,
    overwrite: OverwriteOption = False,
    slurm: SlurmOption = None,
    **options: Any,
) -> Plan | None:
    """Measure a dataset, decide between 2D and 3D, explain why, and preprocess it.

    The dataset is preprocessed for the configuration decided on; any other one when it is first trained.

    Args:
        dataset: Dataset directory, or its name or number below `$AUTOCROSSDIM_RAW` or `$nnUNet_raw`.
        work: Directory of all results (default: `$AUTOCROSSDIM_WORK`, else `./autocrossdim_work`).
        planner: `auto`, `omnia`, `dx`, `ds`, `unet`, or the name of one from an installed package. None: that of the
            existing plan if there are no options either, else `auto`.
        processes: Worker processes; each holds one case in memory. One per core, at most 8, if None.
        overwrite: Measure, split and preprocess again.
        slurm: Options of `sbatch`; one job is submitted, and the call returns.
        **options: As for `plan`.

    Returns:
        The plan; None if a job was submitted.

    Raises:
        UserError: As `plan`, or the job cannot be submitted.
    """
    from autocrossdim.commands.project import Project

    if slurm is not None:
        if overwrite:
            raise UserError(
                "--overwrite cannot be combined with --slurm: a requeued job would start over. Choose a new --work."
            )
        project = Project.open(dataset, work=work, planned=False)
        _submit(project, *requested(project, options, planner), processes, sbatch_options(slurm))
        return None
    plan = plan_command(dataset, work=work, planner=planner, processes=processes, overwrite=overwrite, **options)
    explain_and_preprocess(Project.open(dataset, work=work), processes=processes, overwrite=overwrite)
    return plan


def explain_and_preprocess(project: "Project", *, processes: int | None, overwrite: bool = False) -> None:
    """Give the reasons of a plan, and preprocess for the configuration that it decided on; parameters as above."""
    from autocrossdim.system.console import say
    from autocrossdim.system.files import remove_directory

    plan = project.plan
    for sentence in (*plan.decision.reasons, *plan.notes):
        say(sentence)
    name = plan.decision.configuration
    if overwrite:
        remove_directory(project.workspace.preprocessed(name))
    project.store(name, processes=processes)


def _submit(
    project: "Project", chosen: PlanOptions, planner: str, processes: int | None, slurm: Mapping[str, str]
) -> None:
    """Submit the job, after checking what can be checked without reading the images."""
    from autocrossdim.commands.plugins import find_planner
    from autocrossdim.jobs import command as words
    from autocrossdim.jobs.slurm import Job, submit

    find_planner(planner).check_options(chosen)
    root = project.workspace.root
    job = words(
        "plan_and_preprocess",
        project.dataset.path.resolve(),
        work=root.parent.resolve(),
        planner=planner,
        processes=processes,
        **_as_options(chosen),
    )
    submit({"plan_and_preprocess": Job(job)}, root / "slurm", slurm)


def _as_options(chosen: PlanOptions) -> dict[str, object]:
    """Return the choices that differ from the defaults as the command line takes them."""
    options: dict[str, object] = {}
    for name, value in chosen.model_dump().items():
        if value == PlanOptions.model_fields[name].default:
            continue
        if value is False:
            options[f"no_{name}"] = True
        else:
            options[name] = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return options


def present(plan: Plan | None, *, dataset: str, work: Any, **_: object) -> Iterator[str]:
    """Yield the next command: decision and reasons were shown before preprocessing."""
    from autocrossdim.commands.growth import outgrown_folds, training_words
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.commands.project import Project

    if plan is None:
        return
    project = Project.open(dataset, work=work)
    name, every = plan.decision.configuration, outgrown_folds(project)
    if every and not project.workspace.model(name).exists():  # only another configuration was trained
        name = every[0].configuration
    words = next(iter(training_words([each for each in every if each.configuration == name])), None)
    if words is None:
        words = [] if project.splits else ["--fold", "all"]
    elif name != plan.decision.configuration:
        words = ["--config", name, *words]
    yield next_step("train", dataset, *words, work=work)
