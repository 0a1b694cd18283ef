"""Cross-validation results of a model, as the report shows them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.data.dataset import Dataset
from autocrossdim.data.splits import Split
from autocrossdim.records.best import Best, folder_name
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.likeness import Familiarity, HeldOutCases
from autocrossdim.records.plan import Plan
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.calibration import calibration_chart
from autocrossdim.report.drawn import LISTED, Drawn, draw_cases
from autocrossdim.report.misses import SEVERAL, hardly_segmented, partial_sentences, unmatched_sentences
from autocrossdim.report.pictures import agreement_chart, dice_chart
from autocrossdim.report.rows import Row, held_out_rows
from autocrossdim.report.sizes import Agreement, Measure, agreements, case_sizes
from autocrossdim.report.table import results_table
from autocrossdim.report.training import Fold, trained_folds, training_warnings
from autocrossdim.system.text import listed

FEW = 10  # patients (or cases) below which the page warns that an interval rests on few; our choice
LEAST_ALIKE = 10  # cases that are listed as least like the training data
CHARTS = 8  # labels whose sizes are drawn


@dataclass(frozen=True)
class Results:
    """Results of one model on held-out cases.

    Attributes:
        name: Name of the model, such as `dx` or `dx + omnia`.
        ending: File ending of the cases.
        summary: Summary of all folds.
        missing: Folds that are not, or not completely, among the results.
        rows: Cases, the lowest Dice first.
        cautions: Sentences that are needed to read the numbers.
        chart: PNG of the Dice of every case.
        calibration_chart: PNG of the reliability of probabilities and expected Dice, if `find_best` measured it.
        drawn: The cases as pictures and in the viewer.
        measure: How sizes are measured.
        agreements: Agreement of sizes by label.
        agreement_charts: PNG by label name, of the first labels.
        table: All labels and cases, for the script of the page.
        familiarity: How like the training data held-out cases are, the least alike first; empty if not measured.
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
    calibration_chart: bytes | None
    drawn: Drawn
    measure: Measure
    agreements: Sequence[Agreement]
    agreement_charts: Mapping[str, bytes]
    table: Mapping[str, Any]
    familiarity: Mapping[str, Familiarity]
    folds: Sequence[Fold]
    training_warnings: Sequence[str]

    def dice(self, name: str) -> float | None:
        """Return the mean Dice of a case; None if it is not among the results."""
        cases = self.summary.metric_per_case
        return next((case.dice for case in cases if case.file.removesuffix(self.ending) == name), None)

    def annotated(self, key: str) -> int:
        """Return the number of cases in which a label is annotated."""
        return sum(case.in_reference(key) for case in self.summary.metric_per_case)

    @property
    def not_found(self) -> dict[str, list[str]]:
        """Names of the cases in which a label is annotated and not found, by key of the label."""
        missed = {
            key: [
                case.file.removesuffix(self.ending)
                for case in self.summary.metric_per_case
                if case.in_reference(key) and not case.in_prediction(key)
            ]
            for key in self.summary.mean
        }
        return {key: cases for key, cases in missed.items() if cases}


def read_results(
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
    """Read the results of a model, and draw its cases.

    Args:
        dataset: The raw dataset.
        plan: Its plan.
        workspace: Its workspace.
        fingerprint: Measurements of the cases.
        configurations: Configurations of the model.
        splits: The folds.
        best: What `find_best` chose, if it was run.
        spaced: Whether the images have a spacing in mm.

    Raises:
        UserError: A file is missing or damaged.
    """
    folder = folder_name(configurations)
    trained = trained_folds(workspace, configurations, splits)
    summary = Summary.read(workspace.summary(folder))
    rows = held_out_rows(summary, dataset.file_ending)
    evaluated = {row.name for row in rows}
    absent = {f"fold {k}": cases for k, split in enumerate(splits) if (cases := sorted(set(split.val) - evaluated))}
    folds = {case: workspace.fold(folder, k) for k, split in enumerate(splits) for case in split.val}
    segmentations = {case: fold.validation / f"{case}{dataset.file_ending}" for case, fold in folds.items()}
    drawn = draw_cases(dataset, plan, segmentations, rows, summary.unit)
    measure = Measure.of(fingerprint.dims, spaced=spaced)
    sizes = case_sizes(summary, fingerprint, measure, dataset.file_ending)
    agreement = agreements(summary, sizes)
    return Results(
        name=" + ".join(configurations),
        ending=dataset.file_ending,
        summary=summary,
        missing=list(absent),
        rows=rows[:LISTED],
        cautions=[*_failures(summary, trained), *_cautions(summary, rows, _unfinished(absent, splits), best)],
        chart=dice_chart({summary.name(key): [row.labels[key] for row in rows] for key in summary.mean}),
        calibration_chart=None if best is None else calibration_chart(best, summary, folds, dataset.file_ending),
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
        familiarity={} if best is None else _familiarity(workspace.familiarity(folder)),
        folds=trained,
        training_warnings=training_warnings(plan, workspace, configurations, splits),
    )


def _familiarity(file: Path) -> dict[str, Familiarity]:
    """Return how like the training data the cases are, for the least alike ones."""
    if not file.exists():
        return {}
    cases = HeldOutCases.read(file).cases
    return dict(sorted(cases.items(), key=lambda case: -case[1].score)[:LEAST_ALIKE])


def _failures(summary: Summary, folds: Sequence[Fold]) -> list[str]:
    """Return a sentence about the labels that are hardly segmented, if there are any."""
    failed = hardly_segmented(summary)
    if not failed:
        return []
    most = max((fold.steps for fold in folds), default=0)
    steps = f"; the folds were trained for up to {most:,} steps" if most else ""
    names = listed([f"'{name}' (mean Dice {dice:.3f})" for name, dice in failed.items()])
    verb, annotation = ("is", "its annotation") if len(failed) == 1 else ("are", "their annotation")
    return [f"{names} {verb} hardly segmented{steps}. Train for longer, and check {annotation}."]


def _rare(summary: Summary) -> list[str]:
    """Return which labels are in some of the cases only: a sentence per label, or one for many labels."""
    present = {key: sum(case.in_reference(key) for case in summary.metric_per_case) for key in summary.mean}
    rare = [key for key in present if present[key] < summary.n_annotated[key]]
    if len(rare) > SEVERAL:
        labels = [f"'{summary.name(key)}' ({present[key]} of {summary.n_annotated[key]})" for key in rare]
        return [f"{len(rare)} labels are present in some of the cases only: {listed(labels)}."]
    return [
        f"'{summary.name(key)}' is present in {present[key]} of {summary.n_annotated[key]} cases only." for key in rare
    ]


def _unfinished(absent: Mapping[str, Sequence[str]], splits: Sequence[Split]) -> list[str]:
    """Return which folds and cases are not among the results; `absent` maps folds to their cases without a result."""
    of_fold = {f"fold {k}": len(split.val) for k, split in enumerate(splits)}
    folds = [fold for fold, cases in absent.items() if len(cases) == of_fold[fold]]
    cases = sorted(case for fold, some in absent.items() if fold not in folds for case in some)
    sentences = []
    if folds:
        sentences.append(
            f"Not all folds are included: {', '.join(folds)} must still be trained or validated under this plan."
        )
    if cases:
        has = "has" if len(cases) == 1 else "have"
        sentences.append(
            f"Not all held-out cases are included: {listed(cases, 10)} {has} no result yet. `autocrossdim find_best` "
            f"segments and evaluates {'it' if len(cases) == 1 else 'them'}."
        )
    return sentences


def _cautions(summary: Summary, rows: Sequence[Row], unfinished: Sequence[str], best: Best | None) -> list[str]:
    """Return what must be known to read the numbers, most important first."""
    cases, groups = summary.n_cases, summary.n_groups
    unit = "cases" if groups == cases else "patients (groups)"
    sentences = [*unfinished]
    low, high = summary.ends("Dice")
    if math.isfinite(low):
        sentences.append(
            f"Mean Dice {summary.foreground_mean['Dice']:.3f}; 95 % confidence interval {low:.3f} to {high:.3f} over "
            f"{groups} {unit}."
        )
    if groups < FEW:
        sentences.append(
            f"The results rest on {groups} {unit} only. With so few, intervals are rough estimates, and results on new "
            "data may fall outside them."
        )
    sentences += [*partial_sentences(summary), *unmatched_sentences(summary)]
    known = [row for row in rows if math.isfinite(row.dice)]
    if len(known) > 1:
        first, third = np.percentile([row.dice for row in known], (25, 75))
        sentences.append(
            f"Individual cases vary more than the mean: Dice ranges from {known[0].dice:.3f} ({known[0].name}) to "
            f"{known[-1].dice:.3f}, and half of the cases lie between {first:.3f} and {third:.3f}."
        )
    sentences += _rare(summary)
    if best is None:
        sentences.append(
            "No model has been selected and probabilities are not calibrated. Run `autocrossdim find_best` for both."
        )
    else:
        sentences += [best.calibration.sentence, best.case_score.sentence]
        sentences += _optimism(best)
    return sentences


def _optimism(best: Best) -> list[str]:
    """Return a sentence on what was selected by the results that the page shows; none if nothing was."""
    selected = ["model"] if len(best.contenders) > 1 else []
    selected += ["post-processing"] if best.postprocessing else []
    if not selected:
        return []
    verb = "was" if len(selected) == 1 else "were"
    return [
        f"The {' and '.join(selected)} {verb} selected on these same cases, so the results are slightly "
        "optimistic. Evaluate on cases that were set aside (imagesTs) for an unbiased estimate."
    ]
