"""Tables for the terminal: a plan with its reasons, the models compared, and the metrics of a set of cases."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autocrossdim.evaluation.metrics import NSD_TOLERANCE_MM
from autocrossdim.records.best import Best
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import GIGABYTE, Configuration, Plan
from autocrossdim.records.score import ScoreTable
from autocrossdim.records.study import Table as StudyTable
from autocrossdim.records.suggestions import Suggestions
from autocrossdim.records.summary import Summary
from autocrossdim.report.fitting import Fitting
from autocrossdim.report.formats import operations
from autocrossdim.report.misses import partial_sentences, skipped_sentence, unmatched_sentences
from autocrossdim.system.text import counted, duration, printable

BAR = 20  # characters of a memory bar


def plan_text(plan: Plan, fingerprint: Fingerprint) -> RenderableType:
    """Return data, decision and candidate configurations for the terminal."""
    decision = plan.decision
    lines = [*_data(plan, fingerprint), "", f"Decision: {decision.configuration}"]
    lines += [f"  {reason}" for reason in (*decision.reasons, *plan.notes)]
    if plan.overrides:
        chosen = ", ".join(f"{name} = {value}" for name, value in plan.overrides.items())
        lines.append(f"  Chosen by you instead of the planner: {chosen}.")
    return Group(*(_plain(line) for line in lines), "", Fitting(_candidates(plan)))


def best_table(best: Best) -> Fitting:
    """Return all models that were compared, best first, with the chosen one marked."""
    scope = "" if best.scope is None else f", {best.scope}"
    kind = "Cross-validation" if len(best.folds) > 1 else "Validation"
    table = Table(title=_plain(f"{kind} of {best.dataset}{scope}"), box=box.SIMPLE_HEAD, padding=0)
    table.add_column("model")
    unit = best.contenders[0].unit if best.contenders else "mm"
    for heading in (
        "Dice (95 % interval)",
        f"HD95 ({unit})",
        "multiply-adds\nper case",
        "training steps\nper fold",
        "training minutes\nper fold",
        "",
    ):
        table.add_column(heading, justify="right", overflow="fold")
    for each in sorted(best.contenders, key=lambda contender: -contender.dice):
        low, high = each.dice_interval or (math.nan, math.nan)
        table.add_row(
            _plain(each.name),
            _with_interval(each.dice, (low, high), 3),
            _number(each.hd95, ".2f"),
            operations(each.multiply_adds),
            _number(each.steps_per_fold, ",.0f"),
            _number(each.minutes_per_fold, ",.1f"),
            "chosen" if each.configurations == best.configurations else "",
        )
    return Fitting(table)


def summary_text(summary: Summary) -> RenderableType:
    """Return the tables of a summary, followed by what must be known to read its numbers."""
    tables = [summary_table(summary)]
    if summary.has_unmatched:
        tables.append(unmatched_table(summary))
    sentences = [*partial_sentences(summary), *unmatched_sentences(summary), *skipped_sentence(summary)]
    if summary.score is not None:
        tables += [score_table(table) for table in summary.score.tables]
        sentences += summary.score.notes
    return Group(*map(Fitting, tables), *(_plain(sentence) for sentence in sentences))


def summary_table(summary: Summary) -> Table:
    """Return the means over cases and their intervals, one row per label."""
    cases = counted(summary.n_cases, "case")
    if summary.n_groups != summary.n_cases:
        cases += f" of {counted(summary.n_groups, 'group')}"
    known = not math.isnan(summary.ends("Dice")[0])
    level = f", with {100 * summary.interval.level:.0f} % intervals" if known else ""
    headings = {
        "Dice": "Dice",
        "NSD": f"NSD ({NSD_TOLERANCE_MM:g} {summary.unit})",
        "HD95": f"HD95 ({summary.unit})",
        "ASSD": f"ASSD ({summary.unit})",
    }
    annotated = {"cases\nannotated": summary.n_annotated} if summary.is_partial else {}
    counts = {**annotated, "cases\nwith it": summary.n_present}
    return _label_table(f"Means over {cases}{level}", summary, counts, headings)


def unmatched_table(summary: Summary) -> Table:
    """Return the numbers of missed labels and false alarms, and distances without them, one row per label."""
    counts = {"missed": summary.n_missed, "false\nalarms": summary.n_false_alarms}
    headings = {"HD95_found": f"HD95 ({summary.unit})", "ASSD_found": f"ASSD ({summary.unit})"}
    return _label_table("Distances over cases where both have the label", summary, counts, headings)


def suggestions_table(suggestions: Suggestions) -> Fitting:
    """Return the scans to annotate next, with reasons."""
    chosen = suggestions.suggestions
    title = f"{len(chosen)} of {counted(suggestions.n_scans, 'unlabelled scan')} to annotate next"
    table = Table(title=_plain(f"{title} ({suggestions.method}, seed {suggestions.seed})"), box=box.SIMPLE_HEAD)
    grouped, sliced = any(each.group for each in chosen), any(each.slices for each in chosen)
    table.add_column("", justify="right")
    table.add_column("scan", overflow="fold")
    if grouped:
        table.add_column("group", overflow="fold")
    if sliced:
        table.add_column("slices, from 0", overflow="fold")
    table.add_column("expected Dice" if suggestions.calibrated else "expected Dice,\nnot calibrated", justify="right")
    table.add_column("why", overflow="fold")
    for rank, each in enumerate(chosen, start=1):
        cells = [str(rank), each.case]
        cells += [each.group or ""] if grouped else []
        cells += [f"{each.slice_axis}: {', '.join(map(str, each.slices))}"] if sliced else []
        table.add_row(*map(_plain, [*cells, _number(each.expected_dice, ".3f"), each.why]))
    return Fitting(table)


def score_table(scored: ScoreTable) -> Table:
    """Return a table of a challenge score."""
    table = Table(title=_plain(scored.title), box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", overflow="fold")
    columns = list(next(iter(scored.rows.values())))
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for name, values in scored.rows.items():
        table.add_row(_plain(name), *(_score(values[column]) for column in columns))
    return table


def _label_table(
    title: str, summary: Summary, counts: Mapping[str, Mapping[str, int]], headings: Mapping[str, str]
) -> Table:
    """Return a table of counts and means, one row per label and one for all labels.

    Args:
        title: Title of the table.
        summary: Summary to show.
        counts: Numbers of cases by label key, by column heading.
        headings: Column headings by metric. Metrics that the summary does not have are left out.
    """
    # Without lines and padding, and with folded cells, all intervals fit into the 80 columns of a pipe or log file.
    title += "" if summary.scope is None else f", {summary.scope}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    table.add_column("label", overflow="fold")
    for heading in counts:
        table.add_column(heading, justify="right")
    shown = [metric for metric in headings if metric in summary.foreground_mean]
    for metric in shown:
        table.add_column(headings[metric], justify="right", overflow="fold")
    for key, mean in summary.mean.items():
        cells = [_metric(metric, mean[metric], summary.ends(metric, key)) for metric in shown]
        table.add_row(_plain(summary.name(key)), *(str(count[key]) for count in counts.values()), *cells)
    table.add_section()
    cells = [_metric(metric, summary.foreground_mean[metric], summary.ends(metric)) for metric in shown]
    table.add_row("all labels", *("" for _ in counts), *cells)
    return table


def _data(plan: Plan, fingerprint: Fingerprint) -> list[str]:
    cases = fingerprint.cases
    shape = " x ".join(f"{n:.0f}" for n in np.median([case.shape for case in cases], axis=0))
    spacing = " x ".join(f"{mm:.3g}" for mm in fingerprint.median_spacing())
    labels = [f"{name} ({fingerprint.cases_with(values)})" for name, values in plan.labels.foreground.items()]
    schemes = [f"{name} ({entry.scheme})" for name, entry in zip(plan.channel_names, plan.normalization, strict=True)]
    return [
        f"{plan.dataset}: {len(cases)} {fingerprint.dims}D cases",
        f"  median shape (z, y, x)    {shape} voxels, {100 * fingerprint.relative_size_after_cropping():.0f} % imaged",
        f"  median spacing            {spacing} mm",
        f"  channels (normalisation)  {', '.join(schemes)}",
        f"  labels (number of cases)  {', '.join(labels)}",
    ]


def _candidates(plan: Plan) -> Table:
    """Return the configurations side by side, the chosen one first."""
    names = [plan.decision.configuration, *plan.decision.alternatives]
    table = Table("", *(f"{name} (chosen)" if i == 0 else name for i, name in enumerate(names)))
    candidates = [plan.configurations[name] for name in names]
    rows = {
        "spacing": [_text(c.spacing) + " mm" for c in candidates],
        "patch": [f"{_text(c.patch_size)} of {_text(c.median_shape[-c.dims :])}" for c in candidates],
        "batch": [str(c.batch_size) for c in candidates],
        "encoder": [f"{c.encoder}, {len(c.strides)} levels" for c in candidates],
        "strides": [" ".join("".join(map(str, stride)) for stride in c.strides) for c in candidates],
        "memory of a training step": [_bar(c) for c in candidates],
        "measured": [_gigabytes(c.memory.measured_bytes) for c in candidates],
        "memory of prediction": [_gigabytes(c.memory.inference_bytes) for c in candidates],
        "multiply-adds per case": [operations(c.cost.multiply_adds_per_case) for c in candidates],
        "time per epoch here": [_duration(c.cost.seconds_per_epoch) for c in candidates],
        "command": [f"autocrossdim train DATASET --config {c.name}" for c in candidates],
    }
    for name, cells in rows.items():
        if any(cells):
            table.add_row(name, *cells)
    return table


def _text(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)


def _bar(configuration: Configuration) -> str:
    memory = configuration.memory
    filled = round(BAR * min(1.0, memory.estimated_bytes / memory.budget_bytes))
    return (
        "█" * filled + "░" * (BAR - filled) + f" {_gigabytes(memory.estimated_bytes)} of "
        f"{_gigabytes(memory.budget_bytes)}"
    )


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / GIGABYTE:.2f} GB"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"about {duration(seconds)}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def study_table(found: StudyTable) -> Fitting:
    """Return the table of a study for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for column, heading in enumerate(found.headings):
        table.add_column(_plain(heading), justify="left" if column < found.left else "right", overflow="fold")
    for row in found.rows:
        table.add_row(*map(_plain, row))
    return Fitting(table)


def _score(value: float) -> str:
    return str(value) if isinstance(value, int) else _number(value, ".2f" if abs(value) >= 10 else ".3f")


def _metric(metric: str, mean: float, ends: Sequence[float]) -> str:
    return _with_interval(mean, ends, 2 if metric.startswith(("HD95", "ASSD")) else 3)


def _with_interval(mean: float, ends: Sequence[float], digits: int) -> str:
    interval = "" if np.isnan(ends).any() else f" ({ends[0]:.{digits}f}–{ends[1]:.{digits}f})"
    return "–" if math.isnan(mean) else f"{mean:.{digits}f}{interval}"


def _plain(text: str) -> Text:
    """Return a text that is shown as it is: names in it are neither rich's markup nor control sequences."""
    return Text(printable(text, len(text)))
