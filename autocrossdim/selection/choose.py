"""Model selection: the cheapest model that is about as good as the best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autocrossdim.evaluation.interval import LEVEL, Floats, estimate, means
from autocrossdim.evaluation.summary import foreground, metric_array
from autocrossdim.records.summary import Summary
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed

LARGEST_LOSS = 0.01
"""Largest difference in Dice to the best model at which a cheaper one is chosen. Our choice.

With few cases, a large difference is within noise, too: in simulations with eight cases whose differences vary by 0.03,
a cheaper model that is worse by 0.02 was chosen in 77 % of the trials without this limit, and in 20 % with it.
"""


@dataclass(frozen=True)
class PairedDifference:
    """Difference between the mean foreground Dice of two models on the same cases.

    Attributes:
        mean: Difference of the two `foreground_mean` Dice values.
        low: Lower end of its bootstrap interval over groups of cases; NaN with fewer than two that have any label.
        high: Upper end of the interval.
        n_cases: Number of cases compared.
        comparisons: Number of comparisons for which the intervals hold together (Bonferroni).
    """

    mean: float
    low: float
    high: float
    n_cases: int
    comparisons: int = 1

    @property
    def interval(self) -> str:
        """The interval in words."""
        if math.isnan(self.low):
            return "no interval, because there are fewer than two independent cases with any label"
        adjusted = "adjusted " if self.comparisons > 1 else ""
        return f"{adjusted}95 % interval of the difference {self.low:.3f} to {self.high:.3f}"

    @property
    def within_noise(self) -> bool:
        """Whether the interval includes zero, or is unknown."""
        return not (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Choice:
    """The chosen candidate and the reasons, one sentence each."""

    name: str
    reasons: list[str]


def compare(first: Summary, second: Summary, *, comparisons: int = 1, expanded: bool = True) -> PairedDifference:
    """Return the mean Dice of `first` minus that of `second`, with a paired bootstrap interval.

    Both models are resampled with the same cases, so that differences in difficulty between cases cancel out.

    Args:
        first: A model.
        second: Another one.
        comparisons: Number of comparisons for which the intervals are to hold together (Bonferroni).
        expanded: Whether the interval is expanded for few patients, see `autocrossdim.evaluation.interval.estimate`.

    Raises:
        UserError: The two were evaluated on different cases or labels.
    """
    cases, other_cases = ({case.file: case for case in summary.metric_per_case} for summary in (first, second))
    unpaired = sorted(cases.keys() ^ other_cases.keys())
    if unpaired:
        raise UserError(f"{listed(unpaired)}: evaluated for one model only. Compare models on the same folds.")
    if set(first.mean) != set(second.mean):
        raise UserError(f"Models evaluated for different labels: {listed(first.mean)} and {listed(second.mean)}.")
    keys = list(first.mean)
    values, other_values = (
        metric_array([results[file] for file in cases], keys, ["Dice"]) for results in (cases, other_cases)
    )

    def difference(_: Floats, weights: Floats) -> Floats:
        found: Floats = (foreground(means(values, weights)) - foreground(means(other_values, weights)))[:, 0]
        return found

    clusters = [case.cluster for case in cases.values()]
    level = 1 - (1 - LEVEL) / comparisons
    known = ~np.isnan(np.concatenate([values, other_values], axis=1)).all(axis=(1, 2))
    found = estimate(difference, seeds=1, groups=clusters, known=known, level=level, expanded=expanded)
    return PairedDifference(found.value, found.low, found.high, len(cases), comparisons)


def choose(candidates: Mapping[str, Summary], costs: Mapping[str, float]) -> Choice:
    """Choose the cheapest candidate whose Dice is within noise of the best, and lower by at most `LARGEST_LOSS`.

    The intervals hold for all n(n-1)/2 pairs of candidates together (Bonferroni). Adjusting only for the n-1
    comparisons with the best would not suffice, because the same results decide which candidate is called the best.

    Args:
        candidates: Cross-validation summaries by name, all of the same cases.
        costs: Cost of prediction by name, in any unit. Between equal costs, the higher Dice decides.

    Raises:
        UserError: There are no candidates, or they cannot be compared.
    """
    if not candidates:
        raise UserError("There are no models to choose from. Train at least one configuration.")
    dice = {name: float(summary.foreground_mean["Dice"]) for name, summary in candidates.items()}
    if any(math.isnan(value) for value in dice.values()):
        raise UserError("There is no Dice to compare: the labels are empty in all cases.")
    best = max(dice, key=lambda name: (dice[name], -costs[name]))
    place = "has the highest" if len(candidates) > 1 else "is the only candidate, with a"
    reasons = [f"{best} {place} mean Dice of {dice[best]:.3f} over {candidates[best].n_cases} cases."]
    chosen = best
    pairs = math.comb(len(candidates), 2)
    for name in sorted(dice, key=lambda name: (costs[name], -dice[name])):
        if name == best:
            break
        lead = compare(candidates[best], candidates[name], comparisons=pairs)
        lower = f"{lead.mean:.3f} lower than that of {best} ({lead.interval})"
        if lead.within_noise and lead.mean <= LARGEST_LOSS:
            reasons.append(
                f"{name} is chosen: prediction costs less, and its Dice of {dice[name]:.3f} is {lower}, which is "
                "within noise."
            )
            chosen = name
            break
        noise = f"; a loss of more than {LARGEST_LOSS} is not accepted, even within noise" if lead.within_noise else ""
        reasons.append(f"{name} is cheaper, but its Dice of {dice[name]:.3f} is {lower}{noise}.")
    if len(candidates) > 2:
        reasons.append(
            f"{len(candidates)} candidates were compared on the same cases. Adjusted intervals hold for all {pairs} "
            f"pairs of candidates together (Bonferroni). The highest of {len(candidates)} means tends to be too high."
        )
    return Choice(chosen, reasons)
