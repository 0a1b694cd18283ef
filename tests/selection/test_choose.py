import math
from collections.abc import Sequence

import numpy as np
import pytest

from autocrossdim.evaluation.summary import summarise
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.selection.choose import choose, compare
from autocrossdim.system.errors import UserError

LABELS = Labels(foreground={"organ": (1,)})
HARDNESS = np.random.default_rng(0).uniform(0.5, 0.9, 30)
NOISE = np.random.default_rng(1).normal(0, 0.01, 30)


def summary(
    dices: Sequence[float] | np.ndarray, *, key: str = "1", group: str | None = None, first: int = 0
) -> Summary:
    """A summary of cases with the given Dice."""
    cases = [
        CaseResult(
            reference_file=f"{index:03}.png",
            prediction_file=f"p/{index:03}.png",
            group=group,
            metrics={key: {"Dice": float(dice), "n_pred": 1, "n_ref": 1}},
        )
        for index, dice in enumerate(dices, first)
    ]
    return summarise(cases, LABELS)


def test_a_small_but_steady_difference_is_detected_between_cases_of_varying_difficulty() -> None:
    difference = compare(summary(HARDNESS + 0.02), summary(HARDNESS + NOISE))
    assert difference.mean == pytest.approx(0.02 - NOISE.mean())
    assert 0.01 < difference.low < difference.mean < difference.high < 0.03
    assert not difference.within_noise
    assert difference.n_cases == 30


def test_a_difference_that_varies_in_sign_is_noise() -> None:
    assert compare(summary(HARDNESS), summary(HARDNESS + NOISE)).within_noise


def test_swapping_the_models_changes_the_sign() -> None:
    a, b = summary(HARDNESS), summary(HARDNESS + NOISE)
    assert compare(a, b).mean == pytest.approx(-compare(b, a).mean)


def test_one_patient_gives_no_interval() -> None:
    difference = compare(summary(HARDNESS, group="x"), summary(HARDNESS - 0.2, group="x"))
    assert math.isnan(difference.low)
    assert difference.within_noise
    assert "no interval" in difference.interval


def test_one_patient_with_a_label_gives_no_interval() -> None:
    """In the other cases, neither annotation nor segmentation has a label."""
    difference = compare(summary([0.8, *[math.nan] * 9]), summary([0.6, *[math.nan] * 9]))
    assert difference.mean == pytest.approx(0.2)
    assert math.isnan(difference.low)
    assert difference.within_noise


def test_models_evaluated_on_different_cases_or_labels_cannot_be_compared() -> None:
    with pytest.raises(UserError, match=r"000\.png, 030\.png: evaluated for one model only"):
        compare(summary(HARDNESS), summary(HARDNESS, first=1))
    with pytest.raises(UserError, match="different labels"):
        compare(summary(HARDNESS), summary(HARDNESS, key="2"))


def test_the_cheaper_model_is_chosen_if_the_difference_is_within_noise() -> None:
    candidates = {"omnia": summary(HARDNESS), "omnia + dx": summary(HARDNESS + NOISE - NOISE.mean() + 0.001)}
    choice = choose(candidates, {"omnia": 1, "omnia + dx": 3})
    assert choice.name == "omnia"
    assert "omnia + dx has the highest mean Dice" in choice.reasons[0]
    assert "within noise" in choice.reasons[1]


def test_the_better_model_is_chosen_if_the_difference_is_real() -> None:
    candidates = {"omnia": summary(HARDNESS), "dx": summary(HARDNESS + NOISE - NOISE.mean() + 0.05)}
    choice = choose(candidates, {"omnia": 1, "dx": 2})
    assert choice.name == "dx"
    assert choice.reasons[1].startswith("omnia is cheaper, but")


@pytest.mark.parametrize("group", ["one patient", None])
def test_with_few_cases_a_much_worse_model_is_not_chosen_because_it_is_cheaper(group: str | None) -> None:
    candidates = {"omnia": summary([0.8, 0.7, 0.85], group=group), "dx": summary([0.9, 0.88, 0.87], group=group)}
    assert compare(candidates["dx"], candidates["omnia"]).within_noise
    choice = choose(candidates, {"omnia": 1, "dx": 2})
    assert choice.name == "dx"
    assert choice.reasons[1].endswith("; a loss of more than 0.01 is not accepted, even within noise.")


def test_a_single_candidate_is_not_called_the_best() -> None:
    reasons = choose({"dx": summary(HARDNESS)}, {"dx": 1}).reasons
    assert reasons == [f"dx is the only candidate, with a mean Dice of {HARDNESS.mean():.3f} over 30 cases."]


def test_more_expensive_models_with_a_lower_dice_are_not_mentioned() -> None:
    candidates = {"omnia": summary(HARDNESS + 0.05), "dx": summary(HARDNESS)}
    assert choose(candidates, {"omnia": 1, "dx": 2}).reasons == [
        f"omnia has the highest mean Dice of {HARDNESS.mean() + 0.05:.3f} over 30 cases."
    ]


def test_between_equal_models_the_cheaper_one_is_chosen() -> None:
    candidates = {"dx": summary(HARDNESS), "omnia": summary(HARDNESS)}
    choice = choose(candidates, {"omnia": 1, "dx": 2})
    assert choice.name == "omnia"
    assert len(choice.reasons) == 1


def test_with_more_than_two_candidates_the_reasons_mention_multiple_comparisons() -> None:
    candidates = {name: summary(HARDNESS + lead) for name, lead in (("omnia", 0), ("dx", 0.02), ("omnia + dx", 0.01))}
    _, cheaper, note = choose(candidates, {"omnia": 1, "dx": 2, "omnia + dx": 3}).reasons
    assert "(adjusted 95 % interval of the difference" in cheaper
    assert note.startswith("3 candidates were compared on the same cases.")
    assert "Adjusted intervals hold for all 3 pairs of candidates together (Bonferroni)" in note


def test_the_best_of_many_candidates_needs_a_larger_lead() -> None:
    # Student's t: 2.0 for one comparison, 3.0 for the nine with the best, 3.6 for all 45 pairs.
    lead = 3.2 * NOISE.std() / math.sqrt(len(NOISE))
    best, cheap = summary(HARDNESS + NOISE - NOISE.mean() + lead), summary(HARDNESS)
    assert choose({"dx": best, "omnia": cheap}, {"dx": 2, "omnia": 1}).name == "dx"
    others = {f"variant {index}": summary(HARDNESS - 0.1) for index in range(8)}
    costs = {"dx": 2, "omnia": 1, **dict.fromkeys(others, 3)}
    assert choose({"dx": best, "omnia": cheap, **others}, costs).name == "omnia"


def test_three_patients_who_agree_by_chance_show_no_difference() -> None:
    by_patient = [0.51, 0.52, 0.53]
    difference = compare(summary(by_patient), summary([0.5, 0.5, 0.5]))
    # Student's t with 2 degrees of freedom: 0.02 +- 4.30 * 0.01 / sqrt(3).
    assert (difference.low, difference.high) == (pytest.approx(-0.005, abs=0.006), pytest.approx(0.045, abs=0.006))
    assert difference.within_noise


def test_without_candidates_or_without_any_dice_there_is_no_choice() -> None:
    with pytest.raises(UserError, match="no models"):
        choose({}, {})
    with pytest.raises(UserError, match="no Dice"):
        choose({"omnia": summary([math.nan])}, {"omnia": 1})
