"""Scores beyond the metrics of summary.json: those of public challenges, and detection of single lesions."""

from autocrossdim.evaluation.registry import SCORES, ChallengeScore
from autocrossdim.evaluation.scores import brats, camus, chaos, lesions
from autocrossdim.system.errors import UserError

__all__ = ["SCORES", "brats", "camus", "chaos", "find", "lesions"]


def find(name: str) -> ChallengeScore:
    """Return the score of that name.

    Raises:
        UserError: There is none; the message lists those that exist.
    """
    if name not in SCORES:
        raise UserError(f"--score {name}: no such score. Choose one of {', '.join(SCORES)}.")
    return SCORES[name]
