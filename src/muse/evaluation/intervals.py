"""A number and its 95% interval."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CONFIDENCE_Z = 1.96
"""Standard errors on either side of a 95% interval."""
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Figure:
    """A number and its 95% interval."""

    value: float
    low: float
    high: float


def wilson(num_right: int, num: int) -> Figure:
    """A rate and its Wilson interval.
    Raises ValueError if nothing was counted."""
    if num < 1:
        raise ValueError("a rate needs at least one sample; none came")
    rate, z2 = num_right / num, CONFIDENCE_Z**2 / num
    middle = (rate + z2 / 2) / (1 + z2)
    reach = (z2 * (rate * (1 - rate) + z2 / 4)) ** 0.5 / (1 + z2)
    return Figure(rate, max(0.0, middle - reach), min(1.0, middle + reach))


def mean_of(
    values: Float[np.ndarray, " sample"],
    resamples: int,
    rng: np.random.Generator,
    kinds: Sequence[Hashable] | None = None,
) -> Figure:
    """A mean and the percentiles of the means of bootstrap resamples.
    Samples of one of the `kinds` are drawn together or not at all, unless all are of one: what they have in common is
    not measured anew by each of them (the cluster bootstrap: Davison and Hinkley, 1997, section 3.8)."""
    sums, counts = values, np.ones(len(values))
    if kinds is not None and len(set(kinds)) > 1:
        place_of = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
        places = np.array([place_of[kind] for kind in kinds])
        sums, counts = np.bincount(places, weights=values), np.bincount(places)
    draws = (rng.integers(len(sums), size=len(sums)) for _ in range(resamples))
    means = [sums[rows].sum() / counts[rows].sum() for rows in draws]
    low, high = np.percentile(means, PERCENTILES)
    return Figure(float(values.mean()), float(low), float(high))


def around(
    statistic: Callable[[Int[np.ndarray, " sample"]], float], num: int, resamples: int, rng: np.random.Generator
) -> Figure:
    """A statistic of the samples with these numbers, and 1.96 bootstrap standard errors on either side, above 0.
    For statistics that repeated samples bias, such as distances: their percentiles would miss the value itself."""
    value = statistic(np.arange(num))
    again = [statistic(rng.integers(num, size=num)) for _ in range(resamples)]
    reach = CONFIDENCE_Z * float(np.std(again, ddof=1))
    return Figure(value, max(0.0, value - reach), value + reach)
