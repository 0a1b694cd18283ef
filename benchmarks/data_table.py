"""Tables of `data.py`: the mean Dice of each arm, and differences between arms, with intervals over seeds and cases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from paired import estimated, patient

from autocrossdim.evaluation.interval import Estimate, Floats

Record = dict[str, Any]
"""A run: `arm`, `seed`, `per_case` {case: {label: Dice}} and, for incomplete annotation, `slices`."""


def table(records: Sequence[Record], differences: Sequence[tuple[str, str]]) -> str:
    """Return two Markdown tables.

    Args:
        records: Runs of one experiment with the same number of epochs.
        differences: Pairs of arms; the Dice of the second is subtracted from that of the first, over the labels that
            both learned.
    """
    arms: dict[str, dict[int, Record]] = {}
    for record in sorted(records, key=lambda record: int(record["seed"])):
        arms.setdefault(record["arm"], {})[record["seed"]] = record
    lines = ["| arm | labelled slices | Dice (95 % interval) | each seed |", "|---|---|---|---|"]
    for arm, by_seed in arms.items():
        runs = list(by_seed.values())
        slices = ", ".join(str(run["slices"]) for run in runs if "slices" in run)
        each = ", ".join(f"{_estimate([run], _labels([run])).value:.3f}" for run in runs)
        lines.append(f"| {arm} | {slices} | {_shown(_estimate(runs, _labels(runs)), '.3f')} | {each} |")
    lines += ["", "| compared | labels | seeds | difference in Dice (95 % interval) |", "|---|---|---|---|"]
    for first, second in differences:
        seeds = sorted(arms.get(first, {}).keys() & arms.get(second, {}).keys())
        if seeds:
            ours, theirs = ([arms[arm][seed] for seed in seeds] for arm in (first, second))
            labels = _labels([*ours, *theirs])
            found = _estimate(ours, labels, theirs)
            lines.append(f"| {first} − {second} | {', '.join(labels)} | {len(seeds)} | {_shown(found, '+.3f')} |")
    return "\n".join(lines)


def _estimate(runs: Sequence[Record], labels: Sequence[str], others: Sequence[Record] | None = None) -> Estimate:
    """Return the mean Dice over seeds, cases and labels, or how much larger it is than that of other runs."""
    cases = sorted({case for run in runs for case in run["per_case"]})
    values = _values(runs, cases, labels)
    values = values if others is None else values - _values(others, cases, labels)
    return estimated(values, [patient(case) for case in cases])


def _values(runs: Sequence[Record], cases: Sequence[str], labels: Sequence[str]) -> Floats:
    """Return the mean Dice of some labels, shape (runs, cases); NaN for cases that a run was not tested on."""
    missing = dict.fromkeys(labels, np.nan)
    scores = [[run["per_case"].get(case, missing) for case in cases] for run in runs]
    return np.array([[np.mean([score[label] for label in labels]) for score in row] for row in scores])


def _labels(runs: Sequence[Record]) -> list[str]:
    """Return the labels that all runs learned, sorted."""
    return sorted(set.intersection(*(set(scores) for run in runs for scores in run["per_case"].values())))


def _shown(found: Estimate, digits: str) -> str:
    return f"{found.value:{digits}} ({found.low:{digits}} to {found.high:{digits}})"
