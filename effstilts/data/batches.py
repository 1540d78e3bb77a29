"""A global batch cut into micro-batches under a token budget, and rows padded into arrays.

The global batch counts examples; a micro-batch counts tokens, padding included. Rows of like length share a
micro-batch, so little is padded. How the batch is cut does not change the gradient: the loss of a micro-batch is a
sum over its units, divided by the units of the whole global batch (see `effstilts.engine.loop`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cut(lengths: Sequence[int] | NDArray[np.int64], budget: int) -> list[list[int]]:
    """Indices of the rows of each micro-batch, longest rows first.

    lengths: padded width of each row in tokens. rows * longest row <= budget in every micro-batch; a single row
    longer than the budget stands alone. Every index stands exactly once.
    """
    values = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-values, kind="stable")
    parts: list[list[int]] = []
    for index in order.tolist():
        if parts and (len(parts[-1]) + 1) * int(values[parts[-1][0]]) <= budget:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def pad(rows: Sequence[Sequence[int] | NDArray[np.int32]], value: int, width: int = 0) -> NDArray[np.int64]:
    """Rows of different lengths as one array [rows, width], filled up with `value` on the right.

    width 0: the longest row. The width is not rounded up: a vector must not depend on its neighbours' padding.
    """
    width = width or max((len(row) for row in rows), default=0)
    out = np.full((len(rows), width), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
