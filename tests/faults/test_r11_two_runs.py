"""R11: two runs on one store, a lock that a dead process left, a clock that goes back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import Driver
from tests.faults.recipes import Quiet, clear, hashes, words, write_recipe

pytestmark = pytest.mark.slow

Amount = Callable[[int, int], int]


@pytest.fixture(scope="module")
def drivers(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Driver]]:
    with Driver(tmp_path_factory.mktemp("other")) as other:
        yield [driver, other]


def at_once(drivers: list[Driver], commands: list[list[str]]) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda pair: pair[0].run(*pair[1]), zip(drivers, commands, strict=True)))


def test_the_same_recipe_twice(
    drivers: list[Driver], quiet: Quiet, tmp_path: Path, amount: Amount, figures: dict[str, Any]
) -> None:
    """Either a run comes to its end or it is refused by the other's pid; what stands in the end is one quiet run's."""
    store = tmp_path / "store"
    refused = 0
    rounds = amount(1, 40)
    for _ in range(rounds):
        clear(store)
        for _ in range(4):
            ends = at_once(drivers, [words(quiet.recipe, store)] * 2)
            for driver, ended in zip(drivers, ends, strict=True):
                assert ended in (0, 5) and "Traceback" not in driver.errors, driver.errors
                if ended == 5:
                    assert "another process (pid " in driver.errors and "wait for it to end" in driver.errors
                    refused += 1
            if ends == [0, 0]:
                break
        quiet.assert_same(store)
        assert not list((store / "tmp").glob("*"))
    assert refused or not amount(0, 1), "they met"
    figures.update(rounds=rounds, refused=refused)


def test_two_recipes_that_share_rows(drivers: list[Driver], tmp_path: Path, amount: Amount) -> None:
    """Two seeds: other steps, but the same encoded rows, tokenizer and texts."""
    recipe, store = write_recipe(tmp_path / "data"), tmp_path / "store"
    commands = [words(recipe, store, f"seeds=[{seed}]", f"name=crash{seed}") for seed in (1, 2)]
    alone = tmp_path / "alone"
    for seed in (1, 2):
        assert drivers[0].run(*words(recipe, alone, f"seeds=[{seed}]", f"name=crash{seed}")) == 0
    for _ in range(amount(1, 20)):
        clear(store)
        # The tokenizer is a step of both: one of them may be refused there, and goes on when asked again.
        for _ in range(4):
            if at_once(drivers, commands) == [0, 0]:
                break
        assert all("Traceback" not in driver.errors for driver in drivers)
        assert hashes(store) == hashes(alone)


def test_a_lock_that_a_dead_process_left(drivers: list[Driver], quiet: Quiet, tmp_path: Path) -> None:
    """The file stays, with the pid of a process that lives, even: a lock is the kernel's and not the file's."""
    store = tmp_path / "store"
    assert drivers[0].run(*words(quiet.recipe, store), point="update", count=8) == -9
    locks = list((store / "locks").iterdir())
    assert locks
    for lock in locks:
        lock.write_text(str(os.getpid()))
    assert drivers[0].run(*words(quiet.recipe, store)) == 0, drivers[0].errors


def test_a_clock_set_back(drivers: list[Driver], quiet: Quiet, tmp_path: Path) -> None:
    """Killed, then gone on with ten years earlier, beside files from the future."""
    store, decade = tmp_path / "store", 3.2e8
    assert drivers[0].run(*words(quiet.recipe, store), point="update", count=8) == -9
    for path in store.rglob("*"):
        os.utime(path, (time.time() + decade,) * 2)
    assert drivers[0].run(*words(quiet.recipe, store), clock=decade) == 0, drivers[0].errors
    quiet.assert_same(store)
