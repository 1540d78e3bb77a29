"""The fault suite: its fast form by default, the full form under `make faults`, whose figures are kept."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import Driver
from tests.faults.recipes import Quiet

FULL = os.environ.get("EFFSTILTS_FAULTS") == "full"
# Of the full form's faults; the figures name it where it is not all.
SHARE = float(os.environ.get("EFFSTILTS_FAULTS_SHARE", "1"))
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"
_rows: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()


@pytest.fixture
def amount() -> Callable[[int, int], int]:
    """How many faults to inject: `amount(fast, full)`; a `full` that is less is a stride and not shared."""

    def of(fast: int, full: int) -> int:
        if not FULL:
            return fast
        return full if full < fast else max(fast, round(SHARE * full))

    return of


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What this test counted, by name; `make faults` keeps it in benchmarks/results/faults.json."""
    counted: dict[str, Any] = {}
    began = time.perf_counter()
    yield counted
    report = getattr(request.node, "fault_report", None)
    rows = request.config.stash.setdefault(_rows, [])
    rows.append(
        {
            "requirement": request.node.path.stem.removeprefix("test_").split("_")[0].upper(),
            "test": request.node.nodeid,
            "outcome": report.outcome if report else "unknown",
            "seconds": round(time.perf_counter() - began, 1),
            **({"share_of_full": SHARE} if SHARE != 1 else {}),
            **counted,
        }
    )


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Starts once, as importing takes most of a small run's time."""
    with Driver(tmp_path_factory.mktemp("driver")) as driver:
        yield driver


@pytest.fixture(scope="session")
def quiet(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    """What the disturbed runs of its recipe must come to."""
    return Quiet(driver, tmp_path_factory.mktemp("quiet"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call":
        item.fault_report = report  # type: ignore[attr-defined]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The full form's figures, merged over what other runs of a part of the suite left."""
    rows = session.config.stash.get(_rows, [])
    if not FULL or not rows:
        return
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["tests"] if RESULTS.exists() else []
    fresh = {row["test"] for row in rows}
    tests = sorted([row for row in kept if row["test"] not in fresh] + rows, key=lambda row: row["test"])
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    RESULTS.write_text(json.dumps({"command": "make faults", **machine, "tests": tests}, indent=1) + "\n", "utf-8")
