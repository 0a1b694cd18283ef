"""The chart shows calibrated probabilities on the diagonal, and each case at its expected and true Dice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocrossdim.evaluation.metrics import case_metrics
from autocrossdim.evaluation.summary import summarise
from autocrossdim.records.best import Best
from autocrossdim.records.calibration import Calibration, CaseScore
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.report import calibration
from autocrossdim.selection.calibration import TEMPERATURES, Evidence, scale_temperature
from autocrossdim.selection.held_out import evidence_file

LABELS = Labels.from_dataset_json({"background": 0, "block": 1})
CASES = [f"case_{number}" for number in range(8)]


def case(name: str, found: int) -> CaseResult:
    """Return a case of which the first `found` of ten voxels were segmented: its Dice is 2 found / (10 + found)."""
    reference, predicted = np.ones((1, 1, 10), np.uint8), np.zeros((1, 1, 10), np.uint8)
    predicted[..., :found] = 1
    metrics = case_metrics(predicted, reference, LABELS, spacing=(1, 1, 1))
    return CaseResult(reference_file=f"{name}.nii.gz", prediction_file=f"{name}.nii.gz", metrics=metrics)


def sums(soft_dice: float) -> np.ndarray:
    """Return the sums of a case with this soft Dice at all temperatures: overlap, soft and hard volume."""
    return np.broadcast_to(np.array([soft_dice / 2, 0.5, 0.5]).reshape(1, 3, 1), (len(TEMPERATURES), 3, 1)).copy()


@pytest.fixture
def summary() -> Summary:
    return summarise([case(name, 2 + number) for number, name in enumerate(CASES)], LABELS)


@pytest.fixture
def folds(summary: Summary, tmp_path: Path) -> dict[str, FoldFolder]:
    """The folds, with probabilities that were sharpened by a temperature of 0.5."""
    folders = {name: FoldFolder(tmp_path / "models" / "dx" / f"fold_{n % 2}") for n, name in enumerate(CASES)}
    random = np.random.default_rng(0)
    for result, (name, folder) in zip(summary.metric_per_case, folders.items(), strict=True):
        inside = random.uniform(0.05, 0.95, 2000)
        target = (random.random(2000) < inside).astype(int)
        sharpened = scale_temperature(np.stack([1 - inside, inside], axis=1), 0.5)
        Evidence(sharpened, target, sums(result.dice)).write(evidence_file(folder, name))
    return folders


def best(score: CaseScore) -> Best:
    return Best.model_construct(
        configurations=("dx",), calibration=Calibration(temperature=2.0), case_score=score, contenders=()
    )


def drawn(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> Any:
    """Return the two plots of the chart."""
    figures: list[Any] = []
    monkeypatch.setattr(calibration, "png", lambda figure: figures.append(figure) or b"png")
    assert calibration.calibration_chart(*arguments, ".nii.gz") == b"png"
    return figures[0].axes


def test_sharpened_probabilities_are_below_the_diagonal_until_they_are_tempered(
    summary: Summary, folds: dict[str, FoldFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, _ = drawn(monkeypatch, best(CaseScore()), summary, folds)
    before, after = (np.array(line.get_xydata()) for line in left.lines[:2])
    assert (before[:-1, 1] < before[:-1, 0] - 0.02).all()
    np.testing.assert_allclose(after[:, 1], after[:, 0], atol=0.05)
    assert left.get_legend().get_texts()[1].get_text() == "temperature 2.00"


@pytest.mark.parametrize("calibrated", [True, False])
def test_each_case_is_at_its_expected_and_its_true_dice(
    calibrated: bool, summary: Summary, folds: dict[str, FoldFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, right = drawn(monkeypatch, best(CaseScore(calibrated=calibrated)), summary, folds)
    points = np.array(right.collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 1], [case.dice for case in summary.metric_per_case])
    # The confidence of these cases equals their Dice, and so does that which a line through the others expects.
    np.testing.assert_allclose(points[:, 0], points[:, 1], atol=1e-6)


def test_without_the_files_of_find_best_nothing_is_drawn(summary: Summary, tmp_path: Path) -> None:
    folds = {name: FoldFolder(tmp_path / "fold_0") for name in CASES}
    assert calibration.calibration_chart(best(CaseScore()), summary, folds, ".nii.gz") is None
