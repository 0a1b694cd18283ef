import numpy as np
import pytest
from PIL import Image

from autocrossdim.records.study import Comparison
from autocrossdim.studies.comparison import compare_arms, conclusion

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
    assert any(note in sentence for sentence in compare_arms(["random", "a"], runs).notes)


def test_one_patient_gives_no_interval(make_runs):
    groups = dict.fromkeys(range(12), "patient")
    runs = [*make_runs("random", BASE.tolist(), groups), *make_runs("a", noisy(0.3, 1), groups)]
    found = compare_arms(["random", "a"], runs)
    assert found.comparisons[0].low is None
    assert "no difference shown" in found.conclusion
    assert any("only one group" in note for note in found.notes)


def test_an_arm_alone_is_not_compared(make_runs):
    assert "with random yet" in compare_arms(["random", "a"], make_runs("random", BASE.tolist())).conclusion
    assert "with a yet" in compare_arms(["random", "a"], make_runs("a", BASE.tolist())).conclusion
    assert "Nothing to compare" in conclusion("random", [])


def test_a_comparison_without_interval_shows_nothing():
    fields = {"arm": "a", "reference": "b", "size": 8, "seeds": 1, "difference": 0.3}
    assert not Comparison(**fields, low=None, high=None).is_shown
    assert Comparison(**fields, low=0.1, high=0.5).is_shown
