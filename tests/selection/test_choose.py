import math

import numpy as np
import pytest

from autocrossdim.evaluation.summary import CaseResult, summarise
from autocrossdim.records.labels import Labels
from autocrossdim.selection.choose import choose, compare
from autocrossdim.system.errors import UserError

LABELS = Labels(foreground={"organ": (1,)})
HARDNESS = np.random.default_rng(0).uniform(0.5, 0.9, 30)
NOISE = np.random.default_rng(1).normal(0, 0.01, 30)


def summary(dices, key="1", group=None, start=0):
    """A summary of cases with the given Dice."""
    return summarise(
        [
            CaseResult(f"{i:03}.png", f"p/{i:03}.png", {key: {"Dice": d, "n_pred": 1, "n_ref": 1}}, group)
            for i, d in enumerate(dices, start)
        ],
        LABELS,
    )


def test_a_small_but_steady_difference_is_seen_between_cases_that_differ_much():
    difference = compare(summary(HARDNESS + 0.02), summary(HARDNESS + NOISE))
    assert difference.mean == pytest.approx(0.02 - NOISE.mean())
    assert 0.01 < difference.low < difference.mean < difference.high < 0.03
    assert not difference.within_noise
    assert difference.n_cases == 30


def test_a_difference_that_goes_either_way_is_noise():
    assert compare(summary(HARDNESS), summary(HARDNESS + NOISE)).within_noise


def test_the_order_turns_the_sign():
    a, b = summary(HARDNESS), summary(HARDNESS + NOISE)
    assert compare(a, b).mean == pytest.approx(-compare(b, a).mean)


def test_one_patient_gives_no_interval():
    difference = compare(summary(HARDNESS, group="x"), summary(HARDNESS - 0.2, group="x"))
    assert math.isnan(difference.low)
    assert difference.within_noise
    assert "no interval" in difference.interval


def test_models_of_different_cases_or_labels_cannot_be_compared():
    with pytest.raises(UserError, match=r"000\.png, 030\.png: evaluated for one model only"):
        compare(summary(HARDNESS), summary(HARDNESS, start=1))
    with pytest.raises(UserError, match="different labels"):
        compare(summary(HARDNESS), summary(HARDNESS, key="2"))


def test_the_simpler_model_is_chosen_when_the_difference_is_noise():
    candidates = {"omnia": summary(HARDNESS), "omnia + dx": summary(HARDNESS + NOISE - NOISE.mean() + 0.001)}
    choice = choose(candidates, {"omnia": 1, "omnia + dx": 3})
    assert choice.name == "omnia"
    assert "omnia + dx has the highest mean Dice" in choice.reasons[0]
    assert "noise" in choice.reasons[1]


def test_the_better_model_is_chosen_when_the_difference_is_real():
    candidates = {"omnia": summary(HARDNESS), "dx": summary(HARDNESS + NOISE - NOISE.mean() + 0.05)}
    choice = choose(candidates, {"omnia": 1, "dx": 2})
    assert choice.name == "dx"
    assert choice.reasons[1].startswith("omnia is simpler, but")


def test_a_dearer_model_is_not_looked_at():
    candidates = {"omnia": summary(HARDNESS + 0.05), "dx": summary(HARDNESS)}
    assert choose(candidates, {"omnia": 1, "dx": 2}).reasons == [
        f"omnia has the highest mean Dice, {HARDNESS.mean() + 0.05:.3f}, over 30 cases."
    ]


def test_equal_models_are_told_apart_by_cost():
    candidates = {"dx": summary(HARDNESS), "omnia": summary(HARDNESS)}
    choice = choose(candidates, {"omnia": 1, "dx": 2})
    assert choice.name == "omnia"
    assert len(choice.reasons) == 1


def test_nothing_to_choose_from():
    with pytest.raises(UserError, match="no models"):
        choose({}, {})
    with pytest.raises(UserError, match="no Dice"):
        choose({"omnia": summary([math.nan])}, {"omnia": 1})
