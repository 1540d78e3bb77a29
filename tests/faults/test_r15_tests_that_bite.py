"""R15: the tests of checkpoint, order, metrics, retrieval and statistics reach the branches and kill the mutants."""

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
from tests.faults.mutation import GROUPS, ROOT, mutants

Amount = Callable[[int, int], int]
BRANCHES, SCORE = 95.0, 85.0


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def test_a_mutant_is_one_change_and_can_be_compiled() -> None:
    for modules in GROUPS.values():
        for module, tests in modules.items():
            text = (ROOT / module).read_text(encoding="utf-8")
            made = mutants(module)
            assert len(made) >= 20 and all((ROOT / test).exists() for test in tests)
            for mutant in made[:: max(1, len(made) // 5)]:
                source = mutant.source()
                compile(source, module, "exec")
                assert source != text and 0 < mutant.line <= text.count("\n") + 1


def test_words_of_messages_and_annotations_are_no_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        '"""A docstring."""\nx: "Any" = 1\ndef f(a: "int") -> "str":\n    """B."""\n    raise ValueError("no" + "t")\n'
    )
    (tmp_path / "m.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr("tests.faults.mutation.ROOT", tmp_path)
    assert [(m.line, m.change) for m in mutants("m.py")] == [(2, "1 to 2")]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_mutants_are_killed(group: str, amount: Amount, figures: dict[str, Any]) -> None:
    """The fast form tries two of a group, so that the machinery itself is tried; the score is the full form's."""
    command = [sys.executable, "-m", "tests.faults.mutation", "--group", group, "--sample", str(amount(2, 0))]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    figures.update(found)
    assert found["tried"] == amount(2, found["mutants"])
    assert not FULL or found["score"] >= SCORE, found["survivors"]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_branches_are_reached(group: str, tmp_path: Path, figures: dict[str, Any]) -> None:
    """Of lines and branches together, as coverage.py counts them; by the group's tests that are not slow."""
    if not FULL:
        pytest.skip("measured by the full form: make faults")
    pytest.importorskip("coverage")
    tests = sorted({test for tests in GROUPS[group].values() for test in tests})
    data = f"--data-file={tmp_path / 'data'}"
    run = [sys.executable, "-m", "coverage", "run", data, "--branch", f"--include={','.join(GROUPS[group])}"]
    subprocess.run(
        [*run, "-m", "pytest", "-q", "-m", "not slow and not real", *tests], cwd=ROOT, env=environment(), check=True
    )
    out = tmp_path / "out.json"
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", data, "-o", str(out)], cwd=ROOT, env=environment(), check=True
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    totals = found["totals"]
    branches = 100 * totals["covered_branches"] / max(totals["num_branches"], 1)
    figures.update(
        group=group, branches=totals["num_branches"], reached=totals["covered_branches"], percent=round(branches, 1)
    )
    assert branches >= BRANCHES, {name: file["missing_branches"] for name, file in found["files"].items()}
