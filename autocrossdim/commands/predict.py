"""`autocrossdim predict`: segment images with an ensemble of folds and configurations."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

from autocrossdim.commands.arguments import (
    WHOLE,
    AveragedOption,
    DeviceOption,
    Fold,
    FormatOption,
    JobsOption,
    ModelArgument,
    OutputOption,
    SlurmOption,
    WorkOption,
    part_of,
    sbatch_options,
    several,
)
from autocrossdim.commands.signature import Option, command
from autocrossdim.data.writing.formats import DEFAULT, find
from autocrossdim.system.errors import UserError


@command(renamed={"folds": "fold", "configurations": "config", "keep_probabilities": "probabilities"})
def predict(
    model: ModelArgument,
    input: Annotated[
        str | Path,
        Option("Directory with images, a single image, or the directory of a DICOM series.", Path, ("-i", "--input")),
    ],
    output: OutputOption,
    *,
    work: WorkOption = None,
    fold: Annotated[
        Fold | Sequence[Fold],
        Option("Fold to average; repeat for several (default: all trained folds).", list[str]),
    ] = (),
    config: AveragedOption = (),
    format: FormatOption = DEFAULT,
    probabilities: Annotated[bool, Option("Also write CASE.npz with the probabilities.")] = False,
    mirroring: Annotated[bool, Option("Average over mirrored images (test-time augmentation).")] = True,
    image_statistics: Annotated[
        float | None,
        Option(
            "Share of the image's own mean and variance in batch normalisation, such as 0.2 for images with another "
            "contrast than the training images (default: as planned).",
            metavar="SHARE",
            min=0,
            max=1,
        ),
    ] = None,
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, Option("Also segment cases that already have a result.")] = False,
    uncertainty: Annotated[
        bool, Option("Also write entropy and disagreement maps, and a list of the cases to review first.")
    ] = False,
    postprocessing: Annotated[bool, Option("Apply the post-processing that find_best chose.")] = True,
    part: Annotated[
        str,
        Option("Part of the cases: 0/4 to 3/4 divide a directory among 4 machines.", metavar="I/N"),
    ] = WHOLE,
    slurm: SlurmOption = None,
    jobs: JobsOption = None,
) -> list[Path]:
    """Segment images with the ensemble of all trained folds.

    Args:
        model: Dataset trained in `work`, model directory (`.../models/omnia`), exported file, or
            `hf://OWNER/NAME[@REVISION]` on the Hugging Face Hub.
        input: Directory of `CASE_0000.ext` files, one such file, or the directory of a DICOM series.
        output: Directory for the segmentations, each on the grid of its image.
        work: Directory of all results.
        fold: Folds to average; all trained folds if empty.
        config: Configurations to average; those that `best.json` or the plan names if empty.
        format: Format of the segmentations: `image`, `dicom-seg`, `rtstruct`, `seg.nrrd` or `bids`.
        probabilities: Also write `CASE.npz` with the probabilities (K, Z, Y, X), float16, for `ensemble`. Only with
            the format `image`.
        mirroring: Average over mirrored versions of the image.
        image_statistics: Share of each image's own mean and variance in batch normalisation, from 0 to 1, in place of
            those of the training images; the plan's if None. Helps if the contrast differs from theirs.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        overwrite: Segment cases again that have a result.
        uncertainty: Also write entropy and disagreement maps to `uncertainty/`, and `uncertainty.csv` with the
            expected Dice of every case, the least certain cases first.
        postprocessing: Apply the post-processing of `best.json` if it was chosen for the same configurations.
        part: `I/N`: only every Nth case from the Ith on, so that N machines can share a directory.
        slurm: Options of `sbatch`; jobs are submitted, and the call returns.
        jobs: Number of jobs; each segments one part.

    Returns:
        Paths of the segmentations; empty if jobs were submitted.

    Raises:
        UserError: No fold is trained, the input does not exist or does not fit the model or the format, or the jobs
            cannot be submitted.
    """
    input, output = Path(input), Path(output)
    folds, configurations = several(fold), several(config)
    writer = find(format)
    if probabilities and format != DEFAULT:
        raise UserError(
            f"--probabilities cannot be combined with --format {format}: `ensemble` takes the grid of the images from "
            f"segmentations of the format {DEFAULT}. Omit one of the two."
        )
    if slurm is None and jobs is not None:
        raise UserError("--jobs is the number of SLURM jobs. Add --slurm, or omit --jobs.")
    if slurm is not None:
        if part != WHOLE:
            raise UserError("--part cannot be combined with --slurm: use --jobs to set the number of parts.")
        if overwrite:
            raise UserError(
                "--overwrite cannot be combined with --slurm: a requeued job would start over. Choose a new -o."
            )
        sbatch = sbatch_options(slurm)
        options = {
            "fold": list(folds),
            "config": list(configurations),
            "format": format,
            "probabilities": probabilities,
            "no_mirroring": not mirroring,
            "image_statistics": image_statistics,
            "device": device,
            "uncertainty": uncertainty,
            "no_postprocessing": not postprocessing,
        }
        from autocrossdim.models.hub import fetch, is_on_hub

        if is_on_hub(model):
            model = fetch(str(model)).name  # all jobs use the same revision
    part_of((), part)  # fails if it is wrong
    with _claimed(input, output, part, is_submission=slurm is not None):
        from autocrossdim.inference.folder import require_suitable, segment_folder
        from autocrossdim.inference.inputs import find_inputs
        from autocrossdim.inference.predictor import Predictor
        from autocrossdim.system.console import advise

        predictor = Predictor.load(
            model,
            work=None if work is None else Path(work),
            fold=folds,
            config=configurations,
            device=device if slurm is None else "cpu",  # here, the model is only checked
            mirroring=mirroring,
            image_statistics=image_statistics,
            postprocessing=postprocessing,
        )
        plan = predictor.plan
        channels, incomplete = len(plan.channel_names), predictor.accepts_incomplete
        found = find_inputs(input, channels, plan.file_ending, incomplete=incomplete)
        writer.check(found)
        if slurm is None:
            for note in predictor.notes:
                advise(note)
            return segment_folder(
                predictor,
                part_of(sorted(found, key=lambda case: case.name), part),
                output,
                format=format,
                probabilities=probabilities,
                uncertainty=uncertainty,
                overwrite=overwrite,
            )
        require_suitable(predictor, found, output, format=format, calibration=probabilities or uncertainty)
    # Not before the lock is released, which a single job needs itself.
    _submit(model, input, output, work=work, options=options, jobs=jobs or 1, slurm=sbatch)
    return []


def present(
    segmentations: Sequence[Path],
    *,
    model: str | Path,
    output: Path,
    format: str,
    part: str,
    slurm: str | None,
    **_: object,
) -> Iterator[str]:
    """Yield what the command line prints: how many segmentations there are, where, and the next command.

    Jobs have no segmentations yet, and `evaluate` reads only those of the default format, and of all parts.
    """
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.system.text import counted

    if slurm is None:
        yield f"{output}: {counted(len(segmentations), 'segmentation')}."
        if format == DEFAULT and part == WHOLE:
            yield next_step("evaluate", output, "REFERENCES", "--dataset", _dataset(model))


def _dataset(model: str | Path) -> str:
    """Return the dataset that was given as the model, or the placeholder DATASET if another model was."""
    from autocrossdim.data.find import find_dataset

    try:
        is_raw = (find_dataset(model) / "dataset.json").is_file()
    except UserError:
        is_raw = False
    return str(model) if is_raw else "DATASET"


@contextmanager
def _claimed(input: Path, output: Path, part: str, *, is_submission: bool) -> Iterator[None]:
    """Create the output directory and lock it, or this part of it; a new directory that stays empty is removed.

    Several parts are segmented side by side, and jobs may be submitted meanwhile, but not beside a process that
    segments everything.

    Raises:
        UserError: The input does not exist, the output cannot be written to, or another process writes to it.
    """
    from autocrossdim.inference.inputs import check_paths
    from autocrossdim.system.lock import LOCK, locked

    created = not os.path.lexists(output)  # false, rather than an error, for an impossible path
    check_paths(input, output)
    own = nullcontext() if part == WHOLE else locked(output / f".part-{part.replace('/', '-of-')}{LOCK}", output)
    try:
        with locked(output / LOCK, output, shared=is_submission or part != WHOLE), own:
            yield
    except UserError:
        if created:
            with suppress(OSError):  # something was written to it
                output.rmdir()
        raise


def _submit(
    model: str | Path | int,
    input: Path,
    output: Path,
    *,
    work: str | Path | None,
    options: Mapping[str, object],
    jobs: int,
    slurm: Mapping[str, str],
) -> None:
    from autocrossdim.jobs import command as words
    from autocrossdim.jobs.slurm import Job, submit
    from autocrossdim.records.workspace import default_work

    commands = {
        f"predict {k} of {jobs}": words(
            "predict",
            Path(model).resolve() if not isinstance(model, int) and Path(model).exists() else model,
            input=input.resolve(),
            output=output.resolve(),
            work=Path(work or default_work()).resolve(),
            part=f"{k}/{jobs}",
            **options,
        )
        for k in range(jobs)
    }
    submit({name: Job(command) for name, command in commands.items()}, output / "slurm", slurm)
