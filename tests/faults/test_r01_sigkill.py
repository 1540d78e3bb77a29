"""R1: SIGKILL at any moment and at each named point; the same command goes on, to the same bits."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from effstilts.store import verify_folder
from tests.faults.driver import POINTS, Driver
from tests.faults.recipes import clear, hashes, numbers, words, write_recipe

pytestmark = pytest.mark.slow

Amount = Callable[[int, int], int]
ENGINES = {"zero1": ["engine.config=zero1"], "zero2": ["engine.config=zero2"], "zero3": ["engine.config=zero3"]}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("driver")) as driver:
        yield driver


class Killed:
    """Runs that are killed one after the other on one store; each time one comes to its end, its store must be the
    quiet run's, and the next begins anew."""

    def __init__(self, driver: Driver, folder: Path, method: str, ranks: int, *sets: str) -> None:
        self.driver, self.ranks, self.store = driver, ranks, folder / "killed"
        recipe, quiet = write_recipe(folder / "data", method), folder / "quiet"
        counts = folder / "counts.json"
        code = driver.run(*words(recipe, quiet, *sets), ranks=ranks, point="", count=0, counts=str(counts))
        assert code == 0, driver.errors
        self.seconds = driver.seconds
        self.passed: dict[str, int] = json.loads(counts.read_text())
        self.expected, self.numbers = hashes(quiet), numbers(quiet)
        self.words = words(recipe, self.store, *sets)
        self.kills, self.finished = 0, 0
        self.at: Counter[str] = Counter()

    def run(self, **fault: Any) -> bool:
        """Whether the run was killed; of what it left nothing may look whole and be damaged."""
        code = self.driver.run(*self.words, ranks=self.ranks, **fault)
        for artefact in (self.store / "artefacts").glob("*"):
            verify_folder(artefact)
        if code == -signal.SIGKILL:
            self.kills += 1
            return True
        assert code == 0, self.driver.errors
        assert hashes(self.store) == self.expected and numbers(self.store) == self.numbers
        assert not list((self.store / "tmp").glob("*")) and not list((self.store / "work").glob("*"))
        self.finished += 1
        clear(self.store)
        return False

    def at_moments(self, draw: random.Random, kills: int) -> None:
        before = self.kills
        while self.kills < before + kills:
            self.run(signals=[(draw.uniform(0.0, self.seconds), signal.SIGKILL)])

    def at_point(self, point: str, count: int) -> None:
        """One kill at the `count`-th time that a fresh store's run passes the point."""
        clear(self.store)
        assert self.run(point=point, count=count), f"{point} was not passed {count} times"
        self.at[point] += 1

    def finish(self) -> None:
        for _ in range(3):
            if not self.run():
                return
        raise AssertionError("it never came to its end")

    def figures(self) -> dict[str, Any]:
        return {"kills": self.kills, "finished": self.finished, "points": dict(sorted(self.at.items()))}


def spread(passed: int, count: int) -> list[int]:
    """`count` of the times that a point is passed, from the first to the last."""
    return sorted({1 + round(i * (passed - 1) / max(1, count - 1)) for i in range(count)})


def in_fast_form(here: bool, amount: Amount) -> None:
    if not here and not amount(0, 1000):
        pytest.skip("in the full form alone")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_at_random_moments(
    driver: Driver, tmp_path: Path, method: str, amount: Amount, figures: dict[str, Any]
) -> None:
    killed = Killed(driver, tmp_path, method, 1)
    killed.at_moments(random.Random(1), amount(3, 200))
    killed.finish()
    figures.update(killed.figures())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_at_each_named_point(
    driver: Driver, tmp_path: Path, method: str, amount: Amount, figures: dict[str, Any]
) -> None:
    """The fast form chains the kills on one store; the full form begins each on a fresh one and lets it end."""
    in_fast_form(method == "full", amount)
    killed = Killed(driver, tmp_path, method, 1)
    assert set(killed.passed) == set(POINTS)
    times = amount(0, 8)
    for point in POINTS:
        for count in spread(killed.passed[point], times):
            killed.at_point(point, count)
            killed.finish()
        if not times and killed.run(point=point, count=1):
            killed.at[point] += 1
    killed.finish()
    assert sum(killed.at.values()) >= len(POINTS) - 4
    figures.update(killed.figures())


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_of_zero(
    driver: Driver, tmp_path: Path, engine: str, amount: Amount, figures: dict[str, Any]
) -> None:
    pytest.importorskip("deepspeed")
    in_fast_form(engine == "zero2", amount)
    killed = Killed(driver, tmp_path, "full", 2, *ENGINES[engine])
    killed.at_moments(random.Random(2), amount(1, 30))
    for point in ("mid-write", "before-manifest", "before-rename", "update", "evaluating"):
        for count in spread(killed.passed[point], amount(0, 3)):
            clear(killed.store)
            killed.at_point(point, count)
            killed.finish()
    killed.finish()
    figures.update(killed.figures())
