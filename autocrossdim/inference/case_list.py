"""Uncertainty on disk: maps and numbers per case, and the list of all cases, least certain first."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import write_array
from autocrossdim.data.writing.summary import summarise
from autocrossdim.inference.uncertainty import Uncertainty
from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.likeness import Familiarity
from autocrossdim.system.files import write_csv, write_json
from autocrossdim.system.text import listed

DIRECTORY = "uncertainty"  # inside the output directory, so that segmentations can be evaluated as a directory

COLUMNS = (
    "case",
    "expected_dice",
    "calibrated",
    "fold_agreement",
    "labels_not_found",
    "missing_channels",
    "unlike_training",
    "unlike_in",
)

# Maps of 3D TIFF come with a file CASE_entropy.json that holds their spacing. No case can be named so that the two
# kinds of JSON files share a name, because they end differently.
_NUMBERS = "_uncertainty.json"


class CaseUncertainty(BaseModel):
    """Uncertainty of one case in numbers.

    Attributes:
        case: Name of the case.
        expected_dice: Mean expected Dice over the labels found; None if nothing was found.
        calibrated: Whether `expected_dice` was calibrated on held-out cases.
        fold_agreement: Mean Dice between any two members of the ensemble over the labels found by any; None if the
            ensemble has a single member.
        labels_not_found: Labels without a single voxel.
        confidence: Expected Dice per label before calibration; None for labels that were not found.
        agreement: Mean Dice between any two members per label; None for labels that no member found, or if the
            ensemble has a single member.
        unlike_training: Distance of the image to the training data in units of the limit; None if it is unknown.
        unlike_in: Measure with that distance; None if it is unknown.
        missing_channels: Channels that the case lacks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    expected_dice: float | None
    calibrated: bool
    fold_agreement: float | None
    labels_not_found: tuple[str, ...]
    confidence: dict[str, float | None]
    agreement: dict[str, float | None] | None
    unlike_training: float | None = None
    unlike_in: str | None = None
    missing_channels: tuple[str, ...] = ()


def describe(
    case: str, uncertainty: Uncertainty, score: CaseScore, familiarity: Familiarity | None = None
) -> CaseUncertainty:
    """Return the uncertainty of a case in numbers; `score` maps its confidence to the expected Dice."""
    confidence = _mean(uncertainty.confidence)
    return CaseUncertainty(
        case=case,
        expected_dice=None if confidence is None else score.expected(confidence),
        calibrated=score.calibrated,
        fold_agreement=None if uncertainty.agreement is None else _mean(uncertainty.agreement),
        labels_not_found=tuple(name for name, value in uncertainty.confidence.items() if math.isnan(value)),
        confidence=_without_nan(uncertainty.confidence),
        agreement=None if uncertainty.agreement is None else _without_nan(uncertainty.agreement),
        unlike_training=None if familiarity is None else familiarity.score,
        unlike_in=None if familiarity is None else familiarity.differs_in,
    )


def has_uncertainty(output: Path, case: str) -> bool:
    """Whether the uncertainty of a case was written completely."""
    return _numbers(output, case).exists()


def remove_from_list(output: Path, case: str) -> None:
    """Take a case off the list, because it is segmented again without computing its uncertainty."""
    _numbers(output, case).unlink(missing_ok=True)


def write_uncertainty(
    output: Path,
    case: str,
    uncertainty: Uncertainty,
    *,
    geometry: Geometry,
    ending: str,
    score: CaseScore,
    familiarity: Familiarity | None = None,
    missing_channels: Sequence[str] = (),
) -> None:
    """Write `uncertainty/CASE_entropy`, `CASE_disagreement` and, last, `CASE_uncertainty.json` below `output`.

    Args:
        output: Directory of the segmentations.
        case: Name of the case.
        uncertainty: Uncertainty of the case.
        geometry: Geometry of its image.
        ending: File ending of the dataset; `.nii.gz` is used instead of formats that cannot hold fractions.
        score: Maps the confidence of the case to the expected Dice.
        familiarity: How like the training data the image is; None if it is unknown.
        missing_channels: Channels that the case lacks.
    """
    ending = ".nii.gz" if ending in (".png", ".bmp") else ending
    for name, values in (("entropy", uncertainty.entropy), ("disagreement", uncertainty.disagreement)):
        if values is not None:
            write_array(values, geometry, output / DIRECTORY / f"{case}_{name}{ending}")
    numbers = describe(case, uncertainty, score, familiarity).model_copy(
        update={"missing_channels": tuple(missing_channels)}
    )
    write_json(_numbers(output, case), numbers.model_dump(mode="json"))


def write_list(output: Path) -> list[CaseUncertainty]:
    """Write `uncertainty.csv` and `uncertainty.json` below `output`, least certain cases first, and return the list.

    Cases in which nothing was found come first, then cases by increasing expected Dice, then by agreement.

    Raises:
        UserError: The numbers of a case are damaged.
    """
    cases = summarise(CaseUncertainty, output / DIRECTORY, _NUMBERS, lambda found: _write(output, _ordered(found)))
    return _ordered(cases)


def _ordered(cases: Sequence[CaseUncertainty]) -> list[CaseUncertainty]:
    return sorted(
        cases, key=lambda case: (_unknown_first(case.expected_dice), _unknown_first(case.fold_agreement), case.case)
    )


def _write(output: Path, cases: Sequence[CaseUncertainty]) -> None:
    rows = []
    for case in cases:
        values = (case.expected_dice, case.fold_agreement, case.unlike_training)
        expected, agreement, unlike = ("" if value is None else f"{value:.4f}" for value in values)
        calibrated = "yes" if case.calibrated else "no"
        names = ["; ".join(each) for each in (case.labels_not_found, case.missing_channels)]
        rows.append([case.case, expected, calibrated, agreement, *names, unlike, case.unlike_in or ""])
    write_csv(output / f"{DIRECTORY}.csv", COLUMNS, rows)
    write_json(output / f"{DIRECTORY}.json", [case.model_dump(mode="json") for case in cases])


def explain_list(cases: Sequence[CaseUncertainty], *, score: CaseScore, members: int) -> list[str]:
    """Return what to say about a list of cases, one sentence per item.

    Args:
        cases: Cases as `write_list` returns them.
        score: Map from the confidence of a case to the expected Dice.
        members: Number of members (folds × configurations) of the ensemble.
    """
    sentences = [score.sentence]
    if members == 1:
        sentences.append("The model has a single fold, so disagreement between folds is not available.")
    if cases:
        names = listed([case.case for case in cases], 3)
        sentences.append(f"Review these cases first: {names}. {DIRECTORY}.csv lists all cases, least certain first.")
    return sentences


def _numbers(output: Path, case: str) -> Path:
    return output / DIRECTORY / f"{case}{_NUMBERS}"


def _mean(values: dict[str, float]) -> float | None:
    known = [value for value in values.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _unknown_first(value: float | None) -> float:
    return -1.0 if value is None else value
