"""`autocrossdim evaluate`: compare two directories of segmentations."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autocrossdim.commands.arguments import ProcessesOption
from autocrossdim.commands.signature import Option, command
from autocrossdim.records.score import ScoreName
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.records.summary import Summary


@command()
def evaluate(
    predictions: Annotated[str | Path, Option("Directory with the segmentations.", Path, metavar="PREDICTIONS")],
    references: Annotated[
        str | Path,
        Option("Directory with the reference segmentations, with the same file names.", Path, metavar="REFERENCES"),
    ],
    *,
    dataset: Annotated[
        str | Path | int | None, Option("Dataset whose dataset.json names the labels.", str | None)
    ] = None,
    output: Annotated[
        str | Path | None,
        Option("Summary file (default: summary.json beside the predictions).", Path | None, ("-o", "--output")),
    ] = None,
    skip_missing: Annotated[bool, Option("Skip cases without a prediction.")] = False,
    score: Annotated[
        ScoreName | None, Option("Also compute the score of a challenge, or the detection of single lesions.")
    ] = None,
    all_slices: Annotated[
        bool, Option("Evaluate every slice of the references, even if dataset.json sets unannotated_slices.")
    ] = False,
    processes: ProcessesOption = None,
) -> "Summary":
    """Compare segmentations with references: Dice, HD95, ASSD and NSD per label and case.

    Args:
        predictions: Directory with the segmentations.
        references: Directory with the reference segmentations, with the same file names.
        dataset: Dataset whose dataset.json names the labels; every value that occurs is a label if None.
        output: Summary file; `summary.json` beside the predictions if None.
        skip_missing: Skip cases without a prediction instead of failing.
        score: Score to compute as well: that of the challenge `chaos`, `brats` or `camus`, or `lesions`, the detection
            of single lesions.
        all_slices: Count every slice of the references, also where dataset.json sets `unannotated_slices`.
        processes: Cases compared at a time.

    Returns:
        The summary.

    Raises:
        UserError: A file has no partner, lies on another grid, or holds undeclared values; the score does not exist or
            needs other labels; the directories seem to be in the reverse order, and `output` is None.
    """
    from autocrossdim.data.dataset import load_dataset
    from autocrossdim.data.find import find_dataset
    from autocrossdim.evaluation.folder import evaluate_folder, labels_in, seem_reversed
    from autocrossdim.evaluation.scores import find
    from autocrossdim.system.files import check_output
    from autocrossdim.system.processes import default_processes

    predictions, references = Path(predictions), Path(references)
    if output is None and seem_reversed(predictions, references):
        raise UserError(
            f"{references} was written by `predict`, but is given as the references. Give the predictions first "
            "(nnU-Net's order is the reverse). If the order is right, name a file for the summary with --output."
        )
    summary = _summary(predictions, output)
    check_output(summary)
    processes = processes or default_processes()
    loaded = None if dataset is None else load_dataset(find_dataset(dataset))
    ending = _ending(references) if loaded is None else loaded.file_ending
    if loaded is None:
        labels = labels_in([references, predictions], file_ending=ending, processes=processes)
    else:
        labels = loaded.labels.model_copy(update={"unannotated_slices": None}) if all_slices else loaded.labels
    return evaluate_folder(
        predictions,
        references,
        labels,
        file_ending=ending,
        processes=processes,
        output=summary,
        groups=None if loaded is None else loaded.groups,
        annotated_labels=None if loaded is None else loaded.annotated_labels,
        skip_missing=skip_missing,
        score=None if score is None else find(score),
    )


def present(summary: "Summary", *, predictions: Path, output: Path | None, **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: means and intervals per label, the score, and where every case is."""
    from autocrossdim.report.terminal import summary_text

    yield summary_text(summary)
    yield f"Results per case: {_summary(predictions, output)}"


def _summary(predictions: Path, output: str | Path | None) -> Path:
    """Return the path of the summary."""
    return predictions / "summary.json" if output is None else Path(output)


def _ending(folder: Path) -> str:
    """Return the one image format in a directory."""
    from autocrossdim.data.images import ENDINGS

    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory.")
    found = {ending for file in folder.iterdir() for ending in ENDINGS if file.name.lower().endswith(ending)}
    # "x.nii.gz" does not end with ".nii", so every file has one ending.
    if len(found) != 1:
        formats = ", ".join(sorted(found)) or "no"
        raise UserError(f"{folder}: contains {formats} images, but all images must have the same format.")
    return found.pop()
