"""effstilts against what people use today, side by side: embedding, evaluation, neighbours, mining, growth, indexes.

    python benchmarks/retrieval_speed.py --out benchmarks/results/retrieval-speed --minutes 30

A B A B in one process with equal inputs; ratios of medians with the smallest and largest ratio of any two runs. Random
weights and vectors serve for speed; agreement is shown on the Tatoeba lines below EFFSTILTS_DATA where they are there.
Writes OUT.json, OUT.txt and, with --plot, OUT.png. The parts stand in retrieval_embedding, retrieval_search and
retrieval_curves, the peers in retrieval_peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import torch
from retrieval_curves import approximate, growth, plot
from retrieval_embedding import embedding, evaluation
from retrieval_measure import Clock, text_of
from retrieval_search import mining, neighbours

from effstilts.model.packed import bf16_gain
from effstilts.retrieval.integers import int8_gain

PARTS: Mapping[str, Callable[[argparse.Namespace, Clock], dict[str, Any]]] = {
    "embedding": embedding,
    "evaluation": evaluation,
    "neighbours": neighbours,
    "mining": mining,
    "growth": growth,
    "approximate": approximate,
}
SIZES = (1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 200_000, 500_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="path without ending")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sentences", type=int, default=800)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES), help="of the growth curve")
    parser.add_argument("--largest", type=int, default=200_000, help="the last of them that is run")
    parser.add_argument("--approximate", type=int, default=50_000, help="vectors of the approximate indexes")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=30, help="rounds and curves are cut short after this")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--tokenizer", default="", help="a tokenizer.json; default: one trained on the lines")
    parser.add_argument("--data", type=Path, default=os.environ.get("EFFSTILTS_DATA"))
    parser.add_argument("--plot", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the other parts of an OUT.json that is there")
    parser.add_argument("--note", default="", help="kept with the numbers, for example what else ran")
    options = parser.parse_args()
    options.data = Path(options.data) if options.data else None
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    clock = Clock(options.minutes)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    processor = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    record: dict[str, Any] = {
        "machine": {
            "processor": processor or platform.processor(),
            "threads": options.threads,
            "bf16 over fp32": round(bf16_gain(), 2),
            "int8 over the next": round(int8_gain(), 2),
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "note": options.note,
        }
    }
    there = options.out.with_suffix(".json")
    if options.keep and there.exists():
        record = {**json.loads(there.read_text(encoding="utf-8")), **record}
    for part in options.parts:
        print(f"{part} ({clock.left():.0f} s left)", file=sys.stderr, flush=True)
        load = [round(value, 1) for value in os.getloadavg()]
        record[part] = {"load before": load, **PARTS[part](options, clock)}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        options.out.with_suffix(".txt").write_text(text_of(record) + "\n", encoding="utf-8")
    record["peak bytes of this process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(text_of(record))
    if options.plot:
        plot(record, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
