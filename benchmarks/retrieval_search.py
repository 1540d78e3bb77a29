"""Neighbours and mining beside faiss, sentence-transformers and XTREME's loop."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from retrieval_measure import NEIGHBOURS, Clock, alone, alternate, compare, median, planted, rate
from retrieval_peers import faiss_flat, semantic_search, xtreme_mine

from effstilts.log import Log
from effstilts.model.packed import bf16_gain
from effstilts.retrieval import blocks, integers
from effstilts.retrieval.mining import mine, neighbourhoods
from effstilts.retrieval.neighbours import both_directions


def floor(count: int, dim: int) -> dict[str, Any]:
    """The least that one pass over all pairs takes here: its products at the rate of each number format, and the
    reading of both sides once."""
    rates = {"float32": rate(torch.float32)}
    if bf16_gain() > 1.3:
        rates["bf16"] = rate(torch.bfloat16)
    if integers.int8_gain():
        rates["int8"] = rate(torch.int8)
    return {
        "products": count**2,
        "bytes read at least": 2 * count * dim * 4,
        "rates in 1e9 operations a second": {name: round(value, 1) for name, value in rates.items()},
        "seconds": {name: float(f"{2 * count**2 * dim / value / 1e9:.4g}") for name, value in rates.items()},
    }


def neighbours(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Both directions beside faiss in float32, each way of the search by itself as well."""
    count, dim = options.vectors, options.dim
    x, y = planted(count, dim)
    kept: dict[str, Any] = {}

    def ours(method: Any) -> None:
        kept[method] = both_directions(x, y, NEIGHBOURS, method)

    def in_blocks() -> None:
        with tempfile.TemporaryDirectory() as folder:
            log = Log(quiet=True)
            kept["in blocks"] = blocks.both_ways(x, y, NEIGHBOURS, log, blocks.Keep(Path(folder) / "state", log))

    def flat() -> None:
        kept["flat"] = faiss_flat(x, y, NEIGHBOURS)

    ways = {"effstilts": lambda: ours("auto")}
    if bf16_gain() > 1.3:
        ways["effstilts by bf16"] = lambda: ours("bf16")
    ways["effstilts in blocks, kept, as mine does"] = in_blocks
    seconds = alternate({**ways, "faiss flat fp32": flat}, options.rounds, clock)
    differ = {
        method: sum(int((a.indices != b[1]).any(1).sum()) for a, b in zip(found, kept["flat"], strict=True))
        for method, found in kept.items()
        if method != "flat"
    }
    least = floor(count, dim)
    few = min(count, 5000)
    small = alternate(
        {
            "effstilts": lambda: both_directions(x[:few], y[:few], NEIGHBOURS),
            "sentence-transformers semantic_search": lambda: semantic_search(x[:few], y[:few], NEIGHBOURS),
        },
        2,
        clock,
    )
    own = alone(count, dim)
    return {
        "vectors": [count, count, dim],
        "against": compare(seconds, "effstilts"),
        "rows that differ from faiss": differ,
        "of them with a worse true score": worse(x, y, kept["auto"], kept["flat"]),
        "floor": least,
        "over the floor by processor time": round(median(seconds, "effstilts", 1) / min(least["seconds"].values()), 2),
        "peak memory over the vectors": own and round(own["peak over vectors"], 3),
        f"at {few} vectors": compare(small, "effstilts"),
    }


def worse(x: np.ndarray, y: np.ndarray, ours: Any, flat: Any) -> int:
    """Rows in which our neighbours have a lower product than faiss's, in float64."""
    count = 0
    for (queries, database), a, b in zip(((x, y), (y, x)), ours, flat, strict=True):
        for row in np.flatnonzero((a.indices != b[1]).any(1)):
            true = [np.sort(database[i].astype(np.float64) @ queries[row]) for i in (a.indices[row], b[1][row])]
            count += bool((true[0] < true[1] - 1e-12).any())
    return count


def mining(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """From vectors to pairs beside XTREME's loop, and the ratio that products of the fastest format would allow if
    nothing but them took time."""
    result: dict[str, Any] = {}
    for count in (1000, options.vectors // 2):
        x, y = planted(count, options.dim)
        kept: dict[str, Any] = {}

        def ours(x: np.ndarray = x, y: np.ndarray = y, kept: dict[str, Any] = kept) -> None:
            kept["ours"] = mine(neighbourhoods(x, y, NEIGHBOURS))

        def theirs(x: np.ndarray = x, y: np.ndarray = y, kept: dict[str, Any] = kept) -> None:
            kept["theirs"] = xtreme_mine(x, y, NEIGHBOURS)

        seconds = alternate({"effstilts": ours, "xtreme": theirs}, options.rounds, clock)
        pairs = set(zip(kept["ours"].source.tolist(), kept["ours"].target.tolist(), strict=True))
        least = min(floor(count, options.dim)["seconds"].values())
        result[f"{count} x {count}"] = {
            "against": compare(seconds, "effstilts"),
            "pairs": len(pairs),
            "pairs that differ": len(pairs ^ {(a, b) for a, b, _ in kept["theirs"]}),
            "floor seconds": least,
            "over the floor by processor time": round(median(seconds, "effstilts", 1) / least, 2),
            "ratio at the floor": round(median(seconds, "xtreme", 1) / least, 1),
        }
    return result
