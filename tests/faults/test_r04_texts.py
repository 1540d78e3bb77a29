"""R4 for embed, mine and search: the disk is full or fails at any call that writes; then the same command goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import Driver
from tests.faults.test_r04_disk import SAID, assert_one_line, failing, small_disk
from tests.faults.text_commands import COMMANDS, TextCommand

pytestmark = pytest.mark.slow
__all__ = ["failing", "small_disk"]

Amount = Callable[[int, int], int]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fails_at_any_call(
    driver: Driver, failing: Driver, encoder: Any, tmp_path: Path, name: str, amount: Amount, figures: dict[str, Any]
) -> None:
    command = TextCommand(driver, name, encoder, tmp_path)
    place, counts = tmp_path / "place", tmp_path / "counted.json"
    fault: dict[str, Any] = {"errno": 0, "root": str(place), "counts": str(counts), "driver": failing}
    assert command.run(place, library_call=0, **fault) == 0, failing.errors
    command.assert_same(place)
    calls = json.loads(counts.read_text())["library_call"]
    assert calls > 30, "the faults are where the library writes"
    tried, refused = min(amount(4, 2 * calls), 2 * calls), 0
    for number in range(tried):
        fault["errno"] = list(SAID)[number % 2]
        at = 1 + number * calls // tried
        ended = command.run(place, library_call=at, **fault)
        assert ended in (0, 5), (at, failing.errors)
        if ended:
            assert_one_line(failing.errors, SAID[fault["errno"]])
            refused += 1
        assert not [path for path in place.rglob("*.tmp") if path.is_file()]
        command.finish(place)
    assert refused >= 0.7 * tried
    figures.update(calls=calls, faults=tried, refused=refused)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_is_really_full(
    driver: Driver, encoder: Any, small_disk: Path, tmp_path: Path, name: str, amount: Amount, figures: dict[str, Any]
) -> None:
    """A tmpfs that grows a little after each refusal, until the command comes to its end."""
    command = TextCommand(driver, name, encoder, tmp_path)
    place, refused = small_disk / "place", 0
    for size in range(8, 1000, amount(20, 4)):
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(small_disk)], check=True)
        ended = command.run(place)
        assert ended in (0, 5), driver.errors
        if ended == 0:
            break
        assert_one_line(driver.errors, "the disk is full")
        refused += 1
    else:
        pytest.fail("it never fitted")
    command.assert_same(place)
    assert refused >= 2
    figures.update(refused=refused, fits_in_kilobytes=size)
