"""Intervals, against tables and against their own promise."""

import numpy as np
import pytest

from muse.evaluation.intervals import around, mean_of, wilson


def test_wilson_intervals_are_those_of_the_tables():
    assert (wilson(8, 10).low, wilson(8, 10).high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert (wilson(0, 10).low, wilson(0, 10).high) == pytest.approx((0, 0.278), abs=1e-3)
    assert wilson(10, 10).high == pytest.approx(1)
    assert wilson(500, 1000).high - wilson(500, 1000).low < wilson(5, 10).high - wilson(5, 10).low


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        wilson(0, 0)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(5, 2, 400)
    figure = mean_of(values, 2000, np.random.default_rng(1))
    assert figure.value == pytest.approx(values.mean())
    reach = 1.96 * values.std() / 20
    assert (figure.low, figure.high) == pytest.approx((figure.value - reach, figure.value + reach), abs=0.03)


def test_an_interval_around_a_statistic_holds_it_and_the_same_seed_gives_the_same():
    values = np.random.default_rng(0).normal(5, 2, 100)
    first, again = (around(lambda rows: float(values[rows].max()), 100, 50, np.random.default_rng(2)) for _ in "ab")
    assert first == again
    assert first.low <= first.value == values.max() <= first.high
