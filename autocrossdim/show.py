"""A plan for people to read: the data in five lines, the decision with its reasons, the candidates side by side."""

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from autocrossdim.fingerprint import Fingerprint
from autocrossdim.plan import GIGABYTE, Configuration, Plan

BAR = 20  # characters of a memory bar


def show(plan: Plan, fingerprint: Fingerprint) -> RenderableType:
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
