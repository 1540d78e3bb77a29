"""SIGKILL at any moment; then the same command goes on, and the result is bit for bit that of a quiet run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effstilts.store import Store, verify_folder

pytestmark = pytest.mark.slow


def start(recipe: Path, store: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "effstilts", "run", str(recipe), "--store", str(store), "--quiet", "--offline"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def hashes(store: Path) -> dict[str, object]:
    """Artefact -> the hashes of its weights and predictions (logs and timings differ between runs)."""
    found = {}
    for folder in (store / "artefacts").iterdir():
        files = verify_folder(folder)["files"]
        found[folder.name] = {n: f["sha256"] for n, f in files.items() if not n.endswith(("events.jsonl",))}
    return found


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_at_random_moments_it_resumes_and_gives_the_same(tiny_recipe: Path, tmp_path: Path) -> None:
    """Each attempt is killed some events and milliseconds after it began to work, so kills fall everywhere."""
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    process = start(tiny_recipe, quiet)
    assert process.wait(300) == 0, process.stderr and process.stderr.read()
    events = killed / "runs" / "tiny.events.jsonl"
    moments = random.Random(20)
    kills = 0
    for _ in range(60):
        target = lines(events) + moments.randint(1, 25)
        process = start(tiny_recipe, killed)
        while process.poll() is None and lines(events) < target:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        code = process.wait(60)
        for folder in (killed / "artefacts").glob("*"):
            verify_folder(folder)
        if code == 0:
            break
        assert code == -signal.SIGKILL, process.stderr and process.stderr.read()
    else:
        pytest.fail("it never came to its end")
    assert kills >= 3
    assert hashes(killed) == hashes(quiet)
    cells = [Store(s).read_run("tiny")["cells"] for s in (quiet, killed)]
    assert cells[0] == cells[1]


def test_sigterm_ends_with_a_checkpoint_and_exit_code_130(tiny_recipe: Path, tmp_path: Path) -> None:
    text = tiny_recipe.read_text().replace("steps: 6}}\nintermediate", "steps: 100000}}\nintermediate")
    tiny_recipe.write_text(text)
    process = start(tiny_recipe, tmp_path / "store")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "store" / "work").glob("mlm-*/checkpoint-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert process.stderr is not None
    error = process.stderr.read().decode()
    assert "SIGTERM" in error and "run the same command again" in error and "Traceback" not in error
