from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.errors import DataError
from effstilts.retrieval import mining
from effstilts.retrieval.benchmarks import tatoeba_accuracy
from effstilts.retrieval.mining import (
    MARGINS,
    Candidates,
    Cut,
    best_cut,
    margin_scores,
    mine,
    neighbourhoods,
    one_to_one,
)
from effstilts.retrieval.spaces import into_space


def vectors(seed: int, n: int, m: int, dim: int = 6, pairs: int = 0) -> tuple[Any, Any]:
    """Rows around a common direction, as sentence vectors lie; the first `pairs` rows of both sides are near."""
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(n, dim)) + 2, generator.normal(size=(m, dim)) + 2
    y[:pairs] = x[:pairs] + 0.1 * generator.normal(size=(pairs, dim))
    return x.astype(np.float32), y.astype(np.float32)


def slow_mine(x: Any, y: Any, k: int, margin: str, mode: str) -> list[tuple[int, int, float]]:
    """Artetxe and Schwenk 2019, sections 3 and 4, one pair at a time in double precision."""
    x, y = ([row / math.sqrt(sum(v * v for v in row)) for row in side.astype(float)] for side in (x, y))
    cosine = [[float(np.dot(a, b)) for b in y] for a in x]
    near_x = [sorted(range(len(y)), key=lambda j: -cosine[i][j])[:k] for i in range(len(x))]
    near_y = [sorted(range(len(x)), key=lambda i: -cosine[i][j])[:k] for j in range(len(y))]
    mean_x = [sum(cosine[i][j] for j in near) / len(near) for i, near in enumerate(near_x)]
    mean_y = [sum(cosine[i][j] for i in near) / len(near) for j, near in enumerate(near_y)]

    def score(i: int, j: int) -> float:
        a, b = cosine[i][j], (mean_x[i] + mean_y[j]) / 2
        return {"absolute": a, "distance": a - b, "ratio": a / b, "csls": 2 * a - mean_x[i] - mean_y[j]}[margin]

    forward = [max(((i, j, score(i, j)) for j in near_x[i]), key=lambda t: t[2]) for i in range(len(x))]
    backward = [max(((i, j, score(i, j)) for i in near_y[j]), key=lambda t: t[2]) for j in range(len(y))]
    if mode == "intersection":
        back = {(i, j) for i, j, _ in backward}
        found = [pair for pair in forward if pair[:2] in back]
    elif mode == "max":
        found, seen_x, seen_y = [], set(), set()
        for i, j, s in sorted(forward + backward, key=lambda t: -t[2]):
            if i not in seen_x and j not in seen_y:
                found.append((i, j, s))
                seen_x.add(i)
                seen_y.add(j)
    else:
        found = forward if mode == "forward" else backward
    return sorted(found, key=lambda t: -t[2])


def test_a_threshold_keeps_the_candidates_that_have_its_score() -> None:
    found = Candidates(np.arange(4), np.arange(4), np.array([3.0, 2.0, 2.0, 1.0]))
    assert [len(found.above(at)) for at in (4.0, 3.0, 2.0, 1.5, 1.0)] == [0, 1, 3, 3, 4]


def test_where_nothing_is_right_nothing_is_extracted() -> None:
    nothing = Cut(math.inf, 0.0, 0.0, 0.0)
    assert best_cut(np.array([0.5, 0.4]), np.array([False, False]), 3) == nothing
    assert best_cut(np.array([]), np.array([], bool), 3) == nothing


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("mode", ["max", "forward", "backward", "intersection"])
def test_mining_is_the_slow_one(margin: str, mode: str) -> None:
    for seed, (n, m, k) in enumerate([(30, 50, 4), (17, 9, 3), (5, 40, 8), (1, 3, 4)]):
        x, y = vectors(seed, n, m, pairs=min(n, m) // 2)
        found = mine(neighbourhoods(x, y, k), margin, mode)
        expected = slow_mine(x, y, k, margin, mode)
        assert set(zip(found.source.tolist(), found.target.tolist(), strict=True)) == {(i, j) for i, j, _ in expected}
        assert np.allclose(found.score, [s for _, _, s in expected], atol=2e-5)
        assert (np.diff(found.score) <= 0).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=60), st.sampled_from([0, 1, 64]))
def test_one_to_one_is_the_greedy_matching(pairs: list[tuple[int, int]], rounds: int) -> None:
    """Whatever the number of rounds after which it goes on pair by pair."""
    taken: list[int] = []
    for position, (i, j) in enumerate(pairs):
        if all(pairs[other][0] != i and pairs[other][1] != j for other in taken):
            taken.append(position)
    sides = np.array(pairs, np.int64).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "_ROUNDS", rounds)
        assert one_to_one(sides[:, 0], sides[:, 1]).tolist() == taken


def test_a_long_chain_is_matched_too() -> None:
    """Pair p shares a sentence with p + 1 each: the worst case for rounds of mutual best choice."""
    steps = np.arange(1000)
    assert one_to_one((steps + 1) // 2, steps // 2).tolist() == list(range(0, 1000, 2))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=25), st.integers(0, 4))
def test_the_cut_is_the_best_of_all_thresholds(items: list[tuple[int, bool]], missed: int) -> None:
    score, correct = np.array([s / 7 for s, _ in items]), np.array([c for _, c in items], bool)
    gold = int(correct.sum()) + missed
    if not gold:
        with pytest.raises(DataError, match="needs gold pairs"):
            best_cut(score, correct, gold)
        return

    def f1(threshold: float) -> float:
        taken = score >= threshold
        hits = (taken & correct).sum()
        return float(2 * hits / (taken.sum() + gold))

    cut = best_cut(score, correct, gold)
    assert cut.f1 == pytest.approx(max([f1(t) for t in score], default=0.0))
    assert f1(cut.threshold) == pytest.approx(cut.f1)
    if correct.any():
        taken = score >= cut.threshold
        assert cut.precision == pytest.approx((taken & correct).sum() / taken.sum())
        assert cut.recall == pytest.approx((taken & correct).sum() / gold)
        assert not any(
            t > cut.threshold and f1(t) >= cut.f1 - 1e-12 and (score >= t).sum() < taken.sum() for t in score
        )
    else:
        assert cut.threshold == math.inf


def test_the_cut_below_the_last_candidate_and_inside_no_tie() -> None:
    """XTREME's bucc_optimize raises IndexError for the first, and would part equal scores in the second."""
    cut = best_cut(np.array([0.9, 0.5, 0.7]), np.array([True, True, False]), 2)
    assert (cut.threshold, cut.precision, cut.recall) == (0.5, 2 / 3, 1.0)
    tied = best_cut(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, False]), 2)
    assert tied.threshold == pytest.approx(0.45) and tied.f1 == pytest.approx(0.8)
    close = best_cut(np.array([1.0, np.nextafter(1.0, 0)]), np.array([True, False]), 1)
    assert close.threshold == 1.0
    next_to = np.nextafter(1.0, 2)
    assert best_cut(np.array([next_to, 1.0]), np.array([True, False]), 1).threshold == next_to, "half way rounds down"


def test_means_of_a_neighbourhood_are_taken_in_double_precision() -> None:
    x, y = vectors(3, 40, 30)
    near = neighbourhoods(x, y)
    assert near.forward.shape == (40, 4) and near.backward.shape == (30, 4), "four, as LASER has it"
    own, other = (side.astype(np.float64).mean(1) for side in (near.forward, near.backward))
    found = mine(near, "distance", "forward")
    cosine = {(i, int(j)): c for i in range(40) for j, c in zip(near.forward_index[i], near.forward[i], strict=True)}
    exact = [cosine[i, j] - (own[i] + other[j]) / 2 for i, j in zip(found.source, found.target, strict=True)]
    assert np.abs(found.score - exact).max() < 1e-14


def test_a_ratio_over_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="take the margin distance"):
        margin_scores(np.array([0.1]), np.array([-0.2]), np.array([0.1]), "ratio")
    with pytest.raises(DataError, match="no margin 'log'"):
        margin_scores(np.array([0.1]), np.array([0.2]), np.array([0.1]), "log")


def test_bad_vectors_and_counts_are_one_line_each() -> None:
    x, y = vectors(0, 3, 2)
    assert neighbourhoods(x, y, 4).forward.shape == (3, 2) and neighbourhoods(x, y, 4).backward.shape == (2, 3)
    for bad, what in ((np.nan, "numbers that are not finite"), (0.0, "no direction"), (np.inf, "numbers that are not")):
        broken = y.copy()
        broken[1] = bad
        with pytest.raises(DataError, match=rf"^target vector 1 \(from 0\) has {what}"):
            neighbourhoods(x, broken)
        with pytest.raises(DataError, match=rf"^source vector 1 \(from 0\) has {what}"):
            neighbourhoods(broken, x)
    with pytest.raises(DataError, match="1 neighbour or more"):
        neighbourhoods(x, y, 0)
    with pytest.raises(DataError, match="on both sides, got 3 and 0"):
        neighbourhoods(x, y[:0])
    with pytest.raises(DataError, match="no mode 'best'"):
        mine(neighbourhoods(x, y), mode="best")


def test_csls_finds_what_a_hub_hides() -> None:
    """Foreign 0 is near to every query; cosine gives it to both, CSLS to its own alone (Conneau et al. 2018)."""
    foreign = np.array([[1, 1, 0.2], [0, 1, 1], [1, 0, 1]], np.float32)
    english = np.array([[1, 1, 0], [0.45, 1, 0.5], [1, 0.4, 0.55]], np.float32)
    assert tatoeba_accuracy(foreign, english).accuracy < tatoeba_accuracy(foreign, english, "csls", 3).accuracy == 100.0


@pytest.mark.parametrize("space", ["centre", "language_mean", "whiten"])
def test_what_each_space_takes_away(space: str) -> None:
    """centre: a shift of all rows; language_mean: a shift of each side; whiten: any invertible map of all rows."""
    generator = np.random.default_rng(0)
    x, y = vectors(0, 60, 40)
    shift, turn = generator.normal(size=6), generator.normal(size=(6, 6))
    changed = {
        "centre": (x + shift, y + shift),
        "language_mean": (x + shift, y - 2 * shift),
        "whiten": (x @ turn + shift, y @ turn + shift),
    }[space]
    before, after = into_space(x, y, space), into_space(*changed, space)
    assert np.allclose(before[0] @ before[1].T, after[0] @ after[1].T, atol=1e-3)
    assert not np.allclose(x @ y.T, changed[0] @ changed[1].T, atol=1e-1)
    sums = before[0].mean(0) + before[1].mean(0)
    assert np.abs(sums).max() < 1e-5
    if space == "whiten":
        assert np.allclose(sum(side.T @ side / len(side) for side in before) / 2, np.eye(6), atol=1e-4)


def test_a_languages_corner_hides_translations_until_it_is_taken_away() -> None:
    x, _ = vectors(0, 60, 1)
    y = x + np.array([9, -9, 0, 0, 0, 0], np.float32) + 0.1 * vectors(1, 60, 1)[0]
    assert tatoeba_accuracy(x, y).accuracy < 50 < 95 < tatoeba_accuracy(*into_space(x, y, "language_mean")).accuracy


def test_spaces_of_few_rows_and_bad_names() -> None:
    x, y = vectors(0, 3, 2)
    few = into_space(x, y, "whiten")
    assert few[0].shape[1] == few[1].shape[1] < 6 and np.isfinite(few[0]).all()
    assert all(np.array_equal(a, b) for a, b in zip(into_space(x, y, "none"), (x, y), strict=True))
    for sides in ((x, y[:0]), (x[:0], y)):
        with pytest.raises(DataError, match=f"on the sentences of both sides, got {len(sides[0])} and {len(sides[1])}"):
            into_space(*sides, "centre")
    with pytest.raises(DataError, match="no space 'flat'"):
        into_space(x, y, "flat")
    with pytest.raises(DataError, match="all vectors are the same"):
        into_space(np.ones((2, 3)), np.ones((2, 3)), "whiten")


@pytest.mark.parametrize(
    ("extracted", "correct", "gold", "expected"),
    [
        (4, 2, 8, (0.5, 0.25, 4 / 12)),
        (5, 5, 5, (1.0, 1.0, 1.0)),
        (0, 0, 3, (0.0, 0.0, 0.0)),
        (3, 0, 0, (0.0, 0.0, 0.0)),
        (0, 0, 0, (0.0, 0.0, 0.0)),
        (1, 1, 4, (1.0, 0.25, 0.4)),
    ],
)
def test_precision_recall_f1(extracted: int, correct: int, gold: int, expected: tuple[float, float, float]) -> None:
    assert mining.precision_recall_f1(extracted, correct, gold) == pytest.approx(expected)
