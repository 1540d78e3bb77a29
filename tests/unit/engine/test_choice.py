"""What cannot run is said before anything runs."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
import torch

from effstilts.engine import choice
from effstilts.engine.choice import check_spread
from effstilts.errors import MissingDependencyError, RecipeError
from effstilts.recipe import Method, Spread, Training


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As where it is not installed: neither found nor imported."""
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == package else find(name))
    monkeypatch.setitem(sys.modules, package, None)


def test_what_zero_cannot_shard_is_refused() -> None:
    pytest.importorskip("deepspeed")
    pytest.importorskip("bitsandbytes")
    with pytest.raises(RecipeError, match="ZeRO-3 cannot shard the int8 base of lora-int8.*; use zero1 or zero2"):
        check_spread(Spread(config="zero3"), Training(), Method("lora-int8"))
    with pytest.raises(RecipeError, match="adalora weighs whole gradients .* which zero shards; use plain"):
        check_spread(Spread(config="zero1"), Training(), Method("adalora"))
    for config, name in (("zero2", "lora-int8"), ("zero3", "qlora"), ("zero3", "dora")):
        check_spread(Spread(config=config), Training(), Method(name))  # type: ignore[arg-type]


def test_a_gpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(RecipeError, match="training.precision: this GPU has no bf16; use fp32"):
        check_spread(Spread(), Training(precision="bf16"), Method())
    check_spread(Spread(), Training(), Method())


@pytest.mark.parametrize(
    ("package", "spread", "method", "words"),
    [
        ("bitsandbytes", Spread(), Method("qlora"), r"effstilts\[quant\]"),
        ("deepspeed", Spread(name="zero"), Method(), r"effstilts\[zero\]"),
    ],
)
def test_a_missing_package_is_named(
    package: str, spread: Spread, method: Method, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, package)
    with pytest.raises(MissingDependencyError, match=words):
        check_spread(spread, Training(), method)
    check_spread(Spread(), Training(), Method("lora"))
