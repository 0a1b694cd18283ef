"""At which anisotropy a 2D network begins to segment better than a 3D network."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from autocrossdim.evaluation.interval import Estimate, Floats, estimate
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.records.study import Comparison, StudyRun, Table
from autocrossdim.studies.comparison import compared, dice_text, lacking, reading_notes, with_ends
from autocrossdim.studies.design import Finding
from autocrossdim.studies.figures import COLOURS, mean_dice, save
from autocrossdim.studies.statistics import case_groups, crossed_difference, dice_matrix, finite, known_cases, paired

GRID = 61  # ratios at which the fitted line is examined
NEEDED = 3  # ratios
NOT_ADJUSTED = (
    "Intervals at single slice spacings are not adjusted for their number; the conclusion rests on one line that is "
    "fitted to all of them."
)


@dataclass(frozen=True)
class Crossing:
    """Where a difference between two networks changes its sign.

    Attributes:
        value: The ratio; None unless the difference is shown to be positive at smaller and negative at larger ratios.
        low: Smallest ratio at which no difference is shown; -inf if that is the smallest of all, None if there is none.
        high: Largest ratio at which no difference is shown; inf if that is the largest of all, None likewise.
        signs: Signs of the difference that are shown (the interval of the line excludes 0), from small to large ratios.
    """

    value: float | None
    low: float | None
    high: float | None
    signs: tuple[int, ...]


def find_crossing(ratios: Sequence[float], pairs: Sequence[tuple[Floats, Floats]], groups: Sequence[str]) -> Crossing:
    """Fit a line to the difference in mean Dice against the logarithm of the ratio, and return where it is 0.

    The interval holds the ratios at which the 95 % interval of the line contains 0 (Fieller's method), so it is open
    where the measured ratios do not limit it.

    Args:
        ratios: Anisotropies, at least two different ones.
        pairs: For each of them, the Dice of two networks with the same seeds and cases, (S, C), from
            whose difference (first minus second) the line is fitted.
        groups: Group of each case.
    """
    x = np.log(np.asarray(ratios, dtype=np.float64))
    centred = x - x.mean()
    grid = np.linspace(x.min(), x.max(), GRID)
    # The value of the fitted line at a point is a weighted sum of the differences.
    weights = 1 / len(x) + np.outer(grid - x.mean(), centred) / (centred**2).sum()

    def line(point: int, of_seeds: Floats, of_cases: Floats) -> Floats:
        differences = np.stack([crossed_difference(*pair, of_seeds, of_cases) for pair in pairs], axis=-1)
        value: Floats = differences @ weights[point]
        return value

    known = known_cases(*chain.from_iterable(pairs))
    found = [
        estimate(partial(line, point), seeds=len(pairs[0][0]), groups=groups, known=known) for point in range(len(grid))
    ]
    values = np.array([each.value for each in found])
    signs = tuple(sign for sign, _ in groupby(1 if each.value > 0 else -1 for each in found if each.excludes_zero))
    zero = float(np.exp(np.interp(0.0, -values, grid))) if signs == (1, -1) else None
    unsure = np.flatnonzero([not each.excludes_zero for each in found])
    if len(unsure):
        first, last = int(unsure[0]), int(unsure[-1])
    elif zero is not None:  # the line is 0 between two points of the grid
        first = int(np.argmax(values < 0))
        last = first - 1
    else:
        return Crossing(None, None, None, signs)
    return Crossing(
        zero,
        -np.inf if first == 0 else float(np.exp(_touches_zero(grid, found, first - 1, first))),
        np.inf if last == GRID - 1 else float(np.exp(_touches_zero(grid, found, last + 1, last))),
        signs,
    )


def _touches_zero(grid: Floats, found: Sequence[Estimate], shown: int, other: int) -> float:
    """Return where the interval of the line begins to contain 0, interpolated between two points of the grid.

    Args:
        grid: The points.
        found: Estimate at each of them.
        shown: Point at which the interval excludes 0.
        other: Point beside it at which the interval contains 0, or excludes it on the other side.
    """
    side = "low" if found[shown].value > 0 else "high"
    inner, outer = (abs(getattr(found[point], side)) for point in (other, shown))
    share = outer / (outer + inner)
    return float(grid[shown] + share * (grid[other] - grid[shown]))


def compare_ratios(arms: Sequence[str], runs: Sequence[StudyRun]) -> Finding:
    """Compare the first arm (2D) with the second one (3D) at every slice spacing, and find where they cross.

    Args:
        arms: Names of the 2D and the 3D arm.
        runs: Their runs.

    Raises:
        ValueError: There are not exactly two arms.
    """
    flat, deep = arms
    size = max(run.size for run in runs)  # the crossing is that of the largest number of training cases
    slicings = sorted({run.slicing for run in runs})
    of = {
        (arm, slicing): [run for run in runs if (run.arm, run.slicing, run.size) == (arm, slicing, size)]
        for slicing in slicings
        for arm in arms
    }
    pairs = {slicing: paired(of[deep, slicing], of[flat, slicing]) for slicing in slicings}
    complete = [slicing for slicing in slicings if pairs[slicing][0]]
    seeds = set.intersection(*({run.seed for run in pairs[each][0]} for each in complete)) if complete else set()
    comparisons = tuple(compared(*pairs[slicing]) for slicing in complete)
    ratios = [float(np.median([run.anisotropy for run in pairs[slicing][0]])) for slicing in complete]
    cases, groups = case_groups(runs[0])
    crossing = None
    is_complete = len(complete) >= NEEDED and bool(seeds)
    few = lacking(len(seeds), all(each.low is not None for each in comparisons)) if is_complete else ""
    if is_complete and not few:
        common = [[[run for run in side if run.seed in seeds] for side in pairs[slicing]] for slicing in complete]
        crossing = find_crossing(
            ratios, [(dice_matrix(of_2d, cases), dice_matrix(of_3d, cases)) for of_2d, of_3d in common], groups
        )
    return Finding(
        conclusion=(
            f"No conclusion about a crossing of {flat} and {deep} can be drawn from {few}."
            if few
            else _conclusion(flat, deep, ratios, crossing)
        ),
        table=_table(arms, of, dict(zip(complete, comparisons, strict=True))),
        draw=partial(_draw, arms=arms, of=of, crossing=crossing),
        notes=(
            *reading_notes(runs, 1),
            NOT_ADJUSTED,
            f"Results with {size} training cases, evaluated on the thicker slices.",
        ),
        comparisons=comparisons,
        numbers={}
        if crossing is None
        else {"crossing": crossing.value, "low": finite(crossing.low), "high": finite(crossing.high)},
    )


def _conclusion(flat: str, deep: str, ratios: Sequence[float], crossing: Crossing | None) -> str:
    if crossing is None and len(ratios) >= NEEDED:
        return "A crossing needs a seed with runs at every slice spacing; no seed has all of them yet."
    if crossing is None:
        return f"A crossing needs {NEEDED} slice spacings with runs of both networks; there are {len(ratios)}."
    measured = f"between an anisotropy of {min(ratios):.1f} and {max(ratios):.1f}"
    if not crossing.signs:
        return f"No difference shown between {deep} and {flat} at any ratio {measured}."
    if crossing.signs == (-1, 1):
        return (
            f"{flat} is better at small ratios and {deep} at large ones, {measured}: the reverse of what is expected."
        )
    if crossing.value is None:
        better, worse = (deep, flat) if crossing.signs == (1,) else (flat, deep)
        if crossing.low is None and crossing.high is None:
            return f"{better} is better than {worse} everywhere {measured}."
        return f"{better} is better than {worse} at some ratios {measured}; at the others, no difference is shown."
    below, above = f"{crossing.low:.1f}", f"{crossing.high:.1f}"  # both signs are shown, so both ends are limited
    threshold = float(PlanOptions.model_fields["threshold"].default)
    inside = (crossing.low or 0) <= threshold <= (crossing.high or 0)
    return (
        f"{deep} is better than {flat} up to an anisotropy of {crossing.value:.1f} (95 % interval {below} to {above}), "
        f"which {'agrees with' if inside else 'differs from'} the planner's threshold of {threshold:.1f}."
    )


def _table(arms: Sequence[str], of: dict[tuple[str, int], list[StudyRun]], comparisons: dict[int, Comparison]) -> Table:
    rows = []
    for slicing in dict.fromkeys(slicing for _, slicing in of):
        runs = [run for arm in arms for run in of[arm, slicing]]
        if not runs:
            continue
        found = comparisons.get(slicing)
        rows.append(
            (
                str(slicing),
                f"{np.median([run.anisotropy for run in runs]):.1f}",
                str(0 if found is None else found.seeds),
                *(dice_text(of[arm, slicing]) if of[arm, slicing] else "–" for arm in arms),
                "–" if found is None else with_ends(found.difference, found.low, found.high, "+"),
            )
        )
    return Table(
        headings=(
            *("slices averaged", "anisotropy", "seeds"),
            *(f"Dice of {arm} (95 % interval)" for arm in arms),
            f"{arms[1]} - {arms[0]} (95 % interval)",
        ),
        rows=tuple(rows),
    )


def _draw(
    path: Path,
    *,
    arms: Sequence[str],
    of: dict[tuple[str, int], list[StudyRun]],
    crossing: Crossing | None,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    plot = figure.subplots()
    for arm, colour in zip(arms, COLOURS, strict=False):
        runs = [run for (name, _), found in of.items() if name == arm for run in found]
        plot.scatter([run.anisotropy for run in runs], [mean_dice(run) for run in runs], s=18, color=colour, alpha=0.6)
        groups = [found for (name, _), found in of.items() if name == arm and found]
        middle = [np.median([run.anisotropy for run in found]) for found in groups]
        plot.plot(middle, [np.mean([mean_dice(run) for run in found]) for found in groups], color=colour, label=arm)
    if crossing is not None and crossing.value is not None:
        left, right = plot.get_xlim()
        plot.axvline(crossing.value, color="0.3", linestyle="--", label=f"crossing at {crossing.value:.1f}")
        plot.axvspan(max(left, crossing.low or left), min(right, crossing.high or right), color="0.3", alpha=0.12)
        plot.set_xlim(left, right)
    plot.set_xlabel("anisotropy (largest / smallest spacing)")
    plot.set_ylabel("mean Dice of the held-out cases")
    plot.grid(alpha=0.3)
    plot.legend()
    save(figure, path)
