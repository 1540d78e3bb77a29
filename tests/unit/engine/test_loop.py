"""The loop: the step, resuming, guards, checkpoints."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effstilts.data.order import Order
from effstilts.engine.checkpoint import Checkpoints, Progress, Snapshot
from effstilts.engine.guard import collapse
from effstilts.engine.loop import TrainTask, learning_rate_factor, train
from effstilts.engine.plain import Model, PlainEngine, parameter_groups
from effstilts.errors import Interrupted, TrainingError
from effstilts.kinds import kind_of
from effstilts.log import Log
from effstilts.model.opening import create
from effstilts.recipe import Training
from tests.conftest import TINY_CONFIG
from tests.unit.kinds.test_kinds import as_rows, examples_of

QUIET = Log(quiet=True)
BASE = {"batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 3, "evaluate_every": 4}


class Bench:
    """A training run over NLI-like rows and tagging rows, made anew at will."""

    def __init__(self, tokenizer: Any, folder: Path, dropout: float = 0.0, **settings: Any) -> None:
        self.training = Training(**{**BASE, **settings})
        self.encoder = create(TINY_CONFIG, tokenizer, seed=5)
        self.encoder.set_dropout(dropout)
        self.checkpoints = Checkpoints(folder, QUIET)
        self.tasks, heads = [], {}
        torch.manual_seed(1)
        for name in ("classification", "tagging"):
            kind = kind_of(name)
            task, examples = examples_of(name)
            rows = as_rows(kind.encode(examples, task, tokenizer, 40))
            heads[name] = kind.head(task, self.encoder, dropout)
            ids: Callable[[Any], list[str]] = lambda indices: [f"row {i}" for i in indices]  # noqa: E731
            self.tasks.append(TrainTask(name, kind, name, rows, kind.widths(rows), ids))
        self.model = Model(self.encoder, heads).train()
        self.engine = PlainEngine(self.model, self.training, torch.device("cpu"))

    def run(self, steps: int = 12, evaluate: Any = None, only: int | None = None) -> Progress:
        tasks = self.tasks if only is None else [self.tasks[only]]
        order = Order(tuple(len(t.rows) for t in tasks), (1.0,) * len(tasks), self.training.batch_size, 7)
        ids = self.encoder.token_ids()
        progress, self.chosen = train(
            self.engine, tasks, order, steps, self.training, ids, 7, evaluate, self.checkpoints, QUIET, "test"
        )
        return progress

    def weights(self) -> dict[str, torch.Tensor]:
        return self.engine.weights()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 0.0) -> bool:
    return set(a) == set(b) and all(torch.allclose(a[k], b[k], rtol=0, atol=tolerance) for k in a)


@pytest.mark.parametrize("budget", [16, 60, 200])
def test_a_token_budget_does_not_change_the_training(tokenizer: Any, tmp_path: Path, budget: int) -> None:
    whole = Bench(tokenizer, tmp_path / "a", micro_tokens=10**6)
    cut = Bench(tokenizer, tmp_path / "b", micro_tokens=budget)
    first, second = whole.run(), cut.run()
    assert first.loss_sum == pytest.approx(second.loss_sum, rel=1e-5)
    assert same(whole.weights(), cut.weights(), 2e-5)
    assert second.padded_tokens <= first.padded_tokens


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(tokenizer: Any, tmp_path: Path, dropout: float) -> None:
    calls = iter(range(100))
    scores = lambda: {"score": [1.0, 3.0, 2.0][next(calls) % 3]}  # noqa: E731
    whole = Bench(tokenizer, tmp_path / "a", dropout)
    finished = whole.run(evaluate=scores)
    calls = iter(range(100))
    broken = Bench(tokenizer, tmp_path / "b", dropout)
    original, count = broken.engine.step, 0

    def dying(rate: float) -> None:
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        original(rate)

    broken.engine.step = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run(evaluate=scores)
    calls = iter(range(1, 100))
    resumed = Bench(tokenizer, tmp_path / "b", dropout)
    progress = resumed.run(evaluate=scores)
    assert same(resumed.weights(), whole.weights())
    assert (progress.step, progress.tokens, progress.best_step) == (12, finished.tokens, 8)
    assert progress.loss_sum == finished.loss_sum and progress.history == finished.history
    assert same(dict(resumed.chosen), dict(whole.chosen))


def test_the_best_weights_on_dev_are_chosen_and_patience_ends(tokenizer: Any, tmp_path: Path) -> None:
    bench = Bench(tokenizer, tmp_path, evaluate_every=2, patience=2, checkpoint_every=100)
    seen: list[dict[str, torch.Tensor]] = []
    scores = iter([5.0, 9.0, 8.0, 9.0, 99.0])

    def evaluate() -> dict[str, float]:
        seen.append(bench.weights())
        return {"score": next(scores)}

    progress = bench.run(steps=20, evaluate=evaluate)
    assert (progress.step, progress.best_step, progress.stopped) == (8, 4, True)
    assert same(dict(bench.chosen), seen[1]) and not same(seen[1], seen[2])


def test_a_signal_writes_a_checkpoint_and_stops(tokenizer: Any, tmp_path: Path) -> None:
    bench = Bench(tokenizer, tmp_path, checkpoint_every=100)
    original = bench.engine.step

    def signalled(rate: float) -> None:
        original(rate)
        signal.raise_signal(signal.SIGTERM)

    bench.engine.step = signalled  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="SIGTERM.*after step 1 of 12"):
        bench.run()
    found = bench.checkpoints.read_newest()
    assert found is not None and found.progress.step == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(tokenizer: Any, tmp_path: Path, poison: float) -> None:
    bench = Bench(tokenizer, tmp_path)
    bench.run(steps=4, only=0)
    before = bench.weights()
    with torch.no_grad():
        kept = bench.model.head("classification").out.bias.clone()
        bench.model.head("classification").out.bias.fill_(poison)
    again = Bench(tokenizer, tmp_path)
    again.engine.load = lambda *a: None  # type: ignore[method-assign]
    with torch.no_grad():
        again.model.head("classification").out.bias.fill_(poison)
    state = again.weights()
    with pytest.raises(TrainingError, match=r"step 4 of classification.*row \d+"):
        again.run(steps=6, only=0)
    after = again.weights()
    assert all(torch.equal(state[k].nan_to_num(0), after[k].nan_to_num(0)) for k in state)
    assert before.keys() == state.keys() and kept.isfinite().all()


def test_ids_of_samples_are_looked_up_for_messages_alone(tokenizer: Any, tmp_path: Path) -> None:
    """Of a mixture of many languages that reads files."""
    bench = Bench(tokenizer, tmp_path, checkpoint_every=100)
    asked: list[list[int]] = []

    def look_up(rows: Any) -> list[str]:
        asked.append(list(rows))
        return [f"row {row}" for row in rows]

    bench.tasks = [replace(task, sample_ids=look_up) for task in bench.tasks]
    bench.run(steps=4)
    assert asked == []
    with torch.no_grad():
        for head in bench.model.heads.values():
            head.out.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="samples row"):
        bench.run(steps=5)
    assert len(asked) == 1


def test_damaged_checkpoints_are_passed_over(tokenizer: Any, tmp_path: Path) -> None:
    bench = Bench(tokenizer, tmp_path)
    for step in (3, 6):
        bench.checkpoints.write(Snapshot(bench.weights(), {}, {}, Progress(step=step)))
    newest = sorted(tmp_path.glob("checkpoint-*"))[-1] / "weights.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    found = bench.checkpoints.read_newest()
    assert found is not None and found.progress.step == 3
    assert found.progress.best_score == float("-inf")
    assert [p.name for p in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-00000003"]


def test_only_the_newest_checkpoints_are_kept(tokenizer: Any, tmp_path: Path) -> None:
    bench = Bench(tokenizer, tmp_path, checkpoint_every=1)
    bench.run(steps=6)
    assert [p.name[-1] for p in sorted(tmp_path.glob("checkpoint-*"))] == ["4", "5"]


def test_learning_rate() -> None:
    rates = [learning_rate_factor(step, 10, 0.2) for step in range(1, 11)]
    assert rates[:2] == [0.5, 1.0] and rates[2] == pytest.approx(8 / 9)
    assert rates[-1] == pytest.approx(1 / 9) and all(a >= b for a, b in itertools.pairwise(rates[1:]))
    assert learning_rate_factor(1, 10, 0.0) == 1.0
    assert learning_rate_factor(2, 10, 0.0, 4) == 0.5 and learning_rate_factor(10, 10, 0.9, 4) == pytest.approx(1 / 7)
    assert learning_rate_factor(10, 10, 0.0, 40) == 1.0


def test_no_decay_on_biases_and_norms(tokenizer: Any, tmp_path: Path) -> None:
    bench = Bench(tokenizer, tmp_path)
    named = dict(bench.model.named_parameters())
    groups = parameter_groups(named, Training(learning_rate=1e-3, head_learning_rate=5e-3, weight_decay=0.1))
    where = {id(p): g for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    for name, parameter in named.items():
        group = where[id(parameter)]
        assert group["weight_decay"] == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1), name
        assert group["lr"] == (5e-3 if name.startswith("heads.") else 1e-3)


def test_collapse() -> None:
    assert "100.0 %" in collapse(["a"] * 50)
    assert collapse(["a"] * 40 + ["b"] * 10) == "" and collapse(["a"] * 3) == ""
    assert collapse([np.array([1])] * 50) == ""


def test_sample_ids_are_looked_up_only_for_a_step_that_fails(tokenizer: Any, tmp_path: Path) -> None:
    bench = Bench(tokenizer, tmp_path)
    asked: list[Any] = []
    for task in bench.tasks:
        object.__setattr__(task, "sample_ids", lambda rows: asked.append(rows) or ["row 0"])
    bench.run()
    assert not asked
    broken = Bench(tokenizer, tmp_path / "nan", learning_rate=1e30)
    with pytest.raises(TrainingError, match="samples row"):
        broken.run()
