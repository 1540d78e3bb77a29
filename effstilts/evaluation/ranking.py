"""Ranked candidates and mined pairs: mAP@k and F1 over sets of pairs, in percent, 0 to 100."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set

from effstilts.errors import DataError
from effstilts.evaluation.metrics import SpanScores


def average_precision(ranked: Sequence[Hashable], relevant: Set[Hashable], k: int) -> float:
    """AP@k of one query, 0 to 1: the precisions at the ranks of the relevant candidates among the first `k`, summed,
    over min(relevant, k).

    Source: `average_precision_at_k` of XTREME-R's utils_lareqa.py. A candidate that stands twice counts at its first
    rank alone. With one relevant candidate it is the reciprocal rank, which is what XTREME-R's utils_mewslix.py
    computes under the name mAP@20. DataError where nothing is relevant.
    """
    if not relevant:
        raise DataError("average precision: a query has no relevant candidate: its gold is stripped")
    if k < 1:
        raise DataError(f"average precision: k is {k}, expected 1 or more")
    found: set[Hashable] = set()
    total = 0.0
    for rank, candidate in enumerate(ranked[:k], 1):
        if candidate in relevant and candidate not in found:
            found.add(candidate)
            total += len(found) / rank
    return total / min(len(relevant), k)


def mean_average_precision(
    rankings: Mapping[str, Sequence[Hashable]], relevant: Mapping[str, Set[Hashable]], k: int = 20
) -> float:
    """Mean of AP@k over the queries of `relevant`, in percent; a query without a ranking has 0, as in XTREME-R."""
    if not relevant:
        raise DataError("mean average precision: nothing to score")
    return 100.0 * sum(average_precision(rankings.get(q, ()), gold, k) for q, gold in relevant.items()) / len(relevant)


def pair_f1(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> SpanScores:
    """Precision, recall and F1 of a set of pairs: XTREME's score for BUCC 2018.

    A pair that stands twice is one. No right pair scores 0 (so do no pairs at all); DataError without gold.
    """
    found, true = set(predicted), set(gold)
    if not true:
        raise DataError("pair F1: there are no gold pairs")
    right = len(found & true)
    return SpanScores(
        precision=100.0 * right / len(found) if found else 0.0,
        recall=100.0 * right / len(true),
        f1=100.0 * 2 * right / (len(found) + len(true)),
    )
