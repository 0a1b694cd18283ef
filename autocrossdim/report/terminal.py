"""A plan for people to read: the data in five lines, the decision with its reasons, the candidates side by side."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from autocrossdim.evaluation.interval import LEVEL
from autocrossdim.evaluation.metrics import NSD_TOLERANCE_MM
from autocrossdim.evaluation.summary import Summary
from autocrossdim.records.best import Best
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import GIGABYTE, Configuration, Plan
from autocrossdim.system.text import counted

BAR = 20  # characters of a memory bar


def plan_text(plan: Plan, fingerprint: Fingerprint) -> RenderableType:
    """Return everything worth knowing about a plan, for a rich console."""
    decision = plan.decision
    lines = [*_data(plan, fingerprint), "", f"Decision: {decision.configuration}"]
    lines += [f"  {reason}" for reason in (*decision.reasons, *plan.notes)]
    if plan.overrides:
        chosen = ", ".join(f"{name} = {value}" for name, value in plan.overrides.items())
        lines.append(f"  You chose instead of the planner: {chosen}.")
    return Group("\n".join(lines), "", _candidates(plan))


def _data(plan: Plan, fingerprint: Fingerprint) -> list[str]:
    cases = fingerprint.cases
    shape = " x ".join(f"{n:.0f}" for n in np.median([case.shape for case in cases], axis=0))
    spacing = " x ".join(f"{mm:.3g}" for mm in fingerprint.median_spacing())
    labels = [f"{name} ({fingerprint.cases_with(values)})" for name, values in plan.labels.foreground.items()]
    schemes = [f"{name} ({entry.scheme})" for name, entry in zip(plan.channel_names, plan.normalization, strict=True)]
    return [
        f"{plan.dataset}: {len(cases)} {fingerprint.dims}D cases",
        f"  typical shape (z, y, x)   {shape} voxels, {100 * fingerprint.relative_size_after_cropping():.0f} % imaged",
        f"  typical spacing           {spacing} mm",
        f"  channels (normalised by)  {', '.join(schemes)}",
        f"  labels (in cases)         {', '.join(labels)}",
    ]


def _candidates(plan: Plan) -> Table:
    """The configurations side by side, the chosen one first."""
    names = [plan.decision.configuration, *plan.decision.alternatives]
    table = Table("", *(f"{name} (chosen)" if i == 0 else name for i, name in enumerate(names)))
    made = [plan.configurations[name] for name in names]
    rows = {
        "spacing": [_text(c.spacing) + " mm" for c in made],
        "patch": [f"{_text(c.patch_size)} of {_text(c.median_shape[-c.dims :])}" for c in made],
        "batch": [str(c.batch_size) for c in made],
        "encoder": [f"{c.encoder}, {len(c.strides)} levels" for c in made],
        "strides": [" ".join("".join(map(str, stride)) for stride in c.strides) for c in made],
        "memory of a step": [_bar(c) for c in made],
        "measured": [_gigabytes(c.memory.measured_bytes) for c in made],
        "memory of prediction": [_gigabytes(c.memory.inference_bytes) for c in made],
        "multiply-adds a case": [f"{c.cost.multiply_adds_per_case / 1e9:.0f} billion" for c in made],
        "an epoch here": [_duration(c.cost.seconds_per_epoch) for c in made],
        "to train it": [f"autocrossdim train DATASET --config {c.name}" for c in made],
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
    if seconds is None:
        return ""
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"


def best_table(best: Best) -> Table:
    """Return everything that was compared as a table for the terminal, the chosen one marked."""
    result = Table(title=f"Cross-validation of {best.dataset}", box=box.SIMPLE_HEAD, padding=0)
    result.add_column("model")
    for heading in ("Dice (95 % interval)", "HD95 (mm)", "multiply-adds a case", ""):
        result.add_column(heading, justify="right")
    for each in sorted(best.contenders, key=lambda contender: -contender.dice):
        interval = "" if each.dice_interval is None else " ({:.3f}–{:.3f})".format(*each.dice_interval)
        result.add_row(
            each.name,
            f"{each.dice:.3f}{interval}",
            "–" if each.hd95 is None else f"{each.hd95:.2f}",
            f"{each.multiply_adds:.2e}",
            "chosen" if each.configurations == best.configurations else "",
        )
    return result


def summary_table(summary: Summary) -> Table:
    """Return the means and their intervals as a table for the terminal, a row a label."""
    shown = [metric for metric in ("Dice", "NSD", "HD95", "ASSD") if metric in summary["foreground_mean"]]
    headings = {"NSD": f"NSD ({NSD_TOLERANCE_MM:g} mm)", "HD95": "HD95 (mm)", "ASSD": "ASSD (mm)"}
    cases = counted(summary["n_cases"], "case")
    if summary["n_groups"] != summary["n_cases"]:
        cases += f" of {counted(summary['n_groups'], 'group')}"
    # No lines between columns, and folded where it does not fit: 80 columns, where there is no terminal, are to hold
    # all intervals.
    title = f"Means over {cases}, with {LEVEL:.0%} intervals"
    result = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    result.add_column("label")
    result.add_column("cases\nwith it", justify="right")
    for metric in shown:
        result.add_column(headings.get(metric, metric), justify="right", overflow="fold")
    intervals = summary["interval"]
    for key, mean in summary["mean"].items():
        name = summary["labels"].get(key, key)
        cells = [_value(metric, mean[metric], intervals["mean"][key][metric]) for metric in shown]
        result.add_row(name, str(summary["n_present"][key]), *cells)
    result.add_section()
    mean = summary["foreground_mean"]
    cells = [_value(metric, mean[metric], intervals["foreground_mean"][metric]) for metric in shown]
    result.add_row("all labels", "", *cells)
    return result


def _value(metric: str, mean: float, ends: Sequence[float]) -> str:
    if np.isnan(mean):
        return "–"
    digits = 2 if metric in ("HD95", "ASSD") else 3
    low, high = ends
    return f"{mean:.{digits}f}" + ("" if np.isnan(low) else f" ({low:.{digits}f}–{high:.{digits}f})")
