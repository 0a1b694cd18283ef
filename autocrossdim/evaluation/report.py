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
from jinja2 import Environment, PackageLoader, StrictUndefined

from autocrossdim.best import Best, folder_name
from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.splits import Split
from autocrossdim.errors import UserError
from autocrossdim.evaluation.pictures import case_picture, dice_chart
from autocrossdim.evaluation.summary import CaseResult, Summary, case_results
from autocrossdim.files import read_json, write_text
from autocrossdim.fingerprint import Fingerprint
from autocrossdim.plan import Plan
from autocrossdim.workspace import Workspace

TEMPLATE = "report.html.jinja"
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
    """How a fold was trained, from its history."""

    name: str
    cases: int
    epochs: int
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
        folds: of its configurations.
        missing: folds of the splits that are not trained.
    """

    name: str
    summary: Summary
    rows: Sequence[Row]
    cautions: Sequence[str]
    chart: bytes
    pictures: Sequence[Picture]
    folds: Sequence[Fold]
    missing: Sequence[str]


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
    environment = Environment(
        loader=PackageLoader("autocrossdim.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"png": _data_uri, "number": _number, "ends": _ends, "sizes": _sizes}
    page = environment.get_template(TEMPLATE).render(
        program=version("autocrossdim"),
        plan=plan,
        fingerprint=fingerprint,
        groups=len({raw.groups.get(case.name, case.name) for case in fingerprint.cases}),
        presence=_presence(plan, fingerprint),
        splits=splits,
        best=best,
        outdated=best.outdated(space) if best is not None else None,
        results=results,
        others={name: read_json(space.model(name) / "summary.json") for name in trained if (name,) != configurations},
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
    file = space.model(folder_name(configurations)) / "summary.json"
    summary = read_json(file)
    try:
        rows = sorted((_row(case, raw.file_ending) for case in case_results(summary)), key=_dice)
        keys = summary["labels"]
        dice = {name: [row.labels[key] for row in rows] for key, name in keys.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: damaged. Train again to have it written.") from error
    folds, missing = _folds(space, configurations, splits)
    return Results(
        name=" + ".join(configurations),
        summary=summary,
        rows=rows[:LISTED],
        cautions=_cautions(summary, rows, missing, best),
        chart=dice_chart(dice),
        pictures=_pictures(raw, plan, summary, rows),
        folds=folds,
        missing=missing,
    )


def _row(case: CaseResult, ending: str) -> Row:
    labels = {key: float(metrics["Dice"]) for key, metrics in case.metrics.items()}
    return Row(
        name=_case_name(case, ending),
        group=case.group,
        dice=_mean(list(labels.values())),
        labels=labels,
        hd95=max((float(metrics["HD95"]) for metrics in case.metrics.values()), default=float("nan")),
    )


def _case_name(case: CaseResult, ending: str) -> str:
    return Path(case.reference_file).name.removesuffix(ending)


def _dice(row: Row) -> float:
    """For sorting: a case without any label has no Dice and comes last."""
    return row.dice if math.isfinite(row.dice) else 2.0


def _mean(values: Sequence[float]) -> float:
    there = [value for value in values if np.isfinite(value)]
    return sum(there) / len(there) if there else float("nan")


def _cautions(summary: Summary, rows: Sequence[Row], missing: Sequence[str], best: Best | None) -> list[str]:
    """Say what must be known to read the numbers, the gravest first."""
    cases, groups = summary["n_cases"], summary["n_groups"]
    sentences = []
    if missing:
        sentences.append(f"Not all folds are trained ({', '.join(missing)} missing), so not all cases count here.")
    low, high = summary["interval"]["foreground_mean"]["Dice"]
    unit = "cases" if groups == cases else "patients (groups)"
    mean = summary["foreground_mean"]["Dice"]
    if np.isfinite(low):
        sentences.append(
            f"Mean Dice {mean:.3f}; with other {unit} of the same kind, the mean would lie between {low:.3f} and "
            f"{high:.3f} nineteen times out of twenty."
        )
    if groups < FEW:
        sentences.append(
            f"All this rests on {groups} {unit}. With so few, the interval is rough, and a new one may well fall "
            "outside of what is seen below."
        )
    known = [row for row in rows if np.isfinite(row.dice)]
    if len(known) > 1:
        first, third = np.percentile([row.dice for row in known], (25, 75))
        sentences.append(
            f"Single cases differ more than their mean: from {known[0].dice:.3f} ({known[0].name}) to "
            f"{known[-1].dice:.3f}; half of them lie between {first:.3f} and {third:.3f}."
        )
    for key, name in summary["labels"].items():
        present = summary["n_present"][key]
        if present < cases:
            sentences.append(f"{name} is in {present} of {cases} cases only; its numbers rest on these.")
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


def _pictures(raw: Dataset, plan: Plan, summary: Summary, rows: Sequence[Row]) -> list[Picture]:
    files = {_case_name(case, raw.file_ending): case for case in case_results(summary)}
    cases: dict[str, Case] = {case.name: case for case in raw.training_cases()}
    chosen = [(row, "lowest Dice" if place == 0 else "next lowest") for place, row in enumerate(rows[:WORST])]
    if len(rows) > WORST + 1:
        chosen += [(rows[len(rows) // 2], "median"), (rows[-1], "highest Dice")]
    names = _drawn_values(plan)
    pictures = []
    for row, why in chosen:
        reference, prediction = Path(files[row.name].reference_file), Path(files[row.name].prediction_file)
        if row.name in cases and prediction.exists():
            png = case_picture(cases[row.name].images, reference, prediction, names)
            pictures.append(Picture(row, why, png))
    return pictures


def _drawn_values(plan: Plan) -> dict[int, str]:
    """A value for each label; regions lie in each other, so each is drawn by the value it is painted with."""
    order = plan.labels.regions_class_order or [values[0] for values in plan.labels.foreground.values()]
    return dict(zip(order, plan.labels.foreground, strict=True))


def _folds(space: Workspace, configurations: Sequence[str], splits: Sequence[Split]) -> tuple[list[Fold], list[str]]:
    folds, missing = [], []
    for configuration in configurations:
        for number, split in enumerate(splits):
            folder = space.fold(configuration, number)
            name = f"{configuration} fold {number}"
            if not (folder.validation / "summary.json").exists():
                missing.append(name)
                continue
            epochs = [json.loads(line) for line in folder.history.read_text().splitlines()]
            minutes = sum(epoch["seconds"] for epoch in epochs) / 60
            picture = folder.progress.read_bytes() if folder.progress.exists() else None
            folds.append(Fold(name, len(split.train), len(epochs), minutes, picture))
    return folds, missing


def _presence(plan: Plan, fingerprint: Fingerprint) -> dict[str, int]:
    """Cases that hold each label."""
    return {
        name: sum(any(case.label_voxels.get(value) for value in values) for case in fingerprint.cases)
        for name, values in plan.labels.foreground.items()
    }


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _ends(ends: Sequence[float] | None, digits: int = 3) -> str:
    return "" if ends is None or not np.isfinite(ends).all() else f"{ends[0]:.{digits}f}–{ends[1]:.{digits}f}"


def _sizes(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
