"""Nearest neighbours by inner product, exact. The only file that imports faiss.

Arrays may be memory maps, of float32 or float16; they are read by blocks. Every exact search returns the same:
scores and order are those of `effstilts.retrieval.exact`, whichever way they were found.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from effstilts.errors import DataError, MissingDependencyError
from effstilts.log import Log
from effstilts.model.memory import halving, is_shortage, release
from effstilts.retrieval import certified, integers
from effstilts.retrieval.exact import Floats, Found, Indices, best, block, exhaustive, pair_scores

Method = Literal["auto", "faiss", "bf16", "int8"]

QUERY_ROWS, DATABASE_ROWS = 8192, 1 << 16
# Candidates beyond `count` that a float32 search returns, so that its own rounding can be certified.
_SPARE = 8
# Below this many products a search is over before the certified scan has prepared its sides.
_WORTH_SCANNING = 1 << 19
# Where int8 products are so much faster than those in bf16 or float32, searches of so many products are made of them:
# at 16,000 x 16,000 both take the same time and these more memory, at 32,000 x 32,000 these take 0.83 of bf16's time.
_INT8_FASTER, _WORTH_INTEGERS = 1.5, 1 << 29
# The bound of int8 products tells fewer scores of short vectors apart.
_INT8_DIMENSIONS = 256


class Neighbours(NamedTuple):
    """scores [n, count], falling; indices [n, count]; equal scores by rising index."""

    scores: Floats
    indices: Indices


def faiss_module() -> Any:
    """faiss, or the one line that says how to get it."""
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError("retrieval needs faiss: pip install faiss-cpu") from error
    return faiss


def normalise(vectors: NDArray[Any], name: str = "vector") -> Floats:
    """Rows at length 1 (L2), in float32 whatever they come in. DataError for a row without direction or with numbers
    that are not finite; name: what a row is called there."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        if not np.isfinite(vectors[row]).all():
            raise DataError(f"{name} {row} (from 0) has numbers that are not finite")
        raise DataError(f"{name} {row} (from 0) has no direction: its length is {norms[row, 0]}")
    return np.ascontiguousarray(vectors / norms, dtype=np.float32)


def search(
    queries: NDArray[Any], database: NDArray[Any], count: int, method: Method = "faiss"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `count` rows of the database with the largest inner product: scores and indices [queries, count].

    Exact. method: faiss in float32; or products in bf16 or int8 with a certified bound (`effstilts.retrieval.certified`
    and `integers`); auto: what is fastest here. int8 goes over to float32 for vectors of very unlike lengths.
    DataError for count outside 1 .. database rows, or numbers that are not finite.
    """
    _check(queries, database, count)
    found, _ = _scan(method, queries, database, count, both=False)
    return _float32(queries, database, count) if found is None else _completed(found, queries, database, count)


def both_directions(
    source: NDArray[Any], target: NDArray[Any], count: int, method: Method = "auto"
) -> tuple[Neighbours, Neighbours]:
    """The `count` nearest targets of each source [n, count] and the nearest sources of each target [m, count].

    As two calls of `search`; by bf16 products, both come from one pass. A side with fewer than `count` vectors gives
    all of them: [n, min(count, m)] and [m, min(count, n)].
    """
    _check(source, target, min(count, len(target)))
    _check(target, source, min(count, len(source)))
    if count > min(len(source), len(target)):
        forward = _float32(source, target, min(count, len(target)))
        return forward, _float32(target, source, min(count, len(source)))
    ahead, back = _scan(method, source, target, count)
    if ahead is None or back is None:
        return _float32(source, target, count), _float32(target, source, count)
    return _completed(ahead, source, target, count), _completed(back, target, source, count)


def _scan(
    method: Method, queries: NDArray[Any], database: NDArray[Any], count: int, both: bool = True
) -> tuple[Found | None, Found | None]:
    """By the quickest of the ways that the method allows, the vectors suit and memory bears; None: float32 is left,
    which finds the same in less memory."""
    for way in _ways(method, queries, database, count):
        try:
            if way == "bf16":
                return certified.scan(queries, database, count, both, _device())
            found = integers.scan(queries, database, count, both)
            if found is not None:
                return found
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            release()
            Log().warn(f"search: out of memory for the scan in {way}, going on without it")
    return None, None


def _ways(method: Method, queries: NDArray[Any], database: NDArray[Any], count: int) -> list[Method]:
    if method == "int8" and not integers.int8_gain():
        return []  # this processor's int8 products are wrong
    if method != "auto":
        return [method] if method != "faiss" else []
    from effstilts.model.packed import resolve_precision

    products = len(queries) * len(database)
    if products < _WORTH_SCANNING or count > 64:
        return []
    ways: list[Method] = []
    fast = resolve_precision("auto", torch.device(_device())) == "bf16"
    suits = products >= _WORTH_INTEGERS and queries.shape[1] >= _INT8_DIMENSIONS and count <= 16
    if suits and _device() == "cpu" and integers.int8_gain() > _INT8_FASTER:
        ways.append("int8")
    return [*ways, "bf16"] if fast else ways


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check(queries: NDArray[Any], database: NDArray[Any], count: int) -> None:
    if queries.ndim != 2 or database.ndim != 2:
        raise DataError(f"vectors need two axes, got shapes {queries.shape} and {database.shape}")
    if queries.shape[1] != database.shape[1]:
        raise DataError(f"queries have {queries.shape[1]} dimensions, the database {database.shape[1]}")
    if not 1 <= count <= len(database):
        raise DataError(f"{count} neighbours are asked, the database has {len(database)} vectors")


def _completed(found: Found, queries: NDArray[Any], database: NDArray[Any], count: int) -> Neighbours:
    """The rows that the scan could not certify, searched in float32."""
    for start in range(0, len(found.failed), QUERY_ROWS):
        rows = found.failed[start : start + QUERY_ROWS]
        found.scores[rows], found.indices[rows] = _float32(np.asarray(queries[rows]), database, count)
    return Neighbours(found.scores, found.indices)


def _float32(queries: NDArray[Any], database: NDArray[Any], count: int) -> Neighbours:
    """By faiss in float32 with candidates to spare; its rounding is bounded, and rows in doubt are searched whole."""
    faiss = faiss_module()
    scores, indices = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
    longest = _longest(database)
    done = 0

    def work(rows_at_once: int) -> None:
        nonlocal done
        while done < len(queries):
            part = block(queries, done, done + rows_at_once)
            found = _nearest(faiss, part, database, count, longest, done)
            scores[done : done + len(part)], indices[done : done + len(part)] = found
            done += len(part)

    halving(work, max(1, min(QUERY_ROWS, len(queries))), 1, "search", "queries", Log())
    return Neighbours(scores, indices)


def _nearest(
    faiss: Any, part: Floats, database: NDArray[Any], count: int, longest: float, start: int
) -> tuple[Floats, Indices]:
    """The `count` nearest of one block of queries, whose first is number `start`; longest: of the database's norms."""
    asked = min(count + _SPARE, len(database))
    rough = np.full((len(part), 0), 0, np.float32)
    found = np.empty((len(part), 0), np.int64)
    for first in range(0, len(database), DATABASE_ROWS):
        others = block(database, first, first + DATABASE_ROWS)
        near, places = faiss.knn(part, others, min(asked, len(others)), metric=faiss.METRIC_INNER_PRODUCT)
        rough, found = np.hstack([rough, near]), np.hstack([found, places + first])
        chosen = np.argsort(-rough, axis=1, kind="stable")[:, :asked]
        rough = np.take_along_axis(rough, chosen, 1)
        found = np.take_along_axis(found, chosen, 1)
    lengths = np.linalg.norm(part, axis=1)
    if not np.isfinite(lengths).all():
        raise DataError(_not_finite("query", start, lengths))
    rows = np.repeat(np.arange(len(part)), asked)
    exact = pair_scores(part, database, rows, found.ravel())
    scores, indices = best(rows, found.ravel(), exact, len(part), count)
    if asked < len(database):
        # The textbook bound of a float32 sum of D products, twice over.
        bound = 2 * part.shape[1] * 2.0**-24 * lengths * longest
        doubtful = np.flatnonzero(scores[:, -1] <= rough[:, -1] + bound)
        if len(doubtful):
            scores[doubtful], indices[doubtful] = exhaustive(part, database, doubtful, count)
    return scores, indices


def _longest(vectors: NDArray[Any]) -> float:
    longest = 0.0
    for start in range(0, len(vectors), QUERY_ROWS):
        lengths = np.linalg.norm(block(vectors, start, start + QUERY_ROWS), axis=1)
        if not np.isfinite(lengths).all():
            raise DataError(_not_finite("database", start, lengths))
        longest = max(longest, float(lengths.max()))
    return longest


def _not_finite(name: str, start: int, lengths: Floats) -> str:
    return f"{name} vector {start + int(np.argmin(np.isfinite(lengths)))} (from 0) has numbers that are not finite"
