import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocrossdim.inference.uncertainty import soft_dice
from autocrossdim.records.calibration import Calibration, CaseScore
from autocrossdim.selection.calibration import (
    TEMPERATURES,
    Evidence,
    calibrate,
    calibration_error,
    confidence_at,
    fit_case_score,
    predicted_without,
    reliability,
    scale_temperature,
)
from autocrossdim.system.errors import UserError


def probabilities(n: int, k: int, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (n, k))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def drawn(truly: np.ndarray, seed: int = 1) -> np.ndarray:
    """The label of each voxel, drawn by its true probabilities."""
    return (np.random.default_rng(seed).random((len(truly), 1)) > truly.cumsum(axis=1)).sum(axis=1)


def evidence(probabilities: np.ndarray, target: np.ndarray, sums: np.ndarray | None = None) -> Evidence:
    return Evidence(probabilities, target, np.ones((len(TEMPERATURES), 3, 1)) if sums is None else sums)


@pytest.mark.parametrize("sharpened_by", [0.7, 1.0, 2.5])
def test_the_temperature_by_which_probabilities_were_sharpened_is_recovered(sharpened_by: float) -> None:
    truly = probabilities(20_000, 4)
    predicted = scale_temperature(truly, 1 / sharpened_by)
    found = calibrate(
        [evidence(predicted[:5000], drawn(truly)[:5000]), evidence(predicted[5000:], drawn(truly)[5000:])]
    )
    assert found.temperature == pytest.approx(sharpened_by, rel=0.05)
    assert found.error_after is not None
    assert found.error_before is not None
    assert found.error_after < 0.02
    assert found.error_after <= found.error_before + 0.005
    assert found.n_voxels == 20_000


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 4), st.integers(2, 6), st.integers(0, 99))
def test_temperature_scaling_keeps_the_most_probable_label_and_rows_that_sum_to_1(
    temperature: float, k: int, seed: int
) -> None:
    predicted = probabilities(50, k, seed)
    scaled = scale_temperature(predicted, temperature)
    np.testing.assert_array_equal(scaled.argmax(axis=1), predicted.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    # Above 1, all probabilities become less confident; below 1, more so.
    assert ((scaled.max(axis=1) <= predicted.max(axis=1) + 1e-12) == (temperature >= 1)).all() or temperature == 1


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    predicted = np.tile([[0.1, 0.9]], (100, 1))
    assert calibration_error(predicted, np.r_[np.ones(90, int), np.zeros(10, int)]) == pytest.approx(0)
    assert calibration_error(predicted, np.r_[np.ones(60, int), np.zeros(40, int)]) == pytest.approx(0.3)
    assert calibration_error(np.array([[0.0, 1.0]]), np.array([1])) == 0


def test_a_reliability_diagram_counts_voxels_and_hits_per_bin() -> None:
    predicted = np.array([[0.4, 0.6], [0.4, 0.6], [0.99, 0.01]])
    count, confidence, correct = reliability(predicted, np.array([1, 0, 0]))
    assert count.nonzero()[0].tolist() == [9, 14]
    assert count[[9, 14]].tolist() == [2, 1]
    assert confidence[[9, 14]] == pytest.approx([1.2, 0.99])
    assert correct[[9, 14]].tolist() == [1, 1]


def test_the_expected_dice_of_a_case_does_not_depend_on_its_own_group() -> None:
    confidence, dice = np.array([0.2, 0.4, 0.6, 0.9]), np.array([0.1, 0.2, 0.3, 0.9])
    groups = np.array(["a", "b", "c", "d"], object)
    expected = predicted_without(confidence, dice, groups)
    assert expected[3] == pytest.approx(0.45)  # on the line of the other three, half of the confidence
    dice[3] = 0.0
    assert predicted_without(confidence, dice, groups)[3] == pytest.approx(0.45)


def test_a_prediction_that_is_certain_and_wrong_does_not_break_the_fit() -> None:
    predicted = np.tile(np.array([[1.0, 0.0]], np.float32), (100, 1))
    found = calibrate([evidence(predicted, np.r_[np.zeros(90, int), np.ones(10, int)])])
    assert found.temperature == pytest.approx(TEMPERATURES[-1], rel=1e-3)
    assert "(T = 4.00, the upper limit)" in found.sentence


def test_the_sentence_gives_the_calibration_error_before_and_after() -> None:
    calibration = Calibration(temperature=1.42, error_before=0.046, error_after=0.015, n_voxels=100)
    assert calibration.sentence == (
        "Temperature scaling (T = 1.42) reduces the calibration error on held-out cases from 0.046 to 0.015."
    )


def test_without_voxels_probabilities_are_not_calibrated() -> None:
    assert calibrate([evidence(np.empty((0, 2)), np.empty(0, int))]) == Calibration()
    assert "could not be calibrated" in Calibration().sentence


def test_soft_dice_is_1_for_certain_predictions_and_falls_with_uncertainty() -> None:
    assert soft_dice(np.array([[8.0], [8.0], [8.0]])) == pytest.approx(1)
    assert soft_dice(np.array([[6.0], [8.0], [8.0]])) == pytest.approx(0.75)
    assert np.isnan(soft_dice(np.array([[0.0], [3.0], [0.0]]))).all()


def test_confidence_is_interpolated_between_temperatures_over_the_labels_found() -> None:
    sums = np.zeros((len(TEMPERATURES), 3, 2))
    sums[:, 0, 0], sums[:, 1:, 0] = np.linspace(9, 3, len(TEMPERATURES)), 10
    case = evidence(np.empty((0, 2)), np.empty(0, int), sums)
    assert confidence_at(case, 1.0) == pytest.approx(0.7)  # the third of seven
    assert confidence_at(case, 2**0.25) == pytest.approx(0.65)
    assert math.isnan(confidence_at(evidence(np.empty((0, 2)), np.empty(0, int), 0 * sums), 1.0))


def test_a_case_score_recovers_the_line_and_its_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 40)
    dice = 0.8 * confidence + 0.05 + random.normal(0, 0.01, 40)
    score = fit_case_score([*confidence, math.nan], [*dice, 0.5], [f"patient {i // 2}" for i in range(41)])
    assert score.calibrated
    assert (score.slope, score.intercept) == (pytest.approx(0.8, abs=0.05), pytest.approx(0.05, abs=0.05))
    assert score.expected(0.75) == pytest.approx(0.65, abs=0.01)
    assert (score.n_cases, score.n_groups) == (40, 20)
    assert score.error is not None
    assert score.error_of_mean is not None
    assert score.error < 0.015 < 0.08 < score.error_of_mean
    assert "the predicted Dice differed from the true Dice by 0.0" in score.sentence


@pytest.mark.parametrize("groups", [[str(i) for i in range(7)], [str(i % 7) for i in range(30)]])
def test_with_too_few_cases_or_patients_the_score_stays_uncalibrated(groups: list[str]) -> None:
    values = np.linspace(0.4, 0.9, len(groups)).tolist()
    score = fit_case_score(values, values, groups)
    assert not score.calibrated
    assert score.expected(0.3) == 0.3
    assert "patients (available: 7)" in score.sentence


def test_a_confidence_that_falls_with_dice_gives_the_mean() -> None:
    confidence = np.linspace(0.5, 0.9, 20)
    score = fit_case_score(confidence.tolist(), (1 - confidence).tolist(), [str(i) for i in range(20)])
    assert score.expected(0.5) == score.expected(0.9) == pytest.approx((1 - confidence).mean())
    assert "confidence is not related to Dice" in score.sentence


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1))
def test_an_expected_dice_is_between_0_and_1(slope: float, intercept: float, confidence: float) -> None:
    assert 0 <= CaseScore(slope=slope, intercept=intercept).expected(confidence) <= 1


def test_evidence_is_read_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    written = evidence(probabilities(5, 3).astype(np.float32), np.arange(5) % 3)
    file = tmp_path / "case.npz"
    written.write(file)
    read = Evidence.read(file)
    np.testing.assert_array_equal(read.probabilities, written.probabilities)
    np.testing.assert_array_equal(read.target, written.target)
    for cut in (0, 10, 200, file.stat().st_size - 30):
        (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:cut])
        with pytest.raises(UserError, match=r"cut\.npz: missing or damaged"):
            Evidence.read(tmp_path / "cut.npz")
