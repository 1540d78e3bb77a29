"""R1 for embed, mine and search: SIGKILL at any moment and named point; the same command ends in the same bits."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import TEXT_POINTS, Driver
from tests.faults.test_r01_sigkill import spread
from tests.faults.text_commands import COMMANDS, TextCommand

pytestmark = pytest.mark.slow

Amount = Callable[[int, int], int]
# What each command passes, apart from what all of them do.
OWN = {"embed": {"mid-shard", "removal"}, "mine": {"mid-array", "searching", "mining"},
       "search": {"mid-array", "searching"}}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_each_named_point(
    driver: Driver, encoder: Any, tmp_path: Path, name: str, amount: Amount, figures: dict[str, Any]
) -> None:
    command = TextCommand(driver, name, encoder, tmp_path)
    assert OWN[name] | {"embedding", "before-rename", "after-rename", "removal"} == set(command.passed)
    assert set(command.passed) <= set(TEXT_POINTS)
    at: Counter[str] = Counter()
    place = tmp_path / "killed"
    for point, passed in command.passed.items():
        for count in spread(passed, amount(1, 1000)):
            ended = command.run(place, point=point, count=count)
            assert ended == -signal.SIGKILL, (point, count, driver.errors)
            at[point] += 1
            command.finish(place)
    figures.update(kills=at.total(), points=dict(sorted(at.items())))


@pytest.mark.parametrize(("name", "ranks"), [*((name, 1) for name in COMMANDS), ("embed", 2)])
def test_killed_at_random_moments(
    driver: Driver, encoder: Any, tmp_path: Path, name: str, ranks: int, amount: Amount, figures: dict[str, Any]
) -> None:
    """Kills follow one another on one folder until the command comes to its end between them."""
    command = TextCommand(driver, name, encoder, tmp_path, ranks)
    draw, kills, finished = random.Random(4), 0, 0
    place = tmp_path / "killed"
    while kills < amount(4, 200):
        ended = command.run(place, [(draw.uniform(0, command.seconds), signal.SIGKILL)])
        if ended == -signal.SIGKILL:
            kills += 1
            continue
        assert ended == 0, driver.errors
        command.assert_same(place)
        finished += 1
    command.finish(place)
    figures.update(kills=kills, finished=finished + 1)
