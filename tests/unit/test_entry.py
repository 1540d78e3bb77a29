"""The command's entry: what happens before the command line is there."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from effstilts import __main__
from effstilts.cli import main


@pytest.mark.parametrize(("rank", "said"), [("0", True), ("1", False)])
def test_an_interruption_of_the_imports_is_one_line(
    rank: str, said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def interrupted(name: str, *rest: Any) -> Any:
        if name == "effstilts.cli":
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert __main__.run() == 130
    assert capsys.readouterr().err == ("effstilts: interrupted; run the same command again to go on\n" if said else "")


def test_a_terminal_without_the_signs_gets_their_numbers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "effstilts", "plan", "quickstart", "--store", str(tmp_path)]
    plan = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, timeout=120)
    assert plan.returncode == 0 and b"target synthetic/mnli \\u2190 baseline" in plan.stdout


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"WORLD_SIZE": "abc"}, 2, "WORLD_SIZE of the launcher is no whole number: 'abc'"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, 2, "RANK, WORLD_SIZE or LOCAL_RANK of the launcher is no whole number"),
    ],
)
def test_a_launchers_slip_is_one_line(
    environment: dict[str, str], code: int, words: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "quickstart", "--store", str(tmp_path)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_an_empty_world_size_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "")
    assert main(["plan", "quickstart", "--store", str(tmp_path)]) == 0


def test_a_plan_shows_the_rates_that_a_targets_own_settings_keep(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = ["--set", "training.learning_rate=1e-3", "--set", "method.name=lora", "--set", "mlm.method.name=full"]
    assert main(["plan", "quickstart", "--store", str(tmp_path), *settings]) == 0
    lines = capsys.readouterr().out.splitlines()
    for target, rate in (("synthetic/mnli", "lora at 0.0003"), ("synthetic/udpos", "lora at 0.001")):
        (line,) = [line for line in lines if f"target {target} ← baseline" in line]
        assert rate in line
