"""A global batch cut into micro-batches under a token budget, and rows padded into arrays.

The global batch counts examples; a micro-batch counts tokens, padding included. Rows of like length share a
micro-batch, so little is padded. How the batch is cut does not change the gradient: the loss of a micro-batch is a
sum over its units, divided by the units of the whole global batch (see `effstilts.engine.loop`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cut(lengths: Sequence[int] | NDArray[np.int64], budget: int, launch: int = 0) -> list[list[int]]:
    """Indices of the rows of each micro-batch, longest rows first.

    lengths: padded width of each row in tokens. budget: rows x longest row at most; a single row longer than that
    stands alone. launch: what starting a micro-batch costs, in tokens' worth of time: the cut chosen is the one with
    the least padded tokens + launch x micro-batches. Every index stands exactly once.
    """
    values = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-values, kind="stable")
    widths = values[order].tolist()
    # Borders between micro-batches lie where the length changes, or where the budget forces one.
    parts: list[list[int]] = []
    start = 0
    for end in _borders(widths, budget, launch):
        step = max(1, budget // max(1, widths[start]))
        parts += [order[i : min(i + step, end)].tolist() for i in range(start, end, step)]
        start = end
    return parts


def share(
    lengths: Sequence[int] | NDArray[np.int64], budget: int, launch: int = 0, ranks: int = 1
) -> list[list[list[int]]]:
    """The micro-batches of each rank: rows are dealt out by length, so that all ranks have like work, and each hand
    is cut. Every index stands exactly once; one rank's share is the cut itself."""
    values = np.asarray(lengths, dtype=np.int64)
    if ranks == 1:
        return [cut(values, budget, launch)]
    order = np.argsort(-values, kind="stable")
    hands = [order[rank::ranks] for rank in range(ranks)]
    return [[hand[part].tolist() for part in cut(values[hand], budget, launch)] for hand in hands]


def _borders(widths: list[int], budget: int, launch: int) -> list[int]:
    """Ends of the groups of like length, by dynamic programming over the places where the length changes."""
    count = len(widths)
    places = [i for i in range(1, count) if widths[i] != widths[i - 1]] + ([count] if count else [])
    starts = [0, *places[:-1]]
    best: list[tuple[int, int]] = []
    for j, end in enumerate(places):
        options = []
        for i, start in enumerate(starts[: j + 1]):
            rows = end - start
            launches = -(-rows // max(1, budget // max(1, widths[start])))
            before = best[i - 1][0] if i else 0
            options.append((before + rows * widths[start] + launch * launches, i))
        best.append(min(options))
    borders: list[int] = []
    j = len(places) - 1
    while j >= 0:
        borders.append(places[j])
        j = best[j][1] - 1
    return borders[::-1]


def pad(rows: Sequence[Sequence[int] | NDArray[np.int32]], value: int, width: int = 0) -> NDArray[np.int64]:
    """Rows of different lengths as one array [rows, width], filled up with `value` on the right.

    width 0: the longest row. The width is not rounded up: a vector must not depend on its neighbours' padding.
    """
    width = width or max((len(row) for row in rows), default=0)
    out = np.full((len(rows), width), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
