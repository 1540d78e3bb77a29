"""Approximate indexes for sets that an exact search is too slow for, and how much of the exact result they find.

kind    faiss factory           memory a vector     for
ivf     IVF{lists},Flat         4 D bytes           millions, high recall
hnsw    HNSW{links}             4 D + 8 links       fast single queries, slow to build
sq      IVF{lists},SQ8          D bytes             a quarter of the memory at little loss
pq      IVF{lists},PQ{codes}    codes bytes         tens of millions
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError
from effstilts.log import Log
from effstilts.retrieval import blocks
from effstilts.retrieval.exact import Floats, Indices, block, pair_scores
from effstilts.retrieval.neighbours import Neighbours, faiss_module

Kind = Literal["ivf", "hnsw", "sq", "pq"]

_ADD_ROWS = 1 << 16
_SEARCH_ROWS = 1 << 13  # between two looks at the progress
# A product quantiser of 4 bits has so many centroids, and wants as many vectors.
_LEAST_PQ = 16
# faiss asks for 39 training vectors a list or centroid at least, and takes 256 at most.
_TRAIN_PER_CENTROID = 64


@dataclass(frozen=True)
class IndexSpec:
    """What to build, and how hard to look.

    lists: cells of an inverted file, 0: 4 sqrt(n). probe: cells looked into. links: neighbours of an HNSW node.
    effort: HNSW's beam (efSearch). codes: bytes of a product-quantised vector, 0: D / 8.
    """

    kind: Kind = "ivf"
    lists: int = 0
    probe: int = 16
    links: int = 32
    effort: int = 64
    codes: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(f"no index {self.kind!r}; there are {', '.join(get_args(Kind))}")

    def factory(self, vectors: int, dimensions: int) -> str:
        """faiss's index_factory string for so many vectors."""
        if self.kind == "hnsw":
            return f"HNSW{self.links}"
        lists = f"IVF{self.cells(vectors)}"
        if self.kind == "pq":
            codes = self.codes or max(1, dimensions // 8)
            if dimensions % codes:
                raise DataError(f"pq: {codes} codes do not divide {dimensions} dimensions")
            if vectors < _LEAST_PQ:
                raise DataError(f"pq needs {_LEAST_PQ} vectors or more, there are {vectors}: search them exactly")
            return f"{lists},PQ{codes}x{8 if vectors >= 256 else 4}"
        return f"{lists},SQ8" if self.kind == "sq" else f"{lists},Flat"

    def cells(self, vectors: int) -> int:
        return min(self.lists or max(1, round(4 * math.sqrt(vectors))), vectors)


class Index:
    """An index over a database [m, D]; inner product."""

    def __init__(self, index: Any, spec: IndexSpec) -> None:
        self.index, self.spec = index, spec
        self.look(spec.probe, spec.effort)

    @classmethod
    def build(cls, database: NDArray[Any], spec: IndexSpec, seed: int = 0) -> Index:
        """Trains on a sample and adds by blocks; the database may be a memory map. DataError for vectors that an index
        of this kind cannot be made of, or numbers that are not finite."""
        faiss = faiss_module()
        if database.ndim != 2 or not len(database):
            raise DataError(f"an index needs vectors [m, D] and at least one, got {database.shape}")
        count, dimensions = database.shape
        for start in range(0, count, _ADD_ROWS):
            _finite(block(database, start, start + _ADD_ROWS), start, "database")
        index = faiss.index_factory(dimensions, spec.factory(count, dimensions), faiss.METRIC_INNER_PRODUCT)
        if hasattr(index, "do_polysemous_training"):
            # Minutes of annealing for a search that nobody asks for.
            index.do_polysemous_training = False
        for part in (index, getattr(index, "pq", None)):
            clustering = getattr(part, "cp", None)
            if clustering is not None:
                clustering.min_points_per_centroid = 1  # small sets are fine, and need no warning a centroid
        if not index.is_trained:
            sample = min(count, _TRAIN_PER_CENTROID * max(spec.cells(count), 256))
            chosen = np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))
            index.train(np.ascontiguousarray(database[chosen], np.float32))
        for start in range(0, count, _ADD_ROWS):
            index.add(block(database, start, start + _ADD_ROWS))
        return cls(index, spec)

    def look(self, probe: int = 0, effort: int = 0) -> None:
        """How hard to search from now on; 0 leaves it."""
        faiss = faiss_module()
        inner = faiss.downcast_index(self.index)
        if probe and hasattr(inner, "nprobe"):
            inner.nprobe = probe
        if effort and hasattr(inner, "hnsw"):
            inner.hnsw.efSearch = effort

    def search(self, queries: NDArray[Any], count: int) -> tuple[Floats, Indices]:
        """Scores and indices [queries, count]; index -1 where the cells looked into hold too few vectors. DataError for
        queries of other dimensions or numbers that are not finite, or count below 1."""
        if queries.ndim != 2 or queries.shape[1] != self.index.d:
            raise DataError(f"the index has vectors of {self.index.d} dimensions, the queries are {queries.shape}")
        if count < 1:
            raise DataError(f"{count} neighbours are asked: at least one is needed")
        scores, found = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        for start in range(0, len(queries), _ADD_ROWS):
            part = block(queries, start, start + _ADD_ROWS)
            _finite(part, start, "query")
            scores[start : start + len(part)], found[start : start + len(part)] = self.index.search(part, count)
        return scores, found

    def save(self, path: Path) -> None:
        """faiss's own file format."""
        faiss_module().write_index(self.index, str(path))

    @classmethod
    def load(cls, path: Path, spec: IndexSpec) -> Index:
        """DataError if the file is not there or no index."""
        if not path.is_file():
            raise DataError(f"no file {path}")
        try:
            return cls(faiss_module().read_index(str(path)), spec)
        except RuntimeError as error:
            raise DataError(f"{path} is no faiss index: {str(error).splitlines()[0]}") from error


def nearest(queries: NDArray[Any], database: NDArray[Any], count: int, spec: IndexSpec, log: Log) -> Neighbours:
    """What an index finds of the `count` nearest [n, count], scored and ordered exactly; a query for which it finds
    fewer is searched exactly, and their number is said. Vectors may be memory maps. DataError as in `Index`."""
    log.say(f"building the {spec.kind} index of {len(database):,} vectors")
    index = Index.build(database, spec)
    made = Neighbours(np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64))
    few = 0
    with log.progress(len(queries), "neighbours") as progress:
        for start in range(0, len(queries), _SEARCH_ROWS):
            asked = block(queries, start, start + _SEARCH_ROWS)
            _, found = index.search(asked, count)
            short = np.flatnonzero((found < 0).any(1))
            if len(short):
                few += len(short)
                found[short] = blocks.nearest(asked[short], database, count, Log(quiet=True)).indices
            exact = pair_scores(asked, database, np.repeat(np.arange(len(asked)), count), found.ravel())
            scores = exact.reshape(found.shape)
            order = np.lexsort((found, -scores))
            part = slice(start, start + len(asked))
            made.scores[part] = np.take_along_axis(scores, order, 1)
            made.indices[part] = np.take_along_axis(found, order, 1)
            progress.advance(len(asked))
    if few:
        log.say(
            f"the {spec.kind} index found fewer than {count} neighbours for {few:,} of {len(queries):,}, which were "
            "searched exactly"
        )
    return made


def recall(
    index: Index, queries: NDArray[Any], database: NDArray[Any], count: int, sample: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Share of the exact `count` nearest that the index finds, over a random sample of the queries, with the spec."""

    def ask(rows: Indices) -> Indices:
        return index.search(np.asarray(queries[rows], np.float32), count)[1]

    return {**recall_of(ask, queries, database, count, sample, seed), **asdict(index.spec)}


def recall_of(
    found: Callable[[Indices], Indices],
    queries: NDArray[Any],
    database: NDArray[Any],
    count: int,
    sample: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """As `recall`, of neighbours however they were found. found(rows): those of these queries, [rows, count]."""
    chosen = np.sort(np.random.default_rng(seed).choice(len(queries), min(sample, len(queries)), replace=False))
    exact = blocks.nearest(np.asarray(queries[chosen], np.float32), database, count, Log(quiet=True)).indices
    near = found(chosen)
    hits = [len(np.intersect1d(one, other)) for one, other in zip(exact, near, strict=True)]
    first = float((exact[:, 0] == near[:, 0]).mean())
    return {"recall": float(np.sum(hits)) / exact.size, "first": first, "count": count, "queries": len(chosen)}


def _finite(vectors: Floats, first: int, name: str) -> None:
    """vectors: those from number `first` on."""
    bad = ~np.isfinite(vectors.sum(1, dtype=np.float64))
    if bad.any():
        raise DataError(f"{name} vector {first + int(bad.argmax())} (from 0) has numbers that are not finite")
