"""R14: what every method saves gives, in a fresh process, the logits it had when it was saved, bit for bit."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from effstilts import phases
from effstilts.cli import main
from effstilts.model.quantised import FORMS
from effstilts.recipe import Method
from effstilts.synthetic import rows
from effstilts.workbench import HEADS_FILE
from tests.faults import reload

METHODS = [
    method
    for method in get_args(get_type_hints(Method)["name"])
    if method not in FORMS or importlib.util.find_spec("bitsandbytes")
]
TARGETS = ("synthetic/xnli", "synthetic/udpos")
RECIPE = """
name: small
model:
  name: new
  vocab_size: 300
  config: {model_type: xlm-roberta, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
           intermediate_size: 64, max_position_embeddings: 66}
training: {batch_size: 8, learning_rate: 1e-2, evaluate_every: 2, evaluate_examples: 8}
data: {evaluation_rows: 8}
mlm: {tasks: [tiny/text], training: {steps: 3}, method: {name: full}}
targets:
  - {task: synthetic/xnli, rows: 32, languages: [qaa], training: {steps: 5}}
  - {task: synthetic/udpos, rows: 32, languages: [qaa], training: {steps: 5}}
tasks:
  tiny/text: {kind: masked_lm, files: {train: "FOLDER/text.{lang}.txt"}, languages: [en], max_length: 32}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor], dict[str, Tensor]]:
    """(folder of the store, logits of the living models as they were saved, logits of a fresh process)."""
    folder = tmp_path_factory.mktemp("reload")
    lines = [row["text"] for row in rows("text", "train", "en", 60)]
    (folder / "text.en.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe, store = folder / "small.yaml", folder / "store"
    recipe.write_text(RECIPE.replace("FOLDER", str(folder)), encoding="utf-8")
    alive: dict[str, Tensor] = {}
    last: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for owner in (phases.opening, phases.adapters):
            original = owner.save

            def save(encoder: Any, place: Path, original: Any = original) -> None:
                last[:] = [encoder]
                original(encoder, place)

            patch.setattr(owner, "save", save)
        original_heads = phases.save_heads

        def save_heads(heads: Any, place: Path) -> None:
            original_heads(heads, place)
            kept = heads if place.name.startswith("target") else {}
            for name, tensor in reload.logits(last[0], kept).items():
                alive[f"{place.name.split('.')[0]}|{name}"] = tensor

        patch.setattr(phases, "save_heads", save_heads)
        for method in METHODS:
            chosen = f"method={{name: {method}, rank: 2}}"
            assert main(["run", str(recipe), "--store", str(store), "--quiet", "--offline", "--set", chosen]) == 0
    for method in METHODS:
        for _, step in reload.steps(store, recipe, method):
            for name in ("hidden", *{part.head for part in step.parts}):
                alive[f"{method}|{step.parts[0].task.name}|as_trained|{name}"] = alive[f"{step.name}|{name}"]
    command = [sys.executable, "-m", "tests.faults.reload", str(store), str(recipe), str(folder / "out"), *METHODS]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-3000:]
    here = reload.all_of(store, recipe, METHODS)
    return store, alive | {k: v for k, v in here.items() if "|as_evaluated|" in k}, load_file(str(folder / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_logits_bit_for_bit(method: str, trained: Any, figures: dict[str, Any]) -> None:
    _, alive, fresh = trained
    compared = [name for name in fresh if name.startswith(f"{method}|")]
    assert len(compared) == 2 * 2 * len(TARGETS)
    for name in compared:
        assert fresh[name].isfinite().all() and fresh[name].std() > 1e-4, name
        # adalora keeps the directions that are left alone: sums of as many terms, in products of another shape.
        exact = method != "adalora" or "|as_evaluated|" in name
        same = torch.equal if exact else functools.partial(torch.allclose, rtol=1e-5, atol=1e-6)
        assert same(alive[name], fresh[name]), f"{name}: {(alive[name] - fresh[name]).abs().max()}"
    for task in {name.split("|")[1] for name in compared}:
        one, other = (fresh[f"{method}|{task}|{form}|hidden"] for form in ("as_trained", "as_evaluated"))
        bound = 0.5 if method in FORMS else 1e-4
        assert (one - other).abs().mean() <= bound * one.abs().mean()
        if method != "full":
            whole = fresh[f"full|{task}|as_trained|hidden"]
            assert not torch.equal(one, whole), "this method's weights are not those of full training"
    figures.update(method=method, logits=sum(fresh[name].numel() for name in compared), bit_equal=len(compared))


@pytest.mark.slow
def test_no_tensor_is_empty_and_heads_are_whole(trained: Any, figures: dict[str, Any]) -> None:
    store, files, tensors = trained[0], 0, 0
    folders = sorted((store / "artefacts").glob("target-*"))
    assert len(folders) == len(METHODS) * len(TARGETS)
    for folder in folders:
        heads = load_file(str(folder / HEADS_FILE))
        assert heads and all(t.dtype == torch.float32 and t.isfinite().all() for t in heads.values())
        assert any(t.std() > 0 for t in heads.values())
        for path in folder.rglob("*.safetensors"):
            with safe_open(str(path), framework="pt") as file:
                assert file.keys()
                for name in file.keys():  # noqa: SIM118 - a file, no mapping
                    tensor = file.get_tensor(name)
                    assert tensor.numel() > 0 and tensor.is_floating_point() and tensor.isfinite().all(), name
                    assert not any(mark in name for mark in ("absmax", "quant_map", "quant_state", "SCB")), name
                    tensors += 1
            files += 1
    figures.update(files=files, tensors=tensors)
