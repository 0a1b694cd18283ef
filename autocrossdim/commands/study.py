"""`autocrossdim study`: compare alternatives with training runs on the user's own cases."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from autocrossdim.commands.arguments import (
    WHOLE,
    DatasetArgument,
    DeviceOption,
    JobsOption,
    ParallelOption,
    ProcessesOption,
    SetOption,
    SlurmOption,
    WorkOption,
    check_parallel,
    part_of,
    sbatch_options,
    several,
    training_settings,
)
from autocrossdim.commands.signature import Option, command
from autocrossdim.records.plan import EPOCHS
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.data.dataset import Dataset
    from autocrossdim.records.plan import Configuration, Plan
    from autocrossdim.records.study import StudyResults
    from autocrossdim.studies.design import Job, Study

StudyName = Literal["weights", "inflation", "2d3d", "anisotropy", "cases", "convergence"]


@command(options=PlanOptions, without=("trial",))
def study(
    name: Annotated[StudyName, Option("Study to run.", metavar="NAME")],
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    cases: Annotated[
        int | Sequence[int],
        Option("Number of training cases; repeat for several (default: depends on the study).", list[int]),
    ] = (),
    seeds: Annotated[int, Option("Number of seeds; each draws its own training cases.", min=1, max=1000)] = 3,
    test_cases: Annotated[
        int | None, Option("Minimum number of held-out cases (default: a quarter of the cases).", min=1)
    ] = None,
    arm: Annotated[
        str | Sequence[str], Option("Arm to run, as the table names it; repeat for several (default: all).", list[str])
    ] = (),
    config: Annotated[
        str | None, Option("Configuration to train, if the study does not set it (default: the plan's decision).")
    ] = None,
    weights: Annotated[
        str | Sequence[str],
        Option(
            "Pretrained weights: imagenet, noisy_student, a full timm name or a file; the study of weights compares "
            "several (default: imagenet; in that study also noisy_student, if the encoder has them).",
            list[str],
        ),
    ] = (),
    epochs: Annotated[int | None, Option("Maximum number of epochs per run (default: 100).", min=1)] = None,
    max_time: Annotated[
        str | float | None, Option("Training time per run, such as 90s, 30m or 2h.", str | None)
    ] = None,
    device: DeviceOption = "auto",
    set: SetOption = None,
    parallel: ParallelOption = None,
    part: Annotated[
        str, Option("Part of the runs: 0/4 to 3/4 divide a study among 4 machines.", metavar="I/N")
    ] = WHOLE,
    slurm: SlurmOption = None,
    jobs: JobsOption = None,
    processes: ProcessesOption = None,
    overwrite: Annotated[bool, Option("Discard existing runs that were made with other options.")] = False,
    **options: Any,
) -> "StudyResults | None":
    """Compare starting weights, inflation rules, 2D and 3D networks, or numbers of cases on your own data.

    All arms of a study are trained on the same cases with the same seeds, and tested on the same held-out cases, on
    which no run is trained. Each finished run is recorded; repeat the command to resume. Results are written to
    studies/NAME in the work directory: results.json, table.md and figure.png.

    Args:
        name: Name of the study.
        dataset: Dataset directory, name or number.
        work: Directory of all results.
        cases: Numbers of training cases.
        seeds: Number of seeds; each draws its own training cases.
        test_cases: Number of held-out cases; groups are held out completely, so it may be exceeded.
        arm: Names of the arms to run; all if empty.
        config: Configuration to train, if the study does not set it.
        weights: Pretrained weights.
        epochs: Number of epochs per run.
        max_time: Training time per run, in seconds or as text such as `30m`.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        set: Further training settings, by the names of `trainers.settings.Settings`.
        parallel: Number of runs at a time, each in a process of its own; as many as there are GPUs if None.
        part: `I/N`: only every Nth run from the Ith on, so that N machines can share a study. When all parts are
            finished, a call without it writes the results.
        slurm: Options of `sbatch`; jobs that share the runs are submitted, and the call returns.
        jobs: Number of jobs; one per run if None.
        processes: Worker processes.
        overwrite: Discard existing runs that were made with other options.
        **options: Choices that replace the planner's in all arms, by the fields of `PlanOptions`.

    Returns:
        The results, which are also written to results.json; None if jobs were submitted, or for a part of the runs.

    Raises:
        UserError: The dataset does not fit the study, there are too few cases, existing runs were made with other
            options, a run fails, or the jobs cannot be submitted.
    """
    from autocrossdim.commands.plan import plan as plan_command
    from autocrossdim.commands.project import Project
    from autocrossdim.commands.study_parts import run_side_by_side, runs_of, submit_parts, unfinished_parts
    from autocrossdim.commands.study_run import Performer, held_out_folder
    from autocrossdim.studies.catalogue import STUDIES, choose_arms, default_weights
    from autocrossdim.studies.datasets import case_digests, write_test_cases
    from autocrossdim.studies.design import Request
    from autocrossdim.studies.engine import missing_jobs, plan_jobs, read_runs, run_jobs, summarise
    from autocrossdim.studies.reslice import reslice_dataset
    from autocrossdim.system.console import is_relayed, say
    from autocrossdim.system.lock import LOCK, locked

    if name not in STUDIES:
        raise UserError(f"There is no study '{name}'. Studies: {', '.join(STUDIES)}.")
    sbatch = _sbatch(slurm, jobs=jobs, parallel=parallel, part=part)
    chosen = STUDIES[name]
    project = Project.open(dataset, work=work, planned=False)
    loaded, folder = project.dataset, project.workspace.study(name)
    options = {key: value for key, value in options.items() if value != PlanOptions.model_fields[key].default}
    settings = {"epochs": EPOCHS, **training_settings(set, epochs=epochs, max_time=max_time)}
    _check_settings(settings, options.get("trainer", PlanOptions.model_fields["trainer"].default))
    # Planning all cases also finds the faults of the dataset before the first run.
    # Parts of a study on several machines start at the same time, and share its plan and its datasets.
    with locked(folder / LOCK, folder, wait=True):
        planned = plan_command(
            loaded.path, work=folder / "plan", processes=processes, overwrite=overwrite, trial=False, **options
        )
    configuration = planned.configuration(config)
    _check(chosen, planned, configuration)
    defaults = default_weights(configuration.encoder)
    request = Request(
        config=configuration.name,
        weights=several(weights) or (defaults if chosen.several_weights else defaults[:1]),
    )
    given = [*options, *([] if config is None else ["config"])]
    wanted = choose_arms(chosen, request, options=given, settings=settings, wanted=several(arm))
    names = [each.name for each in wanted]
    arms = chosen.arms(request)
    digests = case_digests(loaded)
    all_jobs = plan_jobs(
        chosen,
        arms,
        loaded,
        sizes=[int(size) for size in several(cases)],
        seeds=seeds,
        test_cases=test_cases,
        plan=options,
        settings=settings,
        digests=digests,
    )
    chosen_jobs = [job for job in all_jobs if job.arm.name in names]
    _require_weights(runs_of(chosen_jobs, part), folder, configuration.encoder)
    if not is_relayed():
        say(_announcement(chosen, chosen_jobs, loaded, folder))
    with locked(folder / LOCK, folder, wait=True):
        datasets = {
            number: reslice_dataset(loaded, folder / f"slicing_{number}", number, digests) for number in chosen.slicings
        }
        test = chosen_jobs[0].test
        for number, source in datasets.items():
            write_test_cases(source, held_out_folder(folder, number, test), test)
    perform = Performer(datasets, folder, device, processes)
    if part != WHOLE:
        run_jobs(runs_of(chosen_jobs, part), folder, perform, overwrite=overwrite)
        return None
    parts = unfinished_parts(chosen_jobs, missing_jobs(chosen_jobs, folder, overwrite=overwrite), jobs)
    again = {
        "work": project.workspace.root.parent.absolute(),
        "cases": several(cases),
        "seeds": seeds,
        "test_cases": test_cases,
        "arm": several(arm),
        "config": config,
        "weights": several(weights),
        "device": device,
        "set": settings,
        "processes": processes,
        **{key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in options.items()},
    }
    if sbatch is not None:
        submit_parts(name, loaded.path, parts, folder / "slurm", sbatch, again)
        return None
    run_side_by_side(name, loaded.path, parts, parallel, again)
    run_jobs(chosen_jobs, folder, perform)
    # Finished runs of the other arms count too.
    results = summarise(chosen, arms, loaded.name, read_runs(all_jobs, folder), folder)
    say(f"The table, the figure and all numbers were written to {folder}.")
    return results


def _sbatch(
    slurm: str | Mapping[str, str] | None, *, jobs: int | None, parallel: int | None, part: str
) -> dict[str, str] | None:
    """Return the options of `sbatch`, if jobs are to be submitted, and refuse what cannot be combined."""
    part_of((), part)
    if part != WHOLE and (slurm is not None or parallel is not None):
        raise UserError("--part cannot be combined with --slurm or --parallel, which divide the runs themselves.")
    if slurm is None:
        if jobs is not None:
            raise UserError(
                "--jobs is the number of SLURM jobs. Add --slurm, or use --parallel for several runs on this machine."
            )
        return None
    check_parallel(parallel, slurm)
    return sbatch_options(slurm)


def _check_settings(settings: Mapping[str, Any], trainer: str) -> None:
    """Refuse settings that would otherwise fail only after planning, which reads all images, or in the first run."""
    from autocrossdim.commands.plugins import find_trainer

    if settings.get("unlabelled"):
        raise UserError("--set unlabelled: a study trains on annotated cases only. Omit it.")
    find_trainer(trainer).check_settings(settings)


def _check(study: "Study", plan: "Plan", configuration: "Configuration") -> None:
    """Refuse options that would otherwise fail only in the first run."""
    if study.volumes and plan.dims == 2:
        raise UserError(f"The study '{study.name}' compares 3D networks, but {plan.dataset} contains 2D images.")
    if configuration.previous_stage is not None:
        raise UserError(
            f"--config {configuration.name}: it needs the segmentations of {configuration.previous_stage}, which a "
            "study does not train. Choose another configuration."
        )


def _require_weights(jobs: "Sequence[Job]", folder: Path, encoder: str) -> None:
    """Fail before the first run, not after hours, if the encoder weights of another one are unavailable.

    Raises:
        UserError: Weights of a run that is still to be made cannot be fetched or read, or do not fit the encoder.
    """
    from autocrossdim.models.source import is_model
    from autocrossdim.networks.weights import resolve_weights
    from autocrossdim.studies.engine import is_finished

    unfinished = [job.arm for job in jobs if not is_finished(job, folder)]
    for weights in dict.fromkeys(each for arm in unfinished for each in (arm.first, arm.weights)):
        if weights is not None and not is_model(weights):
            resolve_weights(weights, encoder)


def _announcement(study: "Study", jobs: "Sequence[Job]", dataset: "Dataset", folder: Path) -> str:
    from autocrossdim.system.text import counted

    trained = [job for job in jobs if not job.arm.members]
    settings = jobs[0].settings
    limits = [counted(settings["epochs"], "epoch")]
    limits += [f"at most {settings['max_seconds']:.0f} s of training"] if "max_seconds" in settings else []
    sizes = ", ".join(str(size) for size in dict.fromkeys(len(job.training) for job in jobs))
    cases = "training case" if sizes == "1" else "training cases"
    arms = counted(len({job.arm.name for job in trained}), "arm")
    seeds = len({job.seed for job in jobs})
    return (
        f"{study.question} {counted(len(trained), 'run')} of {' and '.join(limits)} each: "
        f"{arms}, {sizes} {cases}, {counted(seeds, 'seed')}; "
        f"tested on {counted(len(jobs[0].test), 'other case')} of {dataset.name}. Results will be written to {folder}."
    )


def present(results: "StudyResults | None", **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the table and the conclusion."""
    from autocrossdim.report.terminal import study_table
    from autocrossdim.system.console import is_relayed

    if results is None:
        if not is_relayed():
            yield "When all runs are finished, run this command without --slurm and --part to write the results."
        return
    yield study_table(results.table)
    yield from results.notes
    yield results.conclusion
