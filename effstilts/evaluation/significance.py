"""How sure a number is: intervals over examples, spread and paired tests over seeds. Deterministic for a
given seed.

Values are in the caller's unit (the library's scores: percent), and so are intervals and differences;
p-values are two-sided, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError

Values = Sequence[float] | NDArray[Any]

_EXACT_UP_TO = 20
"""Differences up to which `sign_flip_test` enumerates all 2^n signs: 2^20 sums are 8 MiB."""
_CHUNK = 4_000_000
"""Numbers drawn at once, 32 MiB: bounds memory, whatever the count of examples and resamples."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, in the values' unit."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedBootstrap:
    """The mean of a - b with its confidence interval, in the values' unit, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Spread:
    """Where values lie, in their unit. `interquartile_range`: third quartile minus first."""

    median: float
    minimum: float
    maximum: float
    interquartile_range: float


@dataclass(frozen=True)
class SignFlipTest:
    """A paired permutation test of "the mean difference is 0".

    p_value: two-sided. smallest_p_value: the least that this many non-zero differences can give, 2 / 2^n:
    with 5 seeds 0.0625, so that fewer than 6 never reach 0.05. exact: all signs were tried, not a sample of
    them.
    """

    mean_difference: float
    p_value: float
    smallest_p_value: float
    exact: bool


def bootstrap_interval(
    values: Values,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean over examples (Efron and Tibshirani 1993, chapter 13).

    values [examples]: one score for each example, e.g. 0 or 100 for accuracy. It covers the choice of test
    examples, not the choice of training seed.
    """
    _check_settings(level, resamples)
    array = _as_array(values, "bootstrap")
    low, high = _percentiles(_resampled_means(array, resamples, seed), level)
    return Interval(float(array.mean()), low, high)


def paired_bootstrap(
    a: Values, b: Values, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedBootstrap:
    """Whether system a scores otherwise than b over the same examples: the paired bootstrap (Koehn 2004).

    a, b [examples]: each system's score for each example, in the same order; DataError on different lengths.
    p_value: the share of resamples, recentred on 0, whose mean is at least as far from 0 as the observed one
    (Berg-Kirkpatrick et al. 2012), counting the observed one as one more (Davison and Hinkley 1997, section
    4.2): it is never below 1 / (resamples + 1).
    """
    _check_settings(level, resamples)
    first, second = _as_array(a, "paired bootstrap"), _as_array(b, "paired bootstrap")
    if len(first) != len(second):
        raise DataError(f"paired bootstrap: {len(first)} scores of a for {len(second)} of b")
    differences = first - second
    observed = float(differences.mean())
    means = _resampled_means(differences, resamples, seed)
    low, high = _percentiles(means, level)
    extreme = int(np.count_nonzero(np.abs(means - observed) >= abs(observed) - _tolerance(differences)))
    return PairedBootstrap(observed, low, high, (extreme + 1) / (resamples + 1))


def median_and_spread(values: Values) -> Spread:
    """Median, minimum, maximum and interquartile range, e.g. over seeds. Quartiles are interpolated linearly
    between order statistics (Hyndman and Fan 1996, type 7: numpy's default)."""
    array = _as_array(values, "median")
    first, median, third = np.percentile(array, [25, 50, 75])
    return Spread(float(median), float(array.min()), float(array.max()), float(third - first))


def sign_flip_test(differences: Values, resamples: int = 100_000, seed: int = 0) -> SignFlipTest:
    """Paired permutation test over seeds (Fisher 1935): if two methods do not differ, each seed's difference
    is as likely to have the other sign. The p-value is the share of sign choices whose mean is at least as
    far from 0.

    differences [seeds]: score of one method minus score of the other for the same seed. Exact up to 20 of
    them; above that over `resamples` random sign choices, the observed one counted as one more.
    """
    array = _as_array(differences, "sign-flip test")
    nonzero = array[array != 0]
    smallest = min(1.0, 2.0 ** (1 - len(nonzero)))
    mean, observed = float(array.mean()), abs(float(array.sum())) - len(array) * _tolerance(array)
    if len(nonzero) <= _EXACT_UP_TO:  # a zero has no sign, and leaves the share as it is
        sums = np.zeros(1)
        for difference in nonzero:
            sums = np.concatenate([sums + difference, sums - difference])
        p_value = np.count_nonzero(np.abs(sums) >= observed) / len(sums)
        return SignFlipTest(mean, float(p_value), smallest, exact=True)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    generator = np.random.default_rng(seed)
    extreme = 0
    for rows in _chunks(resamples, len(nonzero)):
        signs = generator.integers(0, 2, size=(rows, len(nonzero))) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ nonzero) >= observed))
    return SignFlipTest(mean, (extreme + 1) / (resamples + 1), smallest, exact=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several tests looked at together, in the order given (Holm 1979): rejecting those at most
    `level` keeps the chance of any false rejection at most `level`, however the tests depend on each other. DataError
    on one that is no number from 0 to 1.
    """
    for p_value in p_values:
        if not 0 <= p_value <= 1:
            raise DataError(f"Holm's correction: {p_value} is no p-value, which is from 0 to 1")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Means [resamples] of samples drawn with replacement, each as large as `values`."""
    generator = np.random.default_rng(seed)
    size = len(values)
    draws = (generator.integers(0, size, (rows, size)) for rows in _chunks(resamples, size))
    return np.concatenate([values[draw].mean(axis=1) for draw in draws])


def _chunks(rows: int, width: int) -> list[int]:
    step = max(1, _CHUNK // max(1, width))
    return [min(step, rows - start) for start in range(0, rows, step)]


def _percentiles(means: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _tolerance(values: NDArray[np.float64]) -> float:
    """What rounding may change in a mean of these values: ties in a permutation test must count as ties."""
    return 1e-12 * float(np.abs(values).max())


def _check_settings(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")


def _as_array(values: Values, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise DataError(f"{what}: a list of at least one number expected, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{what}: value {int(np.argmin(np.isfinite(array)))} is not a finite number")
    return array
