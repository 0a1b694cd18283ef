"""Dice against the number of training cases: a power law, and the gain from twice as many cases."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from autocrossdim.evaluation.interval import Estimate, Floats, estimate
from autocrossdim.records.study import StudyRun, Table
from autocrossdim.studies.comparison import dice_text, lacking, reading_notes
from autocrossdim.studies.design import Finding
from autocrossdim.studies.figures import COLOURS, mean_dice, save
from autocrossdim.studies.statistics import case_groups, crossed_mean, dice_matrix, finite, known_cases
from autocrossdim.system.text import for_matplotlib

SMALLEST_ERROR = 1e-4  # of 1 - Dice, whose logarithm is fitted
SIZES_NEEDED = 3


def doubling_sizes(available: int) -> list[int]:
    """Return 2, 4, 8, ... training cases, and all that are available."""
    return sorted({2**power for power in range(1, available.bit_length()) if 2**power < available} | {available})


def power_law(sizes: Sequence[int], dice: Floats) -> tuple[Floats, Floats]:
    """Fit 1 - Dice = a * n ** -b by least squares on logarithms.

    Args:
        sizes: Numbers of training cases n, at least two different ones.
        dice: Mean Dice, shape (..., sizes).

    Returns:
        The factors a and the exponents b, shape (...).
    """
    x = np.log(np.asarray(sizes, dtype=np.float64))
    y = np.log(np.maximum(1 - dice, SMALLEST_ERROR))
    centred = x - x.mean()
    slope = (y * centred).sum(axis=-1) / (centred**2).sum()
    return np.exp(y.mean(axis=-1) - slope * x.mean()), -slope


def gain_of_twice(sizes: Sequence[int], values: Sequence[Floats], groups: Sequence[str]) -> Estimate:
    """Return by how much the fitted Dice grows from the largest number of training cases to twice as many.

    Args:
        sizes: Numbers of training cases.
        values: For each of them, the Dice of the same seeds and cases, (S, C).
        groups: Group of each case.
    """

    def statistic(of_seeds: Floats, of_cases: Floats) -> Floats:
        dice = np.stack([crossed_mean(each, of_seeds, of_cases) for each in values], axis=-1)
        a, b = power_law(sizes, dice)
        gain: Floats = a * max(sizes) ** -b * (1 - 2**-b)
        return gain

    return estimate(statistic, seeds=len(values[0]), groups=groups, known=known_cases(*values))


def learning_curve(arms: Sequence[str], runs: Sequence[StudyRun]) -> Finding:
    """Fit the power law to the runs of the only arm, with the seeds that all numbers of training cases have."""
    sizes = sorted({run.size for run in runs})
    seeds = set.intersection(*({run.seed for run in runs if run.size == size} for size in sizes))
    of = {size: sorted((r for r in runs if r.size == size), key=lambda run: run.seed) for size in sizes}
    cases, groups = case_groups(runs[0])
    values = [dice_matrix([run for run in of[size] if run.seed in seeds], cases) for size in sizes]
    notes = reading_notes(runs, 1)
    largest = sizes[-1]
    numbers: dict[str, float | None] = {}
    fitted = None
    if len(sizes) < SIZES_NEEDED:
        said = f"A learning curve needs at least {SIZES_NEEDED} numbers of training cases; there are {len(sizes)}."
    elif not seeds:
        said = "A learning curve needs a seed with runs of every number of training cases; no seed has all of them yet."
    else:
        means = np.array([np.nanmean(each) for each in values])
        fitted = tuple(float(number) for number in power_law(sizes, means))
        gain = gain_of_twice(sizes, values, groups)
        before, now, expected = (1 - fitted[0] * size ** -fitted[1] for size in (sizes[-2], largest, 2 * largest))
        numbers = {"a": fitted[0], "b": fitted[1], "twice": expected, "gain": gain.value}
        numbers |= {"gain low": finite(gain.low), "gain high": finite(gain.high)}
        ends = f"{gain.value:+.3f} Dice ({gain.low:+.3f} to {gain.high:+.3f})"
        if few := lacking(len(seeds), bool(np.isfinite(gain.low))):
            said = (
                f"No conclusion about twice as many training cases as {largest} can be drawn from {few} (on the fitted "
                f"curve: {gain.value:+.3f} Dice)."
            )
        elif gain.excludes_zero:
            said = (
                f"According to the fitted curve, twice as many training cases as {largest} would change mean Dice by "
                f"{ends}, from {now:.3f} to {expected:.3f}."
            )
        else:
            said = f"No difference shown between {largest} training cases and twice as many: {ends}."
        notes += [
            f"Power law fitted to the means: 1 - Dice = {fitted[0]:.3f} × n^{-fitted[1]:.3f}. It "
            "assumes that Dice can reach 1; where the annotation itself limits the Dice, the gain is overestimated.",
            f"From {sizes[-2]} to {largest} training cases, mean Dice changed by {means[-1] - means[-2]:+.3f}; on the "
            f"curve, by {now - before:+.3f}. The interval does not include how far the curve is from the truth.",
            "Where nearly all available cases are used, the seeds share most of their training cases.",
        ]
    return Finding(
        conclusion=said,
        table=_table(of, fitted),
        draw=partial(_draw, runs=runs, fitted=fitted),
        notes=tuple(notes),
        numbers=numbers,
    )


def _table(of: dict[int, list[StudyRun]], fitted: tuple[float, ...] | None) -> Table:
    rows = [
        (
            str(size),
            str(len(runs)),
            dice_text(runs),
            "–" if fitted is None else f"{1 - fitted[0] * size ** -fitted[1]:.3f}",
            f"{np.mean([run.training_seconds for run in runs]) / 60:.1f}",
        )
        for size, runs in of.items()
    ]
    return Table(
        headings=("training cases", "seeds", "Dice (95 % interval)", "power law", "training (min)"), rows=tuple(rows)
    )


def _draw(path: Path, *, runs: Sequence[StudyRun], fitted: tuple[float, ...] | None) -> None:
    from matplotlib.figure import Figure

    sizes = sorted({run.size for run in runs})
    figure = Figure(figsize=(6, 4), layout="constrained")
    plot = figure.subplots()
    plot.scatter([run.size for run in runs], [mean_dice(run) for run in runs], s=20, color=COLOURS[0], label="runs")
    if fitted is not None:
        for ends, style, label in (((sizes[0], sizes[-1]), "-", "power law"), ((sizes[-1], 2 * sizes[-1]), "--", None)):
            x = np.geomspace(*ends, 50)
            plot.plot(x, 1 - fitted[0] * x ** -fitted[1], style, color=COLOURS[1], label=label)
    plot.set_xscale("log", base=2)
    ticks = [*sizes, *([2 * sizes[-1]] if fitted is not None else [])]
    plot.set_xticks(ticks, [str(tick) for tick in ticks])
    plot.set_xlabel("training cases")
    plot.set_ylabel("mean Dice of the held-out cases")
    plot.set_title(for_matplotlib(runs[0].configuration), fontsize=10)
    plot.grid(alpha=0.3)
    plot.legend()
    save(figure, path)
