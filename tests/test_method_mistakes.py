"""A method, engine or optimizer that cannot run: one line and the right exit code before phase 1 trains."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from effstilts.cli import main

on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU pages")
needs_bitsandbytes = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="not installed")
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="not installed")


def one_line(
    recipe: Path, store: Path, capsys: pytest.CaptureFixture[str], *sets: str, command: str = "run"
) -> tuple[int, str]:
    """Exit code and the line; nothing was trained, not even the tokenizer."""
    words = [word for text in ("targets=[]", "retrieval={tasks: []}", *sets) for word in ("--set", text)]
    words += ["--quiet"] if command == "run" else []
    code = main([command, str(recipe), "--store", str(store), "--offline", *words])
    out = capsys.readouterr()
    (line,) = out.err.splitlines()
    assert line.startswith("effstilts: ") and bool(out.out) == (command == "plan")
    assert not list(store.glob("artefacts/*"))
    return code, line


@pytest.mark.parametrize(
    ("code", "words", "sets"),
    [
        (4, "intermediate nli.*lora target 'qury' is no linear layer.*did you mean 'query'",
         ["intermediate.nli.method={name: lora, targets: [qury]}"]),
        (4, "intermediate nli.*vera target 'attention' is no linear layer.*there are dense, key, query, value",
         ["intermediate.nli.method={name: vera, targets: [attention]}"]),
        (4, "rslora rank 33 is larger than a target layer's size, 32",
         ["intermediate.nli.method={name: rslora, rank: 33}"]),
        (4, "freeze_layers is 3, this encoder has 2 blocks", ["intermediate.nli.training.freeze_layers=3"]),
        (4, "freeze_layers 2 leaves lora no block to adapt",
         ["intermediate.nli.method={name: lora, rank: 2}", "intermediate.nli.training.freeze_layers=2"]),
        pytest.param(2, "training.optimizer: paged_adamw pages a GPU's memory.*use adamw$",
                     ["training.optimizer=paged_adamw"], marks=on_a_cpu),
        pytest.param(2, "adalora weighs whole gradients", ["engine.config=zero1",
                     "intermediate.nli.method.name=adalora"], marks=needs_deepspeed),
        pytest.param(2, "ZeRO-3 cannot shard the int8 base of lora-int8", ["engine.config=zero3",
                     "intermediate.nli.method.name=lora-int8"], marks=[needs_deepspeed, needs_bitsandbytes]),
        pytest.param(2, "engine zero shards the fp32 moments of adamw, it has no adamw8bit",
                     ["engine.config=zero1", "training.optimizer=adamw8bit"], marks=needs_deepspeed),
    ],
)  # fmt: skip
def test_what_cannot_run(
    code: int, words: str, sets: list[str], tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = one_line(tiny_recipe, tmp_path / "store", capsys, *sets)
    assert found == code and re.search(words, line), line
    found, planned = one_line(tiny_recipe, tmp_path / "store", capsys, *sets, command="plan")
    assert found == code and planned == line, "a plan is shown and says it, too"


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As where the package is not installed: no finder finds it."""
    find: Any = importlib.machinery.PathFinder.find_spec

    def blind(name: str, *where: Any) -> Any:
        return None if name.split(".")[0] == package else find(name, *where)

    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", blind)
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("package", "extra", "sets"),
    [
        ("bitsandbytes", "quant", "intermediate.nli.method.name=qlora"),
        ("bitsandbytes", "quant", "training.optimizer=adamw8bit"),
        ("deepspeed", "zero", "engine.config=zero2"),
    ],
)
def test_a_package_that_is_not_installed(
    package: str, extra: str, sets: str, tiny_recipe: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    hide(monkeypatch, package)
    found, line = one_line(tiny_recipe, tmp_path / "store", capsys, sets)
    assert found == 7 and line.endswith(f"pip install 'effstilts[{extra}]'"), line
