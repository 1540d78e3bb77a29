"""The command line under torchrun and the deepspeed launcher: the store of one process, and how all ranks end."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from effstilts.cli import main
from effstilts.kinds.kind import TokenHead
from effstilts.model.opening import load
from effstilts.store import Store
from effstilts.studies.trained import open_named
from effstilts.workbench import fit_head, load_heads

pytestmark = pytest.mark.slow
has_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
finds_ranks = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")

SMALL = [
    "training.dropout=0", "intermediate={nli: {tasks: [synthetic/mnli], method: {name: lora}, training: {steps: 4}}}",
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


started: list[subprocess.Popen[str]] = []


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"} | environment,
    )  # fmt: skip
    started.append(process)
    return process


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """A launch that a failed test has left is ended, and its ranks end with it."""
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


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
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error[-3000:]
    assert_like_alone(alone, tmp_path / "two", output)


def start_deepspeed(
    *command: str, options: Sequence[str] = ("--num_gpus", "2"), tools: str = "", **environment: str
) -> subprocess.Popen[str]:
    """tools: a folder that comes first on the PATH."""
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    # The launcher gives its own interpreter's folder to its children by PATH.
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}".lstrip(":")
    port = str(free_port())
    launch = [launcher, "--master_port", port, *options, "--module", "effstilts", *command]
    return start(launch, PATH=path, **environment)


@has_deepspeed
def test_the_deepspeed_launcher_with_zero3(
    alone: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    process = start_deepspeed(*words(tiny_recipe, tmp_path / "two", "engine.config=zero3"))
    output, error = process.communicate(timeout=400)
    assert process.returncode == 0, error[-3000:]
    assert_like_alone(alone, tmp_path / "two", output)
    assert not list((tmp_path / "compiled").rglob("*")), "nothing is compiled, and no lock left by one that was killed"
    assert_plain_libraries_read(tmp_path / "two", alone, tmp_path)


# In the place of pdsh and ssh: a node is a shell on this machine with a login's environment and nothing of this one's.
PDSH = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
hosts, command = words[words.index("-w") + 1].split(","), " ".join(words[words.index("-w") + 2 :])
login = {{name: os.environ[name] for name in ("HOME", "PATH")}}
nodes = [
    subprocess.Popen(["bash", "-c", command.replace("%n", str(number)).replace("%h", host)], env=login)
    for number, host in enumerate(hosts)
]
sys.exit(max(node.wait() for node in nodes))
"""


@has_deepspeed
@pytest.mark.parametrize("by", ["pdsh", "each node"])
def test_two_nodes_by_a_hostfile(alone: Path, tiny_recipe: Path, tmp_path: Path, by: str) -> None:
    """One rank on each. By pdsh, what the nodes must know stands in ~/.deepspeed_env and in the recipe."""
    hosts, tools = tmp_path / "hosts", tmp_path / "tools"
    hosts.write_text("node1 slots=1\nnode2 slots=1\n")
    tools.mkdir()
    for name, text in (("pdsh", PDSH.format(python=sys.executable)), ("ssh", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / ".deepspeed_env").write_text("DS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\n")
    options = ["--hostfile", str(hosts), "--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    command = words(tiny_recipe, tmp_path / "two", "engine.config=zero2")
    if by == "pdsh":
        nodes = [start_deepspeed(*command, options=options, tools=str(tools), HOME=str(tmp_path))]
    else:
        own = [["--no_ssh", "--node_rank", str(number)] for number in range(2)]
        nodes = [start_deepspeed(*command, options=[*options, *more]) for more in own]
    said = [process.communicate(timeout=400) for process in nodes]
    assert not any(process.returncode for process in nodes), [error[-3000:] for _, error in said]
    assert_like_alone(alone, tmp_path / "two", "".join(output for output, _ in said))


# What another program does with what ZeRO-3 left: phase 1's encoder and phase 2's adapter by peft, phase 2's encoder as
# it is exported, a target's encoder and head. No effstilts there.
FRESH = """
import sys, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel
first, adapter, exported, target, heads, batch, out = sys.argv[1:]
batch = load_file(batch)
def states(model):
    with torch.no_grad():
        return model.eval()(**batch).last_hidden_state
load = lambda folder: AutoModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True)
head = {name.rpartition("|")[2]: tensor for name, tensor in load_file(heads).items()}
save_file({
    "adapted": states(PeftModel.from_pretrained(load(first), adapter)), "exported": states(load(exported)),
    "logits": states(load(target)) @ head["out.weight"].T + head["out.bias"],
}, out)
assert "effstilts" not in sys.modules
"""


def assert_plain_libraries_read(store: Path, alone: Path, folder: Path) -> None:
    """Hidden states and logits as effstilts has them, of this store and of one process's."""
    tensors = [t for path in store.glob("artefacts/*/**/*.safetensors") for t in load_file(path).values()]
    assert len(tensors) > 50 and all(t.numel() > 0 and t.dtype == torch.float32 for t in tensors)
    place = {path.name.partition("-")[0]: path for path in (store / "artefacts").iterdir()}
    opened = open_named("tiny", Store(store)).encoder.eval()
    lines = opened.tokenizer(["the doctor is sad.", "Anna waited."], padding=True, return_tensors="pt")
    batch = {name: lines[name] for name in ("input_ids", "attention_mask")}
    save_file(batch, folder / "batch.safetensors")
    assert main(["export", "tiny", str(folder / "exported"), "--as", "transformers", "--store", str(store)]) == 0
    words = [
        place["mlm"] / "encoder", place["intermediate"] / "adapter", folder / "exported", place["target"] / "encoder",
        place["target"] / "heads.safetensors", folder / "batch.safetensors", folder / "out.safetensors",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-c", FRESH, *map(str, words)], check=True, timeout=120, cwd=folder)
    found = load_file(folder / "out.safetensors")
    for where, tolerance in ((store, 1e-5), (alone, 1e-4)):
        trained = where / "artefacts" / place["target"].name
        target = load(str(trained / "encoder")).eval()
        ((name, state),) = load_heads(trained).items()
        head = TokenHead(target.hidden_size, len(state["out.bias"]), 0.0)
        fit_head(head, state, name)
        with torch.no_grad():
            states = open_named("tiny", Store(where)).encoder.eval()(**batch)
            logits = head(target(**batch))
        for key, expected in (("adapted", states), ("exported", states), ("logits", logits)):
            assert torch.allclose(found[key], expected, atol=tolerance), (key, where)


def test_ranks_with_different_recipes_are_refused_in_one_line(tiny_recipe: Path, tmp_path: Path) -> None:
    inner = " ".join(f"'{word}'" for word in words(tiny_recipe, tmp_path / "store"))
    script = f"exec {sys.executable} -m effstilts {inner} --set seeds=[$((RANK+1))]"
    process = start(torchrun("--no-python", "sh", "-c", script))
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "ranks 0 and 1 have different steps" in lines_of(error)[0], error
    assert not (tmp_path / "store" / "artefacts").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--set engine.config=zero2", ""),
        ("--set training.checkpoint_every=2", "--set training.checkpoint_every=3"),
        ("--budget 1", ""),
    ],
)
def test_ranks_that_would_carry_out_the_same_steps_differently(
    one: str, other: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    """No step's key says so; without a word they would wait for each other."""
    inner = " ".join(shlex.quote(word) for word in words(tiny_recipe, tmp_path / "store"))
    script = f'if [ "$RANK" = 0 ]; then more="{one}"; else more="{other}"; fi; '
    script += f"exec {sys.executable} -m effstilts {inner} $more"
    process = start(torchrun("--no-python", "sh", "-c", script))
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "ranks 0 and 1 have different " in lines_of(error)[0], error
    assert "different steps" not in error and not (tmp_path / "store" / "artefacts").exists()


def test_ranks_with_different_data_are_refused_in_one_line(tiny_recipe: Path, tmp_path: Path) -> None:
    for rank in (0, 1):
        (tmp_path / f"data{rank}" / "mine").mkdir(parents=True)
        lines = [f'{{"text": "row {i}", "label": "{i % 2}"}}' for i in range(8 + rank)]
        for split in ("train", "dev"):
            (tmp_path / f"data{rank}" / "mine" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    task = (
        "tasks.mine={kind: classification, labels: ['0', '1'], columns: {text: text, label: label}, languages: [en],"
        " files: {train: mine/train.jsonl, dev: mine/dev.jsonl}}"
    )
    sets = ("intermediate={mine: {tasks: [mine]}}", task)
    inner = " ".join(shlex.quote(word) for word in words(tiny_recipe, tmp_path / "store", *sets))
    script = f"exec {sys.executable} -m effstilts {inner} --data {tmp_path}/data$RANK"
    process = start(torchrun("--no-python", "sh", "-c", script))
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "ranks 0 and 1 have different steps" in lines_of(error)[0], error
    assert not (tmp_path / "store" / "artefacts").exists()


def test_a_mistake_is_said_once(tiny_recipe: Path, tmp_path: Path) -> None:
    process = start(torchrun("-m", "effstilts", *words(tiny_recipe, tmp_path / "store", "training.batch_size=0")))
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "batch_size must be 1 or more" in lines_of(error)[0], error


def by_torchrun(*command: str) -> subprocess.Popen[str]:
    return start(torchrun("-m", "effstilts", *command))


def long_run(
    recipe: Path, store: Path, *sets: str, launch: Callable[..., subprocess.Popen[str]] = by_torchrun
) -> subprocess.Popen[str]:
    """A launch that is in the middle of phase 1, after its first checkpoint."""
    process = launch(*words(recipe, store, "mlm.training.steps=100000", *sets))
    deadline = time.monotonic() + 240
    while not list((store / "work").glob("mlm-*/checkpoint-*")):
        if time.monotonic() > deadline or process.poll() is not None:
            process.kill()
            pytest.fail(f"no checkpoint: {process.communicate()}")
        time.sleep(0.1)
    return process


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ranks_of(launcher: int) -> list[int]:
    """The processes of a launch, by rank."""
    found = children(launcher)
    environments = [Path(f"/proc/{process}/environ").read_bytes().split(b"\0") for process in found]
    numbers = [next(int(v[5:]) for v in variables if v.startswith(b"RANK=")) for variables in environments]
    return [process for _, process in sorted(zip(numbers, found, strict=True))]


@finds_ranks
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_dying_ends_all(rank: int, tiny_recipe: Path, tmp_path: Path) -> None:
    process = long_run(tiny_recipe, tmp_path / "store")
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[rank], signal.SIGKILL)
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    assert len(lines_of(error)) == 1 and "the connection to another process is lost" in lines_of(error)[0], error
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@finds_ranks
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_frozen_ends_all_after_the_timeout(rank: int, tiny_recipe: Path, tmp_path: Path) -> None:
    process = long_run(tiny_recipe, tmp_path / "store", "engine.timeout_seconds=8")
    ranks = ranks_of(process.pid)
    os.kill(ranks[rank], signal.SIGSTOP)
    # Its timeout, and the launcher's own of 30 s for the process that does not hear SIGTERM.
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    (line,) = lines_of(error)
    assert f"the process of rank {rank} has not answered for 8 s" in line, error
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def test_one_rank_raising_ends_all(tiny_recipe: Path, tmp_path: Path) -> None:
    command = words(tiny_recipe, tmp_path / "store", "mlm.training.steps=100000")
    process = start(torchrun("-m", "tests.parity.broken", *command))
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    assert [line.partition("effstilts: ")[2] for line in lines_of(error)] == [
        "rank 1: OSError: the disk of rank 1 is gone"
    ], error


@finds_ranks
@pytest.mark.parametrize("launch", [by_torchrun, pytest.param(start_deepspeed, marks=has_deepspeed)])
def test_sigterm_to_the_launcher_stops_all_after_the_same_step(
    launch: Callable[..., subprocess.Popen[str]], tiny_recipe: Path, tmp_path: Path
) -> None:
    """Also where the launcher does not pass it on, as `deepspeed` on one machine: it dies at once and alone."""
    process = long_run(tiny_recipe, tmp_path / "store", launch=launch)
    process.send_signal(signal.SIGTERM)
    # The pipe ends with the last process that holds it.
    _, error = process.communicate(timeout=150)
    assert process.returncode != 0
    (line,) = lines_of(error)
    assert "SIGTERM" in line and "checkpoint written" in line
    step = int(line.split("after step ")[1].split()[0])
    (newest,) = sorted((tmp_path / "store" / "work").glob("mlm-*/checkpoint-*"))[-1:]
    assert newest.name == f"checkpoint-{step:08d}"
