"""The HTML report: data, plan, cross-validation results and their limits on one page."""

import base64
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
from autocrossdim.records.best import Best, folder_name
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan
from autocrossdim.records.student import students
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.decided import budget_warnings, next_step
from autocrossdim.report.distributions import fingerprint_chart
from autocrossdim.report.methods import methods
from autocrossdim.report.misses import partial_sentences, unmatched_sentences
from autocrossdim.report.pictures import agreement_chart, case_picture, dice_chart
from autocrossdim.report.scans import read_scan
from autocrossdim.report.sizes import Agreement, Measure, agreements, case_sizes
from autocrossdim.report.studies import study_sections
from autocrossdim.report.suggested import suggested
from autocrossdim.report.table import results_table
from autocrossdim.report.training import Fold, trained_folds, training_warnings
from autocrossdim.report.viewer import shared, single_slice, volume
from autocrossdim.system.console import track
from autocrossdim.system.files import write_text
from autocrossdim.system.templates import render
from autocrossdim.system.text import listed

FEW = 10  # patients (or cases) below which the page warns that an interval rests on few; our choice
WORST, LISTED = 3, 100  # cases drawn and cases listed, starting with the lowest Dice
WORST_VOLUMES = 6  # cases of which the viewer has all slices, besides the median and the highest Dice
CHARTS = 8  # labels whose sizes are drawn


@dataclass(frozen=True)
class Row:
    """One held-out case.

    Attributes:
        name: Name of the case.
        group: Group (patient) of the case, if it shares one.
        dice: Mean Dice over the labels; NaN if neither annotation nor segmentation has any.
        labels: Dice by label key; NaN likewise.
        hd95: Largest HD95 of the labels that both have; NaN if there is none.
        missed: Names of labels that only the annotation has.
        false_alarms: Names of labels that only the segmentation has.
    """

    name: str
    group: str | None
    dice: float
    labels: Mapping[str, float]
    hd95: float
    missed: Sequence[str]
    false_alarms: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """A case drawn as PNG, and why it was selected."""

    row: Row
    why: str
    png: bytes


@dataclass(frozen=True)
class Drawn:
    """The cases that are shown.

    Attributes:
        pictures: A few cases as PNG.
        viewer: What the cases of the viewer have in common.
        cases: The cases of the viewer.
        missing: Names of cases that could not be drawn because a file is missing.
    """

    pictures: Sequence[Picture]
    viewer: Mapping[str, Any]
    cases: Sequence[Mapping[str, Any]]
    missing: Sequence[str]


@dataclass(frozen=True)
class Results:
    """Results of one model on held-out cases.

    Attributes:
        name: Name of the model, such as `dx` or `dx + omnia`.
        ending: File ending of the cases.
        summary: Summary of all folds.
        missing: Folds that are not among the results.
        rows: Cases, the lowest Dice first.
        cautions: Sentences that are needed to read the numbers.
        chart: PNG of the Dice of every case.
        drawn: The cases as pictures and in the viewer.
        measure: How sizes are measured.
        agreements: Agreement of sizes by label.
        agreement_charts: PNG by label name, of the first labels.
        table: All labels and cases, for the script of the page.
        folds: Training of the folds.
        training_warnings: What may have gone wrong in training, and what may help.
    """

    name: str
    ending: str
    summary: Summary
    missing: Sequence[str]
    rows: Sequence[Row]
    cautions: Sequence[str]
    chart: bytes
    drawn: Drawn
    measure: Measure
    agreements: Sequence[Agreement]
    agreement_charts: Mapping[str, bytes]
    table: Mapping[str, Any]
    folds: Sequence[Fold]
    training_warnings: Sequence[str]

    def annotated(self, key: str) -> int:
        """Return the number of cases in which a label is annotated."""
        return sum(case.in_reference(key) for case in self.summary.metric_per_case)

    def missed(self, key: str) -> list[str]:
        """Return the names of the cases in which a label is annotated and not found."""
        return [
            case.file.removesuffix(self.ending)
            for case in self.summary.metric_per_case
            if case.in_reference(key) and not case.in_prediction(key)
        ]


def write_report(dataset: Dataset, workspace: Workspace, *, splits: Sequence[Split], output: Path) -> None:
    """Write the page as one file that contains all its pictures.

    Args:
        dataset: The raw dataset, whose images are drawn.
        workspace: Its workspace, with the plan and whatever has been trained so far.
        splits: Its folds.
        output: Path of the page.

    Raises:
        UserError: A file is missing or damaged.
    """
    plan, fingerprint = Plan.read(workspace.plan), Fingerprint.read(workspace.fingerprint)
    best = Best.read(workspace.best) if workspace.best.exists() else None
    trained = [name for name in plan.configurations if workspace.summary(name).exists()]
    configurations = best.configurations if best is not None else tuple(trained[:1])
    if best is None and plan.decision.configuration in trained:
        configurations = (plan.decision.configuration,)
    spaced = dataset.file_ending not in PICTURES or bool((fingerprint.median_spacing() != 1).any())
    results = None
    if configurations:
        results = _results(dataset, plan, workspace, fingerprint, configurations, splits, best, spaced=spaced)
    outdated = best.outdated(workspace) if best is not None else None
    groups, unit = (
        len({dataset.groups.get(case.name, case.name) for case in fingerprint.cases}),
        "mm" if spaced else "pixels",
    )
    paragraph, facts = methods(
        plan,
        fingerprint,
        workspace,
        configurations,
        folds=len(splits),
        complete=results is not None and not results.missing,
        groups=groups,
        best=best,
        unit=unit,
    )
    page = render(
        "autocrossdim.report",
        "report.html.jinja",
        {
            "png": _data_uri,
            "number": _number,
            "ends": _ends,
            "sizes": _sizes,
            "listed": listed,
            "between": _between,
            "described": _described,
        },
        program=version("autocrossdim"),
        plan=plan,
        fingerprint=fingerprint,
        groups=groups,
        methods=paragraph,
        facts=facts,
        histograms=fingerprint_chart(fingerprint, plan.labels, unit),
        presence={name: fingerprint.cases_with(values) for name, values in plan.labels.foreground.items()},
        splits=splits,
        best=best,
        outdated=outdated,
        budget_warnings=budget_warnings(best) if best is not None else [],
        next=next_step(
            plan,
            workspace,
            best,
            folds=len(splits),
            outdated=outdated is not None,
            validated=results is not None,
            missing=results.missing if results is not None else [],
        ),
        results=results,
        suggested=suggested(workspace, plan.labels, fingerprint.names),
        others=[name for name in trained if name not in configurations],
        unit=unit,
        students=[] if best is None else students(workspace, best),
        studies=study_sections(workspace),
    )
    write_text(output, page)


def _results(
    dataset: Dataset,
    plan: Plan,
    workspace: Workspace,
    fingerprint: Fingerprint,
    configurations: Sequence[str],
    splits: Sequence[Split],
    best: Best | None,
    *,
    spaced: bool,
) -> Results:
    folder = folder_name(configurations)
    summary = Summary.read(workspace.summary(folder))
    rows = sorted((_row(case, summary, dataset.file_ending) for case in summary.metric_per_case), key=_order)
    evaluated = {row.name for row in rows}
    missing = [f"fold {k}" for k, split in enumerate(splits) if not evaluated >= set(split.val)]
    segmentations = {
        case: workspace.fold(folder, k).validation / f"{case}{dataset.file_ending}"
        for k, split in enumerate(splits)
        for case in split.val
    }
    drawn = _drawn(dataset, plan, segmentations, rows, summary.unit)
    measure = Measure.of(fingerprint.dims, spaced=spaced)
    sizes = case_sizes(summary, fingerprint, measure, dataset.file_ending)
    agreement = agreements(summary, sizes)
    return Results(
        name=" + ".join(configurations),
        ending=dataset.file_ending,
        summary=summary,
        missing=missing,
        rows=rows[:LISTED],
        cautions=_cautions(summary, rows, missing, best),
        chart=dice_chart({summary.name(key): [row.labels[key] for row in rows] for key in summary.mean}),
        drawn=drawn,
        measure=measure,
        agreements=agreement,
        agreement_charts={each.name: agreement_chart(each, measure) for each in agreement[:CHARTS] if each.cases},
        table=results_table(
            summary,
            sizes,
            measure,
            ending=dataset.file_ending,
            drawn=[case["name"] for case in drawn.cases],
            name=f"{plan.dataset}_{folder}",
        ),
        folds=trained_folds(workspace, configurations, splits),
        training_warnings=training_warnings(plan, workspace, configurations, splits),
    )


def _row(case: CaseResult, summary: Summary, ending: str) -> Row:
    distances = [
        float(metrics.get("HD95", math.nan))
        for key, metrics in case.metrics.items()
        if case.in_reference(key) and case.in_prediction(key)  # elsewhere it is the diagonal of the image
    ]
    in_one = [key for key in case.metrics if case.in_reference(key) != case.in_prediction(key)]
    return Row(
        name=case.file.removesuffix(ending),
        group=case.group,
        dice=case.dice,
        labels={key: float(metrics["Dice"]) for key, metrics in case.metrics.items()},
        hd95=max((value for value in distances if not math.isnan(value)), default=math.nan),
        missed=[summary.name(key) for key in in_one if case.in_reference(key)],
        false_alarms=[summary.name(key) for key in in_one if case.in_prediction(key)],
    )


def _order(row: Row) -> float:
    """Return the sort key of a case: the lowest Dice first, cases without any label last."""
    return row.dice if math.isfinite(row.dice) else 2.0


def _cautions(summary: Summary, rows: Sequence[Row], missing: Sequence[str], best: Best | None) -> list[str]:
    """Return what must be known to read the numbers, most important first."""
    cases, groups = summary.n_cases, summary.n_groups
    unit = "cases" if groups == cases else "patients (groups)"
    sentences = []
    if missing:
        sentences.append(
            f"Not all folds are included: {', '.join(missing)} must still be trained or validated under this plan."
        )
    low, high = summary.ends("Dice")
    if math.isfinite(low):
        sentences.append(
            f"Mean Dice {summary.foreground_mean['Dice']:.3f}; 95 % confidence interval {low:.3f} to {high:.3f} over "
            f"{groups} {unit}."
        )
    if groups < FEW:
        sentences.append(
            f"The results rest on {groups} {unit} only. With so few, bootstrap intervals are too narrow, and results "
            "on new data may fall outside them."
        )
    sentences += [*partial_sentences(summary), *unmatched_sentences(summary)]
    known = [row for row in rows if math.isfinite(row.dice)]
    if len(known) > 1:
        first, third = np.percentile([row.dice for row in known], (25, 75))
        sentences.append(
            f"Individual cases vary more than the mean: Dice ranges from {known[0].dice:.3f} ({known[0].name}) to "
            f"{known[-1].dice:.3f}, and half of the cases lie between {first:.3f} and {third:.3f}."
        )
    for key in summary.mean:
        looked_at, present = summary.n_annotated[key], sum(case.in_reference(key) for case in summary.metric_per_case)
        if present < looked_at:
            sentences.append(f"'{summary.name(key)}' is annotated in {present} of {looked_at} cases only.")
    if best is None:
        sentences.append(
            "No model has been selected and probabilities are not calibrated. Run `autocrossdim find_best` for both."
        )
    else:
        sentences += [best.calibration.sentence, best.case_score.sentence]
        sentences.append(
            "Model and post-processing were selected on these same cases, so their results are slightly optimistic. "
            "Evaluate on cases that were set aside (imagesTs) for an unbiased estimate."
        )
    return sentences


def _drawn(dataset: Dataset, plan: Plan, segmentations: Mapping[str, Path], rows: Sequence[Row], unit: str) -> Drawn:
    """Draw the cases: a few as pictures, more with all slices in the viewer, and one slice of the others."""
    pictured, volumes = _chosen(rows, WORST), _chosen(rows, WORST_VOLUMES)
    cases = {case.name: case for case in dataset.training_cases()}
    ct = plan.normalization[0].scheme == "ct"
    pictures, views, missing = [], {}, []
    shown = [row for number, row in enumerate(rows) if number < LISTED or row.name in volumes]
    for row in track(shown, "Drawing cases", len(shown)):
        case, prediction = cases.get(row.name), segmentations.get(row.name, Path())
        if case is None or case.label is None or not all(map(Path.is_file, (*case.images, case.label, prediction))):
            missing.append(row.name)
            continue
        labels = plan.labels if case.annotated_labels is None else plan.labels.only(case.annotated_labels)
        scan = read_scan(case.images, case.label, prediction, labels)
        if row.name in pictured:
            pictures.append(Picture(row, pictured[row.name], case_picture(scan, labels)))
        view = volume if row.name in volumes else single_slice
        why = f"{volumes[row.name]}: " if row.name in volumes else ""
        views[row.name] = {
            "name": row.name,
            "title": f"{why}{row.name} (Dice {_number(row.dice)})",
            "text": _described(row, unit),
            **view(scan, plan.labels, ct=ct),
        }
    order = [name for name in volumes if name in views] + [name for name in views if name not in volumes]
    return Drawn(
        pictures=sorted(pictures, key=lambda picture: list(pictured).index(picture.row.name)),
        viewer=shared(plan.labels, ct=ct),
        cases=[views[name] for name in order],
        missing=missing,
    )


def _chosen(rows: Sequence[Row], worst: int) -> dict[str, str]:
    """Return cases to look at, and why: those with the lowest Dice, one per group, the median and the highest."""
    known = [row for row in rows if math.isfinite(row.dice)]
    lowest: dict[str, Row] = {}
    for row in known:
        lowest.setdefault(f"case {row.name}" if row.group is None else f"group {row.group}", row)
    chosen = {row.name: "next lowest" for row in list(lowest.values())[:worst]}
    if known:
        chosen[known[0].name] = "lowest Dice"
        if len(known) > 2 * worst:
            chosen.setdefault(known[len(known) // 2].name, "median")
        chosen.setdefault(known[-1].name, "highest Dice")
    return chosen


def _described(row: Row, unit: str) -> str:
    """Return the results of a case in a sentence."""
    parts = [f"Dice {_number(row.dice)}"]
    if math.isfinite(row.hd95):
        parts.append(f"HD95 {_number(row.hd95, 1)} {unit} where found")
    parts += [
        f"{what}: {', '.join(names)}"
        for what, names in (("missed", row.missed), ("false alarm", row.false_alarms))
        if names
    ]
    return f"{', '.join(parts)}."


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _ends(ends: Sequence[float] | None, digits: int = 3) -> str:
    return "" if ends is None or not np.isfinite(ends).all() else f"{ends[0]:.{digits}f}–{ends[1]:.{digits}f}"


def _between(ends: Sequence[float], digits: int = 2) -> str:
    return "–" if not np.isfinite(ends).all() else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _sizes(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
