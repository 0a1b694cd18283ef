"""One page on a dataset, its plan and its models, and on how far the results can be trusted: report.html."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.data.dataset import Dataset
from autocrossdim.data.images import PICTURES
from autocrossdim.data.splits import Split
from autocrossdim.evaluation.summary import CaseResult, Summary, case_results
from autocrossdim.records.best import Best, folder_name
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.pictures import case_picture, dice_chart
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_text
from autocrossdim.system.templates import render

FEW = 10  # patients (or cases) below which an interval is said to rest on few; ours, a word of caution and no rule
WORST, LISTED = 3, 100  # cases drawn, and cases listed, from the lowest Dice on


@dataclass(frozen=True)
class Row:
    """One held-out case: mean Dice over its labels, the Dice of each, its largest HD95 (mm); NaN where undefined."""

    name: str
    group: str | None
    dice: float
    labels: Mapping[str, float]
    hd95: float


@dataclass(frozen=True)
class Fold:
    """How a fold was trained, from its history; `epochs_in_2d` are those of DX-Net's twin before."""

    name: str
    cases: int
    epochs: int
    epochs_in_2d: int
    minutes: float
    picture: bytes | None


@dataclass(frozen=True)
class Picture:
    """A case drawn, and why."""

    row: Row
    why: str
    png: bytes


@dataclass(frozen=True)
class Results:
    """What held-out cases say of one model.

    Attributes:
        name: of the model, such as `dx` or `dx + omnia`.
        summary: of all its folds.
        rows: cases, the lowest Dice first.
        cautions: what must be known to read the numbers.
        chart: Dice case by case.
        pictures: of some cases.
        not_drawn: cases that were to be, but whose files are not where they were.
        folds: of its configurations.
    """

    name: str
    summary: Summary
    rows: Sequence[Row]
    cautions: Sequence[str]
    chart: bytes
    pictures: Sequence[Picture]
    not_drawn: Sequence[str]
    folds: Sequence[Fold]


def write_report(raw: Dataset, space: Workspace, splits: Sequence[Split], output: Path) -> None:
    """Write the page, with everything it shows inside.

    Args:
        raw: the dataset; its images are drawn.
        space: where it was planned, and trained so far.
        splits: its folds.
        output: of the page.

    Raises:
        UserError: a file is missing or damaged.
    """
    plan, fingerprint = Plan.read(space.plan), Fingerprint.read(space.fingerprint)
    best = Best.read(space.best) if space.best.exists() else None
    trained = [name for name in plan.configurations if (space.model(name) / "summary.json").exists()]
    configurations = best.configurations if best is not None else tuple(trained[:1])
    if best is None and plan.decision.configuration in trained:
        configurations = (plan.decision.configuration,)
    results = _results(raw, plan, space, configurations, splits, best) if configurations else None
    page = render(
        "autocrossdim.report",
        "report.html.jinja",
        {"png": _data_uri, "number": _number, "ends": _ends, "sizes": _sizes},
        program=version("autocrossdim"),
        plan=plan,
        fingerprint=fingerprint,
        groups=len({raw.groups.get(case.name, case.name) for case in fingerprint.cases}),
        presence={name: fingerprint.cases_with(values) for name, values in plan.labels.foreground.items()},
        splits=splits,
        best=best,
        outdated=best.outdated(space) if best is not None else None,
        results=results,
        others=[name for name in trained if name not in configurations],
        unit="pixels" if raw.file_ending in PICTURES and (fingerprint.median_spacing() == 1).all() else "mm",
    )
    write_text(output, page)


def _results(
    raw: Dataset,
    plan: Plan,
    space: Workspace,
    configurations: Sequence[str],
    splits: Sequence[Split],
    best: Best | None,
) -> Results:
    folder = folder_name(configurations)
    file = space.model(folder) / "summary.json"
    summary = read_json(file)
    try:
        rows = sorted((_row(case, raw.file_ending) for case in case_results(summary)), key=_order)
        dice = {name: [row.labels[key] for row in rows] for key, name in summary["labels"].items()}
        counted = {row.name for row in rows}
        missing = [f"fold {k}" for k, split in enumerate(splits) if not counted >= set(split.val)]
        cautions = _cautions(summary, rows, missing, best)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: damaged. Train again to have it written.") from error
    segmented = {
        case: space.fold(folder, k).validation / f"{case}{raw.file_ending}"
        for k, split in enumerate(splits)
        for case in split.val
    }
    pictures, not_drawn = _pictures(raw, plan, segmented, rows)
    return Results(
        name=" + ".join(configurations),
        summary=summary,
        rows=rows[:LISTED],
        cautions=cautions,
        chart=dice_chart(dice),
        pictures=pictures,
        not_drawn=not_drawn,
        folds=_folds(space, configurations, splits),
    )


def _row(case: CaseResult, ending: str) -> Row:
    distances = [float(metrics["HD95"]) for metrics in case.metrics.values() if not math.isnan(metrics["HD95"])]
    return Row(
        name=case.file.removesuffix(ending),
        group=case.group,
        dice=case.dice,
        labels={key: float(metrics["Dice"]) for key, metrics in case.metrics.items()},
        hd95=max(distances, default=math.nan),
    )


def _order(row: Row) -> float:
    """The lowest Dice first; a case without any label has none and comes last."""
    return row.dice if math.isfinite(row.dice) else 2.0


def _cautions(summary: Summary, rows: Sequence[Row], missing: Sequence[str], best: Best | None) -> list[str]:
    """Say what must be known to read the numbers, the gravest first."""
    cases, groups = summary["n_cases"], summary["n_groups"]
    sentences = []
    if missing:
        sentences.append(f"Not all folds are counted: {', '.join(missing)} must still be trained under this plan.")
    low, high = summary["interval"]["foreground_mean"]["Dice"]
    unit = "cases" if groups == cases else "patients (groups)"
    if math.isfinite(low):
        mean = summary["foreground_mean"]["Dice"]
        sentences.append(
            f"Mean Dice {mean:.3f}; over very many such {unit} the mean lies between {low:.3f} and {high:.3f}, with "
            "95 % confidence."
        )
    if groups < FEW:
        sentences.append(
            f"All this rests on {groups} {unit}. With so few, the interval is too narrow, and a new one may well fall "
            "outside of what is seen below."
        )
    known = [row for row in rows if math.isfinite(row.dice)]
    if len(known) > 1:
        first, third = np.percentile([row.dice for row in known], (25, 75))
        sentences.append(
            f"Single cases differ more than their mean: from {known[0].dice:.3f} ({known[0].name}) to "
            f"{known[-1].dice:.3f}; half of them lie between {first:.3f} and {third:.3f}."
        )
    for key, name in summary["labels"].items():
        holding = sum(case.metrics[key]["n_ref"] > 0 for case in case_results(summary))
        if holding < cases:
            sentences.append(f"{name} is in {holding} of {cases} cases only; its numbers rest on few.")
    if best is None:
        sentences.append(
            "Probabilities are not calibrated, and no model was chosen yet: autocrossdim find_best does both."
        )
    else:
        sentences += [best.calibration.sentence, best.case_score.sentence]
        sentences.append(
            "The choice of the model and of its post-processing was made on these same cases, so its numbers are a "
            "little too good. Cases kept aside (imagesTs) tell."
        )
    return sentences


def _pictures(
    raw: Dataset, plan: Plan, segmented: Mapping[str, Path], rows: Sequence[Row]
) -> tuple[list[Picture], list[str]]:
    """Draw a few cases; return them, and the names of those whose files are not where they were."""
    known = [row for row in rows if math.isfinite(row.dice)]
    chosen = [(row, "lowest Dice" if place == 0 else "next lowest") for place, row in enumerate(known[:WORST])]
    if len(known) > 2 * WORST:
        chosen.append((known[len(known) // 2], "median"))
    if len(known) > WORST:
        chosen.append((known[-1], "highest Dice"))
    cases = {case.name: case for case in raw.training_cases()}
    pictures, not_drawn = [], []
    for row, why in chosen:
        case, prediction = cases.get(row.name), segmented.get(row.name, Path())
        if case is None or case.label is None or not all(map(Path.is_file, (*case.images, case.label, prediction))):
            not_drawn.append(row.name)
        else:
            pictures.append(Picture(row, why, case_picture(case.images, case.label, prediction, plan.labels)))
    return pictures, not_drawn


def _folds(space: Workspace, configurations: Sequence[str], splits: Sequence[Split]) -> list[Fold]:
    """What the histories say of the folds there are, the training of DX-Net's 2D twin included."""
    folds = []
    for configuration in configurations:
        for number, split in enumerate(splits):
            folder = space.fold(configuration, number)
            epochs, before = _seconds(folder.history), _seconds(folder.slices.history)
            if epochs:
                minutes = sum((*before, *epochs)) / 60
                picture = folder.progress.read_bytes() if folder.progress.exists() else None
                name = f"{configuration} fold {number}"
                folds.append(Fold(name, len(split.train), len(epochs), len(before), minutes, picture))
    return folds


def _seconds(history: Path) -> list[float]:
    """How long each epoch of a history took; empty if there is no history."""
    if not history.exists():
        return []
    try:
        return [float(json.loads(line)["seconds"]) for line in history.read_text(encoding="utf-8").splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{history}: damaged. Train this fold again with --restart.") from error


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _ends(ends: Sequence[float] | None, digits: int = 3) -> str:
    return "" if ends is None or not np.isfinite(ends).all() else f"{ends[0]:.{digits}f}–{ends[1]:.{digits}f}"


def _sizes(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
