import numpy as np
import pytest

from autocrossdim.studies.convergence import compare_starts, time_ratio


def trained(make_runs, arm, seconds, *, dice=0.8, seeds=3):
    """Runs whose pseudo-Dice rises evenly to `dice`, in `seconds` and 10 epochs."""
    curve = [{"seconds": seconds * k / 10, "loss": 1 - k / 20, "dice": dice * k / 10} for k in range(1, 11)]
    cases = dice + np.random.default_rng(len(arm)).normal(0, 0.01, (seeds, 8))
    return make_runs(arm, cases.tolist(), curve=curve)


def test_a_start_that_is_twice_as_fast_takes_half_of_the_time(make_runs):
    ratio = time_ratio(trained(make_runs, "fast", 50), trained(make_runs, "random", 100))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_differences_between_seeds_give_an_interval(make_runs):
    slow = trained(make_runs, "random", 100)
    fast = [trained(make_runs, "fast", seconds)[seed] for seed, seconds in enumerate((40, 50, 62.5))]
    ratio = time_ratio(fast, slow)
    assert ratio.value == pytest.approx(0.5)
    assert ratio.low == pytest.approx(0.5 * np.exp(-4.303 * np.log(1.25) / np.sqrt(3)), rel=1e-3)
    assert np.isnan(time_ratio(fast[:1], slow[:1]).low)


def test_a_start_that_never_arrives_has_no_time(make_runs):
    slow = trained(make_runs, "random", 100)
    assert time_ratio(trained(make_runs, "bad", 50, dice=0.4), slow) is None
    assert time_ratio([], slow) is None


def test_the_reason_why_there_is_no_time_is_named(make_runs):
    slow, fast = trained(make_runs, "random", 100, seeds=2), trained(make_runs, "fast", 50, seeds=2)
    conclusion = compare_starts(["random", "fast"], [slow[0], fast[1]]).conclusion
    assert conclusion.endswith("fast and random have no runs with the same seed.")
    blind = [run.model_copy(update={"curve": ()}) for run in slow]
    conclusion = compare_starts(["random", "fast"], [*blind, *fast]).conclusion
    assert conclusion.endswith("a run of random has no pseudo-Dice.")


def test_nothing_is_concluded_from_the_times_of_one_seed(make_runs):
    runs = trained(make_runs, "random", 100, seeds=1) + trained(make_runs, "fast", 50, seeds=1)
    said = compare_starts(["random", "fast"], runs).conclusion
    assert "no conclusion about the difference from random can be drawn from a single seed" in said
    assert said.endswith(
        "fast takes 0.50 times as long as random in a single seed, from which no conclusion can be drawn."
    )


def test_earlier_and_higher_are_told_apart(make_runs, tmp_path):
    runs = trained(make_runs, "random", 100) + trained(make_runs, "same", 50) + trained(make_runs, "bad", 50, dice=0.4)
    found = compare_starts(["random", "same", "bad"], runs)
    assert "no difference shown from random: same" in found.conclusion
    assert "same takes 0.50 times as long as random" in found.conclusion
    assert "bad does not reach it" in found.conclusion
    found.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size


def test_the_conclusion_is_about_the_largest_number_of_training_cases(make_runs):
    few, many = (
        [run.model_copy(update={"size": size}) for arm in ("random", "same") for run in trained(make_runs, arm, 50)]
        for size in (2, 4)
    )
    found = compare_starts(["random", "same"], few + many)
    assert "with 4 training cases: same takes 1.00 times" in found.conclusion
    assert "with 2 training cases: same" not in found.conclusion
    assert "with 2 training cases: same takes 1.00 times" in found.notes[0]
