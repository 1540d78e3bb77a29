"""The command line under torchrun and the deepspeed launcher: the store of one process, and how all ranks end."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from effstilts.cli import main
from effstilts.store import Store

pytestmark = pytest.mark.slow
has_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
finds_ranks = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")

SMALL = [
    "training.dropout=0", "intermediate={nli: {tasks: [synthetic/mnli], training: {steps: 4}}}",
    "targets=[{task: synthetic/udpos, rows: 32, languages: [qaa], training: {steps: 3}}]",
    "retrieval={tasks: []}",
]  # fmt: skip


def words(recipe: Path, store: Path, *sets: str) -> list[str]:
    found = ["run", str(recipe), "--store", str(store), "--offline", "--quiet"]
    for text in (*SMALL, *sets):
        found += ["--set", text]
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def torchrun(*command: str) -> list[str]:
    port = str(free_port())
    return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port, *command]


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"} | environment,
    )  # fmt: skip


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if "effstilts: " in line]


def artefacts(store: Path) -> set[str]:
    return {folder.name for folder in (store / "artefacts").iterdir()}


@pytest.fixture
def alone(tiny_recipe: Path, tmp_path: Path) -> Path:
    store = tmp_path / "alone"
    assert main(words(tiny_recipe, store)) == 0
    return store


def assert_like_alone(alone: Path, store: Path, output: str) -> None:
    assert artefacts(store) == artefacts(alone)
    cells = [Store(s).read_run("tiny")["cells"] for s in (alone, store)]
    scores = [[cell.pop("score") for cell in run] for run in cells]
    assert scores[0] == pytest.approx(scores[1]) and len(scores[0]) == 1
    assert output.count("synthetic/udpos: f1") == 1


def test_torchrun_fills_the_store_that_one_process_fills(alone: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    process = start(torchrun("-m", "effstilts", *words(tiny_recipe, tmp_path / "two")))
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error[-3000:]
    assert_like_alone(alone, tmp_path / "two", output)


def start_deepspeed(*command: str) -> subprocess.Popen[str]:
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    # The launcher gives its own interpreter's folder to its children by PATH.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    port = str(free_port())
    return start([launcher, "--num_gpus", "2", "--master_port", port, "--module", "effstilts", *command], PATH=path)


@has_deepspeed
def test_the_deepspeed_launcher_with_zero3(alone: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    process = start_deepspeed(*words(tiny_recipe, tmp_path / "two", "engine.config=zero3"))
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error[-3000:]
    assert_like_alone(alone, tmp_path / "two", output)


def test_ranks_with_different_recipes_are_refused_in_one_line(tiny_recipe: Path, tmp_path: Path) -> None:
    inner = " ".join(f"'{word}'" for word in words(tiny_recipe, tmp_path / "store"))
    script = f"exec {sys.executable} -m effstilts {inner} --set seeds=[$((RANK+1))]"
    process = start(torchrun("--no-python", "sh", "-c", script))
    _, error = process.communicate(timeout=90)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "ranks 0 and 1 have different steps" in lines_of(error)[0], error
    assert not (tmp_path / "store" / "artefacts").exists()


def test_a_mistake_is_said_once(tiny_recipe: Path, tmp_path: Path) -> None:
    process = start(torchrun("-m", "effstilts", *words(tiny_recipe, tmp_path / "store", "training.batch_size=0")))
    _, error = process.communicate(timeout=90)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "batch_size must be 1 or more" in lines_of(error)[0], error


def by_torchrun(*command: str) -> subprocess.Popen[str]:
    return start(torchrun("-m", "effstilts", *command))


def long_run(
    recipe: Path, store: Path, *sets: str, launch: Callable[..., subprocess.Popen[str]] = by_torchrun
) -> subprocess.Popen[str]:
    """A launch that is in the middle of phase 1, after its first checkpoint."""
    process = launch(*words(recipe, store, "mlm.training.steps=100000", *sets))
    deadline = time.monotonic() + 90
    while not list((store / "work").glob("mlm-*/checkpoint-*")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.1)
    return process


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@finds_ranks
def test_one_rank_dying_ends_all(tiny_recipe: Path, tmp_path: Path) -> None:
    process = long_run(tiny_recipe, tmp_path / "store")
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(max(ranks), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "the connection to another process is lost" in lines_of(error)[0], error
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@finds_ranks
@pytest.mark.parametrize("launch", [by_torchrun, pytest.param(start_deepspeed, marks=has_deepspeed)])
def test_sigterm_to_the_launcher_stops_all_after_the_same_step(
    launch: Callable[..., subprocess.Popen[str]], tiny_recipe: Path, tmp_path: Path
) -> None:
    """Also where the launcher does not pass it on, as `deepspeed` on one machine: it dies at once and alone."""
    process = long_run(tiny_recipe, tmp_path / "store", launch=launch)
    process.send_signal(signal.SIGTERM)
    # The pipe ends with the last process that holds it.
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    (line,) = lines_of(error)
    assert "SIGTERM" in line and "checkpoint written" in line
    step = int(line.split("after step ")[1].split()[0])
    (newest,) = sorted((tmp_path / "store" / "work").glob("mlm-*/checkpoint-*"))[-1:]
    assert newest.name == f"checkpoint-{step:08d}"
