"""Exact nearest neighbours at the speed of bf16 products, in both directions from one pass over the scores.

Products of vectors rounded to bf16 come within a bound of the true ones that can be computed: the rounding errors'
own norms, by Cauchy and Schwarz, plus the accumulation's and the result's rounding. Whatever could belong to a row's
`count` best by that bound is kept and scored again exactly (`effstilts.retrieval.exact`); a row for which too much
could is handed back as failed. So the result is that of an exact search, not nearly so.

Tiles of scores [R, C] stay in cache. A tile is read twice, for the maxima of groups of entries along each direction;
single entries are only looked at in groups whose maximum passes the row's (column's) threshold.

Vectors that point one way (those of untuned encoders do) make all scores alike. So the scores are those of
vectors less a centre, c of the queries and d of the database: x.y = (x-c).(y-d) + (x-c).d + c.(y-d) + c.d. The two
middle terms are columns of their own in the product, in three bf16 parts each; the last is the same for all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effstilts.errors import DataError
from effstilts.retrieval.exact import Floats, Found, Indices, best, pair_scores, tensor

PANEL_ROWS, TILE_ROWS = 2048, 1024
_PREPARE_ROWS = 512
_CENTRE_SAMPLE = 1024
# Half a unit in the last of bf16's 8 significant bits, with a margin for the bound's own float32 arithmetic.
_ROUNDING = 2.0**-8 * 1.01
# Tiles after which thresholds are raised: between two of them the number of candidates grows by half at most.
_RAISES = {step << power for power in range(40) for step in (1, 3)}
# Below this share of the vectors' length a common direction is not worth the columns it takes.
_COMMON = 0.1
_EXTRA = 32


class _Side:
    """One set of vectors as bf16 blocks [rows, K], and what its rounding can do.

    size [n]: length of each centred, rounded vector, with its column of the other centre. error [n]: length of what
    rounding took from it.
    """

    def __init__(self, vectors: NDArray[Any], name: str, own: Tensor, other: Tensor, centred: bool, left: bool) -> None:
        self.vectors, self.own, self.other, self.centred, self.left = vectors, own, other, centred, left
        rows = len(vectors)
        self.size, self.error, self.cross = torch.empty(rows), torch.empty(rows), torch.empty(rows)
        for start in range(0, rows, _PREPARE_ROWS):
            part = slice(start, min(start + _PREPARE_ROWS, rows))
            exact = tensor(vectors[part])
            exact = exact - own if centred else exact
            rounded = exact.to(torch.bfloat16)
            self.size[part] = torch.linalg.vector_norm(rounded.float(), dim=1)
            self.error[part] = torch.linalg.vector_norm(exact - rounded.float(), dim=1)
            self.cross[part] = (exact.double() @ other.double()).float() if centred else 0.0
        bad = ~torch.isfinite(self.size + self.cross)
        if bad.any():
            raise DataError(f"{name} vector {int(bad.float().argmax())} (from 0) has numbers that are not finite")

    def rounded(self, start: int, stop: int) -> Tensor:
        exact = tensor(self.vectors[start:stop])
        if not self.centred:
            return exact.to(torch.bfloat16)
        out = torch.zeros(len(exact), exact.shape[1] + _EXTRA, dtype=torch.bfloat16)
        out[:, :-_EXTRA] = exact - self.own
        mine, ones = (-_EXTRA, -_EXTRA + 3) if self.left else (-_EXTRA + 3, -_EXTRA)
        rest = self.cross[start:stop].clone()
        for place in range(3):
            out[:, mine + place] = rest.to(torch.bfloat16)
            rest = rest - out[:, mine + place].float()
            out[:, ones + place] = 1
        return out


class _Best:
    """The candidates of one block of queries: rows of a panel, or columns of a tile.

    slots [queries, slots]: maximum of each group of entries over all tiles seen; groups are disjoint, so the count-th
    largest slot is not above the count-th largest score. Entries below `threshold` cannot be among the best.
    """

    def __init__(self, first: int, bound: Tensor, count: int, slots: int) -> None:
        self.first, self.bound, self.count = first, bound.numpy(), count
        self.slots = torch.full((len(bound), slots), float("-inf"), dtype=torch.bfloat16)
        self.threshold = np.full(len(bound), -np.inf, np.float32)
        self.failed = np.zeros(len(bound), bool)
        self.kept: list[tuple[NDArray[np.int32], NDArray[np.int32], Floats]] = []
        self.counts = np.zeros(len(bound), np.int64)
        self.visits = 0
        self.limit = max(64, 16 * count)

    def maxima(self, groups: Tensor) -> Tensor:
        """Maxima over axis 1, six times as fast as integers: positive bf16 numbers are ordered as their bits are, and
        negative ones below them. Among negative ones alone the wrong one is found, one below the threshold too."""
        if (self.threshold > 0).all():
            return groups.view(torch.int16).amax(1).view(torch.bfloat16)
        return groups.amax(1)

    def offer(self, maxima: Tensor, places: Any, tile: Tensor) -> None:
        """maxima [queries, slots] of a tile's groups. places(queries, slots): flat positions in the tile and database
        indices of each group's entries, [groups, entries] each."""
        maxima = maxima.cpu()
        self.slots = torch.maximum(self.slots, maxima)
        self.visits += 1
        if self.visits in _RAISES:
            self._prune()
        # Comparing the rounded maxima in float32 is exact, and faster than in bf16.
        passed = np.flatnonzero(maxima.float().numpy() >= self.threshold[:, None])
        if not len(passed):
            return
        who, slot = np.divmod(passed, maxima.shape[1])
        flat, columns = places(who, slot)
        entries = torch.from_numpy(flat.ravel()).to(tile.device)
        values = tile.view(-1).index_select(0, entries).float().cpu().numpy().reshape(flat.shape)
        # Beyond the last row or column a tile is filled with -inf.
        hit, entry = np.nonzero((values >= self.threshold[who][:, None]) & (values > -np.inf))
        whose = who[hit]
        self.kept.append((whose.astype(np.int32), columns[hit, entry].astype(np.int32), values[hit, entry]))
        self.counts += np.bincount(whose, minlength=len(self.counts))
        if self.counts.max() > self.limit:
            self._prune()

    def _raise_threshold(self) -> None:
        lowest = np.sort(self.slots.float().numpy(), axis=1)[:, -self.count]
        true = lowest - _ROUNDING * np.abs(lowest) - 2 * self.bound
        self.threshold = true - _ROUNDING * np.abs(true)
        self.threshold[self.failed] = np.inf

    def _prune(self) -> None:
        """Drops what newer thresholds exclude; a query with too much left has failed."""
        self._raise_threshold()
        if not self.kept:
            return
        who, columns, values = (np.concatenate(parts) for parts in zip(*self.kept, strict=True))
        keep = values >= self.threshold[who]
        self.failed |= np.bincount(who[keep], minlength=len(self.counts)) > self.limit
        self.threshold[self.failed] = np.inf
        keep &= ~self.failed[who]
        self.kept = [(who[keep], columns[keep], values[keep])]
        self.counts = np.bincount(who[keep], minlength=len(self.counts))

    def finish(self, queries: NDArray[Any], database: NDArray[Any], into: Found) -> None:
        """Scores the candidates exactly and writes the best of each query."""
        self._prune()
        ((who, columns, _),) = self.kept
        alive = np.flatnonzero(~self.failed)
        order = np.argsort(who, kind="stable")
        asked, found = who[order].astype(np.int64), columns[order].astype(np.int64)
        scores = pair_scores(queries, database, asked + self.first, found)
        rank = np.cumsum(~self.failed) - 1
        part = best(rank[asked], found, scores, len(alive), self.count)
        into.scores[alive + self.first], into.indices[alive + self.first] = part


def scan(
    source: NDArray[Any], target: NDArray[Any], count: int, both: bool = True, device: str = "cpu"
) -> tuple[Found, Found | None]:
    """The `count` nearest targets of each source, and of each target the nearest sources if `both`.

    device: where the products are made and their maxima taken; candidates are scored again on the CPU.

    source [n, D], target [m, D]: arrays or memory maps; float16 is taken as float32. Memory beyond the vectors: about
    40 MB, and 1 KB for a pair of vectors. DataError for numbers that are not finite, or count above 128.
    """
    with _sums_in_float32():
        return _scan(source, target, count, both, device)


@contextmanager
def _sums_in_float32() -> Iterator[None]:
    """The bound counts on it; a GPU may otherwise break a sum into parts and add these in bf16."""
    flags = torch.backends.cuda.matmul
    before = flags.allow_bf16_reduced_precision_reduction
    flags.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        flags.allow_bf16_reduced_precision_reduction = before


def _scan(
    source: NDArray[Any], target: NDArray[Any], count: int, both: bool, device: str
) -> tuple[Found, Found | None]:
    panel, width, slots = PANEL_ROWS, TILE_ROWS, _slots(count)
    left, right = _sides(source, target)
    forward = Found.empty(len(source), count)
    backward = Found.empty(len(target), count)
    forward_bound, backward_bound = _bounds(left, right), _bounds(right, left)
    columns = [
        _Best(start, backward_bound[start : start + width], count, slots) for start in range(0, len(target), width)
    ]
    row_groups, column_groups = width // slots, panel // slots
    row_steps = np.arange(row_groups) * slots
    column_steps = np.arange(column_groups)
    scores = torch.empty(panel, width, dtype=torch.bfloat16, device=device)
    failed: list[Indices] = []
    for top in range(0, len(source), panel):
        a_RK = left.rounded(top, min(top + panel, len(source))).to(device)
        rows = _Best(top, forward_bound[top : top + panel], count, slots)

        for (start, host_CK), column in zip(_tiles(right, width), columns, strict=True):
            b_CK = host_CK.to(device)
            height, breadth = len(a_RK), len(b_CK)
            if (height, breadth) == (panel, width):
                torch.mm(a_RK, b_CK.T, out=scores)
            else:
                scores.fill_(float("-inf"))
                scores[:height, :breadth] = torch.mm(a_RK, b_CK.T)

            def row_places(who: Indices, slot: Indices, start: int = start) -> tuple[Indices, Indices]:
                entries = slot[:, None] + row_steps
                return who[:, None] * width + entries, start + entries

            def column_places(who: Indices, slot: Indices, top: int = top) -> tuple[Indices, Indices]:
                entries = slot[:, None] * column_groups + column_steps
                return entries * width + who[:, None], top + entries

            rows.offer(rows.maxima(scores.view(panel, row_groups, slots))[:height], row_places, scores)
            if both:
                maxima = column.maxima(scores.view(slots, column_groups, width)).t()[:breadth].contiguous()
                column.offer(maxima, column_places, scores)
        rows.finish(source, target, forward)
        failed.append(np.flatnonzero(rows.failed) + top)
    result = Found(forward.scores, forward.indices, np.concatenate(failed))
    if not both:
        return result, None
    for column in columns:
        column.finish(target, source, backward)
    lost = np.concatenate([np.flatnonzero(column.failed) + column.first for column in columns])
    return result, Found(backward.scores, backward.indices, lost)


def _slots(count: int) -> int:
    """Groups that a tile's entries are reduced to: so many that two of the best seldom share one."""
    slots = 64
    while slots < 8 * count:
        slots *= 2
    if slots > 1024:
        raise DataError(f"the certified scan finds up to 128 neighbours, {count} are asked")
    return slots


def _sides(source: NDArray[Any], target: NDArray[Any]) -> tuple[_Side, _Side]:
    c, d = _centre(source), _centre(target)
    typical = _typical_length(source) * _typical_length(target)
    centred = bool(c.norm() * d.norm() > _COMMON * typical)
    return _Side(source, "source", c, d, centred, True), _Side(target, "target", d, c, centred, False)


def _centre(vectors: NDArray[Any]) -> Tensor:
    """Mean of a sample: any vector serves, a near mean serves best."""
    return torch.from_numpy(_sample(vectors).mean(0, dtype=np.float64).astype(np.float32))


def _typical_length(vectors: NDArray[Any]) -> float:
    return float(np.linalg.norm(_sample(vectors), axis=1).mean())


def _sample(vectors: NDArray[Any]) -> Floats:
    return np.asarray(vectors[:: max(1, len(vectors) // _CENTRE_SAMPLE)][:_CENTRE_SAMPLE], np.float32)


def _bounds(one: _Side, other: _Side) -> Tensor:
    """How far a score of each vector of `one` with any of `other` can be from the truth before its own rounding [n]."""
    size, error = other.size.max(), other.error.max()
    terms = one.vectors.shape[1] + _EXTRA
    product = one.error * (size + error) + one.size * error
    # Twice the textbook bound of a float32 sum of `terms` products: bf16 units add pairs in an order of their own.
    summing = 2 * terms * 2.0**-24 * (one.size * size + one.cross.abs() + other.cross.abs().max())
    bound: Tensor = (product + summing) * 1.0001 + 1e-30
    return bound


def _tiles(side: _Side, width: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(side.vectors), width):
        yield start, side.rounded(start, min(start + width, len(side.vectors)))
