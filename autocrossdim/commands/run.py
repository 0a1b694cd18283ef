"""`autocrossdim run`: everything from a raw dataset to a report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autocrossdim.commands.arguments import (
    DatasetArgument,
    DeviceOption,
    DevicesOption,
    EpochsOption,
    MaxTimeOption,
    ParallelOption,
    ProcessesOption,
    SetOption,
    WorkOption,
    assignments,
    seconds,
    training_settings,
)
from autocrossdim.commands.plan import RENAMED, PlannerOption
from autocrossdim.commands.signature import Option, command
from autocrossdim.records.plan_options import PlanOptions

if TYPE_CHECKING:
    from rich.console import RenderableType


@command(options=PlanOptions, renamed=RENAMED)
def run(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    planner: PlannerOption = None,
    epochs: EpochsOption = None,
    max_time: MaxTimeOption = None,
    weights: Annotated[str | None, Option("Starting weights, as for train.")] = None,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    set: SetOption = None,
    parallel: ParallelOption = None,
    processes: ProcessesOption = None,
    **options: Any,
) -> Path:
    """Verify, plan, preprocess, train every fold, choose the best model and write the report.

    Where patches cover little of a case, `dx_lowres` and `dx_cascade` are trained as well.

    Steps that are complete are skipped, so the same command resumes after an interruption.

    Args:
        dataset: Dataset directory, or its name or number below `$AUTOCROSSDIM_RAW` or `$nnUNet_raw`.
        work: Directory of all results (default: `$AUTOCROSSDIM_WORK`, else `./autocrossdim_work`).
        planner: `auto`, `omnia`, `dx`, `ds`, `unet`, or the name of one from an installed package. None: that of the
            existing plan if there are no options either, else `auto`.
        epochs: Number of epochs.
        max_time: Training time per fold, in seconds or as text such as `30m`.
        weights: Starting weights, as for `train`.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        devices: Number of devices that train one fold together.
        set: Further training settings, by the names of `trainers.settings.Settings`; `unlabelled` does not apply to the
            second stage of a cascade.
        parallel: Folds trained at a time, each in a process of its own; as many as there are GPUs if None.
        processes: Worker processes; each holds one case in memory.
        **options: As for `plan`.

    Returns:
        Path of the report.

    Raises:
        UserError: As `plan`, `train` and `find_best`.
    """
    from autocrossdim.commands.find_best import find_best
    from autocrossdim.commands.plan import plan as plan_command
    from autocrossdim.commands.plan_and_preprocess import explain_and_preprocess
    from autocrossdim.commands.plugins import find_trainer
    from autocrossdim.commands.project import Project
    from autocrossdim.commands.report import report
    from autocrossdim.commands.train import UNLABELLED, train
    from autocrossdim.system.console import say

    settings, time_limit = assignments(set), seconds(max_time)  # reports text that cannot be read, before all else
    say("Step 1: verify, plan and preprocess.")
    plan_command(dataset, work=work, planner=planner, processes=processes, **options)
    project = Project.open(dataset, work=work)
    # Without folds, no case is held out for the second stage of a cascade.
    configs = project.plan.trained_by_run if project.splits else (project.plan.decision.configuration,)
    # What trainers refuse is reported before preprocessing, which can take hours.
    for name in dict.fromkeys(project.plan.configuration(config).trainer for config in configs):
        find_trainer(name).check_settings(training_settings(settings, epochs=epochs, max_time=time_limit))
    explain_and_preprocess(project, processes=processes)
    steps = _announced(
        [*(f"train {config}" for config in configs), *(["find_best"] if project.splits else []), "report"]
    )
    for config in configs:
        say(next(steps))
        # The second stage of a cascade cannot learn from scans that the first one has not segmented.
        is_second = project.plan.configuration(config).previous_stage is not None
        train(
            dataset,
            work=work,
            config=config,
            # Too few cases to hold any back: one model is trained on all of them.
            fold=() if project.splits else "all",
            epochs=epochs,
            max_time=time_limit,
            weights=weights,
            device=device,
            devices=devices,
            set={name: value for name, value in settings.items() if not (is_second and name == UNLABELLED)},
            parallel=parallel,
        )
    if project.splits:
        say(next(steps))
        find_best(dataset, work=work, device=device, processes=processes)
    say(next(steps))
    return report(dataset, work=work)


def _announced(steps: Sequence[str]) -> Iterator[str]:
    """Yield a line for each step but the first, which makes the plan on which the others depend."""
    for number, step in enumerate(steps, 2):
        yield f"Step {number} of {len(steps) + 1}: {step}."


def present(page: Path, *, dataset: str, work: Any, **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the comparison, the results per label, the paths, and the next command."""
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.commands.project import Project
    from autocrossdim.records.best import Best
    from autocrossdim.records.summary import Summary
    from autocrossdim.report.terminal import best_table, summary_text

    project = Project.open(dataset, work=work)
    workspace = project.workspace
    configurations: tuple[str, ...] = (project.plan.decision.configuration,)
    if project.splits:
        best = Best.read(workspace.best)
        configurations = best.configurations
        yield best_table(best)
        yield from (*best.reasons, *best.budgets)
    for name in configurations:
        if workspace.summary(name).exists():
            yield f"\n{name}, on held-out cases:"
            yield summary_text(Summary.read(workspace.summary(name)))
        yield f"Models and results: {workspace.model(name)}"
    yield f"Report: {page}"
    yield next_step("predict", dataset, "-i", "IMAGES", "-o", "SEGMENTED", work=work)
