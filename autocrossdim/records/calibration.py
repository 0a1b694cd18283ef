"""Calibration of a model as `find_best` measured it: the temperature of its probabilities, and the Dice to expect."""

import numpy as np
from pydantic import BaseModel, ConfigDict

LEAST_GROUPS = 8  # a line fitted to fewer cases (patients) says little about the next one

TEMPERATURE_BOUNDS = (0.5, 4.0)
"""A model whose best temperature is beyond these has other problems than its temperature."""


class Calibration(BaseModel):
    """The temperature that calibrates the probabilities of held-out cases, and its effect.

    Attributes:
        temperature: Probabilities are raised to 1 / temperature and normalised. Values above 1 mean overconfidence.
        error_before: Expected calibration error of the sampled voxels: the mean difference between the probability of
            the most probable label and the share of voxels that have it.
        error_after: Expected calibration error after temperature scaling. The temperature was fitted to the same
            voxels, but it is a single number.
        n_voxels: Number of sampled voxels (for regions: voxels times regions).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = 1.0
    error_before: float | None = None
    error_after: float | None = None
    n_voxels: int = 0

    @property
    def sentence(self) -> str:
        """The result in words."""
        if self.error_before is None:
            return "Probabilities could not be calibrated, because nothing was segmented in the held-out cases."
        low, high = TEMPERATURE_BOUNDS
        bound = ""
        if self.temperature < low * 1.001 or self.temperature > high / 1.001:
            bound = f", the {'lower' if self.temperature < 1 else 'upper'} limit"
        assert self.error_after is not None
        change = "reduces" if self.error_after < self.error_before else "raises"
        return (
            f"Temperature scaling (T = {self.temperature:.2f}{bound}) {change} the calibration error on held-out cases "
            f"from {self.error_before:.3f} to {self.error_after:.3f}."
        )


class CaseScore(BaseModel):
    """The Dice to expect of a case, from the confidence (soft Dice) of its own probabilities.

    Attributes:
        slope: Slope of the line: expected Dice = intercept + slope x confidence.
        intercept: Intercept of the line.
        calibrated: Whether the line was fitted to held-out cases; otherwise the score is the confidence itself.
        n_cases: Number of held-out cases with a Dice.
        n_groups: Number of groups (patients) they belong to.
        error: Mean absolute error if each group is left out of the fit; None if not calibrated.
        error_of_mean: The same for a score that always predicts the mean Dice of the other groups.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = 1.0
    intercept: float = 0.0
    calibrated: bool = False
    n_cases: int = 0
    n_groups: int = 0
    error: float | None = None
    error_of_mean: float | None = None

    def expected(self, confidence: float) -> float:
        """Return the expected Dice, 0 to 1; NaN for a confidence of NaN (nothing was found)."""
        return float(np.clip(self.intercept + self.slope * confidence, 0, 1))

    @property
    def sentence(self) -> str:
        """How far the score can be trusted, in words."""
        if not self.calibrated:
            return (
                f"The expected Dice is not calibrated, which needs {LEAST_GROUPS} held-out cases or patients "
                f"(available: {self.n_groups}). It ranks cases, but its value may be far from their Dice."
            )
        assert self.error is not None
        assert self.error_of_mean is not None
        if self.slope <= 0:
            return (
                "On held-out cases, confidence is not related to Dice. The expected Dice of every case is "
                f"therefore their mean, which differed from the true Dice by {self.error_of_mean:.3f} on average."
            )
        verdict = "" if self.error < self.error_of_mean else " The expected Dice is therefore no better than the mean."
        return (
            f"On held-out cases, the predicted Dice differed from the true Dice by {self.error:.3f} on average "
            f"({self.error_of_mean:.3f} when always predicting the mean).{verdict}"
        )
