"""`autocrossdim plan_and_preprocess`: plan a dataset, and preprocess it for the configuration decided on."""

from collections.abc import Iterator
from typing import Any

from autocrossdim.commands.arguments import DatasetArgument, ProcessesOption, WorkOption
from autocrossdim.commands.plan import RENAMED, OverwriteOption, PlannerOption
from autocrossdim.commands.plan import plan as plan_command
from autocrossdim.commands.signature import command
from autocrossdim.records.plan import Plan, PlanOptions


@command(options=PlanOptions, renamed=RENAMED)
def plan_and_preprocess(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    planner: PlannerOption = "auto",
    processes: ProcessesOption = None,
    overwrite: OverwriteOption = False,
    **options: Any,
) -> Plan:
    """Measure a dataset, decide between 2D and 3D, explain why, and preprocess it.

    The dataset is preprocessed for the configuration decided on; any other one when it is first trained.

    Args:
        dataset: As for `plan`.
        work: As for `plan`.
        planner: As for `plan`.
        processes: As for `plan`.
        overwrite: Measure, split and preprocess again.
        **options: As for `plan`.

    Returns:
        The plan.

    Raises:
        UserError: As `plan`.
    """
    from autocrossdim.commands.project import Project
    from autocrossdim.system.console import say
    from autocrossdim.system.files import remove_directory

    plan = plan_command(dataset, work=work, planner=planner, processes=processes, overwrite=overwrite, **options)
    for sentence in (*plan.decision.reasons, *plan.notes):
        say(sentence)
    project = Project.open(dataset, work=work)
    name = plan.decision.configuration
    if overwrite:
        remove_directory(project.workspace.preprocessed(name))
    project.store(name, processes=processes)
    return plan


def present(plan: Plan, *, dataset: str, work: Any, **_: object) -> Iterator[str]:
    """Yield the next command: decision and reasons were shown before preprocessing."""
    from autocrossdim.commands.growth import outgrown_folds
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.commands.project import Project

    project = Project.open(dataset, work=work)
    words = [] if project.splits else ["--fold", "all"]
    if outgrown_folds(project, dataset=dataset):
        words += ["--weights", "previous"]
    yield next_step("train", dataset, *words, work=work)
