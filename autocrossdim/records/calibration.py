"""What `find_best` learnt about a model's probabilities: their temperature and the Dice to expect of a case."""

import numpy as np
from pydantic import BaseModel, ConfigDict

LEAST_GROUPS = 8  # a line through fewer cases (patients) says nothing about the next one


class Calibration(BaseModel):
    """The temperature that makes held-out probabilities mean most, and what it changes.

    Attributes:
        temperature: probabilities are raised to 1 / temperature and normalised; above 1 they were too sure.
        error_before: expected calibration error of the voxels sampled: by how much the probability of the likeliest
            label and the share of voxels that have it differ, on average.
        error_after: the same after tempering. The temperature was fitted to the same voxels, but it is one number.
        n_voxels: sampled (regions: times regions).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = 1.0
    error_before: float | None = None
    error_after: float | None = None
    n_voxels: int = 0

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if self.error_before is None:
            return "Nothing was segmented in the held-out cases, so probabilities could not be calibrated."
        return (
            f"Probabilities are tempered by {self.temperature:.2f}: calibration error {self.error_before:.3f} before, "
            f"{self.error_after:.3f} after, in and near what was segmented of the held-out cases."
        )


class CaseScore(BaseModel):
    """The Dice to expect of a case from the confidence (soft Dice) of its own probabilities.

    Attributes:
        slope: of the line expected Dice = intercept + slope x confidence.
        intercept: of it.
        calibrated: whether the line was fitted to held-out cases; otherwise the confidence itself is the score.
        n_cases: held-out cases with a Dice.
        n_groups: groups (patients) they belong to.
        error: mean absolute error when each group is left out of the fit; None if not calibrated.
        error_of_mean: the same for a score that says the mean Dice of the other groups of every case.
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
        """Return the expected Dice, 0 to 1; NaN of NaN (nothing was found)."""
        return float(np.clip(self.intercept + self.slope * confidence, 0, 1))

    @property
    def sentence(self) -> str:
        """How far the score can be trusted, in words."""
        if not self.calibrated:
            return (
                f"The case score is not calibrated: {self.n_groups} held-out cases or patients are fewer than "
                f"{LEAST_GROUPS}. It orders cases, but its value need not be their Dice."
            )
        assert self.error is not None
        assert self.error_of_mean is not None
        verdict = f"{self.error_of_mean:.3f} when the mean is said of every case"
        if self.slope <= 0:
            return f"Confidence says nothing about these held-out cases' Dice; the score is their mean ({verdict} off)."
        if self.error >= self.error_of_mean:
            verdict += ", so it tells these cases apart no better than chance"
        return f"The case score was off by {self.error:.3f} on held-out cases left out of its fit ({verdict})."
