import json
import math

import numpy as np
import pytest

from autocrossdim.evaluation.summary import merge, summarise
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.system.errors import UserError

TWO = Labels(foreground={"liver": (1,), "tumour": (2,)})
NAN = math.nan
DIAGONAL = 100.0


def case(name: str, *dices: float, group: str | None = None) -> CaseResult:
    """A case with the given Dice per label; NaN for a label that is nowhere."""
    return CaseResult(
        reference_file=f"references/{name}.nii.gz",
        prediction_file=f"predictions/{name}.nii.gz",
        group=group,
        metrics={
            str(label): {
                "Dice": dice,
                "HD95": 10 * dice,
                "n_pred": 0 if math.isnan(dice) else 5,
                "n_ref": 0 if math.isnan(dice) else 5,
            }
            for label, dice in enumerate(dices, start=1)
        },
    )


def found_in(name: str, prediction: bool, reference: bool, hd95: float = DIAGONAL) -> CaseResult:
    """A case of one label that prediction and reference have or do not have."""
    metrics = {"Dice": float(prediction and reference), "n_pred": 5 * prediction, "n_ref": 5 * reference}
    distances = {"HD95": hd95, "ASSD": hd95 / 2}
    return CaseResult(reference_file=name, prediction_file=name, metrics={"1": {**metrics, **distances}})


def test_means_leave_out_nan() -> None:
    summary = summarise([case("a", 0.5, NAN), case("b", 0.7, 0.9)], TWO)
    assert summary.mean["1"]["Dice"] == pytest.approx(0.6)
    assert summary.mean["2"]["Dice"] == pytest.approx(0.9)
    assert summary.foreground_mean["Dice"] == pytest.approx(0.75)
    assert summary.n_present == {"1": 2, "2": 1}
    assert summary.labels == {"1": "liver", "2": "tumour"}


def test_only_cases_that_have_a_label_count_for_its_interval() -> None:
    def ends(*rare: float) -> tuple[float, float]:
        cases = [case(str(number), 0.8, dice) for number, dice in enumerate([*rare, *[NAN] * (10 - len(rare))])]
        return summarise(cases, TWO).ends("Dice", "2")

    assert all(math.isnan(end) for end in ends(0.5))
    low, high = ends(0.5, 0.6, 0.7)
    assert high - low > 0.35  # Student's t of three cases: 0.50; as if there were ten: 0.23


def test_a_label_that_is_nowhere_is_left_out_of_the_foreground_mean() -> None:
    summary = summarise([case("a", 0.5, NAN), case("b", 0.7, NAN)], TWO)
    assert math.isnan(summary.mean["2"]["Dice"])
    assert summary.foreground_mean["Dice"] == pytest.approx(0.6)


def test_misses_and_false_alarms_are_counted_and_distances_are_given_without_them() -> None:
    cases = [
        found_in("a", prediction=True, reference=True, hd95=2.0),
        found_in("b", prediction=True, reference=True, hd95=4.0),
        found_in("c", prediction=False, reference=True),
        found_in("d", prediction=False, reference=True),
        found_in("e", prediction=True, reference=False),
        found_in("f", prediction=False, reference=False, hd95=NAN),
    ]
    summary = summarise(cases, Labels(foreground={"lesion": (1,)}))
    assert (summary.n_present, summary.n_missed, summary.n_false_alarms) == ({"1": 5}, {"1": 2}, {"1": 1})
    assert summary.mean["1"]["HD95"] == pytest.approx((2 + 4 + 3 * DIAGONAL) / 5)
    assert summary.mean["1"]["HD95_found"] == pytest.approx(3)
    assert summary.mean["1"]["ASSD_found"] == pytest.approx(1.5)
    assert summary.foreground_mean["HD95_found"] == pytest.approx(3)
    low, high = summary.ends("HD95_found", "1")
    assert 0 <= low < 3 < high


def test_a_label_that_is_never_found_has_no_distance_without_misses() -> None:
    summary = summarise([found_in("a", prediction=False, reference=True)], Labels(foreground={"lesion": (1,)}))
    assert summary.mean["1"]["HD95"] == DIAGONAL
    assert math.isnan(summary.mean["1"]["HD95_found"])


def test_the_interval_is_seeded_contains_the_mean_and_narrows_with_more_cases() -> None:
    random = np.random.default_rng(1)
    many = [case(f"{index:03}", *random.uniform(0.5, 1, 2)) for index in range(200)]
    few = summarise(many[:10], TWO)
    low, high = few.ends("Dice")
    assert low < few.foreground_mean["Dice"] < high
    assert summarise(many[:10], TWO) == few
    assert np.ptp(summarise(many, TWO).ends("Dice")) < (high - low) / 2


def test_the_interval_of_many_cases_is_that_of_a_normal_distribution() -> None:
    # For 400 cases, the bootstrap must agree with the mean +- 1.96 standard errors.
    dice = np.random.default_rng(2).uniform(0, 1, 400)
    summary = summarise([case(f"{index:03}", value) for index, value in enumerate(dice)], TWO)
    expected = dice.mean() + np.array([-1.96, 1.96]) * dice.std() / 20
    assert summary.ends("Dice", "1") == pytest.approx(expected, abs=0.003)


def test_cases_of_one_patient_are_not_independent() -> None:
    # 40 slices of two patients, one easy and one hard, are not 40 independent cases.
    slices = [(f"{index:02}", 0.9 if index % 2 else 0.5, f"patient {index % 2}") for index in range(40)]
    alone = summarise([case(name, dice) for name, dice, _ in slices], TWO)
    grouped = summarise([case(name, dice, group=group) for name, dice, group in slices], TWO)
    assert (alone.n_groups, grouped.n_groups, grouped.n_cases) == (40, 2, 40)
    assert grouped.ends("Dice", "1") == (0, 1)  # two patients say nothing about others
    assert np.ptp(alone.ends("Dice", "1")) < 0.2


def test_one_case_has_no_interval() -> None:
    low, high = summarise([case("a", 0.5, 0.6)], TWO).ends("Dice", "1")
    assert math.isnan(low)
    assert math.isnan(high)


def test_folds_merge_into_the_summary_of_all_their_cases() -> None:
    cases = [
        case(f"{index}", dice, 1 - dice, group=f"patient {index}")
        for index, dice in enumerate(np.linspace(0.1, 0.9, 5))
    ]
    folds = [summarise(cases[:1], TWO, skipped=["z"]), summarise(cases[1:], TWO, skipped=["y"])]
    through_json = [Summary.model_validate(json.loads(fold.model_dump_json())) for fold in folds[::-1]]
    assert merge(through_json).model_dump_json() == summarise(cases, TWO, skipped=["y", "z"]).model_dump_json()
    # The mean is over cases, not over folds.
    assert merge(folds).mean["1"]["Dice"] == pytest.approx(0.5)


def test_a_summary_written_by_nnunet_can_be_merged() -> None:
    metrics = {"(1, 2)": {"Dice": 0.5, "IoU": 0.3, "FP": 1, "TP": 2, "FN": 3, "TN": 4, "n_pred": 3, "n_ref": 5}}
    content = {
        "foreground_mean": metrics["(1, 2)"],
        "mean": metrics,
        "metric_per_case": [{"reference_file": "a.png", "prediction_file": "p/a.png", "metrics": metrics}],
    }
    merged = merge([Summary.model_validate(content)])
    assert merged.foreground_mean == content["foreground_mean"]
    assert merged.mean == content["mean"]
    assert merged.metric_per_case[0].metrics == metrics
    assert merged.labels == {"(1, 2)": "(1, 2)"}


def test_a_case_in_two_folds_is_refused() -> None:
    with pytest.raises(UserError, match=r"a\.nii\.gz.*more than once"):
        merge([summarise([case("a", 0.5)], TWO), summarise([case("a", 0.6)], TWO)])


def test_cases_of_different_labels_are_refused() -> None:
    with pytest.raises(UserError, match=r"same dataset\.json"):
        summarise([case("a", 0.5), case("b", 0.5, 0.6)], TWO)


def test_no_cases_are_refused() -> None:
    with pytest.raises(UserError, match="no cases"):
        summarise([], TWO)
