from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effstilts.data.batches import cut, pad


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 500), st.integers(0, 300))
def test_every_row_once_within_the_budget(lengths: list[int], budget: int, launch: int) -> None:
    parts = cut(lengths, budget, launch)
    assert sorted(itertools.chain(*parts)) == list(range(len(lengths)))
    for part in parts:
        longest = max(lengths[i] for i in part)
        assert len(part) == 1 or len(part) * longest <= budget


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(9, 40), st.integers(0, 20))
def test_the_cut_is_the_cheapest_of_its_kind(lengths: list[int], budget: int, launch: int) -> None:
    """Against every way to part the sorted rows where the length changes, each part filled up to the budget."""
    ordered = sorted(lengths, reverse=True)
    places = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1]]

    def price(parts: list[list[int]]) -> int:
        return sum(len(p) * max(p) + launch for p in parts)

    def filled(start: int, end: int) -> list[list[int]]:
        step = max(1, budget // ordered[start])
        return [ordered[i : min(i + step, end)] for i in range(start, end, step)]

    def upper(start: int, end: int) -> int:
        return sum(len(p) * ordered[start] + launch for p in filled(start, end))

    cheapest = min(
        sum(upper(a, b) for a, b in itertools.pairwise([0, *chosen, len(ordered)]))
        for count in range(len(places) + 1)
        for chosen in itertools.combinations(places, count)
    )
    assert price([[lengths[i] for i in part] for part in cut(lengths, budget, launch)]) <= cheapest


def test_no_launch_cost_means_no_padding() -> None:
    assert all(len({[3, 5, 3, 9][i] for i in part}) == 1 for part in cut([3, 5, 3, 9], 1000, 0))
    assert cut([3, 5, 3, 9], 1000, 10_000) == [[3, 1, 0, 2]]


def test_pad() -> None:
    assert pad([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert pad([np.array([1], np.int32)], 0, 3).tolist() == [[1, 0, 0]]
    assert pad([], 0).shape == (0, 0)
