"""R10: fuzzed inputs of every form end in rows or in one line of an EffstiltsError, soon and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import FULL
from tests.faults.fuzz import fuzz
from tests.faults.fuzz_targets import TARGETS

ROOT = Path(__file__).parents[2]
# YAML in pure Python is slow: a million in all are 60,000 recipes and 49,500 of each other form.
FULL_COUNT = {name: 60_000 if name == "recipes" else 49_500 for name in TARGETS}


def fuzzed(names: list[str], counts: list[int], folder: Path) -> list[dict[str, Any]]:
    """In a process of its own, whose memory is that of the inputs."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = [f"{name}={count}" for name, count in zip(names, counts, strict=True)]
    command = [sys.executable, "-m", "tests.faults.fuzz", str(folder), "7", *words]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=7200)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    if FULL:
        return {}
    made = fuzzed(list(TARGETS), [300] * len(TARGETS), tmp_path_factory.mktemp("fuzz"))
    return {row["target"]: row for row in made}


@pytest.mark.parametrize("name", TARGETS)
def test_only_errors_of_ours(
    name: str, fast: dict[str, Any], tmp_path: Path, amount: Callable[[int, int], int], figures: dict[str, Any]
) -> None:
    count = amount(300, FULL_COUNT[name])
    found = fast[name] if fast else fuzzed([name], [count], tmp_path)[0]
    figures.update({key: value for key, value in found.items() if key != "broken"})
    assert not found["broken"], found["broken"]
    assert found["inputs"] == count and found["endings"] > 5
    assert found["read"] > 0 and found["refused"] > count / 2


def test_the_fuzzer_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that lets another error out, or takes its time, is found within a few inputs."""
    import effstilts.data.sources as sources

    def breaks(*_: Any) -> Any:
        if (tmp_path / "input.tsv").read_bytes().count(b"\t") != 6:
            raise IndexError("list index out of range")
        return original(*_)

    original = sources.examples
    monkeypatch.setattr(sources, "examples", breaks)
    found = fuzz("xnli tsv", 300, 1, tmp_path)
    assert "IndexError" in found["broken"]["problem"] and found["inputs"] < 300
