"""What a launcher says, how a batch is dealt out, how a DeepSpeed file and the recipe are made one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effstilts.data.batches import cut, share
from effstilts.engine import zero_config
from effstilts.engine.ranks import ALONE, Launch, launch_of
from effstilts.engine.zero_config import resolve, shipped
from effstilts.errors import MissingDependencyError, RecipeError
from effstilts.recipe import Spread, Training

ADDRESS = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def deepspeed_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200), st.integers(1, 5))
def test_every_row_is_dealt_out_once(lengths: list[int], budget: int, ranks: int) -> None:
    shares = share(lengths, budget, 5, ranks)
    assert len(shares) == ranks
    assert sorted(i for hand in shares for part in hand for i in part) == list(range(len(lengths)))
    for part in (part for hand in shares for part in hand):
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= budget
    sums = [sum(lengths[i] for part in hand for i in part) for hand in shares]
    assert max(sums) - min(sums) <= max(lengths)


def test_one_rank_has_the_cut_itself() -> None:
    lengths = [3, 9, 9, 1, 4]
    assert share(lengths, 20, 2, 1) == [cut(lengths, 20, 2)]


def test_launch() -> None:
    assert launch_of({}) == Launch(0, 1, 0)
    assert launch_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **ADDRESS}) == Launch(3, 4, 1)
    assert launch_of({"RANK": "3", "WORLD_SIZE": "4", **ADDRESS}, local_rank=2).local_rank == 2
    # A job array's processes share the work and nothing else: one device each, without a launcher's address.
    assert launch_of({"RANK": "3", "WORLD_SIZE": "4"}, connects=False) == Launch(3, 4, 0)
    for wrong in ({"RANK": "x"}, {"RANK": "2", "WORLD_SIZE": "2", **ADDRESS}, {"RANK": "0", "WORLD_SIZE": "2"}):
        with pytest.raises(RecipeError):
            launch_of(wrong)


def test_one_process_waits_for_nothing() -> None:
    assert ALONE.leads and ALONE.tell(lambda: [1]) == [1] and ALONE.totals([2.5]) == [2.5]


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"])
def test_a_shipped_file_fits_any_recipe(name: str) -> None:
    config = resolve(Spread(config=name), Training(precision="bf16", clip_norm=0.5), 4, 768)
    assert "auto" not in json.dumps(config)
    assert config["zero_optimization"]["stage"] == int(name[4]) and config["bf16"]["enabled"] is True
    assert (config["gradient_clipping"], config["train_batch_size"]) == (0.5, 4)
    assert ("offload_optimizer" in config["zero_optimization"]) == name.endswith("offload")


def test_the_files_at_the_top_are_the_packages() -> None:
    root = Path(__file__).parents[3]
    assert set(shipped()) == {"zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"}
    for name, path in shipped().items():
        assert (root / "ds_configs" / f"{name}.json").read_text() == path.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": {"type": "AdamW"}}, "'optimizer' is the recipe's"),
        ({"scheduler": {}}, "'scheduler' is the recipe's"),
        ({"train_batch_size": 64}, "train_batch_size is 64, but the recipe's training.batch_size asks for 32"),
        ({"gradient_clipping": 5.0}, "training.clip_norm"),
        ({"bf16": {"enabled": True}}, "training.precision"),
        ({"fp16": {"enabled": True}}, "fp16.enabled is not supported"),
        ({"gradient_accumulation_steps": 4}, "training.micro_tokens"),
        ({"zero_optimization": {"stage": 0}}, "must be 1, 2 or 3"),
        ({"zero_optimization": {"stage": True}}, "must be 1, 2 or 3"),
        ({"gradient_cliping": 0.5}, "'gradient_cliping' is not supported .did you mean 'gradient_clipping'"),
        ({"torch_autocast": {"enabled": True}}, "'torch_autocast' is not supported"),
        ({"communication_data_type": "fp16"}, "'communication_data_type' is not supported"),
        ({"zero_optimization": {"stage": 2, "zenflow": {"topk_ratio": 0.1}}}, "changes the numbers"),
        ({"prescale_gradients": True}, "'prescale_gradients' is not supported"),
        ({"steps_per_print": "auto"}, 'steps_per_print cannot be "auto"'),
        ({"bf16": {"bf16_master_weights_and_grads": True}}, "bf16.bf16_master_weights_and_grads is not supported"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_gradients": True}}, "changes the numbers"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "nvme"),
        ({"zero_optimization": 3}, "no JSON object"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}, **change}))
    with pytest.raises(RecipeError, match=message):
        resolve(Spread(config=str(path)), Training(), 2, 768)


def test_what_is_off_or_only_reports_is_let_be(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    off = {"prescale_gradients": False, "elasticity": {"enabled": False}, "communication_data_type": "fp32"}
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}, "timers": {}, "wall_clock_breakdown": True, **off}))
    assert resolve(Spread(config=str(path)), Training(), 2, 768)["zero_optimization"]["stage"] == 2


TRAINER = """
import json, sys
from types import SimpleNamespace
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
for path in sys.argv[1:]:
    config = HfTrainerDeepSpeedConfig(path)
    arguments = TrainingArguments(output_dir="out", bf16=False, use_cpu=True)
    config.trainer_config_process(arguments)
    sizes = SimpleNamespace(hidden_size=32, hidden_sizes=None, text_config=None)
    config.trainer_config_finalize(arguments, SimpleNamespace(config=sizes), 10)
    assert "auto" not in json.dumps(config.config), path
"""


@pytest.mark.slow
def test_the_trainer_of_transformers_fills_in_every_auto(tmp_path: Path) -> None:
    """In a process of its own: accelerate is imported by it, and stays."""
    pytest.importorskip("deepspeed")
    paths = map(str, shipped().values())
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    done = subprocess.run([sys.executable, "-c", TRAINER, *paths], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'zero3'"):
        resolve(Spread(config="zeero3"), Training(), 2, 768)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(RecipeError, match="not valid JSON"):
        resolve(Spread(config=str(tmp_path / "broken.json")), Training(), 2, 768)


def test_without_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_config.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"effstilts\[zero\]") as raised:
        resolve(Spread(config="zero2"), Training(), 1, 8)
    assert raised.value.exit_code == 7
