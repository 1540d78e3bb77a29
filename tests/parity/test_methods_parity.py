"""Every method under ZeRO on two ranks: the losses, norms and weights of one process."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from effstilts.engine.ranks import ALONE
from tests.parity.test_parity import assert_same, launch
from tests.parity.worker import Case, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"),
]

METHODS = ("rslora", "dora", "loraplus", "vera", "ia3", "bitfit", "qlora", "lora-int8")
# int8 under ZeRO-3 is refused (effstilts.engine.choice); the others differ between the stages in nothing of their own.
SHARDED = [
    *((method, "zero3") for method in METHODS if method != "lora-int8"),
    *((method, "zero2") for method in ("dora", "qlora", "lora-int8")),
    ("rslora", "zero1"), ("qlora", "zero1"), ("loraplus", "zero2_offload"), ("lora-int8", "zero2_offload"),
    ("vera", "zero3_offload"), ("qlora", "zero3_offload"),
]  # fmt: skip
SAVING = {"freeze_layers": 1, "gradient_checkpointing": True}
STEPS, STOP = 7, 6


@pytest.fixture(scope="module")
def out(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("methods")
    tokenizer.save_pretrained(out / "tokenizer")

    def case(name: str, method: str, engine: str = "", **settings: Any) -> Case:
        adapter = {} if method == "full" else {"name": method, "rank": 2}
        return Case(name, str(out / "tokenizer"), engine, method=adapter, steps=STEPS, **settings)

    for method in METHODS:
        run(case(f"one {method}", method), ALONE, out)
    run(case("one full saving", "full", training=SAVING), ALONE, out)
    run(case("one qlora stopped", "qlora", stop=STOP), ALONE, out)
    shutil.copytree(out / "one qlora stopped.work", out / "one then two zero3 qlora.work")
    launch(
        [
            *(case(f"two {engine} {method}", method, engine) for method, engine in SHARDED),
            case("two zero3 full saving", "full", "zero3", training=SAVING),
            case("one then two zero3 qlora", "qlora", "zero3"),
            case("two zero3 qlora stopped", "qlora", "zero3", stop=STOP),
        ],
        2,
        out,
    )
    shutil.copytree(out / "two zero3 qlora stopped.work", out / "two zero3 then one qlora.work")
    run(case("two zero3 then one qlora", "qlora"), ALONE, out)
    return out


@pytest.mark.parametrize(("method", "engine"), SHARDED)
def test_a_method_trains_the_same_sharded(out: Path, method: str, engine: str) -> None:
    assert_same(out, f"one {method}", f"two {engine} {method}")


def test_frozen_layers_and_gradient_checkpointing_under_zero3(out: Path) -> None:
    assert_same(out, "one full saving", "two zero3 full saving")
    names = set(load_file(str(out / "one full saving.safetensors")))
    assert any("layer.1." in name for name in names)
    assert not any("layer.0." in name or "embeddings" in name for name in names)


@pytest.mark.parametrize("name", ["one then two zero3 qlora", "two zero3 then one qlora"])
def test_a_checkpoint_on_a_quantised_base_goes_on_at_any_world_size(out: Path, name: str) -> None:
    assert_same(out, "one qlora", name)
    steps = json.loads((out / f"{name}.json").read_text())["steps"]
    assert len(steps) == STEPS - 5  # it went on, and did not begin anew


@pytest.mark.parametrize("method", METHODS)
def test_what_is_trained_moves(out: Path, method: str) -> None:
    """What the others compare is the outcome of training, of the adapter and not of the heads alone."""
    losses = [step["loss"] for step in json.loads((out / f"one {method}.json").read_text())["steps"]]
    weights = load_file(str(out / f"one {method}.safetensors"))
    moved = [
        float((tensor - float(method == "ia3")).abs().max())
        for name, tensor in weights.items()
        if any(part in name for part in ("lora_B", "vera_lambda_b", "ia3_l", "layer.0.output.dense.bias"))
    ]
    assert len(losses) == STEPS and moved and max(moved) > 1e-4, moved
