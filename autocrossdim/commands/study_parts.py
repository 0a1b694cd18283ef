"""The runs of a study shared among processes of this machine, or among jobs on a cluster."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.commands.arguments import WHOLE, part_of

if TYPE_CHECKING:
    from autocrossdim.studies.design import Job


def runs_of(jobs: "Sequence[Job]", part: str) -> "list[Job]":
    """Return the runs of a part `I/N`. Runs of an arm are spread over the parts, because arms take different times.

    Averages of other arms belong to no part: they need runs of several ones.
    """
    trained = [job for job in jobs if not job.arm.members]
    wanted = part_of(sorted(trained, key=lambda job: job.arm.name), part)
    return [job for job in trained if job in wanted]


def unfinished_parts(jobs: "Sequence[Job]", missing: "Collection[Job]", count: int | None = None) -> dict[str, str]:
    """Return the parts that contain missing runs, as `I/N`, with the titles of these runs.

    Args:
        jobs: All runs.
        missing: Those that have no record yet.
        count: Number of parts; as many as runs if None.
    """
    count = count or len(runs_of(jobs, WHOLE))
    runs = {part: runs_of(jobs, part) for part in (f"{k}/{count}" for k in range(count))}
    titles = {part: [job.title for job in each if job in missing] for part, each in runs.items()}
    return {part: "; ".join(each) for part, each in titles.items() if each}


def run_side_by_side(
    name: str, dataset: Path, parts: Mapping[str, str], parallel: int | None, options: Mapping[str, Any]
) -> None:
    """Carry out runs in processes of their own, if that was requested or there are several GPUs.

    Args:
        name: Name of the study.
        dataset: Directory of the dataset.
        parts: Parts of the study with the titles of their runs.
        parallel: Number of processes at a time; as many as there are GPUs if None.
        options: Other options of the command.

    Raises:
        UserError: Runs failed; the others are complete.
        Interrupted: SIGTERM or SIGUSR1 arrived.
    """
    from autocrossdim.jobs.local import run_together, slots, visible_gpus

    gpus = visible_gpus(options["device"]) if len(parts) > 1 else []
    at_a_time = min(parallel or len(gpus) or 1, len(parts))
    if at_a_time > 1:
        commands = {title: _words(name, dataset, part, options) for part, title in parts.items()}
        run_together(commands, slots(at_a_time, gpus))


def submit_parts(
    name: str, dataset: Path, parts: Collection[str], folder: Path, slurm: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    """Submit a SLURM job per part of a study.

    Args:
        name: Name of the study.
        dataset: Directory of the dataset.
        parts: Parts of the study.
        folder: Directory for scripts and logs.
        slurm: Options of `sbatch`.
        options: Other options of the command.

    Raises:
        UserError: The jobs cannot be submitted.
    """
    from autocrossdim.jobs.slurm import Job, submit

    titles = {part: f"study {name} {part.replace('/', ' of ')}" for part in parts}
    submit({titles[part]: Job(_words(name, dataset, part, options)) for part in parts}, folder, slurm)


def _words(name: str, dataset: Path, part: str, options: Mapping[str, Any]) -> list[str]:
    """Return the command that carries out a part of a study."""
    from autocrossdim.jobs import command as words

    # Not resolved: what a link points to may have another name.
    return words("study", name, dataset.absolute(), part=part, **options)
