"""R4: the disk is full or fails at any call that writes; the last checkpoint is whole, the error one clear line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from effstilts.store import verify_folder
from tests.faults.driver import Driver
from tests.faults.recipes import Quiet, clear, words

pytestmark = pytest.mark.slow

Amount = Callable[[int, int], int]
SAID = {errno.ENOSPC: "the disk is full", errno.EIO: "input/output error"}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One whose runs have a disk that fails when told to."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/proc/self/fd").exists():
        pytest.skip("needs a C compiler and /proc")
    folder = tmp_path_factory.mktemp("disk")
    library = folder / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    with Driver(folder, LD_PRELOAD=str(library)) as failing:
        yield failing


def assert_whole(store: Path) -> int:
    """No artefact or checkpoint in sight that is a part of one; returns how many there are."""
    found = [*(store / "artefacts").glob("*"), *(store / "work").glob("*/checkpoint-*")]
    for folder in found:
        verify_folder(folder)
    left = [*store.rglob("*.tmp"), *(store / "tmp").glob("*")]
    assert not left, left
    return len(found)


def assert_one_line(errors: str, said: str) -> None:
    lines = [line for line in errors.splitlines() if line.startswith("effstilts: ")]
    assert len(lines) == 1 and said in lines[0] and "Traceback" not in errors, errors


def test_a_disk_that_fails_at_any_call(
    failing: Driver, quiet: Quiet, tmp_path: Path, amount: Amount, figures: dict[str, Any]
) -> None:
    store, counts, driver = tmp_path / "store", tmp_path / "counts.json", failing
    fault: dict[str, Any] = {"library_call": 0, "errno": 0, "root": str(store), "counts": str(counts)}
    assert driver.run(*words(quiet.recipe, store), **fault) == 0, driver.errors
    quiet.assert_same(store)
    calls = json.loads(counts.read_text())["library_call"]
    assert calls > 300, "the faults are where the library writes"
    tried = min(amount(6, 2 * calls), 2 * calls)
    refused = 0
    for number in range(tried):
        code = list(SAID)[number % 2]
        clear(store)
        at = 1 + number * calls // tried
        ended = driver.run(*words(quiet.recipe, store), library_call=at, errno=code, root=str(store))
        # A call whose failure does no harm may be survived; nothing may be worse than a refusal.
        assert ended in (0, 5), (at, driver.errors)
        if ended:
            assert_one_line(driver.errors, SAID[code])
            refused += 1
        assert_whole(store)
        if number % amount(3, 1) == 0:
            assert driver.run(*words(quiet.recipe, store)) == 0, driver.errors
            quiet.assert_same(store)
    assert refused >= 0.9 * tried
    figures.update(calls=calls, faults=tried, refused=refused)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(
    driver: Driver, quiet: Quiet, small_disk: Path, amount: Amount, figures: dict[str, Any]
) -> None:
    """A tmpfs that grows a little after each refusal, until the run fits."""
    store = small_disk / "store"
    refused, most, step = 0, 0, amount(600, 40)
    for size in range(100, 4000, step):
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(small_disk)], check=True)
        ended = driver.run(*words(quiet.recipe, store))
        assert ended in (0, 5), driver.errors
        if ended == 0:
            break
        assert_one_line(driver.errors, "the disk is full")
        whole = assert_whole(store)
        assert whole > 0 or not most, "what was finished stays"
        most = max(most, whole)
        refused += 1
    else:
        pytest.fail("it never fitted")
    quiet.assert_same(store)
    assert refused >= 2
    figures.update(refused=refused, fits_in_kilobytes=size, user=os.getuid())
