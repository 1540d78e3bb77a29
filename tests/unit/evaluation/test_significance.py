"""Intervals and tests against enumeration, closed forms and their own definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.errors import DataError
from effstilts.evaluation import significance
from effstilts.evaluation.significance import (
    bootstrap_interval,
    holm,
    median_and_spread,
    paired_bootstrap,
    sign_flip_test,
)

HALF_RIGHT = [0.0, 100.0] * 200


def test_bootstrap_interval_is_near_the_normal_one_for_many_examples() -> None:
    interval = bootstrap_interval(HALF_RIGHT, level=0.95)
    margin = 1.96 * 50 / math.sqrt(400)  # 4.9 points
    assert interval.mean == 50.0
    assert interval.low == pytest.approx(50 - margin, abs=0.5)
    assert interval.high == pytest.approx(50 + margin, abs=0.5)
    narrower = bootstrap_interval(HALF_RIGHT, level=0.5)
    assert interval.low < narrower.low < narrower.high < interval.high


def test_bootstrap_is_deterministic_for_a_seed_and_differs_between_seeds() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_numpys_global_generator_is_left_alone() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    bootstrap_interval([1.0, 2.0])
    assert np.random.random() == expected


def test_the_size_of_chunks_does_not_change_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=41)
    whole = paired_bootstrap(values, values * 0.5, resamples=1000), sign_flip_test(values, resamples=1000)
    monkeypatch.setattr(significance, "_CHUNK", 7 * 41)  # 143 chunks, the last one not full
    cut = paired_bootstrap(values, values * 0.5, resamples=1000), sign_flip_test(values, resamples=1000)
    assert cut == whole


def test_one_value_has_no_width() -> None:
    interval = bootstrap_interval([42.0])
    assert (interval.mean, interval.low, interval.high) == (42.0, 42.0, 42.0)


def test_paired_bootstrap_of_equal_systems_and_of_a_clear_winner() -> None:
    same = paired_bootstrap(HALF_RIGHT, HALF_RIGHT)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    better = paired_bootstrap(np.array(HALF_RIGHT) * 0.5 + 50, HALF_RIGHT)
    assert better.difference == 25.0
    assert better.low > 20.0
    assert better.p_value == 1 / 10_001
    worse = paired_bootstrap(HALF_RIGHT, np.array(HALF_RIGHT) * 0.5 + 50)
    assert worse.high < -20.0


def test_paired_bootstrap_p_value_is_near_that_of_the_z_test() -> None:
    difference = [100.0] * 30 + [-100.0] * 18 + [0.0] * 352
    result = paired_bootstrap(difference, [0.0] * 400)
    z = result.difference / (float(np.std(difference)) / math.sqrt(400))
    assert result.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)


def test_paired_bootstrap_uses_the_pairing() -> None:
    # A difference of one point on each of very unequal examples: certain when paired.
    hard = np.random.default_rng(0).uniform(0, 90, size=40)
    assert paired_bootstrap(hard + 1, hard).p_value < 0.001


def test_median_and_spread() -> None:
    spread = median_and_spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (spread.median, spread.minimum, spread.maximum, spread.interquartile_range) == (3.0, 1.0, 5.0, 2.0)
    assert median_and_spread([1.0, 2.0]).interquartile_range == 0.5
    assert median_and_spread([7.0]).interquartile_range == 0.0


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(-30, 30), min_size=1, max_size=8))
def test_sign_flip_is_the_share_of_all_signs(tenths: list[int]) -> None:
    # Integers keep the enumeration exact; the tested values, tenths, do not: ties must survive rounding.
    signs = itertools.product((1, -1), repeat=len(tenths))
    sums = [abs(sum(s * d for s, d in zip(choice, tenths, strict=True))) for choice in signs]
    expected = sum(total >= abs(sum(tenths)) for total in sums) / len(sums)
    result = sign_flip_test([d / 10 for d in tenths])
    assert result.exact
    assert result.p_value == expected
    assert result.p_value >= result.smallest_p_value
    assert sign_flip_test([-d / 10 for d in tenths]).p_value == expected
    assert sign_flip_test([d / 10 for d in reversed(tenths)]).p_value == expected


def test_sign_flip_of_few_seeds_cannot_be_significant() -> None:
    assert sign_flip_test([9.0, 8.0, 9.5, 7.0, 8.5]).p_value == 0.0625
    five_and_a_tie = sign_flip_test([9.0, 8.0, 9.5, 7.0, 8.5, 0.0])
    assert (five_and_a_tie.p_value, five_and_a_tie.smallest_p_value) == (0.0625, 0.0625)
    assert sign_flip_test([9.0, 8.0, 9.5, 7.0, 8.5, 8.0]).p_value == 0.03125
    nothing = sign_flip_test([0.0, 0.0])
    assert (nothing.p_value, nothing.smallest_p_value, nothing.mean_difference) == (1.0, 1.0, 0.0)


def test_sign_flip_is_exact_to_20_and_sampled_above() -> None:
    ones = sign_flip_test([1.0] * 20)
    assert (ones.exact, ones.p_value) == (True, 2.0**-19)
    mixed = [1.0] * 15 + [-1.0] * 7
    expected = 2 * sum(math.comb(22, k) for k in range(8)) / 2**22  # the two-sided binomial sign test
    sampled = sign_flip_test(mixed, resamples=20_000)
    assert not sampled.exact
    assert sampled.p_value == pytest.approx(expected, abs=0.01)
    assert sampled == sign_flip_test(mixed, resamples=20_000)
    assert sampled != sign_flip_test(mixed, resamples=20_000, seed=1)
    assert sign_flip_test([1.0] * 30, resamples=99).p_value == 0.01  # no sampled choice reaches it


def test_bad_values_are_named() -> None:
    with pytest.raises(DataError, match="at least one number"):
        bootstrap_interval([])
    with pytest.raises(DataError, match="value 1 is not a finite number"):
        median_and_spread([1.0, math.nan])
    with pytest.raises(DataError, match=r"got shape \(2, 1\)"):
        sign_flip_test(np.ones((2, 1)))
    with pytest.raises(DataError, match="2 scores of a for 3 of b"):
        paired_bootstrap([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        bootstrap_interval([1.0], level=95)
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        paired_bootstrap([1.0], [1.0], resamples=0)
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        sign_flip_test([1.0] * 21, resamples=0)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.1])
def test_a_level_is_between_0_and_1(level: float) -> None:
    for test in (lambda: bootstrap_interval([1.0, 2.0], level=level), lambda: paired_bootstrap([1.0], [2.0], level)):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            test()
    with pytest.raises(ValueError, match="resamples must be at least 1, not 0"):
        bootstrap_interval([1.0, 2.0], resamples=0)
    assert bootstrap_interval([1.0, 2.0], resamples=1).low in (1.0, 1.5, 2.0)


@pytest.mark.parametrize(("up", "down"), [(14, 8), (18, 6), (11, 11)])
def test_sampled_signs_give_the_binomials_tails(up: int, down: int) -> None:
    """Of n equal differences the sum of random signs is 2 B(n, 1/2) - n."""
    count, sum_ = up + down, up - down
    expected = sum(math.comb(count, k) for k in range(count + 1) if abs(2 * k - count) >= sum_) / 2**count
    found = sign_flip_test([1.0] * up + [-1.0] * down, resamples=20_000)
    assert not found.exact and found.p_value == pytest.approx(expected, abs=0.012)
    assert found.mean_difference == sum_ / count and found.smallest_p_value == 2.0 ** (1 - count)


def test_the_message_names_the_test() -> None:
    for test, words in (
        (lambda: paired_bootstrap([1.0], [math.nan]), "paired bootstrap: value 0"),
        (lambda: paired_bootstrap([1.0, math.inf], [1.0, 1.0]), "paired bootstrap: value 1"),
        (lambda: bootstrap_interval([]), "bootstrap: a list of at least one number"),
        (lambda: median_and_spread([[1.0]]), "median: a list"),  # type: ignore[list-item]
        (lambda: sign_flip_test([]), "sign-flip test: a list"),
    ):
        with pytest.raises(DataError, match=words):
            test()


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.04, 0.5, 1.0]), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls where Bonferroni rejects every set of hypotheses that it is in."""
    places = range(len(p_values))
    sets = [chosen for size in places for chosen in itertools.combinations(places, size + 1)]
    for place, adjusted in zip(places, holm(p_values), strict=True):
        of = [min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets if place in chosen]
        assert adjusted == pytest.approx(max(of), rel=1e-12)


def test_holm_by_hand_and_its_mistakes() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    for wrong in (math.nan, -0.1, 1.5):
        with pytest.raises(DataError, match="from 0 to 1"):
            holm([0.5, wrong])
