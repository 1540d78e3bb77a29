"""R2: a run that was killed goes on over another number of processes, to weights within 1e-5.

One step's arithmetic over several engines and worlds is tests/parity's; here whole runs are killed and gone on with.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.faults.driver import Driver
from tests.faults.recipes import Quiet, clear, numbers, words

pytestmark = pytest.mark.slow

Amount = Callable[[int, int], int]
# Dropout draws for each rank; micro-batches of some rows each, so that there is work for four.
SETS = ["training.dropout=0", "training.batch_size=8", "training.micro_tokens=64", "training.learning_rate=1e-4"]


def weights(store: Path) -> dict[str, Any]:
    return {
        f"{path.parent.parent.name}/{path.name}/{name}": tensor
        for path in sorted((store / "artefacts").rglob("*.safetensors"))
        for name, tensor in load_file(str(path)).items()
    }


def test_killed_and_gone_on_with_over_other_worlds(
    driver: Driver, tmp_path: Path, amount: Amount, figures: dict[str, Any]
) -> None:
    alone, store = Quiet(driver, tmp_path, "full", 1, *SETS), tmp_path / "store"
    recipe, expected = alone.recipe, weights(alone.store)
    worst, tried = 0.0, 0
    orders = list(itertools.permutations((1, 2, 4))) if amount(0, 1) else [(4, 1, 2)]
    for worlds in orders:
        clear(store)
        # Two kills: in the middle of phase 1, then two steps after it was gone on with.
        for world, count in zip(worlds, (4, 3), strict=False):
            ended = driver.run(*words(recipe, store, *SETS), ranks=world, point="update", count=count, rank=0)
            assert ended == -signal.SIGKILL, driver.errors
        assert driver.run(*words(recipe, store, *SETS), ranks=worlds[2]) == 0, driver.errors
        found = weights(store)
        assert found.keys() == expected.keys()
        worst = max(worst, *(float((found[name].float() - expected[name].float()).abs().max()) for name in found))
        assert worst < 1e-5, worlds
        assert [cell["step"] for cell in numbers(store)] == [cell["step"] for cell in alone.numbers]
        tried += 1
    figures.update(orders=tried, largest_difference=worst)
