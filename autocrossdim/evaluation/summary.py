"""Many cases together: `summary.json` in nnU-Net's schema, with intervals over cases, and its table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.data.images import read_label, same_place
from autocrossdim.evaluation.interval import LEVEL, Floats, interval, means, resampling_weights
from autocrossdim.evaluation.metrics import METRICS, case_metrics, label_key
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import listed

Summary = dict[str, Any]
"""What `summary.json` holds; see `summarise`."""


@dataclass(frozen=True)
class CaseResult:
    """The metrics of one case.

    Attributes:
        reference_file: path of the reference.
        prediction_file: path of the prediction.
        metrics: by label key, then by metric, as `metrics.case_metrics` returns them.
        group: the patient, for example, whose cases the interval draws together; none: a group of its own.
    """

    reference_file: str
    prediction_file: str
    metrics: Mapping[str, Mapping[str, float]]
    group: str | None = None

    @property
    def file(self) -> str:
        """Name of the case's file: the prediction's, since the reference's may be any (`dataset` in dataset.json)."""
        return Path(self.prediction_file).name

    @property
    def dice(self) -> float:
        """Mean Dice over the labels; NaN if prediction and reference have none."""
        there = [metrics["Dice"] for metrics in self.metrics.values() if not math.isnan(metrics["Dice"])]
        return sum(there) / len(there) if there else math.nan


def summarise(cases: Sequence[CaseResult], labels: Labels) -> Summary:
    """Return the summary of `cases`.

    It has nnU-Net's `foreground_mean` {metric: mean over labels of their means}, `mean` {label: {metric: mean
    over cases}} and `metric_per_case` [{reference_file, prediction_file, metrics}], the cases in the order of
    their names. NaN is left out of all means. Beside them, where readers of nnU-Net's files do not
    look:

    - `interval`: the 95 % bootstrap interval over cases (groups of them drawn together) of each mean, as
      `foreground_mean` {metric: [low, high]} and `mean` {label: {metric: [low, high]}}; NaN with fewer than
      two groups.
    - `n_cases`, `n_groups`, and `n_present` {label: cases that have it in prediction or reference}: those
      that the label's means of Dice and of distances rest on.
    - `labels` {label key: name}.
    - `group` in a case of `metric_per_case`, where it has one.

    Raises:
        UserError: there are no cases, or a case occurs twice.
    """
    return _summarise(cases, {label_key(values): name for name, values in labels.foreground.items()})


def merge(summaries: Sequence[Summary]) -> Summary:
    """Return the summary of all cases of `summaries`: that of a cross-validation from those of its folds.

    The means are over cases, not over folds, as in nnU-Net. Summaries that nnU-Net wrote are accepted.

    Raises:
        UserError: there are no cases, a case occurs twice, or the labels differ.
    """
    cases = [case for summary in summaries for case in case_results(summary)]
    names: dict[str, str] = {}
    for summary in summaries:
        names.update(summary.get("labels") or {key: key for key in summary["mean"]})
    return _summarise(cases, names)


def case_results(summary: Summary) -> list[CaseResult]:
    """Return the cases of a summary, ours or nnU-Net's.

    Raises:
        UserError: it is no such summary.
    """
    try:
        return [
            CaseResult(case["reference_file"], case["prediction_file"], case["metrics"], case.get("group"))
            for case in summary["metric_per_case"]
        ]
    except (KeyError, TypeError) as error:
        raise UserError("A summary.json is damaged: it lists no cases. Delete it and evaluate again.") from error


def evaluate_case(prediction: Path, reference: Path, labels: Labels, group: str | None = None) -> CaseResult:
    """Compare two segmentation files.

    Raises:
        UserError: a file cannot be read, the two do not lie in the same place, or one holds a value that
            `labels` does not declare.
    """
    predicted, where_predicted = read_label(prediction)
    expected, where_expected = read_label(reference)
    difference = same_place(where_predicted, where_expected)
    if difference is not None:
        raise UserError(
            f"{prediction}: not on the grid of {reference} ({difference}). "
            "Compare segmentations on the original image's grid."
        )
    for path, array in ((prediction, predicted), (reference, expected)):
        if not np.isin(array, labels.values).all():
            unknown = sorted({int(value) for value in np.unique(array)} - set(labels.values))
            raise UserError(
                f"{path}: holds {listed(unknown)}, which is none of the labels {listed(labels.values)}. "
                "Evaluate with the dataset.json that belongs to these files."
            )
    metrics = case_metrics(predicted, expected, labels, where_expected.spacing)
    return CaseResult(str(reference), str(prediction), metrics, group)


def evaluate_cases(cases: Sequence[tuple[Path, Path, str | None]], labels: Labels, processes: int) -> list[CaseResult]:
    """Compare files, given as (prediction, reference, group), `processes` cases at a time.

    Raises:
        UserError: what `evaluate_case` raises.
    """
    return map_cases(partial(_evaluate_pair, labels=labels), cases, processes, "Evaluating")


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: Labels,
    file_ending: str,
    processes: int,
    output: Path,
    groups: Mapping[str, str] | None = None,
) -> Summary:
    """Compare the files of two folders that have the same name, and write the summary to `output`.

    NaN is written as nnU-Net writes it: a bare `NaN`, which Python's `json` reads and strict JSON does not
    know.

    Args:
        predictions: folder of `CASE` + `file_ending`.
        references: folder of files of the same names.
        labels: which values make up each label or region.
        file_ending: such as `.nii.gz`; other files are left alone.
        processes: cases compared at a time.
        output: of `summary.json`.
        groups: the group (patient) of each case by its name; a case that is not in it stands for itself.

    Raises:
        UserError: a folder is missing or has no such files, a file is without its partner, or what
            `evaluate_case` raises. Nothing is written then.
    """
    predicted, expected = _names(predictions, file_ending), _names(references, file_ending)
    if expected - predicted:
        raise UserError(f"{predictions}: no prediction for {listed(sorted(expected - predicted))} of {references}.")
    if predicted - expected:
        raise UserError(f"{references}: no reference for {listed(sorted(predicted - expected))} of {predictions}.")
    groups = groups or {}
    pairs = [
        (predictions / name, references / name, groups.get(name.removesuffix(file_ending))) for name in sorted(expected)
    ]
    cases = evaluate_cases(pairs, labels, processes)
    summary = summarise(cases, labels)
    write_json(output, summary)
    return summary


def labels_from(dataset_json: Path | None, folders: Sequence[Path], file_ending: str, processes: int) -> Labels:
    """Return the labels that a dataset.json declares; without one, every value in the files of `folders`.

    Args:
        dataset_json: path, or None.
        folders: of the references and the predictions: a label that was only ever predicted counts as well.
        file_ending: such as `.nii.gz`.
        processes: files read at a time.

    Raises:
        UserError: a file is missing or cannot be read, or there are no labels.
    """
    if dataset_json is not None:
        content = read_json(dataset_json)
        if not isinstance(content, dict) or "labels" not in content:
            raise UserError(f"{dataset_json}: has no 'labels'. Give the dataset.json of the dataset.")
        try:
            return Labels.from_dataset_json(content["labels"], content.get("regions_class_order"))
        except UserError as error:
            raise UserError(f"{dataset_json}: {error}") from error
    paths = [folder / name for folder in folders for name in sorted(_names(folder, file_ending))]
    found = sorted(set[int]().union(*map_cases(_values, paths, processes, "Looking for labels")) - {0})
    if not found:
        raise UserError(f"{listed(folders)}: nothing but background (0) in the {file_ending} files.")
    return Labels.from_dataset_json({str(value): value for value in found})


def metric_array(cases: Sequence[CaseResult], keys: Sequence[str], metrics: Sequence[str]) -> Floats:
    """Return the metrics of `cases` as an array, shape `(cases, labels, metrics)`."""
    return np.array([[[case.metrics[key][metric] for metric in metrics] for key in keys] for case in cases], float)


def foreground(values: Floats) -> Floats:
    """Return means over labels, NaN left out, of shape `(..., labels, metrics)` -> `(..., metrics)`."""
    return means(np.moveaxis(values, -2, 0))


def case_groups(cases: Sequence[CaseResult]) -> list[str]:
    """Return the group of each case; one without a group is its own."""
    return [f"group {case.group}" if case.group is not None else f"case {case.reference_file}" for case in cases]


def _summarise(cases: Sequence[CaseResult], names: Mapping[str, str]) -> Summary:
    if not cases:
        raise UserError("There are no cases to summarise.")
    cases = sorted(cases, key=lambda case: case.file)
    files = [case.file for case in cases]
    twice = sorted({a for a, b in pairwise(files) if a == b})
    if twice:
        raise UserError(f"{listed(twice)}: evaluated more than once. A case belongs to one fold's validation only.")
    keys = list(cases[0].metrics)
    for case in cases:
        if set(case.metrics) != set(keys):
            raise UserError(
                f"{case.reference_file}: evaluated for the labels {listed(case.metrics)}, "
                f"{cases[0].reference_file} for {listed(keys)}. Evaluate all with the same dataset.json."
            )
    metrics = [metric for metric in METRICS if all(metric in case.metrics[key] for case in cases for key in keys)]
    values = metric_array(cases, keys, metrics)
    groups = case_groups(cases)
    n_groups = len(set(groups))
    mean = means(values)
    ends, ends_of_foreground = _intervals(values, groups)

    def named(row: Iterable[float]) -> dict[str, float]:
        return {metric: float(value) for metric, value in zip(metrics, row, strict=True)}

    def named_ends(rows: Floats) -> dict[str, list[float]]:
        return {metric: rows[:, index].tolist() for index, metric in enumerate(metrics)}

    return {
        "foreground_mean": named(foreground(mean)),
        "mean": {key: named(mean[index]) for index, key in enumerate(keys)},
        "interval": {
            "level": LEVEL,
            "method": "percentile bootstrap over groups of cases",
            "foreground_mean": named_ends(ends_of_foreground),
            "mean": {key: named_ends(ends[:, index]) for index, key in enumerate(keys)},
        },
        "n_cases": len(cases),
        "n_groups": n_groups,
        "n_present": {
            key: sum(case.metrics[key]["n_pred"] + case.metrics[key]["n_ref"] > 0 for case in cases) for key in keys
        },
        "labels": {key: names.get(key, key) for key in keys},
        "metric_per_case": [
            {
                "reference_file": case.reference_file,
                "prediction_file": case.prediction_file,
                **({} if case.group is None else {"group": case.group}),
                "metrics": {key: dict(case.metrics[key]) for key in keys},
            }
            for case in cases
        ],
    }


def _intervals(values: Floats, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """Return the ends of the intervals of the means, `(2, labels, metrics)`, and of those over labels too."""
    if len(set(groups)) < 2:
        _, *shape = values.shape
        return np.full((2, *shape), np.nan), np.full((2, shape[-1]), np.nan)
    draws = means(values, resampling_weights(groups))
    return interval(draws), interval(foreground(draws))


def _evaluate_pair(pair: tuple[Path, Path, str | None], labels: Labels) -> CaseResult:
    prediction, reference, group = pair
    return evaluate_case(prediction, reference, labels, group)


def _values(path: Path) -> set[int]:
    return {int(value) for value in np.unique(read_label(path)[0])}


def _names(folder: Path, file_ending: str) -> set[str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    names = {path.name for path in folder.iterdir() if path.name.endswith(file_ending) and path.name[0] != "."}
    if not names:
        raise UserError(f"{folder}: no {file_ending} file in it.")
    return names
