"""Nearest neighbours. The only file that imports faiss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError, MissingDependencyError


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at length 1 (L2). DataError for a row without direction or with numbers that are not finite."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bad.any():
        raise DataError(f"vector {int(np.flatnonzero(bad)[0])} has no direction: its length is {norms[bad][0, 0]}")
    return np.ascontiguousarray(vectors / norms, dtype=np.float32)


def search(
    queries: NDArray[np.float32], database: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `count` rows of the database with the largest inner product: scores and indices [queries, count].

    Exact (faiss.IndexFlatIP).
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError("retrieval needs faiss: pip install faiss-cpu") from error
    if queries.shape[1] != database.shape[1]:
        raise DataError(f"queries have {queries.shape[1]} dimensions, the database {database.shape[1]}")
    index = faiss.IndexFlatIP(database.shape[1])
    index.add(np.ascontiguousarray(database, np.float32))
    scores, found = index.search(np.ascontiguousarray(queries, np.float32), count)
    return scores, found
