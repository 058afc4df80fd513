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


def test_samples_of_one_kind_are_resampled_together():
    """As wide as that of the means of the kinds: four samples of each, nearly alike, tell little more than one."""
    rng = np.random.default_rng(0)
    of_kind, kinds = rng.normal(5, 2, 100), np.arange(100).repeat(4)
    values = of_kind[kinds] + rng.normal(0, 0.1, 400)
    figure = mean_of(values, 2000, np.random.default_rng(1), kinds.tolist())
    assert figure.value == values.mean()
    reach = 1.96 * of_kind.std() / 10
    assert (figure.low, figure.high) == pytest.approx((figure.value - reach, figure.value + reach), abs=0.05)
    alone = mean_of(values, 2000, np.random.default_rng(1))
    assert figure.high - figure.low > 1.8 * (alone.high - alone.low)


def test_kinds_of_different_sizes_count_by_their_samples():
    kinds, values = ["a", "b", "a", "a"], np.array([1.0, 9.0, 1.0, 1.0])
    figure = mean_of(values, 500, np.random.default_rng(0), kinds)
    assert (figure.low, figure.value, figure.high) == (1, 3, 9)


@pytest.mark.parametrize("kinds", [range(50), ["one"] * 50])
def test_where_each_sample_or_none_is_of_a_kind_of_its_own_the_interval_is_that_of_samples(kinds):
    values = np.random.default_rng(0).normal(5, 2, 50)
    plain, other = (mean_of(values, 300, np.random.default_rng(1), some) for some in (None, list(kinds)))
    assert plain == other
    rows = np.random.default_rng(1).integers(50, size=50)
    assert mean_of(values, 1, np.random.default_rng(1)).low == values[rows].mean()


def test_an_interval_around_a_statistic_holds_it_and_the_same_seed_gives_the_same():
    values = np.random.default_rng(0).normal(5, 2, 100)
    first, again = (around(lambda rows: float(values[rows].max()), 100, 50, np.random.default_rng(2)) for _ in "ab")
    assert first == again
    assert first.low <= first.value == values.max() <= first.high
