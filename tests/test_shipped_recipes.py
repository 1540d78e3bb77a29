"""The recipes to copy, run as they are but for a tiny model and a few rows: method, engine and training stay theirs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effstilts.cli import main
from effstilts.recipe_reader import load_recipe
from effstilts.store import Store

CONFIG = """{model_type: xlm-roberta, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
 intermediate_size: 64, max_position_embeddings: 130}"""


def words(name: str, store: Path) -> list[str]:
    sets = [
        f"model={{name: new, vocab_size: 400, config: {CONFIG}}}",
        "mlm={tasks: [{task: synthetic/parallel, rows: 200}], training: {steps: 2}, method: {name: full}}",
        "intermediate.mnli={tasks: [{task: synthetic/mnli, rows: 64}], training: {steps: 2}}",
        "targets=[{task: synthetic/udpos, rows: 64, languages: [qaa], training: {steps: 2}}]",
        "retrieval={tasks: []}",
        "seeds=[1]",
        "data.evaluation_rows=8",
    ]
    return ["run", name, "--store", str(store), "--offline", "--quiet", *(w for s in sets for w in ("--set", s))]


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_adapters(name: str, tmp_path: Path) -> None:
    if name == "qlora":
        pytest.importorskip("bitsandbytes")
    assert main(words(name, tmp_path)) == 0
    adapters = [p.parent.parent.name for p in tmp_path.glob("artefacts/*/adapter/adapter_model.safetensors")]
    assert sorted(a.partition("-")[0] for a in adapters) == ["intermediate", "target", "target"]
    assert len(Store(tmp_path).read_run(name)["cells"]) == 2
    assert load_recipe(name).method.name == name


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_zero3_on_one_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "effstilts", *words("zero3", tmp_path)], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(Store(tmp_path).read_run("zero3")["cells"]) == 2
    assert load_recipe("zero3").engine.zero
