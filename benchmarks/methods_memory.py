"""What one training step of a method takes, in a process of its own: `python benchmarks/methods_memory.py JSON`.

The step is the library's: its loop, engine, kind and head, on an encoder with random weights in XLM-R's shape and rows
of random pieces. A tiny model is trained first in the same way, so that libraries, their kernels and buffers are there:
what is resident then is the baseline. The first update, whose products are counted, makes the optimizer's state; then
freed memory is given back, the peak is reset (`effstilts.cost.memory`) and the updates that count follow. One thread's
speed is taken by its CPU time, which other processes of the machine hardly change; elsewhere by the clock. Prints one
line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effstilts.cost.flops import counted
from effstilts.cost.memory import PeakMemory
from effstilts.cost.meter import machine
from effstilts.data.cache import Ragged, Rows
from effstilts.data.order import Order
from effstilts.engine.checkpoint import Checkpoints
from effstilts.engine.loop import TrainTask, train
from effstilts.engine.plain import Model, PlainEngine, default_device
from effstilts.kinds import kind_of
from effstilts.kinds.kind import IGNORED, Tensors, hidden_states
from effstilts.kinds.masked_lm import MaskedLM
from effstilts.log import Log
from effstilts.model import adapters, encoder, opening, quantised
from effstilts.recipe import Method, Training
from effstilts.tasks.task import Task

# Blocks, dim, attention heads, inner dim, vocabulary.
SIZES = {
    "tiny": (2, 64, 2, 128, 1000),
    "base": (12, 768, 12, 3072, 250_002),
    "large": (24, 1024, 16, 4096, 250_002),
}
CLASSES = Task("memory", "classification", {"text": "a", "label": "l"}, labels=("a", "b", "c"), score="accuracy")
TEXTS = Task("memory", "masked_lm", {"text": "text"}, score="accuracy")


@dataclass(frozen=True)
class Case:
    """One measurement. rows x width tokens in one micro-batch; full_logits: masked LM with logits at every place, as
    the usual implementations have it, for comparison."""

    size: str = "base"
    method: str = "full"
    precision: str = "bf16"
    kind: str = "classification"
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    gradient_checkpointing: bool = False
    full_logits: bool = False
    rows: int = 8
    width: int = 128
    updates: int = 1
    flops: bool = True
    disk: bool = True


class FullLogits(MaskedLM):
    """Masked LM whose head runs over every token; the loss is that of the masked ones, as without."""

    def loss(self, head: nn.Module, encoder: encoder.Encoder, batch: Tensors) -> Tensor:
        logits_BTV = head(hidden_states(encoder, batch), encoder.embedding)
        return functional.cross_entropy(
            logits_BTV.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, reduction="sum"
        )


def make(case: Case) -> tuple[Model, TrainTask]:
    """The model as the workbench opens it for training, and rows of random pieces."""
    from effstilts.model.tokenizer import as_transformers, train_tokenizer
    from effstilts.synthetic import rows as synthetic

    depth, size, heads, inner, vocabulary = SIZES[case.size]
    shape = {
        "model_type": "xlm-roberta", "vocab_size": vocabulary, "hidden_size": size, "num_hidden_layers": depth,
        "num_attention_heads": heads, "intermediate_size": inner, "max_position_embeddings": 514,
        "layer_norm_eps": 1e-5, "type_vocab_size": 1,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        texts = [row["text"] for row in synthetic("text", "train", "en", 200)]
        as_transformers(train_tokenizer(texts, 300)).save_pretrained(folder)
        tokenizer = opening.load_tokenizer(folder, offline=True)
    made = opening.create(shape, tokenizer, seed=0)
    method = Method(name=case.method)  # type: ignore[arg-type]
    if case.method in quantised.FORMS:
        quantised.quantise(made, quantised.FORMS[case.method])
    if case.method != "full":
        adapters.attach(made, method)
    if case.freeze_embeddings or case.freeze_layers:
        made.freeze(case.freeze_layers)
    if case.gradient_checkpointing:
        made.checkpoint_gradients()
    kind = FullLogits() if case.full_logits else kind_of(case.kind)
    task = CLASSES if case.kind == "classification" else TEXTS
    draw = np.random.default_rng(0)
    ids = draw.integers(5, vocabulary - 5, case.rows * case.width).astype(np.int32)
    ids[:: case.width], ids[case.width - 1 :: case.width] = 0, 2
    rows = Rows(
        {
            "input_ids": Ragged(ids, np.arange(case.rows + 1) * case.width),
            "second": np.zeros(case.rows, np.int64),
            "example": np.arange(case.rows),
            "restart": np.zeros(case.rows, np.int64),
            "label": draw.integers(0, len(CLASSES.labels), case.rows),
        }
    )
    model = Model(made, {"head": kind.head(task, made, 0.1)}).to(default_device())
    return model, TrainTask("memory", kind, "head", rows, kind.widths(rows), lambda which: [str(row) for row in which])


def measure(case: Case, baseline: int) -> dict[str, Any]:
    """baseline: bytes that were in use before the model was made."""
    device = default_device()
    model, task = make(case)
    training = Training(
        batch_size=case.rows,
        micro_tokens=case.rows * case.width,
        precision=case.precision,  # type: ignore[arg-type]
        learning_rate=1e-4,
        checkpoint_every=1 << 30,
    )
    engine = PlainEngine(model.train(), training, device)
    memory = PeakMemory(device)
    seconds: list[float] = []
    one_thread = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_thread else time.perf_counter
    update, began = engine.step, 0.0

    def step(rate: float) -> None:
        nonlocal began
        update(rate)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = clock()
        if began:
            seconds.append(now - began)
        else:
            memory.restart()
        began = clock()

    engine.step = step  # type: ignore[method-assign]
    products, run = 0, engine.forward_backward

    def first(*arguments: Any) -> float:
        nonlocal products
        engine.forward_backward = run  # type: ignore[method-assign]
        losses: list[float] = []
        products = counted(lambda: losses.append(run(*arguments)))
        return losses[0]

    if case.flops:
        engine.forward_backward = first  # type: ignore[method-assign]
    quiet = Log(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        order = Order((case.rows,), (1.0,), case.rows, 0)
        train(
            engine, [task], order, 1 + case.updates, training, model.encoder.token_ids(), 0, None,
            Checkpoints(Path(folder), quiet), quiet, "memory",
        )  # fmt: skip
    peak = memory.peak()
    tokens = case.rows * case.width
    moments = engine.moments()
    found = {
        "peak_bytes": peak,
        "held_bytes": memory.before,
        "baseline_bytes": baseline,
        "parameters": sum(p.numel() for p in model.encoder.parameters()),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "trained_in_head": sum(p.numel() for p in model.heads.parameters()),
        "weight_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "optimizer_bytes": sum(t.numel() * t.element_size() for t in moments.values()),
        "seconds": [round(s, 4) for s in seconds],
        "clock": "CPU time of one thread" if one_thread else "wall",
        "tokens": tokens,
        "measured": "torch.cuda.max_memory_allocated" if device.type == "cuda" else "VmHWM",
        "machine": machine(device),
    }
    del moments
    if case.flops:
        found["flops"] = products
    if case.disk:
        found["disk_bytes"] = on_disk(case, model.encoder)
    return found


def on_disk(case: Case, trained: encoder.Encoder) -> int:
    """Bytes of the weights that a phase hands to the next: the adapter, or the encoder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if case.method == "full":
            opening.save(trained, folder)
        else:
            adapters.save(trained, folder)
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


if __name__ == "__main__":
    wanted = Case(**json.loads(sys.argv[1]))
    measure(replace(wanted, size="tiny", freeze_layers=0), 0)
    print(json.dumps({"case": asdict(wanted), **measure(wanted, PeakMemory(default_device()).before)}))
