"""Estimates with intervals from runs that share seeds and held-out cases; see `evaluation.interval`."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from autocrossdim.evaluation.interval import LEVEL, Estimate, Floats, estimate
from autocrossdim.records.study import StudyRun


def crossed_mean(values: Floats, of_seeds: Floats, of_cases: Floats) -> Floats:
    """Return the weighted mean over seeds and cases, shapes (S, C), (draws, S), (draws, C) -> (draws,).

    NaN is left out; a mean of nothing but NaN is NaN.
    """
    valid = ~np.isnan(values)
    total = ((of_seeds @ np.where(valid, values, 0.0)) * of_cases).sum(axis=1)
    count = ((of_seeds @ valid.astype(np.float64)) * of_cases).sum(axis=1)
    mean: Floats = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def mean_of(values: Floats, groups: Sequence[str], level: float = LEVEL) -> Estimate:
    """Return the mean over seeds and cases, (S, C), with its interval."""
    return estimate(
        lambda of_seeds, of_cases: crossed_mean(values, of_seeds, of_cases),
        seeds=len(values),
        groups=groups,
        known=known_cases(values),
        level=level,
    )


def crossed_difference(first: Floats, second: Floats, of_seeds: Floats, of_cases: Floats) -> Floats:
    """Return the mean of the first values minus that of the second; for shapes, see `crossed_mean`.

    Each mean leaves out its own NaN, as the table does. A case without annotated labels thus counts against an arm that
    segments something in it, even if the other arm segments nothing and has no Dice there.
    """
    return crossed_mean(first, of_seeds, of_cases) - crossed_mean(second, of_seeds, of_cases)


def known_cases(*values: Floats) -> NDArray[np.bool_]:
    """Return whether any of several matrices (S, C) has a value for each case, shape (C,)."""
    known: NDArray[np.bool_] = np.any([~np.isnan(each).all(axis=0) for each in values], axis=0)
    return known


def dice_matrix(runs: Sequence[StudyRun], cases: Sequence[str]) -> Floats:
    """Return the Dice of each run and case, (S, C); NaN where neither annotation nor segmentation has any label."""
    return np.array([[run.cases[case].dice for case in cases] for run in runs], dtype=np.float64)


def paired(first: Sequence[StudyRun], second: Sequence[StudyRun]) -> tuple[list[StudyRun], list[StudyRun]]:
    """Return the runs of both whose seeds both have, in the same order of seeds."""
    by_seed = {run.seed: run for run in second}
    ordered = [run for run in sorted(first, key=lambda run: run.seed) if run.seed in by_seed]
    return ordered, [by_seed[run.seed] for run in ordered]


def finite(value: float | None) -> float | None:
    """Return a value for a record: None if it is NaN or infinite."""
    return None if value is None or not np.isfinite(value) else value


def case_groups(run: StudyRun) -> tuple[list[str], list[str]]:
    """Return names and groups of the held-out cases, sorted by name."""
    names = sorted(run.cases)
    return names, [run.cases[name].group for name in names]


def difference(first: Sequence[StudyRun], second: Sequence[StudyRun], level: float = LEVEL) -> Estimate:
    """Return the mean Dice of the first runs minus that of the second, paired by seed and case.

    Args:
        first: Runs of one arm with distinct seeds.
        second: Runs of another one.
        level: Confidence level.
    """
    first, second = paired(first, second)
    names, groups = case_groups(first[0])
    values = dice_matrix(first, names), dice_matrix(second, names)
    statistic = partial(crossed_difference, *values)
    return estimate(statistic, seeds=len(first), groups=groups, known=known_cases(*values), level=level)
