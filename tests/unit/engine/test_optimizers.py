"""bitsandbytes' AdamW beside torch's; its state through a checkpoint; what a machine cannot do, said first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from effstilts.engine.checkpoint import Checkpoints, Progress, Snapshot
from effstilts.engine.choice import check_spread
from effstilts.engine.optimizers import check_optimizer, make_optimizer, state_of
from effstilts.engine.plain import Model, PlainEngine
from effstilts.errors import MissingDependencyError, RecipeError
from effstilts.identity import of_training
from effstilts.kinds import kind_of
from effstilts.log import Log
from effstilts.model.opening import create
from effstilts.recipe import Method, Spread, Training
from tests.conftest import TINY_CONFIG
from tests.unit.kinds.test_kinds import as_rows, examples_of

CPU = torch.device("cpu")


def engine_of(tokenizer: Any, optimizer: Any) -> tuple[PlainEngine, Any]:
    """An engine with tensors on both sides of bitsandbytes' limit of 4,096 entries, and its step."""
    kind = kind_of("classification")
    task, examples = examples_of("classification")
    encoder = create({**TINY_CONFIG, "hidden_size": 64}, tokenizer, seed=1)
    torch.manual_seed(2)
    model = Model(encoder, {"h": kind.head(task, encoder, 0.0)}).train()
    rows = as_rows(kind.encode(examples, task, tokenizer, 40))
    arrays = kind.collate(rows, [0, 1, 2, 3], torch.zeros(4).numpy().astype("uint64"), encoder.token_ids(), 0.15)
    engine = PlainEngine(model, Training(learning_rate=1e-3, optimizer=optimizer), CPU)

    def step() -> float:
        loss = engine.forward_backward(kind, "h", arrays, 0.25, True)
        engine.clip(1.0)
        engine.step(1.0)
        return loss

    return engine, step


def moved(tokenizer: Any, optimizer: str, steps: int = 12) -> tuple[list[float], torch.Tensor]:
    engine, step = engine_of(tokenizer, optimizer)
    before = torch.cat([t.flatten() for t in engine.weights().values()])
    losses = [step() for _ in range(steps)]
    return losses, torch.cat([t.flatten() for t in engine.weights().values()]) - before


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_they_train_as_torchs_does(tokenizer: Any) -> None:
    """With fp32 moments nearly to the digit, with 8-bit ones the same way and the same distance."""
    pytest.importorskip("bitsandbytes")
    losses, expected = moved(tokenizer, "adamw")
    assert losses[-1] < 0.9 * losses[0]
    for name, far, angle in (("paged_adamw", 1e-3, 0.9999), ("adamw8bit", 0.2, 0.95)):
        found_losses, found = moved(tokenizer, name)
        assert float((found - expected).norm() / expected.norm()) < 2 * far + 2 * (1 - angle)
        assert float(torch.cosine_similarity(found, expected, dim=0)) > angle
        assert found_losses[-1] == pytest.approx(losses[-1], abs=far)


def test_moments_take_a_byte_but_for_embeddings_and_small_tensors(tokenizer: Any) -> None:
    pytest.importorskip("bitsandbytes")
    engine, step = engine_of(tokenizer, "adamw8bit")
    step()
    moments = engine.moments()
    for name, parameter in engine.weights().items():
        small = "embeddings" in name or parameter.numel() < 4096
        assert moments[f"{name}.state1"].dtype == (torch.float32 if small else torch.uint8), name
        assert (f"{name}.absmax1" in moments) != small
    assert any(tensor.dtype == torch.uint8 for tensor in moments.values())


def test_a_checkpoint_of_quantised_moments_goes_on_bit_for_bit(tokenizer: Any, tmp_path: Path) -> None:
    """Through the files, which are safetensors: uint8 blocks, their scales, the count of updates."""
    pytest.importorskip("bitsandbytes")
    whole, step = engine_of(tokenizer, "adamw8bit")
    for _ in range(9):
        step()
    first, step = engine_of(tokenizer, "adamw8bit")
    for _ in range(4):
        step()
    checkpoints = Checkpoints(tmp_path, Log(quiet=True))
    checkpoints.write(Snapshot(first.weights(), first.moments(), {}, Progress(step=4)))
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    read = checkpoints.read_newest()
    assert read is not None
    again, step = engine_of(tokenizer, "adamw8bit")
    again.load(read.weights, read.moments, 4)
    for _ in range(5):
        step()
    expected, found = ({**e.weights(), **e.moments()} for e in (whole, again))
    assert expected.keys() == found.keys() and all(torch.equal(found[n], t) for n, t in expected.items())


def test_a_parameter_without_gradient_keeps_no_state() -> None:
    pytest.importorskip("bitsandbytes")
    used, unused = (torch.nn.Parameter(torch.zeros(64, 64)) for _ in range(2))
    group = {"params": [used, unused], "lr": 1e-3, "weight_decay": 0.01}
    optimizer = make_optimizer([group], Training(optimizer="adamw8bit"))
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert {name.split(".")[0] for name in state_of(optimizer, {"used": used, "unused": unused})} == {"used"}


def test_what_a_machine_cannot_do_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    eight, paged = Training(optimizer="adamw8bit"), Training(optimizer="paged_adamw8bit")
    with pytest.raises(RecipeError, match="engine zero shards the fp32 moments of adamw, it has no adamw8bit"):
        check_spread(Spread(name="zero"), eight, Method())
    with pytest.raises(RecipeError, match="pages a GPU's memory; this machine trains on the CPU: use adamw8bit"):
        check_optimizer(paged, CPU, False)
    with pytest.raises(RecipeError, match="use adamw$"):
        check_optimizer(Training(optimizer="paged_adamw"), CPU, False)
    bnb = pytest.importorskip("bitsandbytes")
    check_optimizer(eight, CPU, False)

    def broken(self: Any, closure: Any = None) -> None:
        raise RuntimeError("libbitsandbytes_cpu.so: no such symbol\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(bnb.optim.AdamW, "step", broken)
        with pytest.raises(
            RecipeError, match=r"does not run adamw8bit on cpu: libbitsandbytes_cpu.so: no such symbol$"
        ):
            check_optimizer(eight, CPU, False)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match=r"adamw8bit needs bitsandbytes: pip install 'effstilts\[quant\]'"):
        check_optimizer(eight, CPU, False)


def test_the_default_is_in_no_key() -> None:
    assert "optimizer" not in of_training(Training()) and of_training(Training(optimizer="adamw8bit"))["optimizer"]
