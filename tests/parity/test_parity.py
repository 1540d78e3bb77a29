"""One process, several ranks, ZeRO 1 to 3 with offload: the same losses, norms and weights, from each other's
checkpoints too. Few launches with many cases each, since imports take most of the time."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from effstilts.engine.ranks import ALONE
from tests.parity.worker import Case, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]

SHARDED = ("zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")
ADAPTED = {"method": {"name": "lora", "rank": 2}, "steps": 10}
ADAPTIVE = {"method": {"name": "adalora", "rank": 2, "allocate_every": 2}}
ROW_BY_ROW, AT_ONCE = {"micro_tokens": 1}, {"micro_tokens": 100_000}


def launch(cases: list[Case], world: int, out: Path) -> None:
    """Runs the cases on `world` gloo ranks."""
    (out / "cases.json").write_text(json.dumps([asdict(case) for case in cases]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(world), "--master_port", str(port),
        "-m", "tests.parity.worker", str(out / "cases.json"), str(out),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=480, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def out(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with everything that was trained: by one process, by two ranks, by four, in turn."""
    out = tmp_path_factory.mktemp("parity")
    tokenizer.save_pretrained(out / "tokenizer")

    def case(name: str, engine: str = "", **settings: Any) -> Case:
        return Case(name, str(out / "tokenizer"), engine, **settings)

    def again(name: str, stopped: str, engine: str = "", **settings: Any) -> Case:
        shutil.copytree(out / stopped, out / f"{name}.work")
        return case(name, engine, **settings)

    for alone in (
        case("one"),
        case("one row by row", training=ROW_BY_ROW),
        case("one at once", training=AT_ONCE),
        case("one adapted", **ADAPTED),
        case("one adaptive", **ADAPTIVE),
        case("one adaptive stopped", stop=12, **ADAPTIVE),
        case("one bf16", training={"precision": "bf16"}),
        case("one stopped", stop=12),
    ):
        run(alone, ALONE, out)
    launch(
        [
            case("two"),
            *(case(f"two {engine}", engine) for engine in SHARDED),
            case("two row by row", training=ROW_BY_ROW),
            case("two zero3 at once", "zero3", training=AT_ONCE),
            *(case(f"two {engine} adapted", engine, **ADAPTED) for engine in ("", "zero2", "zero3")),
            case("two adaptive", **ADAPTIVE),
            again("one then two adaptive", "one adaptive stopped.work", **ADAPTIVE),
            *(case(f"two {engine} bf16", engine, training={"precision": "bf16"}) for engine in ("zero2", "zero3")),
            again("one then two", "one stopped.work"),
            *(again(f"one then two {engine}", "one stopped.work", engine) for engine in ("zero1", "zero3")),
            *(case(f"two {engine} stopped", engine, stop=12) for engine in ("", "zero1", "zero3")),
        ],
        2,
        out,
    )
    for engine in ("", "zero1", "zero3"):
        run(again(f"two {engine} then one", f"two {engine} stopped.work"), ALONE, out)
    launch([again("two zero3 then four zero3", "two zero3 stopped.work", "zero3")], 4, out)
    return out


def differences(out: Path, first: str, second: str) -> dict[str, float]:
    """The largest difference of weights, losses and gradient norms between two trainings."""
    weights = [load_file(str(out / f"{name}.safetensors")) for name in (first, second)]
    facts = [json.loads((out / f"{name}.json").read_text()) for name in (first, second)]
    assert weights[0].keys() == weights[1].keys() and len(weights[0]) > 5
    assert all(tensor.numel() > 0 for tensor in weights[1].values())
    assert facts[0]["tokens"] == facts[1]["tokens"]
    common = min(len(f["steps"]) for f in facts)
    steps = list(zip(*(f["steps"][-common:] for f in facts), strict=True))
    assert steps
    return {
        "weights": max(float((weights[0][k] - weights[1][k]).abs().max()) for k in weights[0]),
        "mean loss": abs(facts[0]["mean_loss"] - facts[1]["mean_loss"]),
        **{what: max(abs(a[what] - b[what]) for a, b in steps) for what in ("loss", "norm")},
        "score": max(abs(a["score"] - b["score"]) for a, b in zip(*(f["history"] for f in facts), strict=True)) / 100,
    }


def assert_same(out: Path, first: str, second: str, tolerance: float = 1e-5) -> None:
    found = differences(out, first, second)
    assert max(found.values()) < tolerance, found


def test_training_moves_the_weights(out: Path) -> None:
    """What the other tests compare is the outcome of real training."""
    one, stopped = (load_file(str(out / name)) for name in ("one.safetensors", "one adapted.safetensors"))
    steps = json.loads((out / "one.json").read_text())["steps"]
    assert len(steps) == 20 and sum(s["loss"] for s in steps[-3:]) < sum(s["loss"] for s in steps[:3])
    assert set(one) != set(stopped) and any("lora_" in name for name in stopped)
    assert any(float(tensor.std()) > 0 for name, tensor in stopped.items() if "lora_B" in name)


@pytest.mark.parametrize("name", ["two", *(f"two {engine}" for engine in SHARDED)])
def test_twenty_steps_are_those_of_one_process(out: Path, name: str) -> None:
    assert_same(out, "one", name)


@pytest.mark.parametrize("name", ["one row by row", "one at once", "two row by row", "two zero3 at once"])
def test_accumulation_and_token_budget_do_not_matter(out: Path, name: str) -> None:
    found = differences_of_training(out, "one", name)
    assert max(found.values()) < 2e-5, found


def differences_of_training(out: Path, first: str, second: str) -> dict[str, float]:
    return {key: value for key, value in differences(out, first, second).items() if key != "score"}


@pytest.mark.parametrize("engine", ["", "zero2", "zero3"])
def test_adapters_train_the_same(out: Path, engine: str) -> None:
    assert_same(out, "one adapted", f"two {engine} adapted")


@pytest.mark.parametrize("name", ["two adaptive", "one then two adaptive"])
def test_the_rank_budget_does_not_depend_on_the_number_of_ranks(out: Path, name: str) -> None:
    """Also where the checkpoint of one process, with importance and mask, is gone on with by two."""
    assert_same(out, "one adaptive", name)
    weights = load_file(str(out / f"{name}.safetensors"))
    directions = torch.cat([tensor.flatten() for key, tensor in weights.items() if "lora_E" in key])
    assert int((directions != 0).sum()) == 2 * len([key for key in weights if "lora_E" in key])


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_bf16_stays_near(out: Path, engine: str) -> None:
    """ZeRO's working weights are bf16 themselves, those of the plain engine fp32: near, not equal."""
    found = differences(out, "one bf16", f"two {engine} bf16")
    assert found["mean loss"] < 2e-2 and found["weights"] < 2e-2, found


@pytest.mark.parametrize("name", ["one then two", "one then two zero1", "one then two zero3"])
def test_one_process_checkpoint_goes_on_over_two_ranks(out: Path, name: str) -> None:
    assert_same(out, "one", name)


@pytest.mark.parametrize("engine", ["", "zero1", "zero3"])
def test_two_ranks_checkpoint_goes_on_in_one_plain_process(out: Path, engine: str) -> None:
    assert_same(out, "one", f"two {engine} then one")


def test_two_ranks_checkpoint_goes_on_over_four(out: Path) -> None:
    assert_same(out, "one", "two zero3 then four zero3")


def test_moments_of_a_sharded_checkpoint_are_the_plain_ones(out: Path) -> None:
    """The optimizer's state at step 10, name by name."""
    states = [
        load_file(str(out / f"{name} stopped.work" / "checkpoint-00000010" / "moments.safetensors"))
        for name in ("one", "two zero3")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.allclose(states[0][k].float(), states[1][k].float(), atol=1e-5) for k in states[0])
