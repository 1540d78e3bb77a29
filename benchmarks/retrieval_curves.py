"""Growth with the number of vectors, and recall against time of the approximate indexes; their pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_measure import NEIGHBOURS, Clock, alone

from effstilts.retrieval.approximate import Index, IndexSpec
from effstilts.retrieval.neighbours import normalise, search

# Below, what does not grow with the vectors is most of the time.
_FITTED_FROM = 8000


def growth(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Seconds and peak memory of both directions, each in a process of its own; exponents fitted in logarithms."""
    points: list[dict[str, Any]] = []
    for count in (c for c in options.sizes if c <= options.largest):
        own = alone(count, options.dim)
        if own is None:
            return {"skipped": "the peak of a process's memory is read from Linux's /proc"}
        points.append({"vectors": count, **{key: round(value, 4) for key, value in own.items()}})
        if clock.left() < 5 * own["seconds"]:
            break
    late = [p for p in points if p["vectors"] >= _FITTED_FROM]
    bytes_ = [p["peak over vectors"] * p["vectors"] for p in late]
    return {
        "points": points,
        "fitted from": _FITTED_FROM,
        "time exponent": exponent(late, [p["seconds"] for p in late]),
        "processor time exponent": exponent(late, [p["processor"] for p in late]),
        "memory exponent": exponent(late, bytes_),
    }


def exponent(points: Sequence[dict[str, Any]], values: Sequence[float]) -> float | None:
    """b of the least-squares fit log value = a + b log vectors."""
    if len(points) < 2:
        return None
    return round(float(np.polyfit(np.log([p["vectors"] for p in points]), np.log(values), 1)[0]), 3)


def approximate(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """1,000 queries against one database through each index, by how hard it looks."""
    count = options.approximate
    # Sentences lie near a surface of few dimensions; without one, no index could beat the exact search.
    generator = np.random.default_rng(0)
    surface = generator.standard_normal((32, options.dim), np.float32)
    queries, database = (
        normalise(generator.standard_normal((rows, 32), np.float32) @ surface + noise)
        for rows, noise in ((n, generator.standard_normal((n, options.dim), np.float32)) for n in (1000, count))
    )
    start = time.process_time()
    exact = search(queries, database, NEIGHBOURS, "auto")[1]
    rows: list[dict[str, Any]] = [
        {"kind": "exact", "recall": 1.0, "first": 1.0, "seconds": round(time.process_time() - start, 4), "build": 0.0}
    ]
    for spec in (IndexSpec("ivf"), IndexSpec("sq"), IndexSpec("pq"), IndexSpec("hnsw")):
        start = time.process_time()
        index = Index.build(database, spec)
        build = time.process_time() - start
        for level in (1, 4, 16, 64):
            index.look(probe=level, effort=8 * level)
            start = time.process_time()
            found = index.search(queries, NEIGHBOURS)[1]
            taken = time.process_time() - start
            hits = sum(len(np.intersect1d(one, other)) for one, other in zip(exact, found, strict=True))
            rows.append(
                {
                    "kind": spec.kind,
                    "level": level,
                    "recall": round(hits / exact.size, 4),
                    "first": round(float((exact[:, 0] == found[:, 0]).mean()), 4),
                    "seconds": round(taken, 4),
                    "build": round(build, 2),
                }
            )
        if clock.left() < build:
            break
    return {
        "vectors": count,
        "queries": len(queries),
        "seconds": "of processor time",
        "level": "probe; HNSW's effort is 8 x level",
        "rows": rows,
    }


def plot(record: dict[str, Any], path: Path) -> None:
    """Time and memory against the number of vectors; recall against time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    grown = record.get("growth", {})
    points = grown.get("points", [])
    sizes = [p["vectors"] for p in points]
    left.loglog(sizes, [p["processor"] for p in points], "o-", color="tab:blue")
    left.set(
        xlabel="vectors a side",
        ylabel="seconds of one thread",
        title=f"both directions, exact: n^{grown.get('processor time exponent')}",
    )
    left.xaxis.set_minor_formatter(NullFormatter())
    memory = left.twinx()
    memory.plot(sizes, [p["peak over vectors"] for p in points], "s--", color="tab:gray")
    memory.set(ylabel="peak memory over the vectors (dashed)", ylim=(0, None))
    rows = record.get("approximate", {}).get("rows", [])
    for kind in dict.fromkeys(row["kind"] for row in rows):
        some = [row for row in rows if row["kind"] == kind]
        style = "k*" if kind == "exact" else "o-"
        right.semilogx([row["seconds"] for row in some], [row["recall"] for row in some], style, label=kind)
    vectors = record.get("approximate", {}).get("vectors", 0)
    right.set(
        xlabel=f"seconds for 1,000 queries in {vectors:,} vectors", ylabel=f"recall at {NEIGHBOURS}", ylim=(0, 1.05)
    )
    if rows:
        right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
