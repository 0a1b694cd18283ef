"""Carries out the missing runs of a study, with one record per run, and summarises all runs."""

import itertools
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from autocrossdim.data.dataset import Dataset
from autocrossdim.records.study import StudyResults, StudyRun
from autocrossdim.studies.cases import hold_out, training_order
from autocrossdim.studies.datasets import described_by
from autocrossdim.studies.design import Arm, Job, Study
from autocrossdim.system.console import say, warn
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, remove_directory, write_json
from autocrossdim.system.lock import LOCK, locked
from autocrossdim.system.text import counted, listed

Perform = Callable[[Job, Path], StudyRun]
"""Carries out one run in a directory of its own; called again after an interruption, it resumes."""

OPTIONS, RECORD = "options.json", "record.json"
RAW, WORK = "raw", "work"  # directories of a run that are deleted when it has a record


def plan_jobs(
    study: Study,
    arms: Sequence[Arm],
    dataset: Dataset,
    *,
    sizes: Sequence[int],
    seeds: int,
    test_cases: int | None,
    plan: Mapping[str, Any],
    settings: Mapping[str, Any],
    digests: Mapping[str, str],
) -> list[Job]:
    """Return the runs of a study: all arms on the same training cases before the next seed, small sizes first.

    Args:
        study: The study.
        arms: Its arms; an ensemble comes after its members.
        dataset: The dataset, whose training cases are divided into training and held-out cases.
        sizes: Numbers of training cases; the study's own if empty.
        seeds: Number of seeds.
        test_cases: Number of held-out cases; a quarter if None.
        plan: Options of the plan for all arms.
        settings: Training settings for all arms.
        digests: Digest of the files of each case.

    Raises:
        UserError: There are too few cases.
    """
    names = [case.name for case in dataset.training_cases()]
    available, test = hold_out(names, dataset.groups, test_cases)
    sizes = sorted(set(sizes)) or study.sizes(len(available))
    if sizes[-1] > len(available):
        raise UserError(
            f"--cases {sizes[-1]}: {dataset.name} has {counted(len(names), 'annotated case')}, of which {len(test)} "
            f"are held out for testing, so at most {len(available)} can be trained on."
        )
    orders = {seed: training_order(available, dataset.groups, seed) for seed in range(seeds)}
    drawn = {(size, seed): sorted(order[:size]) for size in sizes for seed, order in orders.items()}
    return [
        Job(
            arm=arm,
            training=tuple(drawn[size, seed]),
            test=tuple(test),
            seed=seed,
            slicing=slicing,
            plan={**plan, **arm.plan},
            settings={**settings, **arm.settings, "seed": seed},
            contents=tuple(digests[name] for name in (*drawn[size, seed], *test)),
            described=described_by(dataset, (*drawn[size, seed], *test)),
            curves=study.curves,
        )
        for size, slicing, seed, arm in itertools.product(sizes, study.slicings, range(seeds), arms)
    ]


def run_folder(folder: Path, arm: str, job: Job) -> Path:
    """Return the directory of a run of a study, by the name of its arm."""
    slicing = f"_slicing_{job.slicing}" if job.slicing > 1 else ""
    # The digest tells names apart that have the same ASCII letters, such as those of two files with Chinese names.
    slug = re.sub(r"[^A-Za-z0-9]+", "_", arm).strip("_") + f"_{sha256(arm.encode()).hexdigest()[:8]}"
    return folder / "runs" / slug / f"{len(job.training)}_cases{slicing}_seed_{job.seed}"


def missing_jobs(jobs: Sequence[Job], folder: Path, *, overwrite: bool = False) -> list[Job]:
    """Return the runs that have no record yet.

    Args:
        jobs: The runs.
        folder: Directory of the study.
        overwrite: Discard runs that were made with other options.

    Raises:
        UserError: Runs were made with other options.
    """
    _check_options(jobs, folder, discard=overwrite)
    return [job for job in jobs if not is_finished(job, folder)]


def is_finished(job: Job, folder: Path) -> bool:
    """Whether a run has a record, made with the same options."""
    place = run_folder(folder, job.arm.name, job)
    return (place / RECORD).exists() and not _differences(job, place / OPTIONS)


def run_jobs(jobs: Sequence[Job], folder: Path, perform: Perform, *, overwrite: bool = False) -> None:
    """Carry out the runs that have no record yet. Waits for runs that another process has started.

    Args:
        jobs: The runs.
        folder: Directory of the study.
        perform: Carries out one run.
        overwrite: Discard runs that were made with other options.

    Raises:
        UserError: Runs were made with other options, or one fails.
    """
    missing = missing_jobs(jobs, folder, overwrite=overwrite)
    if len(missing) < len(jobs):
        say(f"{len(jobs) - len(missing)} of {counted(len(jobs), 'run')} exist already in {folder / 'runs'}.")
    numbers = itertools.count(1)
    for job in jobs:
        place = run_folder(folder, job.arm.name, job)
        with locked(_lock(place), place, wait=True):
            if missing_jobs([job], folder):  # and not carried out by another process in the meantime
                say(f"Run {next(numbers)} of {len(missing)}: {job.title}.")
                write_json(place / OPTIONS, job.options)
                perform(job, place).write(place / RECORD)
            _clear(place)  # also if the command was stopped while it did this


def read_runs(jobs: Collection[Job], folder: Path) -> list[StudyRun]:
    """Return the records of the runs that are finished; those of runs with other options are left out."""
    finished = (job for job in jobs if is_finished(job, folder))
    return [StudyRun.read(run_folder(folder, job.arm.name, job) / RECORD) for job in finished]


def summarise(study: Study, arms: Sequence[Arm], dataset: str, runs: Sequence[StudyRun], folder: Path) -> StudyResults:
    """Write results.json, table.md and figure.png, and return the results."""
    found = study.summarise([arm.name for arm in arms], runs)
    results = StudyResults(
        study=study.name,
        dataset=dataset,
        question=study.question,
        conclusion=found.conclusion,
        notes=(*_scope_notes(runs), *found.notes),
        table=found.table,
        comparisons=found.comparisons,
        numbers=dict(found.numbers),
        runs=tuple(runs),
    )
    found.draw(folder / "figure.png")
    results.write(folder)
    return results


def _scope_notes(runs: Sequence[StudyRun]) -> list[str]:
    """Return a sentence on what the metrics were computed on, unless all slices of the held-out cases count."""
    scopes = dict.fromkeys(run.scope for run in runs if run.scope is not None)
    return [f"The held-out cases were evaluated on {scope}." for scope in scopes]


def _lock(place: Path) -> Path:
    """Return the lock file of a run's directory, beside it, so that it stays when the directory is removed."""
    return place.with_name(f".{place.name}{LOCK}")


def _clear(place: Path) -> None:
    """Delete what a run no longer needs once it has a record."""
    for part in (RAW, WORK):
        remove_directory(place / part)


def _check_options(jobs: Sequence[Job], folder: Path, *, discard: bool) -> None:
    """Refuse, or discard, existing runs that have the names of these but other options."""
    places = {run_folder(folder, job.arm.name, job): job for job in jobs}
    other = {place: changed for place, job in places.items() if (changed := _differences(job, place / OPTIONS))}
    if not other:
        return
    names = list(dict.fromkeys(name for changed in other.values() for name in changed))
    if not discard:
        raise UserError(
            f"{folder}: {counted(len(other), 'run')} of this study {'was' if len(other) == 1 else 'were'} made with "
            f"other options (different: {listed(names)}), and cannot be mixed with new runs. Repeat the previous "
            "options, choose another --work, or discard these runs with --overwrite."
        )
    warn(f"Discarding {counted(len(other), 'run')} with other options (different: {listed(names)}).")
    for place in other:
        with locked(_lock(place), place):
            if _differences(places[place], place / OPTIONS):  # still: another process may have done the same
                remove_directory(place)


def _differences(job: Job, options: Path) -> list[str]:
    """Return the names of the options in which an existing run differs from a requested one; none without a run."""
    if not options.exists():
        return []
    before, now = read_json(options), json.loads(json.dumps(job.options))
    return [name for name in now if before.get(name) != now[name]]
