import numpy as np
import pytest

from autocrossdim.evaluation.interval import interval, means, resampling_weights


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


def test_the_interval_contains_95_percent_of_the_draws():
    draws = np.stack([np.arange(1001.0), np.full(1001, np.nan)], axis=1)
    draws[0, 0] = np.nan
    low, high = interval(draws)
    assert (low[0], high[0]) == (pytest.approx(1 + 0.025 * 999), pytest.approx(1 + 0.975 * 999))
    assert np.isnan([low[1], high[1]]).all()
