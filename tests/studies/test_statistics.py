import numpy as np
import pytest

from autocrossdim.studies.statistics import (
    case_groups,
    crossed_mean,
    dice_matrix,
    difference,
    mean_of,
    paired,
)


def names(number):
    return [str(index) for index in range(number)]


@pytest.mark.parametrize(
    ("seeds", "cases", "between_seeds", "between_cases"),
    [(3, 8, 2.0, 0.3), (3, 8, 0.1, 1.0), (5, 12, 1.0, 1.0), (1, 3, 0.0, 1.0)],
)
def test_intervals_contain_the_true_mean_as_often_as_they_claim(
    seeds, cases, between_seeds, between_cases, monkeypatch
):
    monkeypatch.setattr("autocrossdim.evaluation.interval.DRAWS_OF_COMPARISONS", 500)
    random = np.random.default_rng(0)
    hits, trials = 0, 200
    for _ in range(trials):
        values = random.normal(0, between_seeds, (seeds, 1)) + random.normal(0, between_cases, (1, cases))
        found = mean_of(values + random.normal(0, 1, (seeds, cases)), names(cases))
        hits += found.low <= 0 <= found.high
    assert hits / trials > 0.9  # the percentile bootstrap alone reaches 0.76 where seeds differ most


def test_three_lucky_seeds_do_not_show_a_difference():
    values = np.repeat([[0.02], [0.01], [0.03]], 8, axis=1)  # all better, by amounts that vary between seeds alone
    found = mean_of(values, names(8))
    assert found.value == pytest.approx(0.02)
    # Student's t with 2 degrees of freedom: 0.02 +- 4.30 * 0.01 / sqrt(3).
    assert not found.excludes_zero
    assert (found.low, found.high) == (pytest.approx(-0.005, abs=0.006), pytest.approx(0.045, abs=0.006))


def test_cases_of_a_group_count_as_one(make_runs):
    random = np.random.default_rng(1)
    by_patient = np.repeat(random.normal(0.05, 0.05, 5), 20)
    values = np.tile(by_patient, (3, 1))
    alone = mean_of(values, names(100))
    together = mean_of(values, [str(index // 20) for index in range(100)])
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_one_group_gives_no_interval_and_one_seed_gives_one_over_cases():
    values = np.array([[0.1, 0.2, 0.3]])
    assert np.isnan(mean_of(values, ["a", "a", "a"]).low)
    assert mean_of(values, names(3)).low < 0.2 < mean_of(values, names(3)).high


def test_a_larger_level_gives_a_wider_interval():
    values = np.random.default_rng(2).normal(0, 1, (3, 10))
    narrow, wide = (mean_of(values, names(10), level) for level in (0.95, 0.99))
    assert wide.low < narrow.low
    assert narrow.high < wide.high


def test_missing_values_are_left_out_of_means():
    values = np.array([[0.2, np.nan], [0.4, 0.9]])
    assert crossed_mean(values, np.ones((1, 2)), np.ones((1, 2)))[0] == pytest.approx(0.5)
    assert np.isnan(crossed_mean(values, np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0])


def test_differences_are_paired_by_seed_and_case(make_runs):
    random = np.random.default_rng(3)
    base = random.uniform(0.2, 0.9, (4, 10))
    reference = make_runs("reference", base.tolist())
    better = make_runs("better", (base + 0.02 + random.normal(0, 0.002, base.shape)).tolist())
    found = difference(better[::-1], reference[1:])  # one seed is missing, and the order differs
    assert found.value == pytest.approx(0.02, abs=0.002)
    assert found.low > 0.015
    ours, theirs = paired(better[::-1], reference[1:])
    assert [run.seed for run in ours] == [run.seed for run in theirs] == [1, 2, 3]


def test_a_difference_is_that_of_the_means_where_only_one_arm_segments_what_is_not_there(make_runs):
    """The last two of ten cases have no labels; the reference segments something in them."""
    arm, reference = make_runs("arm", [[0.8] * 8 + [None] * 2] * 3), make_runs("reference", [[0.8] * 8 + [0.0] * 2] * 3)
    found = difference(arm, reference)
    cases, groups = case_groups(arm[0])
    means = [mean_of(dice_matrix(runs, cases), groups).value for runs in (arm, reference)]
    assert found.value == pytest.approx(means[0] - means[1]) == pytest.approx(0.16)


def test_cases_without_any_label_are_missing(make_runs):
    (run,) = make_runs("arm", [[0.5, None]], groups={0: "patient"})
    cases, groups = case_groups(run)
    assert groups == ["patient", "case_001"]
    assert np.isnan(dice_matrix([run], cases)[0, 1])
