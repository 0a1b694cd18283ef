import numpy as np
import pytest
from PIL import Image

from autocrossdim.records.study import Comparison
from autocrossdim.studies.comparison import compare_arms, compared, conclusion

BASE = np.random.default_rng(0).uniform(0.4, 0.8, (5, 12))


def noisy(amount, seed):
    return (BASE + amount + np.random.default_rng(seed).normal(0, 0.01, BASE.shape)).tolist()


def test_what_is_better_worse_and_not_shown(make_runs, tmp_path):
    runs = [
        *make_runs("random", BASE.tolist()),
        *make_runs("ImageNet", noisy(0.1, 1)),
        *make_runs("broken", noisy(-0.2, 2)),
        *make_runs("the same", noisy(0.0, 3)),
    ]
    found = compare_arms(["random", "ImageNet", "broken", "the same"], runs)
    better, worse, same = found.comparisons
    assert better.difference == pytest.approx(0.1, abs=0.01)
    assert (better.is_shown, worse.is_shown, same.is_shown) == (True, True, False)
    assert found.conclusion.startswith("With 8 training cases, better than random: ImageNet by 0.1")
    assert "worse than random: broken by 0.199 Dice" in found.conclusion
    assert found.conclusion.endswith("no difference shown from random: the same.")
    assert [row[0] for row in found.table.rows] == ["random", "ImageNet", "broken", "the same"]
    found.draw(tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").width > 300


def test_names_with_a_comma_are_quoted_in_the_conclusion(make_runs):
    runs = [*make_runs("center, encoder", BASE.tolist()), *make_runs("acs, encoder", noisy(0.0, 3))]
    said = compare_arms(["center, encoder", "acs, encoder"], runs).conclusion
    assert said.endswith("no difference shown from 'center, encoder': 'acs, encoder'.")


def test_each_number_of_training_cases_is_compared_on_its_own(make_runs):
    runs = [
        *make_runs("random", BASE.tolist(), size=2),
        *make_runs("ImageNet", noisy(0.2, 1), size=2),
        *make_runs("random", BASE.tolist(), size=8),
        *make_runs("ImageNet", noisy(0.0, 2), size=8),
    ]
    said = compare_arms(["random", "ImageNet"], runs).conclusion
    assert "With 2 training cases, better than random: ImageNet" in said
    assert said.endswith("; with 8 training cases, no difference shown from random: ImageNet.")


def test_intervals_hold_for_all_comparisons_together(make_runs):
    runs = [*make_runs("random", BASE.tolist()), *make_runs("a", noisy(0.01, 1))]
    alone = compare_arms(["random", "a"], runs).comparisons[0]
    others = [run for name in "bcdef" for run in make_runs(name, noisy(0.01, 2))]
    among = compare_arms(["random", *"abcdef"], [*runs, *others]).comparisons[0]
    assert among.difference == alone.difference
    assert among.high - among.low > 1.2 * (alone.high - alone.low)


@pytest.mark.parametrize(("seeds", "note"), [(1, "only one seed"), (2, "only two seeds")])
def test_few_seeds_are_named(make_runs, seeds, note):
    runs = [*make_runs("random", BASE[:seeds].tolist()), *make_runs("a", noisy(0.1, 1)[:seeds])]
    found = compare_arms(["random", "a"], runs)
    assert any(note in sentence for sentence in found.notes)
    assert any("A conclusion needs at least two" in sentence for sentence in found.notes) is (seeds == 1)


def test_nothing_is_concluded_from_one_seed_or_one_patient(make_runs):
    few = BASE[:1, :2]
    runs = [*make_runs("random", few.tolist()), *make_runs("ImageNet", (few + np.array([0.1, 0.12])).tolist())]
    once = compare_arms(["random", "ImageNet"], runs)
    assert once.comparisons[0].is_shown  # the interval leaves out how much trainings differ
    assert once.conclusion == (
        "With 8 training cases, no conclusion about the difference from random can be drawn from a single seed "
        "(observed: ImageNet +0.110 Dice)."
    )
    alone = [*make_runs("random", [[0.5]]), *make_runs("ImageNet", [[0.7]])]
    said = compare_arms(["random", "ImageNet"], alone).conclusion
    assert "can be drawn from a single seed and fewer than two held-out patients (observed: ImageNet +0.200" in said


def test_an_arm_with_more_seeds_than_another_one_is_judged(make_runs):
    runs = [
        *make_runs("random", BASE.tolist()),
        *make_runs("often", noisy(0.1, 1)),
        *make_runs("once", noisy(-0.1, 2)[:1]),
    ]
    said = compare_arms(["random", "often", "once"], runs).conclusion
    assert said.startswith("With 8 training cases, better than random: often by 0.1")
    assert "from a single seed (observed: once -0.1" in said
    assert "worse" not in said


def test_one_patient_gives_no_interval(make_runs):
    groups = dict.fromkeys(range(12), "patient")
    runs = [*make_runs("random", BASE.tolist(), groups), *make_runs("a", noisy(0.3, 1), groups)]
    found = compare_arms(["random", "a"], runs)
    assert found.comparisons[0].low is None
    assert "no conclusion about the difference from random can be drawn from fewer than two" in found.conclusion
    assert any("only one group" in note for note in found.notes)


def test_an_arm_alone_is_not_compared(make_runs):
    assert "with random yet" in compare_arms(["random", "a"], make_runs("random", BASE.tolist())).conclusion
    assert "with a yet" in compare_arms(["random", "a"], make_runs("a", BASE.tolist())).conclusion
    assert "Nothing to compare" in conclusion("random", [])


def test_a_comparison_without_interval_shows_nothing():
    fields = {"arm": "a", "reference": "b", "size": 8, "seeds": 1, "difference": 0.3}
    assert not Comparison(**fields, low=None, high=None).is_shown
    assert Comparison(**fields, low=0.1, high=0.5).is_shown


def test_among_ten_equal_arms_a_difference_is_rarely_shown(make_runs, monkeypatch):
    monkeypatch.setattr("autocrossdim.evaluation.interval.DRAWS_OF_COMPARISONS", 1000)
    random = np.random.default_rng(0)
    arms = [f"arm {index}" for index in range(10)]
    single, together, studies = 0, 0, 40
    for _ in range(studies):
        of_patients = random.normal(0.7, 0.1, 8)
        runs = {arm: make_runs(arm, random.normal(of_patients, 0.05, (3, 8)).tolist()) for arm in arms}
        found = compare_arms(arms, [run for each in runs.values() for run in each])
        together += any(each.is_shown for each in found.comparisons)
        single += any(compared(runs[arm], runs[arms[0]]).is_shown for arm in arms[1:])
    assert together / studies <= 0.1  # 0.05, by the intervals' claim
    assert single > 2 * together + 2  # at 95 % each, one of the nine often seems to differ


def test_the_table_says_which_intervals_are_adjusted(make_runs):
    runs = [run for arm in "abc" for run in make_runs(arm, noisy(0.0, ord(arm)))]
    among = compare_arms(["a", "b", "c"], runs)
    assert among.table.headings[3:5] == ("Dice (95 % interval)", "difference from a (95 % interval, adjusted)")
    assert any("the 2 differences are adjusted" in note for note in among.notes)
    alone = compare_arms(["a", "b"], runs)
    assert alone.table.headings[4] == "difference from a (95 % interval)"
    assert not any("adjusted" in note for note in alone.notes)
