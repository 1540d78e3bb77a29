"""What "exact" means: the order that every exact search here returns, and its last resort.

The score of a pair is the inner product of its two float32 vectors, summed in float64 and rounded to float32;
neighbours are ordered by falling score, equal scores by rising index. So the result depends on neither blocks, threads
nor library, and duplicates have one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

# So many pairs stay in the second-level cache through the gather, the conversion and the product.
_PAIRS = 128
_BLOCK = 8192


@dataclass
class Found:
    """scores, indices [n, count], and the rows that could not be certified, whose values are meaningless."""

    scores: Floats
    indices: Indices
    failed: Indices

    @classmethod
    def empty(cls, rows: int, count: int) -> Found:
        return cls(np.empty((rows, count), np.float32), np.empty((rows, count), np.int64), np.empty(0, np.int64))

    def add_failed(self, rows: Indices) -> None:
        self.failed = np.concatenate([self.failed, rows])


def block(vectors: NDArray[Any], start: int, stop: int) -> Floats:
    """Rows start to stop in float32, read from disk if the array is memory-mapped."""
    return np.ascontiguousarray(vectors[start:stop], np.float32)


def tensor(vectors: NDArray[Any]) -> torch.Tensor:
    """float32; a copy only of what torch may not share."""
    values = np.ascontiguousarray(vectors, np.float32)
    shared: torch.Tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
    return shared


def pair_scores(queries: NDArray[Any], database: NDArray[Any], rows: Indices, columns: Indices) -> Floats:
    """The score of each pair (rows[i], columns[i]): [pairs]."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        products = queries[rows[part]].astype(np.float64)
        products *= database[columns[part]]
        scores[part] = products.sum(1)
    return scores


def best(rows: Indices, columns: Indices, scores: Floats, queries: int, count: int) -> tuple[Floats, Indices]:
    """The `count` best pairs of each query: scores and columns [queries, count]. rows: query of each pair, each at
    least `count` times."""
    order = np.lexsort((columns, -scores, rows))
    starts = np.searchsorted(rows[order], np.arange(queries))
    chosen = order[starts[:, None] + np.arange(count)]
    return scores[chosen], columns[chosen]


def exhaustive(queries: NDArray[Any], database: NDArray[Any], rows: Indices, count: int) -> tuple[Floats, Indices]:
    """All products of some queries in float64: slow, and right however many scores are equal. [rows, count]."""
    scores, columns = np.empty((len(rows), count), np.float32), np.empty((len(rows), count), np.int64)
    for begin in range(0, len(rows), 256):
        part = slice(begin, begin + 256)
        left = tensor(queries[rows[part]]).double()
        top = torch.empty(len(left), 0)
        found = torch.empty(len(left), 0, dtype=torch.int64)
        for start in range(0, len(database), _BLOCK):
            right = tensor(database[start : start + _BLOCK]).double()
            products = (left @ right.T).float()
            places = torch.arange(start, start + len(right)).expand(len(left), -1)
            # A stable sort keeps the order of equal scores, and earlier blocks hold the lower indices.
            top, order = torch.sort(torch.cat([top, products], 1), dim=1, descending=True, stable=True)
            found = torch.cat([found, places], 1).gather(1, order)[:, :count]
            top = top[:, :count]
        scores[part], columns[part] = top.numpy(), found.numpy()
    return scores, columns
