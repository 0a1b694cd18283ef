"""Which of several models to use: the simplest whose Dice is within noise of the best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autocrossdim.evaluation.interval import interval, means, resampling_weights
from autocrossdim.evaluation.summary import Summary, case_groups, case_results, foreground, metric_array
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed


@dataclass(frozen=True)
class PairedDifference:
    """How much larger one model's mean foreground Dice is than another's, on the same cases.

    Attributes:
        mean: the difference of the two `foreground_mean` Dice values.
        low: lower end of its 95 % bootstrap interval over groups of cases.
        high: upper end.
        n_cases: cases it rests on.
    """

    mean: float
    low: float
    high: float
    n_cases: int

    @property
    def interval(self) -> str:
        """The interval in words."""
        if math.isnan(self.low):
            return "no interval, for want of independent cases"
        return f"95 % interval {self.low:.3f} to {self.high:.3f}"

    @property
    def within_noise(self) -> bool:
        """Whether the interval reaches zero (or is not known, with fewer than two groups of cases)."""
        return not (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and why, in sentences."""

    name: str
    reasons: list[str]


def compare(first: Summary, second: Summary) -> PairedDifference:
    """Return by how much the Dice of `first` exceeds that of `second`.

    Both are resampled alike, so that what makes a case hard for both models does not blur their difference.

    Raises:
        UserError: the two are of different cases or labels.
    """
    ours, theirs = ({case.file: case for case in case_results(summary)} for summary in (first, second))
    unpaired = sorted(ours.keys() ^ theirs.keys())
    if unpaired:
        raise UserError(f"{listed(unpaired)}: evaluated for one model only. Compare models on the same folds.")
    if set(first["mean"]) != set(second["mean"]):
        raise UserError(f"Models evaluated for different labels: {listed(first['mean'])} and {listed(second['mean'])}.")
    keys = list(first["mean"])
    values = [metric_array([cases[name] for name in ours], keys, ["Dice"]) for cases in (ours, theirs)]
    differences = foreground(means(values[0])) - foreground(means(values[1]))
    groups = case_groups(list(ours.values()))
    low = high = float("nan")
    if len(set(groups)) > 1:
        weights = resampling_weights(groups)
        draws = foreground(means(values[0], weights)) - foreground(means(values[1], weights))
        low, high = interval(draws)[:, 0].tolist()
    return PairedDifference(float(differences[0]), low, high, len(ours))


def choose(candidates: Mapping[str, Summary], costs: Mapping[str, float]) -> Choice:
    """Choose the cheapest candidate whose Dice is within noise of the best one's.

    Args:
        candidates: cross-validation summaries by name, all of the same cases.
        costs: what prediction with each candidate takes, in any unit; between equal costs the larger
            Dice decides.

    Raises:
        UserError: there are no candidates, or they cannot be compared.
    """
    if not candidates:
        raise UserError("There are no models to choose from. Train at least one configuration.")
    dice = {name: float(summary["foreground_mean"]["Dice"]) for name, summary in candidates.items()}
    if any(math.isnan(value) for value in dice.values()):
        raise UserError("There is no Dice to choose by: the labels are empty in all cases.")
    best = max(dice, key=lambda name: (dice[name], -costs[name]))
    n_cases = len(candidates[best]["metric_per_case"])
    reasons = [f"{best} has the highest mean Dice, {dice[best]:.3f}, over {n_cases} cases."]
    for name in sorted(dice, key=lambda name: (costs[name], -dice[name])):
        if name == best:
            return Choice(best, reasons)
        lead = compare(candidates[best], candidates[name])
        words = f"{lead.mean:.3f} below {best} ({lead.interval})"
        if lead.within_noise:
            reasons.append(f"{name} is chosen: it costs less, and its Dice of {dice[name]:.3f} is {words}: noise.")
            return Choice(name, reasons)
        reasons.append(f"{name} is simpler, but its Dice of {dice[name]:.3f} is {words}.")
    raise AssertionError("the best candidate is one of the candidates")
