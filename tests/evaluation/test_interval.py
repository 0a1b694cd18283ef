import numpy as np
import pytest
from scipy.stats import ttest_1samp

from autocrossdim.evaluation.interval import estimate, interval, means, resampling_weights


def test_cases_of_a_group_are_drawn_together_and_as_many_groups_as_exist():
    weights = resampling_weights(["x", "y", "x", "z"])
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.1)


def test_weighted_means_leave_out_nan():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    weights = np.array([[1.0, 3.0, 1.0], [0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(means(values, weights), [[2.5, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(means(values), [2.0, np.nan])


def test_the_interval_of_many_groups_contains_95_percent_of_the_draws():
    draws = np.stack([np.arange(1001.0), np.full(1001, np.nan)], axis=1)
    draws[0, 0] = np.nan
    low, high = interval(draws, np.array([500.5, np.nan]), 10**6)
    assert (low[0], high[0]) == (pytest.approx(1 + 0.025 * 999, abs=0.01), pytest.approx(1 + 0.975 * 999, abs=0.01))
    assert np.isnan([low[1], high[1]]).all()


@pytest.mark.parametrize("number", [3, 5, 8])
def test_the_interval_of_few_cases_contains_the_true_mean_as_often_as_it_claims(number):
    random = np.random.default_rng(0)
    weights = resampling_weights([str(case) for case in range(number)], draws=500)
    hits, trials = 0, 300
    for values in random.normal(0, 1, (trials, number)):
        low, high = interval(means(values, weights), means(values), number)
        hits += low <= 0 <= high
    assert hits / trials > 0.9  # the percentile bootstrap alone: 0.76, 0.83 and 0.89


def mean_estimate(values, groups, **options):
    """The mean of values of cases, with a single seed."""
    return estimate(
        lambda _, weights: means(values, weights), seeds=1, groups=groups, known=~np.isnan(values), **options
    )


@pytest.mark.parametrize("patients", [3, 6, 20])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_for_few_patients_an_expanded_interval_is_students(patients, level):
    by_patient = np.random.default_rng(patients).normal(0.02, 0.05, patients)
    values, groups = np.repeat(by_patient, 4), [str(index // 4) for index in range(4 * patients)]
    expected = ttest_1samp(by_patient, 0).confidence_interval(level)
    found = mean_estimate(values, groups, level=level)
    assert found.value == pytest.approx(by_patient.mean())
    # The bootstrap also follows the skewness of the values, so the two agree only in size.
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.25)


def test_differences_of_one_sign_exclude_zero_unless_the_interval_is_expanded():
    values, groups = np.array([0.001, 0.02, 0.03]), ["a", "b", "c"]
    assert mean_estimate(values, groups, expanded=False).excludes_zero
    assert not mean_estimate(
        values, groups
    ).excludes_zero  # three patients have the same sign by chance in 1 of 4 cases


def test_a_statistic_that_is_never_finite_has_no_interval():
    found = estimate(
        lambda of_seeds, _: np.full(len(of_seeds), np.inf), seeds=2, groups=["a", "b"], known=np.ones(2, bool)
    )
    assert np.isnan([found.low, found.high]).all()


def test_cases_without_a_value_do_not_narrow_an_interval():
    """Such as cases in which neither annotation nor segmentation has a label."""
    values, groups = np.array([0.1, 0.2, 0.6]), ["a", "b", "c"]
    more = np.append(values, np.full(9, np.nan)), [*groups, *map(str, range(9))]
    assert mean_estimate(*more) == mean_estimate(values, groups)
    one = np.array([np.nan, 0.1, np.nan])
    found = mean_estimate(one, groups)
    assert found.value == pytest.approx(0.1)
    assert np.isnan([found.low, found.high]).all()
