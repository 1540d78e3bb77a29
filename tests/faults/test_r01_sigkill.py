"""R1: SIGKILL at any moment and at each named point; the same command goes on, to the same bits."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effstilts.store import verify_folder
from tests.faults.driver import POINTS, Driver
from tests.faults.recipes import Quiet, clear, words

pytestmark = pytest.mark.slow

Amount = Callable[[int, int], int]
ENGINES = ("zero1", "zero2", "zero3")


class Killed:
    """Runs that are killed one after the other on one store; each time one comes to its end, its store must be the
    quiet run's, and the next begins anew."""

    def __init__(self, driver: Driver, quiet: Quiet, store: Path, ranks: int = 1, *sets: str) -> None:
        self.driver, self.quiet, self.store, self.ranks = driver, quiet, store, ranks
        self.words = words(quiet.recipe, store, *sets)
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
        self.quiet.assert_same(self.store)
        assert not list((self.store / "tmp").glob("*")) and not list((self.store / "work").glob("*"))
        self.finished += 1
        clear(self.store)
        return False

    def at_moments(self, draw: random.Random, kills: int) -> None:
        before = self.kills
        while self.kills < before + kills:
            self.run(signals=[(draw.uniform(0.0, self.quiet.seconds), signal.SIGKILL)])

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
    driver: Driver, quiet: Quiet, tmp_path: Path, method: str, amount: Amount, figures: dict[str, Any]
) -> None:
    killed = Killed(driver, quiet if method == "full" else Quiet(driver, tmp_path, method), tmp_path / "killed")
    killed.at_moments(random.Random(1), amount(2, 200))
    killed.finish()
    figures.update(killed.figures())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_at_each_named_point(
    driver: Driver, quiet: Quiet, tmp_path: Path, method: str, amount: Amount, figures: dict[str, Any]
) -> None:
    """The fast form chains the kills on one store; the full form begins each on a fresh one and lets it end."""
    in_fast_form(method == "full", amount)
    if method != "full":
        quiet = Quiet(driver, tmp_path, method)
    killed = Killed(driver, quiet, tmp_path / "killed")
    assert set(quiet.passed) == set(POINTS)
    times = amount(0, 8)
    for point in POINTS:
        for count in spread(quiet.passed[point], times):
            killed.at_point(point, count)
            killed.finish()
        if not times and killed.run(point=point, count=1):
            killed.at[point] += 1
    killed.finish()
    assert len(killed.at) >= len(POINTS) - 2
    figures.update(killed.figures())


def two_ranks(driver: Driver, folder: Path, engine: str) -> Killed:
    pytest.importorskip("deepspeed")
    sets = [f"engine.config={engine}"]
    return Killed(driver, Quiet(driver, folder, "full", 2, *sets), folder / "killed", 2, *sets)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_of_zero(
    driver: Driver, tmp_path: Path, engine: str, amount: Amount, figures: dict[str, Any]
) -> None:
    in_fast_form(engine == "zero2", amount)
    killed = two_ranks(driver, tmp_path, engine)
    killed.at_moments(random.Random(2), amount(1, 200))
    killed.finish()
    figures.update(killed.figures())


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_of_zero_at_each_named_point(
    driver: Driver, tmp_path: Path, engine: str, amount: Amount, figures: dict[str, Any]
) -> None:
    in_fast_form(False, amount)
    killed = two_ranks(driver, tmp_path, engine)
    passed = killed.quiet.passed
    assert len(passed) >= len(POINTS) - 2
    for point in passed:
        for count in spread(passed[point], 3):
            killed.at_point(point, count)
            killed.finish()
    figures.update(killed.figures())
