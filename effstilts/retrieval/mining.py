"""Margin-based mining of translations (Artetxe and Schwenk 2019, arXiv 1811.01136), vectorised.

A pair is scored by its cosine against the mean cosine of both sentences to their k nearest neighbours on the other
side (equation 1 there): `absolute` a, `distance` a - b, `ratio` a / b, with a the cosine and b the mean of the two
neighbourhood means. `csls` (Conneau et al. 2018) is 2 a - 2 b, twice the distance, so it ranks alike.

Shapes: n source and m target sentences, k neighbours. Vectors have length 1. Ties are broken by the lower source and
then the lower target index, so that the pairs do not depend on the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError
from effstilts.retrieval.neighbours import both_directions, normalise

Margin = Literal["ratio", "distance", "absolute", "csls"]
Mode = Literal["max", "forward", "backward", "intersection"]
MARGINS: tuple[str, ...] = get_args(Margin)

# Rounds of mutual best choice before the greedy matching goes on pair by pair. Real candidates need fewer than 20;
# a chain in which each pair waits for the next would need a round for each.
_ROUNDS = 64


@dataclass(frozen=True)
class Neighbourhoods:
    """The k nearest on the other side: cosines and indices, [n, k] from the source and [m, k] from the target."""

    forward: NDArray[np.float32]
    forward_index: NDArray[np.int64]
    backward: NDArray[np.float32]
    backward_index: NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """Scored pairs, the best first. source, target [pairs]: indices; score [pairs]: the margin."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)

    def above(self, threshold: float) -> Candidates:
        """The pairs that score `threshold` or more."""
        count = int(np.searchsorted(-self.score, -threshold, side="right"))
        return Candidates(self.source[:count], self.target[:count], self.score[:count])


@dataclass(frozen=True)
class Cut:
    """A threshold and what it gives on the candidates it was found on. precision, recall, f1: shares from 0 to 1.

    threshold is infinite where no candidate is correct: nothing is extracted then.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


def neighbourhoods(source: NDArray[Any], target: NDArray[Any], k: int = 4) -> Neighbourhoods:
    """Exact neighbours in both directions; on a side with fewer than k sentences, all of them.

    source [n, D], target [m, D] of any length. DataError for no rows, k below 1, or a row without direction.
    """
    if not len(source) or not len(target):
        raise DataError(f"mining needs sentences on both sides, got {len(source)} and {len(target)}")
    if k < 1:
        raise DataError(f"a margin needs 1 neighbour or more, got k = {k}")
    x, y = normalise(source, "source vector"), normalise(target, "target vector")
    forward, backward = both_directions(x, y, k)
    return Neighbourhoods(*forward, *backward)


def margin_scores(
    cosine: NDArray[Any], own_mean: NDArray[Any], other_mean: NDArray[Any], margin: str
) -> NDArray[np.float64]:
    """The margin of pairs from their cosines and the mean cosines of both neighbourhoods; shapes broadcast.

    DataError for a ratio over a mean that is not above 0: there a smaller cosine would score higher.
    """
    a = np.asarray(cosine, np.float64)
    if margin == "absolute":
        return a
    b = (np.asarray(own_mean, np.float64) + np.asarray(other_mean, np.float64)) / 2
    if margin == "distance":
        return a - b
    if margin == "csls":
        return 2 * (a - b)
    if margin != "ratio":
        raise DataError(f"no margin {margin!r}; there are {', '.join(MARGINS)}")
    if (b <= 0).any():
        raise DataError(
            f"the ratio margin needs neighbourhoods whose mean cosine is above 0, one here is {b.min():.3f}; "
            "take the margin distance"
        )
    score: NDArray[np.float64] = a / b
    return score


def mine(near: Neighbourhoods, margin: str = "ratio", mode: str = "max") -> Candidates:
    """The pairs that a mode extracts, scored.

    forward: each source sentence with the best-scored of its neighbours; backward: each target sentence with its
    own; intersection: pairs that are both; max: of both together greedily the best-scored, each sentence in one pair
    at most (LASER's and XTREME's choice).
    """
    own, other = near.forward.mean(1, dtype=np.float64), near.backward.mean(1, dtype=np.float64)
    ahead = margin_scores(near.forward, own[:, None], other[near.forward_index], margin)
    back = margin_scores(near.backward, other[:, None], own[near.backward_index], margin)
    n, m = np.arange(len(ahead)), np.arange(len(back))
    best_ahead, best_back = ahead.argmax(1), back.argmax(1)
    forward = Candidates(n, near.forward_index[n, best_ahead], ahead[n, best_ahead])
    backward = Candidates(near.backward_index[m, best_back], m, back[m, best_back])
    if mode == "forward":
        return _ranked(forward)
    if mode == "backward":
        return _ranked(backward)
    if mode == "intersection":
        mutual = backward.source[forward.target] == forward.source
        return _ranked(Candidates(forward.source[mutual], forward.target[mutual], forward.score[mutual]))
    if mode != "max":
        raise DataError(f"no mode {mode!r}; there are {', '.join(get_args(Mode))}")
    both = _ranked(
        Candidates(
            np.concatenate([forward.source, backward.source]),
            np.concatenate([forward.target, backward.target]),
            np.concatenate([forward.score, backward.score]),
        )
    )
    kept = one_to_one(both.source, both.target)
    return Candidates(both.source[kept], both.target[kept], both.score[kept])


def _ranked(pairs: Candidates) -> Candidates:
    order = np.lexsort((pairs.target, pairs.source, -pairs.score))
    return Candidates(pairs.source[order], pairs.target[order], pairs.score[order])


def one_to_one(source: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """Greedy matching of pairs given best first: the ascending positions of the pairs that are kept.

    Equal to taking the pairs in turn and skipping those with a sentence that is taken: a pair that comes first for
    both of its sentences is taken in any case, so all such pairs are taken at once, and what is left is looked at
    again.
    """
    left = np.arange(len(source))
    taken = []
    firsts = (np.empty(int(source.max(initial=-1)) + 1, np.int64), np.empty(int(target.max(initial=-1)) + 1, np.int64))
    for _ in range(_ROUNDS):
        if not len(left):
            break
        # Of repeated indices the last assignment holds: backwards, that is the first position.
        for first, side in zip(firsts, (source, target), strict=True):
            first[side[left[::-1]]] = left[::-1]
        chosen = left[(firsts[0][source[left]] == left) & (firsts[1][target[left]] == left)]
        taken.append(chosen)
        for first, side in zip(firsts, (source, target), strict=True):
            first[side[left]] = 0
            first[side[chosen]] = -1
        left = left[(firsts[0][source[left]] >= 0) & (firsts[1][target[left]] >= 0)]
    seen_source: set[int] = set()
    seen_target: set[int] = set()
    rest = []
    for position in left.tolist():
        i, j = int(source[position]), int(target[position])
        if i not in seen_source and j not in seen_target:
            seen_source.add(i)
            seen_target.add(j)
            rest.append(position)
    return np.sort(np.concatenate([*taken, np.array(rest, np.int64)]))


def best_cut(score: NDArray[Any], correct: NDArray[np.bool_], gold: int) -> Cut:
    """The threshold with the highest F1 on candidates of which it is known whether they are correct.

    score, correct [pairs] in any order; gold: true pairs there are to find. Candidates of one score stand or fall
    together, a cut below the last candidate counts as any other, and of equal F1 the higher threshold is taken. The
    threshold lies midway to the next lower score, as XTREME's `bucc_optimize` has it (that one raises IndexError at
    the last candidate and may cut inside a tie); below the last candidate it is that candidate's score.
    """
    if gold < 1:
        raise DataError("a threshold needs gold pairs, there are none")
    order = np.argsort(-np.asarray(score, np.float64), kind="stable")
    ranked, hits = np.asarray(score, np.float64)[order], np.cumsum(np.asarray(correct)[order])
    if not len(ranked) or not hits[-1]:
        return Cut(math.inf, 0.0, 0.0, 0.0)
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
    found, extracted = hits[ends], ends + 1
    at = int(np.argmax(2 * found / (extracted + gold)))
    high = float(ranked[ends[at]])
    low = float(ranked[ends[at] + 1]) if at + 1 < len(ends) else high
    middle = low + (high - low) / 2
    return Cut(
        middle if middle > low else high,
        float(found[at] / extracted[at]),
        float(found[at] / gold),
        float(2 * found[at] / (extracted[at] + gold)),
    )


def precision_recall_f1(extracted: int, correct: int, gold: int) -> tuple[float, float, float]:
    """Shares from 0 to 1. No extracted pair has precision 0, as in the official script."""
    precision = correct / extracted if extracted else 0.0
    return precision, correct / gold if gold else 0.0, 2 * correct / (extracted + gold) if extracted + gold else 0.0
