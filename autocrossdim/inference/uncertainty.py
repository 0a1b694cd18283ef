"""How sure a segmentation is: entropy and disagreement a voxel, confidence and agreement a case, and the list of cases.

Slice by slice, as everything here: what is held are the maps and a few numbers a label.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from autocrossdim.data.images import Geometry, write_array
from autocrossdim.preprocessing.case import Placement
from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json, write_text
from autocrossdim.system.text import listed

Where = tuple[int, slice]  # slice and lines of the cropped case, in the plan's order

FOLDER = "uncertainty"  # below the segmentations, so that these can be evaluated as a folder


@dataclass
class Uncertainty:
    """How sure a segmentation is.

    Attributes:
        entropy: a voxel, in nats, float32 (Z, Y, X): 0 to log K; of regions the least sure one's, 0 to log 2.
        disagreement: the share of folds (times configurations) that give a voxel another label than all of them
            together, float32 (Z, Y, X), 0 to 1; None where only one fold was asked.
        confidence: by label or region, the Dice that the probabilities themselves expect; NaN where it was not found.
        agreement: by label or region, the mean Dice between any two folds; NaN where none found it. None with one fold.
    """

    entropy: NDArray[np.float32]
    disagreement: NDArray[np.float32] | None
    confidence: dict[str, float]
    agreement: dict[str, float] | None


class CaseUncertainty(BaseModel):
    """What is told of one case.

    Attributes:
        case: its name.
        expected_dice: mean over the labels found; None if nothing was found.
        calibrated: whether `expected_dice` was calibrated on held-out cases.
        fold_agreement: mean Dice between any two folds over the labels found by any; None with one fold.
        not_found: labels of which no voxel was found.
        confidence: by label; None where it was not found.
        agreement: by label; None where it was not found by any fold, or there is one fold only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    expected_dice: float | None
    calibrated: bool
    fold_agreement: float | None
    not_found: tuple[str, ...]
    confidence: dict[str, float | None]
    agreement: dict[str, float | None] | None


def temper(values: Tensor, labels: Labels, temperature: float) -> Tensor:
    """Return probabilities (K, ...) raised to 1 / temperature and normalised; regions each by itself, same shape.

    The order of the labels of a voxel stays, and so does which side of 0.5 a region is on.
    """
    if temperature == 1:
        return values
    if labels.has_regions:
        return (torch.logit(values.float(), eps=1e-12) / temperature).sigmoid()
    return (values.float().clamp(min=1e-12).log() / temperature).softmax(dim=0)


def entropy(values: Tensor, labels: Labels) -> Tensor:
    """Return the entropy in nats, shape (...), of probabilities (K, ...); of regions the largest one's."""
    if labels.has_regions:
        return -(torch.xlogy(values, values) + torch.xlogy(1 - values, 1 - values)).amin(dim=0)
    return -torch.xlogy(values, values).sum(dim=0)


def soft_dice_sums(values: Tensor, labels: Labels) -> NDArray[np.float64]:
    """Return what `calibration.soft_dice` needs of probabilities (K, Y, X), shape (3, labels)."""
    flat = values.flatten(1)
    if labels.has_regions:
        inside = flat > 0.5
        sums = [(flat * inside).sum(dim=1), flat.sum(dim=1), inside.sum(dim=1)]
    else:
        top, index = flat.max(dim=0)
        count = len(flat)
        within = torch.bincount(index, weights=top, minlength=count)
        sums = [part[1:] for part in (within, flat.sum(dim=1), torch.bincount(index, minlength=count))]
    return torch.stack([part.double() for part in sums]).cpu().numpy()


def soft_dice(sums: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the Dice that probabilities themselves expect of their segmentation, (..., labels); NaN if not found.

    Args:
        sums: shape (..., 3, labels): the probability inside what was segmented, all probability, and the number of
            voxels segmented.
    """
    inside, everywhere, segmented = np.moveaxis(np.asarray(sums, np.float64), -2, 0)
    dice: NDArray[np.floating[Any]] = np.divide(
        2 * inside, everywhere + segmented, out=np.full(inside.shape, np.nan), where=segmented > 0
    )
    return dice


class UncertaintyMaps:
    """Gathers the slices of one case, in the plan's order, and puts the maps back on the original grid."""

    def __init__(self, labels: Labels, placement: Placement, members: int) -> None:
        """Make room for the slices.

        Args:
            labels: of the dataset.
            placement: of the case.
            members: folds (times configurations) that are compared.
        """
        self.labels, self.placement = labels, placement
        self._entropy = np.zeros(placement.cropped_shape, np.float32)
        self._disagreement = np.zeros(placement.cropped_shape, np.float32) if members > 1 else None
        count = len(labels.foreground)
        self._sums = np.zeros((3, count))
        self._overlaps = np.zeros((count, members, members))

    def add(self, where: Where, values: Tensor, label: NDArray[Any], members: NDArray[Any]) -> None:
        """Add lines of a slice.

        Args:
            where: they lie in the cropped case.
            values: the ensemble's probabilities (K, Y, X), tempered.
            label: its label values (Y, X).
            members: the label values each fold gives by itself, (members, Y, X).
        """
        self._entropy[where] = entropy(values, self.labels).cpu().numpy()
        self._sums += soft_dice_sums(values, self.labels)
        if self._disagreement is None:
            return
        self._disagreement[where] = (members != label).mean(axis=0)
        present = set(np.unique(members).tolist())
        for index, wanted in enumerate(self.labels.foreground.values()):
            if present.intersection(wanted):
                masks = np.isin(members, wanted).reshape(len(members), -1).astype(np.float32)
                self._overlaps[index] += masks @ masks.T

    def result(self) -> Uncertainty:
        """Return what was gathered; outside the imaged part, everything is sure."""
        names = self.labels.names
        confidence = dict(zip(names, soft_dice(self._sums).tolist(), strict=True))
        if self._disagreement is None:
            return Uncertainty(self.placement.restore(self._entropy), None, confidence, None)
        agreement = {name: _pairwise(overlaps) for name, overlaps in zip(names, self._overlaps, strict=True)}
        return Uncertainty(
            self.placement.restore(self._entropy),
            self.placement.restore(self._disagreement),
            confidence,
            agreement,
        )


def describe(case: str, uncertainty: Uncertainty, score: CaseScore) -> CaseUncertainty:
    """Return what is told of a case; `score` turns its confidence into the Dice to expect."""
    confidence = _mean(uncertainty.confidence)
    return CaseUncertainty(
        case=case,
        expected_dice=None if confidence is None else score.expected(confidence),
        calibrated=score.calibrated,
        fold_agreement=None if uncertainty.agreement is None else _mean(uncertainty.agreement),
        not_found=tuple(name for name, value in uncertainty.confidence.items() if math.isnan(value)),
        confidence=_without_nan(uncertainty.confidence),
        agreement=None if uncertainty.agreement is None else _without_nan(uncertainty.agreement),
    )


def is_written(output: Path, case: str) -> bool:
    """Whether the uncertainty of a case lies below the folder of its segmentation, whole."""
    return _record(output, case).exists()


def forget(output: Path, case: str) -> None:
    """Take a case off the list: it is segmented anew, without being asked how sure that is."""
    _record(output, case).unlink(missing_ok=True)


def write_uncertainty(
    output: Path, case: str, uncertainty: Uncertainty, geometry: Geometry, ending: str, score: CaseScore
) -> None:
    """Write `uncertainty/CASE_entropy`, `CASE_disagreement` and, last, `CASE.json` below `output`.

    Args:
        output: folder of the segmentations.
        case: name.
        uncertainty: of the case.
        geometry: of its image.
        ending: of the dataset's files; formats that hold no fractions are replaced by `.nii.gz`.
        score: turns confidence into the Dice to expect.
    """
    ending = ".nii.gz" if ending in (".png", ".bmp") else ending
    for name, values in (("entropy", uncertainty.entropy), ("disagreement", uncertainty.disagreement)):
        if values is not None:
            write_array(values, geometry, output / FOLDER / f"{case}_{name}{ending}")
    write_json(_record(output, case), describe(case, uncertainty, score).model_dump(mode="json"))


def write_list(output: Path) -> list[CaseUncertainty]:
    """Write `uncertainty.csv` and `.json` of all cases below `output`, those to look at first on top, and return them.

    On top are cases in which nothing was found, then rising expected Dice; ties by the folds' agreement.

    Raises:
        UserError: what was written of a case is damaged.
    """
    cases = []
    for path in sorted((output / FOLDER).glob("*.json")):
        if path.name.startswith("."):  # being written
            continue
        try:
            cases.append(CaseUncertainty.model_validate(read_json(path)))
        except ValidationError as error:
            raise UserError(f"{path}: damaged. Delete it and run the same command again.") from error
    cases.sort(key=lambda case: (_first(case.expected_dice), _first(case.fold_agreement), case.case))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["case", "expected_dice", "calibrated", "fold_agreement", "labels_not_found"])
    for case in cases:
        numbers = ["" if n is None else f"{n:.4f}" for n in (case.expected_dice, case.fold_agreement)]
        calibrated = "yes" if case.calibrated else "no"
        rows.writerow([case.case, numbers[0], calibrated, numbers[1], " ".join(case.not_found)])
    write_text(output / f"{FOLDER}.csv", text.getvalue())
    write_json(output / f"{FOLDER}.json", [case.model_dump(mode="json") for case in cases])
    return cases


def tell(cases: Sequence[CaseUncertainty], score: CaseScore, members: int) -> list[str]:
    """Return what to say about a list of cases, a sentence each.

    Args:
        cases: as `write_list` returns them.
        score: that was used.
        members: folds (times configurations) that were asked.
    """
    sentences = [score.sentence]
    if members == 1:
        sentences.append("Only one fold was asked, so there is no disagreement to tell.")
    if cases:
        sentences.append(f"Look first at {listed([case.case for case in cases], 3)}: {FOLDER}.csv has the list.")
    return sentences


def _record(output: Path, case: str) -> Path:
    return output / FOLDER / f"{case}.json"


def _pairwise(overlaps: NDArray[np.float64]) -> float:
    """Mean Dice over all pairs, from how many voxels each two have in common; two that found nothing are left out."""
    sizes = np.diag(overlaps)
    first, second = np.triu_indices(len(sizes), 1)
    total = sizes[first] + sizes[second]
    found = total > 0
    return float((2 * overlaps[first, second][found] / total[found]).mean()) if found.any() else math.nan


def _mean(values: dict[str, float]) -> float | None:
    known = [value for value in values.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _first(value: float | None) -> float:
    """What is not known is looked at first."""
    return -1.0 if value is None else value
