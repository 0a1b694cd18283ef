"""`autocrossdim run`: everything from a raw dataset to a report."""

from pathlib import Path
from typing import Annotated, Any

from autocrossdim.commands.arguments import DatasetArgument, DeviceOption, ProcessesOption, WorkOption
from autocrossdim.commands.plan import RENAMED, PlannerOption
from autocrossdim.commands.signature import Option, command
from autocrossdim.records.plan import PlanOptions


@command(options=PlanOptions, renamed=RENAMED)
def run(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    planner: PlannerOption = "auto",
    max_time: Annotated[
        str | float | None, Option("Training time per fold, such as 90s, 30m or 2h.", str | None)
    ] = None,
    weights: Annotated[str, Option("Starting weights, as for train.")] = "imagenet",
    device: DeviceOption = "auto",
    processes: ProcessesOption = None,
    **options: Any,
) -> Path:
    """Verify, plan, preprocess, train every fold, choose the best model and write the report.

    Where patches cover little of a case, `dx_lowres` and `dx_cascade` are trained as well.

    Steps that are complete are skipped, so the same command resumes after an interruption.

    Args:
        dataset: Dataset directory, name or number.
        work: Directory of all results.
        planner: Name of an installed planner.
        max_time: Training time per fold, in seconds or as text such as `30m`.
        weights: Starting weights, as for `train`.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        processes: Worker processes; each holds one case in memory.
        **options: As for `plan`.

    Returns:
        Path of the report.

    Raises:
        UserError: As `plan`, `train` and `find_best`.
    """
    from autocrossdim.commands.find_best import find_best
    from autocrossdim.commands.plan_and_preprocess import plan_and_preprocess
    from autocrossdim.commands.project import Project
    from autocrossdim.commands.report import report
    from autocrossdim.commands.train import train

    plan_and_preprocess(dataset, work=work, planner=planner, processes=processes, **options)
    project = Project.open(dataset, work=work)
    # Without folds, no case is held out for the second stage of a cascade.
    for config in project.plan.trained_by_run if project.splits else (project.plan.decision.configuration,):
        train(
            dataset,
            work=work,
            config=config,
            # Too few cases to hold any back: one model is trained on all of them.
            fold=() if project.splits else "all",
            max_time=max_time,
            weights=weights,
            device=device,
        )
    if project.splits:
        find_best(dataset, work=work, device=device, processes=processes)
    return report(dataset, work=work)
