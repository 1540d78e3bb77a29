"""The README's table of methods is the one that its benchmark makes of its results, and no method is left out."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from effstilts.recipe import Method
from tests.docs.modules import benchmark

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return benchmark("methods_table")


@pytest.fixture
def tree() -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / "methods.json").read_text(encoding="utf-8"))


def test_the_readme_says_what_was_measured(tables: ModuleType, tree: Any) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.into_readme(readme, tree) == readme, "run python benchmarks/methods.py table"
    text = (ROOT / "benchmarks" / "results" / "methods.md").read_text(encoding="utf-8")
    assert tables.whole(tree) == text


def test_every_method_has_its_line(tables: ModuleType, tree: Any) -> None:
    methods = set(get_args(get_type_hints(Method)["name"]))
    assert methods <= set(tables.methods_of(tree))
    lines = {line.split(" | ")[0] for line in tables.methods_table(tree).splitlines()}
    assert {f"| `{method}`" for method in methods} <= lines


def test_another_number_makes_another_table(tables: ModuleType, tree: Any) -> None:
    changed = copy.deepcopy(tree)
    changed["memory"]["base bf16 lora"]["peak_bytes"] += 1 << 30
    assert tables.readme_block(changed) != tables.readme_block(tree)
    with pytest.raises(ValueError, match="once each"):
        tables.into_readme("no marks", tree)


def test_what_is_measured_fits_together(tree: Any) -> None:
    """Facts that do not depend on the machine: XLM-R's sizes, Adam's two moments, what an adapter is for."""
    memory = tree["memory"]
    full, lora = (memory[f"base bf16 {method}"] for method in ("full", "lora"))
    assert 276e6 < full["parameters"] < 280e6
    for node in (full, lora):
        # And a count of the updates for each tensor.
        assert 0 <= node["optimizer_bytes"] - 8 * node["trained_parameters"] < 8192
    assert lora["disk_bytes"] < full["disk_bytes"] / 100
    assert full["peak_bytes"] - full["baseline_bytes"] > full["weight_bytes"] + full["optimizer_bytes"]
    assert lora["peak_bytes"] < full["peak_bytes"] / 1.5
