"""Segmentation files compared with reference files, one by one or folder by folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocrossdim.data.annotated_slices import labelled_slices, mark_unannotated
from autocrossdim.data.geometry import Geometry, same_place
from autocrossdim.data.images import read_label
from autocrossdim.data.pictures import is_picture
from autocrossdim.evaluation.metrics import LabelArray, axes_with_extent, case_metrics
from autocrossdim.evaluation.registry import Case, ChallengeScore
from autocrossdim.evaluation.summary import summarise
from autocrossdim.records import origin
from autocrossdim.records.labels import Labels
from autocrossdim.records.score import Score
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.system.console import warn
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import listed


@dataclass(frozen=True)
class Pair:
    """A prediction and its reference.

    Attributes:
        prediction: Path of the predicted segmentation.
        reference: Path of the reference segmentation.
        group: Group (patient) of the case, if it shares one with other cases.
        annotated_labels: Names of the labels that the reference annotates; None if it annotates all.
    """

    prediction: Path
    reference: Path
    group: str | None = None
    annotated_labels: tuple[str, ...] | None = None


def evaluate_case(pair: Pair, labels: Labels) -> CaseResult:
    """Compare two segmentation files.

    Raises:
        UserError: A file cannot be read, the two grids differ, or a file contains a value that `labels` does not
            declare.
    """
    predicted, expected, geometry = _read(pair, labels)
    return CaseResult(
        reference_file=str(pair.reference),
        prediction_file=str(pair.prediction),
        group=pair.group,
        unit="mm" if _is_in_mm(pair, geometry) else "pixels",
        annotated_slices=_annotated_slices(expected, geometry) if labels.unannotated_slices else None,
        metrics=case_metrics(
            predicted,
            mark_unannotated(expected, geometry, labels),
            labels,
            spacing=geometry.spacing,
            annotated=pair.annotated_labels,
        ),
    )


def _annotated_slices(reference: NDArray[np.integer[Any]], geometry: Geometry) -> tuple[int, int]:
    labelled = labelled_slices(reference, geometry)
    return int(labelled.sum()), len(labelled)


def evaluate_cases(pairs: Sequence[Pair], labels: Labels, *, processes: int) -> list[CaseResult]:
    """Compare many pairs of files, `processes` at a time.

    Raises:
        UserError: As for `evaluate_case`.
    """
    return map_cases(partial(evaluate_case, labels=labels), pairs, processes, "Evaluating")


def score_case(pair: Pair, labels: Labels, *, score: ChallengeScore, file_ending: str) -> tuple[str, Any]:
    """Return the name of a case and what a score keeps of it.

    Raises:
        UserError: As for `evaluate_case`, or the score is not defined for such a case.
    """
    predicted, expected, geometry = _read(pair, labels)
    if score.needs_mm and not _is_in_mm(pair, geometry):
        raise UserError(
            f"{pair.reference}: has no voxel spacing, but --score {score.name} is defined in mm. Use NIfTI files."
        )
    if labels.ignore is not None and (expected == labels.ignore).any():
        raise UserError(
            f"{pair.reference}: some voxels have the label 'ignore', which would cut structures apart and add to their "
            f"surfaces, so --score {score.name} is not defined. Evaluate without --score, or in a directory of "
            "completely annotated cases."
        )
    axes = axes_with_extent(expected.shape)
    shape = [expected.shape[axis] for axis in axes]
    name = pair.reference.name.removesuffix(file_ending)
    case = Case(
        name,
        predicted.reshape(shape),
        mark_unannotated(expected, geometry, labels).reshape(shape),
        tuple(geometry.spacing[axis] for axis in axes),
        score.structures(labels),
        labels.unannotated,
    )
    return name, score.measure(case)


def score_cases(
    pairs: Sequence[Pair], labels: Labels, score: ChallengeScore, *, file_ending: str, processes: int
) -> Score:
    """Compute a score over many pairs of files, read one by one by each of `processes` workers.

    Raises:
        UserError: The score needs other labels, a label or a slice was not annotated in some
            reference, or as for `score_case`.
    """
    score.structures(labels)  # refused before anything is read
    if score.counts_lesions and labels.unannotated_slices is not None:
        raise UserError(
            f"--score {score.name}: slices without labels are left out (unannotated_slices in dataset.json), which "
            "would cut one lesion into several. If every slice of the references was annotated, add --all-slices; "
            "otherwise, evaluate without --score."
        )
    partial_references = [str(pair.reference) for pair in pairs if pair.annotated_labels is not None]
    if partial_references:
        raise UserError(
            f"--score {score.name}: not all labels were annotated in {listed(partial_references)} (annotated_labels in "
            "dataset.json), but a score needs them all. Evaluate these cases without --score, in a directory of their "
            "own."
        )
    measure = partial(score_case, labels=labels, score=score, file_ending=file_ending)
    return score.report(dict(map_cases(measure, pairs, processes, "Scoring")))


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: Labels,
    *,
    file_ending: str,
    processes: int,
    output: Path,
    groups: Mapping[str, str] | None = None,
    annotated_labels: Mapping[str, tuple[str, ...]] | None = None,
    skip_missing: bool = False,
    score: ChallengeScore | None = None,
) -> Summary:
    """Compare the files of the same name in two folders, and write the summary.

    Warns if the folders seem to be in the reverse order, in which nnU-Net takes them.

    Args:
        predictions: Folder of the predictions, `CASE` + `file_ending`.
        references: Folder of the references, with the same file names.
        labels: Labels or regions to compare.
        file_ending: Ending of the files to compare, such as `.nii.gz`. Other files are ignored.
        processes: Number of cases compared in parallel.
        output: Path of the summary, usually `summary.json`.
        groups: Group (patient) of each case by its name. A case that is not listed is a group of its own.
        annotated_labels: Names of the labels that were annotated in each case by its name. All were in a case that is
            not listed.
        skip_missing: Leave out cases without a prediction, and list them in the summary, instead of failing.
        score: Score to compute as well.

    Raises:
        UserError: A folder is missing or has no such files, a file has no counterpart, or as for `evaluate_case` and
            `score_cases`. Nothing is written in this case.
    """
    predicted, expected = _names(predictions, file_ending), _names(references, file_ending)
    if seem_reversed(predictions, references):
        warn(
            f"{references} was written by `predict`, but is given as the references. If the order is wrong (nnU-Net's "
            f"is the reverse), give the predictions first and delete {output}, in which misses and false alarms are "
            "exchanged."
        )
    missing = sorted(expected - predicted)
    if missing and not skip_missing:
        raise UserError(
            f"{predictions}: no prediction for {listed(missing)} of {references}. Predict the missing cases, or leave "
            "them out with --skip-missing."
        )
    if predicted - expected:
        raise UserError(f"{references}: no reference for {listed(sorted(predicted - expected))} of {predictions}.")
    groups, annotated_labels = groups or {}, annotated_labels or {}
    cases = {name: name.removesuffix(file_ending) for name in sorted(predicted)}
    pairs = [
        Pair(predictions / name, references / name, groups.get(case), annotated_labels.get(case))
        for name, case in cases.items()
    ]
    scored = None if score is None else score_cases(pairs, labels, score, file_ending=file_ending, processes=processes)
    summary = summarise(evaluate_cases(pairs, labels, processes=processes), labels, skipped=missing)
    summary = summary.model_copy(update={"score": scored})
    summary.write(output)
    return summary


def seem_reversed(predictions: Path, references: Path) -> bool:
    """Whether `predict` wrote the references, but not the predictions, as in the order of nnU-Net."""
    return (references / origin.DIRECTORY).is_dir() and not (predictions / origin.DIRECTORY).is_dir()


def labels_in(folders: Sequence[Path], *, file_ending: str, processes: int) -> Labels:
    """Return a label for every value in the files.

    Args:
        folders: Folders of references and predictions. Values that occur only in predictions count as well.
        file_ending: Ending of the files to read, such as `.nii.gz`.
        processes: Number of files read in parallel.

    Raises:
        UserError: A file is missing or cannot be read, or there are no labels.
    """
    paths = [folder / name for folder in folders for name in sorted(_names(folder, file_ending))]
    found = sorted(set[int]().union(*map_cases(_values, paths, processes, "Looking for labels")) - {0})
    if not found:
        raise UserError(f"{listed(folders)}: the {file_ending} files contain nothing but background (0).")
    return Labels.from_dataset_json({str(value): value for value in found})


def _read(pair: Pair, labels: Labels) -> tuple[LabelArray, LabelArray, Geometry]:
    """Return prediction and reference, shape `(Z, Y, X)`, and the geometry of both."""
    predicted, predicted_geometry = read_label(pair.prediction)
    expected, geometry = read_label(pair.reference)
    difference = same_place(predicted_geometry, geometry)
    if difference is not None:
        raise UserError(
            f"{pair.prediction}: not on the grid of {pair.reference} ({difference}). "
            "Compare segmentations on the original image's grid."
        )
    for path, array in ((pair.prediction, predicted), (pair.reference, expected)):
        if not np.isin(array, labels.values).all():
            unknown = sorted({int(value) for value in np.unique(array)} - set(labels.values))
            raise UserError(
                f"{path}: contains the value {listed(unknown)}, which is not among the labels {listed(labels.values)}. "
                "Evaluate with the dataset.json that belongs to these files."
            )
    return predicted, expected, geometry


def _is_in_mm(pair: Pair, geometry: Geometry) -> bool:
    """Whether the spacing is in mm: pictures without one have spacing 1."""
    return not (is_picture(pair.reference) and set(geometry.spacing) == {1.0})


def _values(path: Path) -> set[int]:
    return {int(value) for value in np.unique(read_label(path)[0])}


def _names(folder: Path, file_ending: str) -> set[str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory. Check the path.")
    names = {path.name for path in folder.iterdir() if path.name.endswith(file_ending) and path.name[0] != "."}
    if not names:
        raise UserError(f"{folder}: contains no {file_ending} file.")
    return names
