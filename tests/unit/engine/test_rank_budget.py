"""AdaLoRA's budget: peft's RankAllocator is the oracle; what is kept survives a checkpoint and a saved adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effstilts.engine.choice import check_spread
from effstilts.engine.plain import Model, PlainEngine
from effstilts.engine.rank_budget import RankBudget, Schedule
from effstilts.errors import RecipeError, TrainingError
from effstilts.kinds import kind_of
from effstilts.model import adapters
from effstilts.model.encoder import Encoder
from effstilts.model.opening import create
from effstilts.recipe import Method, Spread, Training
from effstilts.recipe_reader import check_method
from tests.conftest import TINY_CONFIG
from tests.unit.model.test_encoder import batch

STEPS = 24
METHOD = Method("adalora", rank=2, initial_rank=5, allocate_every=3, budget_warmup=0.2, budget_settle=0.25)


def adapted(tokenizer: Any) -> Encoder:
    encoder = create(TINY_CONFIG, tokenizer, seed=1)
    torch.manual_seed(3)
    adapters.attach(encoder, METHOD)
    return encoder


def trained(encoder: Encoder, steps: int, after: Any, regularise: bool = False) -> None:
    """Steps of AdamW; `after(step)` while the gradients are there."""
    own = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=3e-2)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        encoder(**batch(encoder))[:, 0, :5].sum().backward()
        optimizer.step()
        after(step)


def test_the_same_directions_as_peft_keeps(tokenizer: Any) -> None:
    from peft.tuners.adalora.layer import RankAllocator

    ours, theirs = adapted(tokenizer), adapted(tokenizer)
    budget = RankBudget(dict(ours.named_parameters()), METHOD, STEPS)
    config = theirs.backbone.peft_config["default"]
    schedule = budget.schedule
    config.total_step, config.tinit, config.tfinal = STEPS, schedule.warm, schedule.settle
    config.deltaT, config.target_r = METHOD.allocate_every, METHOD.rank
    assert (schedule.warm, schedule.settle) == (5, 6)
    theirs.backbone.base_model.rankallocator = RankAllocator(theirs.backbone.base_model.model, config, "default")
    kept: list[list[int]] = []

    def compare(step: int) -> None:
        """Both are moved by equal gradients, so one difference stays."""
        budget.update(step)
        kept.append(list(adapters.ranks(ours).values()))

    trained(ours, STEPS, compare)
    expected: list[list[int]] = []

    def oracle(step: int) -> None:
        theirs.backbone.base_model.update_and_allocate(step)
        expected.append(list(adapters.ranks(theirs).values()))

    trained(theirs, STEPS, oracle)
    assert kept == expected
    weights = [dict(e.named_parameters()) for e in (ours, theirs)]
    assert all(torch.allclose(weights[0][n], p, atol=1e-6) for n, p in weights[1].items())
    layers = len(kept[-1])
    assert sum(kept[3]) == 5 * layers and sum(kept[-1]) == 2 * layers and len(set(kept[-1])) > 1


def test_the_regulariser_is_pefts(tokenizer: Any) -> None:
    encoder = adapted(tokenizer)
    named = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    RankBudget(named, METHOD, STEPS).add_regulariser()
    # peft adds it to the `loss` of a model's output.
    total = torch.zeros(())
    frames = [(n, p) for n, p in named.items() if "lora_A" in n or "lora_B" in n]
    for name, p in frames:
        covariance = p @ p.T if "lora_A" in name else p.T @ p
        total = total + torch.norm(covariance - torch.eye(len(covariance)), p="fro") / len(frames)
    gradients = torch.autograd.grad(METHOD.orthogonality * total, [p for _, p in frames])
    for (_, parameter), expected in zip(frames, gradients, strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, expected, atol=1e-7)
    assert all(p.grad is None for n, p in named.items() if "lora_E" in n)


@given(steps=st.integers(1, 200), warm=st.floats(0, 0.9), share=st.floats(0, 0.99), every=st.integers(1, 50))
def test_a_budget_only_falls_and_ends_where_it_should(steps: int, warm: float, share: float, every: int) -> None:
    named = {
        f"encoder.l.{part}.default": torch.nn.Parameter(torch.zeros(shape))
        for part, shape in {"lora_A": (6, 4), "lora_B": (4, 6), "lora_E": (6, 1)}.items()
    }
    settle = min(share, 0.99 - warm)
    method = Method("adalora", rank=4, budget_warmup=warm, budget_settle=max(settle, 0.0), allocate_every=every)
    schedule: Schedule = RankBudget(named, method, steps).schedule
    budgets = [schedule.budget(step) for step in range(1, steps + 1)]
    assert budgets == sorted(budgets, reverse=True) and budgets[-1] == 4 and set(budgets) <= {4, 5, 6}
    assert any(schedule.allocates(step) and schedule.budget(step) == 4 for step in range(1, steps + 1))


def engine_of(tokenizer: Any) -> tuple[PlainEngine, Any]:
    from tests.unit.kinds.test_kinds import as_rows, examples_of

    kind = kind_of("classification")
    task, examples = examples_of("classification")
    encoder = adapted(tokenizer)
    torch.manual_seed(2)
    model = Model(encoder, {"h": kind.head(task, encoder, 0.0)}).train()
    rows = as_rows(kind.encode(examples, task, tokenizer, 40))
    arrays = kind.collate(rows, [0, 1, 2, 3], torch.zeros(4).numpy().astype("uint64"), encoder.token_ids(), 0.15)
    budget = RankBudget(dict(model.named_parameters()), METHOD, STEPS)
    engine = PlainEngine(model, Training(learning_rate=1e-2), torch.device("cpu"), budget=budget)

    def step() -> None:
        engine.forward_backward(kind, "h", arrays, 0.25, True)
        engine.clip(1.0)
        engine.step(1.0)

    return engine, step


@pytest.mark.parametrize("stop", [2, 10, 21])
def test_a_checkpoint_goes_on_bit_for_bit(tokenizer: Any, stop: int) -> None:
    """Before, between and after the allocations."""
    whole, step = engine_of(tokenizer)
    for _ in range(STEPS):
        step()
    first, step = engine_of(tokenizer)
    for _ in range(stop):
        step()
    again, step = engine_of(tokenizer)
    again.load(first.weights(), first.moments(), stop)
    for _ in range(STEPS - stop):
        step()
    expected, found = ({**e.weights(), **e.moments()} for e in (whole, again))
    assert expected.keys() == found.keys() and all(torch.equal(found[n], t) for n, t in expected.items())


def test_memory_that_runs_out_after_the_weights_moved_is_no_step_to_redo(tokenizer: Any) -> None:
    engine, step = engine_of(tokenizer)
    step()

    def short(update: int) -> None:
        raise torch.OutOfMemoryError("out of memory")

    engine._budget.update = short  # type: ignore[union-attr, method-assign]
    with pytest.raises(TrainingError, match="in the middle of an update"):
        step()


def test_a_saved_adapter_holds_the_kept_directions_alone(tokenizer: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    encoder = adapted(tokenizer)
    budget = RankBudget(dict(encoder.named_parameters()), METHOD, STEPS)
    trained(encoder, STEPS, budget.update)
    with torch.no_grad():
        out = encoder.eval()(**batch(encoder))
        layer = next(n for n, _ in encoder.named_parameters() if n.endswith("lora_E.default"))
        dict(encoder.named_parameters())[layer].zero_()
        out = encoder(**batch(encoder))
    kept = adapters.ranks(encoder)
    adapters.save(encoder, tmp_path / "a")
    saved = load_file(str(tmp_path / "a" / "adapter_model.safetensors"))
    assert {n: t.shape[0] for n, t in saved.items() if "lora_A" in n} == {
        f"base_model.model.{n}.lora_A": rank for n, rank in kept.items()
    }
    assert 0 in kept.values() and max(kept.values()) > METHOD.rank
    plain = create(TINY_CONFIG, tokenizer, seed=1)
    adapters.load_merged(plain, tmp_path / "a")
    with torch.no_grad():
        assert torch.allclose(plain.eval()(**batch(plain)), out, atol=1e-5)


def test_what_adalora_cannot_do_is_said() -> None:
    with pytest.raises(RecipeError, match="adalora weighs whole gradients .* which zero shards"):
        check_spread(Spread(name="zero"), Training(), METHOD)
    for bad in (
        Method("adalora", rank=8, initial_rank=8),
        Method("adalora", budget_warmup=0.5, budget_settle=0.5),
        Method("adalora", allocate_every=0),
    ):
        with pytest.raises(RecipeError, match="m: adalora"):
            check_method(bad, "m")
