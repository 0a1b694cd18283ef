"""Whether starting weights only speed up training or also improve its result: Dice against training time."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from autocrossdim.evaluation.interval import LEVEL, Estimate
from autocrossdim.records.study import StudyRun
from autocrossdim.studies.comparison import compare_arms
from autocrossdim.studies.design import Finding
from autocrossdim.studies.figures import COLOURS, save
from autocrossdim.studies.statistics import paired
from autocrossdim.system.text import for_matplotlib

SHARE = 0.95  # of the final Dice of the reference


def compare_starts(arms: Sequence[str], runs: Sequence[StudyRun]) -> Finding:
    """Compare the final Dice of all arms, and the time in which each reaches most of the reference's final Dice.

    The conclusion answers both with the largest number of training cases, the notes the latter with smaller ones.
    """
    found = compare_arms(arms, runs)
    arms = [arm for arm in arms if any(run.arm == arm for run in runs)]
    times: list[str] = []
    notes: list[str] = []
    numbers = {}
    for size in sorted({run.size for run in runs}):
        notes, times = notes + times, []
        of = {arm: [run for run in runs if (run.arm, run.size) == (arm, size)] for arm in arms}
        for arm in arms[1:]:
            ratio, (pairs, references) = time_ratio(of[arm], of[arms[0]]), paired(of[arm], of[arms[0]])
            if not pairs:
                said = f"{arm} and {arms[0]} have no runs with the same seed."
            elif any(_final(run) is None for run in references):
                said = f"a run of {arms[0]} has no pseudo-Dice."
            elif ratio is None:
                said = f"{arm} does not reach it with every seed."
            else:
                ends = f" (95 % interval over seeds {ratio.low:.2f} to {ratio.high:.2f})"
                if len(pairs) == 1:
                    ends = " in a single seed, from which no conclusion can be drawn"
                numbers[f"{arm}, {size} cases: time ratio"] = ratio.value
                said = f"{arm} takes {ratio.value:.2f} times as long as {arms[0]}{ends}."
            times.append(
                f"Time to reach {SHARE:.0%} of the final pseudo-Dice of {arms[0]}, with {size} training cases: {said}"
            )
    conclusion = " ".join([found.conclusion, *times])
    if len(numbers) > 1:
        notes.append(f"Intervals of the {len(numbers)} ratios of times are not adjusted for their number.")
    draw = partial(_draw, arms=arms, runs=runs)
    return replace(found, conclusion=conclusion, draw=draw, notes=(*notes, *found.notes), numbers=numbers)


def time_ratio(arm: Sequence[StudyRun], reference: Sequence[StudyRun]) -> Estimate | None:
    """Return the geometric mean over seeds of the times in which both reach a share of the reference's final Dice.

    The interval is Student's, over the logarithms; its ends are NaN with a single seed.

    Args:
        arm: Runs of one arm.
        reference: Runs of the reference.

    Returns:
        The ratio, arm / reference; None without pairs, if a run of the reference has no pseudo-Dice, or if a run of
        the arm does not reach the share of it.
    """
    logarithms = []
    for run_of_arm, run_of_reference in zip(*paired(arm, reference), strict=True):
        final = _final(run_of_reference)
        times = [None if final is None else _reached(run, SHARE * final) for run in (run_of_arm, run_of_reference)]
        if times[0] is None or times[1] is None:
            return None
        logarithms.append(np.log(times[0] / times[1]))
    if not logarithms:
        return None
    mean, number = float(np.mean(logarithms)), len(logarithms)
    half = np.nan
    if number > 1:
        half = float(stdtrit(number - 1, (1 + LEVEL) / 2) * np.std(logarithms, ddof=1) / np.sqrt(number))
    return Estimate(float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half)))


def _final(run: StudyRun) -> float | None:
    """Return the last pseudo-Dice of a run; None if it has none."""
    return next((point.dice for point in reversed(run.curve) if point.dice is not None), None)


def _reached(run: StudyRun, dice: float) -> float | None:
    """Return the training time after which a run first has a pseudo-Dice; None if it never has."""
    return next((point.seconds for point in run.curve if point.dice is not None and point.dice >= dice), None)


def _draw(path: Path, *, arms: Sequence[str], runs: Sequence[StudyRun]) -> None:
    from matplotlib.figure import Figure

    size = max(run.size for run in runs)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for arm, colour in zip(arms, COLOURS * len(arms), strict=False):
        for number, run in enumerate(run for run in runs if (run.arm, run.size) == (arm, size)):
            minutes = [point.seconds / 60 for point in run.curve]
            label = for_matplotlib(arm) if number == 0 else None
            dice = [np.nan if point.dice is None else point.dice for point in run.curve]
            panels[0].plot(minutes, dice, color=colour, alpha=0.8, marker=".", markersize=3, label=label)
            panels[1].plot(
                minutes, [point.loss for point in run.curve], color=colour, alpha=0.8, marker=".", markersize=3
            )
    panels[0].set_ylabel("pseudo-Dice of held-out patches")
    panels[1].set_ylabel("training loss")
    for panel in panels:
        panel.set_xlabel("training time (min)")
        panel.grid(alpha=0.3)
    panels[0].set_title(f"{size} training cases", fontsize=10)
    panels[0].legend(fontsize=8)
    save(figure, path)
