"""mAP@k against scikit-learn and against its definition, F1 of pairs against sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score  # type: ignore[import-untyped]

from effstilts.errors import DataError
from effstilts.evaluation.ranking import average_precision, mean_average_precision, pair_f1

candidates = st.integers(0, 30)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1))
def test_a_whole_ranking_has_scikit_learns_average_precision(ranked: list[int], relevant: set[int]) -> None:
    scores = np.empty(12)
    scores[ranked] = np.arange(12, 0, -1)
    truth = np.array([i in relevant for i in range(12)])
    assert average_precision(ranked, relevant, 12) == pytest.approx(average_precision_score(truth, scores))
    # The best ranking is 1 in both worlds, and only that one.
    assert (average_precision(ranked, relevant, 12) == pytest.approx(1)) == (ndcg_score([truth], [scores]) > 1 - 1e-9)


@given(st.lists(candidates, max_size=30), st.sets(candidates, min_size=1), st.integers(1, 25))
def test_by_its_definition(ranked: list[int], relevant: set[int], k: int) -> None:
    total = 0.0
    for rank in range(1, min(k, len(ranked)) + 1):
        first_time = ranked.index(ranked[rank - 1]) == rank - 1
        if ranked[rank - 1] in relevant and first_time:
            total += len(set(ranked[:rank]) & relevant) / rank
    assert average_precision(ranked, relevant, k) == pytest.approx(total / min(k, len(relevant)))


@given(st.lists(candidates, max_size=30), candidates)
def test_with_one_relevant_candidate_it_is_the_reciprocal_rank(ranked: list[int], gold: int) -> None:
    expected = 1 / (ranked.index(gold) + 1) if gold in ranked[:20] else 0.0
    assert average_precision(ranked, {gold}, 20) == pytest.approx(expected)


def test_a_query_without_ranking_scores_zero_and_one_without_gold_is_refused() -> None:
    gold = {"a": {"1"}, "b": {"1"}}
    assert mean_average_precision({"a": ["1"]}, gold) == 50.0
    assert mean_average_precision({"a": ["1"], "b": ["2", "1"], "c": ["1"]}, gold) == 75.0
    nothing: dict[str, set[str]] = {"a": set()}
    for relevant in (nothing, {}):
        with pytest.raises(DataError):
            mean_average_precision({"a": ["1"]}, relevant)
    with pytest.raises(DataError):
        average_precision(["1"], {"1"}, 0)


pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20)


@given(pairs, pairs.filter(bool))
def test_pair_f1_is_the_harmonic_mean(predicted: list[tuple[int, int]], gold: list[tuple[int, int]]) -> None:
    found = pair_f1(predicted, gold)
    right = len(set(predicted) & set(gold))
    precision = right / len(set(predicted)) if predicted else 0.0
    recall = right / len(set(gold))
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    assert (found.precision, found.recall, found.f1) == pytest.approx((100 * precision, 100 * recall, 100 * f1))


def test_pairs_without_gold_are_refused() -> None:
    with pytest.raises(DataError):
        pair_f1([(1, 2)], [])
