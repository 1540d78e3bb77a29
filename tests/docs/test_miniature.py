"""The miniature's methods differ in what the benchmark says and in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from types import ModuleType
from typing import Any

import pytest

from effstilts.recipe_reader import load_recipe
from tests.docs.modules import benchmark


@pytest.fixture(scope="module")
def miniature() -> ModuleType:
    return benchmark("miniature")


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(node, (list, tuple)) and any(isinstance(value, dict) for value in node):
        for i, value in enumerate(node):
            yield from leaves(value, (*path, str(i)))
    else:
        yield path, node


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_have_five_times_every_rate(miniature: ModuleType, method: str) -> None:
    """A rate that a target has of its own is not reached by `training.learning_rate`: LoRA's tags were once trained at
    that of full fine-tuning."""
    full = dict(leaves(asdict(load_recipe("miniature"))))
    adapted = dict(leaves(asdict(load_recipe("miniature", list(miniature.METHODS[method][1])))))
    assert full.keys() == adapted.keys()
    rates = [path for path in full if path[-1] == "learning_rate"]
    assert len(rates) > 15
    assert [adapted[path] for path in rates] == pytest.approx([5 * full[path] for path in rates])
    other = {path for path in full if full[path] != adapted[path]} - set(rates)
    assert {path[-2] for path in other} == {"method"} and {path[-1] for path in other} == {"name", "rank", "alpha"}
