"""Exact nearest neighbours through int8 products, in both directions from one pass over the pairs.

The integer product of two vectors' codes bounds their true product from above (`effstilts.retrieval.codes`). A query
keeps every pair whose bound reaches its level; the level follows from the scores, in float32, of the `count` pairs with
the largest bounds so far, and rises as more of the database is seen. In the end the pairs that are left are scored in
float32, and what float32 cannot tell from the `count` best exactly (`effstilts.retrieval.exact`). So the result is that
of an exact search.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from effstilts.retrieval.codes import Codes, encode
from effstilts.retrieval.exact import Floats, Found, best, pair_scores

PANEL_ROWS, TILE_ROWS = 1024, 1024
# Entries of the first tile whose maximum is taken together to find where a level can start.
_GROUP = 8
_LOWEST, _HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max
# Beyond this share of pairs that are kept, the integer products save nothing over those in bf16.
_TOO_MANY = 0.03
# Pairs a neighbour asked for that may be held: 256 bytes. Beyond, the codes tell too little apart.
_MOST_HELD = 32

_Ints = NDArray[np.int32]
_Pairs = NDArray[np.int64]


class _Keys(NamedTuple):
    """A pair as one int64: the query, how far its product lies below the largest there can be, the database row. So
    pairs in ascending order stand by query, and of a query the largest products first."""

    largest: int
    value_bits: int
    place_bits: int

    @classmethod
    def of(cls, width: int, queries: int, rows: int) -> _Keys | None:
        """For codes of so many columns; None where a pair does not fit."""
        largest = width * 127**2
        keys = cls(largest, (2 * largest).bit_length(), rows.bit_length())
        fits = keys.value_bits < 32 and queries.bit_length() + keys.value_bits + keys.place_bits < 64
        return keys if fits else None

    def packed(self, who: NDArray[Any], values: NDArray[Any] | int, places: NDArray[Any] | int) -> _Pairs:
        pairs = who.astype(np.int64)
        pairs <<= self.value_bits
        pairs += np.int32(self.largest) - values
        pairs <<= self.place_bits
        pairs += places
        return pairs

    def who(self, pairs: _Pairs) -> _Pairs:
        return pairs >> (self.value_bits + self.place_bits)

    def places(self, pairs: _Pairs) -> _Pairs:
        return pairs & ((1 << self.place_bits) - 1)


class _Best:
    """The pairs that may be among the best of a block of queries.

    level [queries]: pairs whose integer product is below are not among the best; cut [queries]: nor are those whose
    float32 score is. slack: twice the error of such a score.
    """

    def __init__(
        self,
        first: int,
        queries: NDArray[Any],
        database: NDArray[Any],
        lengths: Floats,
        longest: float,
        count: int,
        codes: Codes,
        keys: _Keys,
    ) -> None:
        self.first, self.count, self.codes, self.database, self.keys = first, count, codes, database, keys
        self.queries = queries[first : first + len(lengths)]
        self.slack = (2 * (queries.shape[1] + 4) * 2.0**-24 * longest * lengths + 1e-30).astype(np.float32)
        self.cut = np.full(len(lengths), -np.inf, np.float32)
        self.level = np.full(len(lengths), _LOWEST, np.int32)
        self.failed = np.zeros(len(lengths), bool)
        self.limit = max(1024, 64 * count)
        self._pending: list[_Pairs] = []
        self._kept = np.empty(0, np.int64)
        # The pairs of the largest products so far, ascending, and their float32 scores.
        self._leaders, self._leading = np.empty(0, np.int64), np.empty(0, np.float32)
        self._visits = 0
        self.offered = 0

    @property
    def held(self) -> int:
        """Pairs in memory, of 8 bytes each."""
        return len(self._kept) + sum(map(len, self._pending))

    def offer(self, products: _Ints, by_row: bool, start: int) -> None:
        """products: a tile, [queries, rows] of the database from `start` on, or transposed where not by_row."""
        if not self._visits:
            self._seed(products, by_row, start)
        found = self._reaching(products, by_row, start)
        self._pending.append(found)
        self.offered += len(found)
        self._visits += 1
        # Between two prunings the part of the database that was seen doubles at most.
        if self._visits & (self._visits - 1) == 0:
            self.prune()

    def _reaching(self, products: _Ints, by_row: bool, start: int) -> _Pairs:
        flat = np.flatnonzero(products >= (self.level[:, None] if by_row else self.level))
        row, column = np.divmod(flat.astype(np.int32), np.int32(products.shape[1]))
        who, places = (row, column) if by_row else (column, row)
        return self.keys.packed(who, products.reshape(-1)[flat], places + np.int32(start))

    def _seed(self, products: _Ints, by_row: bool, start: int) -> None:
        """Levels from the first tile: at least `count` groups' maxima, hence pairs, reach those set first."""
        tile = torch.from_numpy(products)
        axis = int(by_row)
        groups = products.shape[axis] // _GROUP
        if groups >= 4 * self.count:
            tile = tile.narrow(axis, 0, groups * _GROUP)
            shape = (len(tile), _GROUP, groups) if by_row else (_GROUP, groups, tile.shape[1])
            tile = tile.view(shape).amax(axis)
        maxima = tile.numpy() if by_row else np.ascontiguousarray(tile.numpy().T)
        if maxima.shape[1] < self.count:
            return
        self.level = np.partition(maxima, -self.count, axis=1)[:, -self.count].copy()
        self._pending.append(self._reaching(products, by_row, start))
        self.level[:] = _LOWEST
        self.prune()
        # The pairs come again with those of the whole tile.
        self._kept = self._kept[:0]

    def prune(self) -> None:
        """Raises the levels and drops what they exclude. A query with too much left has failed."""
        pairs = np.concatenate([self._kept, *self._pending])
        self._pending = []
        pairs.sort()
        queries = np.arange(len(self.level) + 1)
        starts = np.searchsorted(pairs, self.keys.packed(queries, self.keys.largest, 0))
        enough = np.flatnonzero(np.diff(starts) >= self.count)
        leaders = pairs[starts[enough, None] + np.arange(self.count)].ravel()
        self._leaders, self._leading = leaders, self._scores(leaders)
        lowest = self._leading.reshape(-1, self.count).min(1, initial=np.inf)
        self.cut[enough] = np.maximum(self.cut[enough], lowest - self.slack[enough])
        level = np.floor((self.cut[enough].astype(np.float64) - self.codes.offset) / self.codes.unit)
        self.level[enough] = np.maximum(self.level[enough], np.clip(level, _LOWEST, _HIGHEST).astype(np.int32))
        self._kept = self._reached(pairs)
        crowded = np.bincount(self.keys.who(self._kept), minlength=len(self.level)) > self.limit
        if crowded.any():
            self.failed |= crowded
            self.level[crowded] = _HIGHEST
            self._kept = self._reached(self._kept)

    def _reached(self, pairs: _Pairs) -> _Pairs:
        """Those whose product is not below the level of their query."""
        level = np.clip(self.level, -self.keys.largest - 1, self.keys.largest + 1)
        last = self.keys.packed(np.arange(len(level)), level, (1 << self.keys.place_bits) - 1)
        return pairs[pairs <= last[self.keys.who(pairs)]]

    def _scores(self, pairs: _Pairs) -> Floats:
        """In float32; those of the leaders are known. pairs: ascending."""
        scores = np.empty(len(pairs), np.float32)
        at = np.searchsorted(self._leaders, pairs)
        known = np.append(self._leaders, -1)[at] == pairs
        scores[known] = self._leading[at[known]]
        new = pairs[~known]
        scores[~known] = _products(self.queries, self.database, self.keys.who(new), self.keys.places(new))
        return scores

    def finish(self, into: Found) -> None:
        """Scores what is left and writes the best of each query."""
        if self._pending:
            self.prune()
        who = self.keys.who(self._kept)
        near = self._scores(self._kept) >= self.cut[who]
        who, places = who[near], self.keys.places(self._kept[near])
        alive = np.flatnonzero(~self.failed)
        rank = np.cumsum(~self.failed) - 1
        part = best(rank[who], places, pair_scores(self.queries, self.database, who, places), len(alive), self.count)
        into.scores[alive + self.first], into.indices[alive + self.first] = part
        into.add_failed(np.flatnonzero(self.failed) + self.first)


def scan(
    source: NDArray[Any], target: NDArray[Any], count: int, both: bool = True
) -> tuple[Found, Found | None] | None:
    """The `count` nearest targets of each source, and of each target the nearest sources if `both`; None where the
    codes tell too little of these vectors apart.

    source [n, D], target [m, D], count at most n and m: arrays or memory maps; float16 is taken as float32. Memory
    beyond the vectors: some 20 MB, and for a target D bytes and about half a KB. DataError for numbers that are not
    finite.
    """
    codes = encode(source, target)
    if codes is None:
        return None
    panel, width = PANEL_ROWS, TILE_ROWS
    keys = _Keys.of(codes.right.shape[1], max(panel, width), max(len(source), len(target)))
    if keys is None:
        return None
    forward, backward = Found.empty(len(source), count), Found.empty(len(target), count)
    longest = float(codes.left_length.max()), float(codes.right_length.max())
    columns = [
        _Best(start, target, source, codes.right_length[start : start + width], longest[0], count, codes, keys)
        for start in range(0, len(target) if both else 0, width)
    ]
    room = torch.empty(panel * width, dtype=torch.int32)
    looked = offered = 0
    for top in range(0, len(source), panel):
        a_RK = codes.left(top, min(top + panel, len(source)))
        rows = _Best(top, source, target, codes.left_length[top : top + panel], longest[1], count, codes, keys)
        for start in range(0, len(target), width):
            b_CK = codes.right[start : start + width]
            tile = room[: len(a_RK) * len(b_CK)].view(len(a_RK), len(b_CK))
            torch._int_mm(a_RK, b_CK.T, out=tile)
            products = tile.numpy()
            rows.offer(products, True, start)
            if both:
                columns[start // width].offer(products, False, top)
        rows.finish(forward)
        looked += len(a_RK) * len(target) * (1 + both)
        offered += rows.offered
        kept = offered + sum(column.offered for column in columns)
        held = sum(column.held for column in columns)
        if kept > _TOO_MANY * looked + 64 * count * (panel + width) or held > _MOST_HELD * count * len(target):
            return None
    for column in columns:
        column.finish(backward)
    return forward, backward if both else None


def _products(queries: NDArray[Any], database: NDArray[Any], who: NDArray[Any], places: NDArray[Any]) -> Floats:
    """Products of the pairs (queries[who], database[places]) in float32 or better, who ascending: [pairs]."""
    if not all(side.dtype == np.float32 and side.flags.c_contiguous for side in (queries, database)):
        return pair_scores(queries, database, who, places)
    starts = np.searchsorted(who, np.arange(len(queries) + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        x, y = torch.from_numpy(queries), torch.from_numpy(database)
        where, zeros, size = torch.from_numpy(places), torch.zeros(len(who)), (len(x), len(y))
        pairs = torch.sparse_csr_tensor(torch.from_numpy(starts), where, zeros, size, check_invariants=False)
    scores: Floats = torch.sparse.sampled_addmm(pairs, x, y.T, beta=0.0).values().numpy()
    return scores


@functools.cache
def int8_gain() -> float:
    """Processor seconds of a product [512, 768] x [768, 512] in float32 or bf16, whichever is faster, over those in
    int8: about 10 ms to find. 0 where int8 products are wrong: without VNNI, sums of two can overflow 16 bits."""
    largest = torch.full((64, 768), 127, dtype=torch.int8)
    for sign in (1, -1):
        if not (torch._int_mm(largest, (sign * largest).T) == sign * 768 * 127**2).all():
            return 0.0
    whole, small = torch.full((512, 768), 0.01), torch.ones(512, 768, dtype=torch.int8)
    half = whole.bfloat16()
    seconds = [
        _quickest(lambda: whole @ whole.T),
        _quickest(lambda: half @ half.T),
        _quickest(lambda: torch._int_mm(small, small.T)),
    ]
    return min(seconds[:2]) / seconds[2]


def _quickest(run: Callable[[], Any]) -> float:
    """By processor time: another job on the machine decides nothing."""
    times = []
    for _ in range(6):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times)
