"""What cannot run is said before anything runs."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from effstilts.engine.choice import check_spread
from effstilts.errors import MissingDependencyError, RecipeError
from effstilts.recipe import Method, Spread, Training


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As where it is not installed: neither found nor imported."""
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == package else find(name))
    monkeypatch.setitem(sys.modules, package, None)


def test_a_quantised_base_is_not_sharded() -> None:
    with pytest.raises(RecipeError, match="zero cannot shard the quantised base of method qlora; use plain"):
        check_spread(Spread(name="zero"), Training(), Method("qlora"))


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
