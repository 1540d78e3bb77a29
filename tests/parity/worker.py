"""Trains small models as one process of a launch and leaves what came out: the other half of test_parity.py.

Called as `python -m tests.parity.worker CASES OUT`: CASES is a JSON list of cases, OUT a folder; rank 0 writes
NAME.safetensors (weights) and NAME.json (losses, tokens, the norm of each step).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from effstilts.data.order import Order
from effstilts.engine.checkpoint import Checkpoints
from effstilts.engine.choice import make_engine
from effstilts.engine.loop import TrainTask, train
from effstilts.engine.plain import Model
from effstilts.engine.ranks import Ranks, joined
from effstilts.kinds import kind_of
from effstilts.log import Log
from effstilts.model import adapters, quantised
from effstilts.model.opening import create, load_tokenizer
from effstilts.recipe import Method, Spread, Training
from tests.conftest import TINY_CONFIG
from tests.unit.kinds.test_kinds import as_rows, examples_of


@dataclass(frozen=True)
class Case:
    """One training. stop: leave after this step, as a killed run does; then `resume` the same folder."""

    name: str
    tokenizer: str
    engine: str = ""
    kinds: tuple[str, ...] = ("classification", "tagging", "masked_lm")
    steps: int = 20
    stop: int = 0
    folder: str = ""
    method: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


class Stop(Exception):
    """A run that ends in the middle."""


class Events:
    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def write(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            self.steps.append({"loss": event["loss"], "norm": event["gradient_norm"]})


def run(case: Case, ranks: Ranks, out: Path) -> None:
    tokenizer = load_tokenizer(case.tokenizer, offline=True)
    settings = {"batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 5, "evaluate_every": 10, "dropout": 0.0}
    training = Training(**{**settings, "micro_tokens": 120, **case.training})
    # Five layers wide of 33: no tensor divides evenly by 2, 3 or 4.
    encoder = create({**TINY_CONFIG, "hidden_size": 34, "num_hidden_layers": 2}, tokenizer, seed=5)
    encoder.set_dropout(0.0)
    torch.manual_seed(1)
    tasks, heads = [], {}
    for name in case.kinds:
        kind = kind_of(name)
        task, examples = examples_of(name)
        rows = as_rows(kind.encode(examples, task, tokenizer, 40))
        heads[name] = kind.head(task, encoder, 0.0)
        tasks.append(TrainTask(name, kind, name, rows, kind.widths(rows), lambda rows: [str(row) for row in rows]))
    method = Method(**case.method)
    if method.name in quantised.FORMS:
        quantised.quantise(encoder, quantised.FORMS[method.name])
    if method.name != "full":
        adapters.attach(encoder, method)
    if training.freeze_layers:
        encoder.freeze(training.freeze_layers)
    if training.gradient_checkpointing:
        encoder.checkpoint_gradients()
    model = Model(encoder, heads).train()
    engine = make_engine(Spread(config=case.engine), model, training, torch.device("cpu"), ranks, method, case.steps)
    order = Order(tuple(len(t.rows) for t in tasks), (1.0,) * len(tasks), training.batch_size, 7)
    events = Events()
    original, seen = engine.step, 0

    def step(rate: float) -> None:
        nonlocal seen
        seen += 1
        if case.stop and seen > case.stop:
            raise Stop
        original(rate)

    engine.step = step  # type: ignore[method-assign]

    def evaluate() -> dict[str, float]:
        """A number that depends on all weights of the model that rank 0 evaluates."""
        return {"score": sum(float(p.detach().double().pow(2).sum()) for p in model.parameters())}

    folder = Path(case.folder) if case.folder else out / f"{case.name}.work"
    log = Log(events, quiet=True)
    try:
        progress, chosen = train(
            engine, tasks, order, case.steps, training, encoder.token_ids(), 7, evaluate,
            Checkpoints(folder, log), log, case.name, ranks,
        )  # fmt: skip
    except Stop:
        ranks.tell(lambda: True)
        return
    final = engine.weights()
    if not ranks.leads:
        return
    save_file({name: tensor.contiguous() for name, tensor in final.items()}, str(out / f"{case.name}.safetensors"))
    facts = {
        "steps": events.steps, "tokens": progress.tokens, "mean_loss": progress.loss_sum / progress.step,
        "history": progress.history, "chosen": sorted(chosen),
    }  # fmt: skip
    (out / f"{case.name}.json").write_text(json.dumps(facts))


def main(cases: Path, out: Path) -> None:
    with joined() as ranks:
        ranks.connect(60.0)
        for raw in json.loads(cases.read_text()):
            run(Case(**{**raw, "kinds": tuple(raw.get("kinds", Case.kinds))}), ranks, out)
            ranks.tell(lambda: True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
