"""Runs the command line in processes that break at a named point or moment.

No fault is known to the library: the points are functions that a child process replaces before it begins. A server
imports the libraries once and forks a child for each run, so that hundreds of runs cost their own work alone.

    python -m tests.faults.driver --serve           the server of `Driver`
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

POINTS = (
    "update", "mid-write", "before-manifest", "mid-manifest", "before-rename", "after-rename", "mid-removal",
    "between-steps", "caching", "evaluating", "embedding", "mining", "event", "record",
)  # fmt: skip
# Of embed, mine and search, which know no steps.
TEXT_POINTS = ("embedding", "mid-shard", "mid-array", "before-rename", "after-rename", "searching", "mining", "removal")
_seen: dict[str, int] = {}


def around(
    owner: Any, name: str, before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None
) -> None:
    """Calls `before` and `after` around a function of a module or class."""
    original = getattr(owner, name)

    def replaced(*rest: Any, **named: Any) -> Any:
        if before is not None:
            before(*rest)
        found = original(*rest, **named)
        if after is not None:
            after(*rest)
        return found

    setattr(owner, name, replaced)


def halved(path: Any) -> Callable[[], None]:
    return lambda: os.truncate(path, Path(path).stat().st_size // 2)


class Points:
    """Counts how often each point is passed; dies at the one asked for."""

    def __init__(self, point: str = "", count: int = 0) -> None:
        self.point, self.count = point, count

    def reach(self, point: str, last_words: Callable[[], Any] = lambda: None) -> None:
        _seen[point] = _seen.get(point, 0) + 1
        if point == self.point and _seen[point] == self.count:
            last_words()
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        import safetensors.torch
        import torch

        from effstilts import log, store, workbench
        from effstilts.engine import predict
        from effstilts.retrieval import embed, evaluate

        def manifest(path: Path, text: str, *rest: Any) -> None:
            if path.name == store.MANIFEST:
                self.reach("before-manifest")
                self.reach("mid-manifest", lambda: path.write_bytes(text.encode()[: len(text) // 2]))

        def removal(folder: Any, *rest: Any) -> None:
            files = sorted(Path(folder).glob("*"))
            if Path(folder).name.startswith("checkpoint-") and files:
                self.reach("mid-removal", files[0].unlink)

        def event(sink: Any, written: dict[str, Any]) -> None:
            self.reach("event", lambda: (sink._file.write('{"time": 1, "ev'), sink._file.flush()))

        self._renames()
        around(safetensors.torch, "save_file", None, lambda tensors, path: self.reach("mid-write", halved(path)))
        around(Path, "write_text", manifest)
        around(shutil, "rmtree", removal)
        around(store.Store, "put", None, lambda *_: self.reach("between-steps"))
        around(workbench, "write_rows", None, lambda path, _: self.reach("caching", halved(path)))
        around(predict, "to_tensors", lambda *_: self.reach("evaluating"))
        around(embed.Embedder, "_tokenize", lambda *_: self.reach("embedding"))
        around(evaluate, "mine", lambda *_: self.reach("mining"))
        around(torch.optim.AdamW, "step", lambda *_: self.reach("update"))
        around(log.JsonLines, "write", event)
        around(store.Store, "write_run", lambda *_: self.reach("record"))

    def _renames(self) -> None:
        around(Path, "replace", lambda *_: self.reach("before-rename"), lambda *_: self.reach("after-rename"))

    def install_texts(self) -> None:
        import numpy
        import safetensors.numpy

        from effstilts.retrieval import blocks, embed
        from effstilts.studies import texts

        self._renames()
        around(embed.Embedder, "_tokenize", lambda *_: self.reach("embedding"))
        around(safetensors.numpy, "save_file", None, lambda arrays, path, *_: self.reach("mid-shard", halved(path)))
        around(numpy, "save", None, lambda path, *_: self.reach("mid-array", halved(path)))
        around(blocks, "both_directions", lambda *_: self.reach("searching"))
        around(blocks, "search", lambda *_: self.reach("searching"))
        around(texts, "mine", lambda *_: self.reach("mining"))
        around(shutil, "rmtree", lambda *_: self.reach("removal"))
        around(Path, "rmdir", lambda *_: self.reach("removal"))


def _in_small_pieces() -> None:
    """Text files of a hundred lines take several chunks and blocks, and each block is kept."""
    from effstilts.retrieval import blocks, corpus

    corpus.CHUNK, blocks.KEEP_SECONDS, blocks._KEEP_SHARE = 16, 0.0, 0
    for name, part in (("both_ways", "target_rows"), ("nearest", "database_rows")):
        setattr(blocks, name, functools.partial(getattr(blocks, name), **{"rows": 24, part: 32}))


def _run(fault: dict[str, Any], words: Sequence[str]) -> int:
    """In the process that is to break."""
    from effstilts.cli import main

    rank = int(os.environ.get("RANK", "0"))
    if "small_pieces" in fault:
        _in_small_pieces()
    if "point" in fault and fault.get("rank", rank) == rank:
        points = Points(fault["point"], fault["count"])
        points.install_texts() if "small_pieces" in fault else points.install()
    if "signals_in_step" in fault:
        _signal_in_step(fault)
    if "clock" in fault:
        _set_clock_back(fault["clock"])
    if "library_call" in fault:
        ctypes.CDLL(None).fault_arm(ctypes.c_long(fault["library_call"]), fault["errno"], fault["root"].encode())
    if "site" in fault and fault.get("rank", rank) == rank:
        from tests.faults.shortage import shortage

        with shortage(fault["site"], fault["capacity"]):
            return main(words)
    code = main(words)
    if "library_call" in fault:
        _seen["library_call"] = int(ctypes.CDLL(None).fault_count())
    if "counts" in fault and rank == 0:
        Path(fault["counts"]).write_text(json.dumps(_seen), encoding="utf-8")
    return code


def _signal_in_step(fault: dict[str, Any]) -> None:
    """Signals to itself in the middle of the update of number `step`, a moment apart; it then goes on."""
    import torch

    original, seen = torch.optim.AdamW.step, 0

    def step(self: Any, *rest: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == fault["step"]:
            for number in fault["signals_in_step"]:
                os.kill(os.getpid(), number)
                time.sleep(0.05)
            Path(fault["marker"]).write_text("the step went on", encoding="utf-8")
        return original(self, *rest, **named)

    torch.optim.AdamW.step = step  # type: ignore[method-assign]


def _set_clock_back(seconds: float) -> None:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() - seconds  # type: ignore[assignment]
    time.time_ns = lambda: now_ns() - int(seconds * 1e9)


def _import_all() -> None:
    """What a run imports, so that its forks need not."""
    import faiss  # noqa: F401
    import pandas  # noqa: F401
    import peft  # noqa: F401
    import pyarrow.compute
    import pyarrow.ipc
    import pyarrow.pandas_compat  # noqa: F401
    import sentencepiece  # noqa: F401
    import torch
    import transformers.models.xlm_roberta.modeling_xlm_roberta  # noqa: F401

    import effstilts.cli
    import effstilts.procedure
    import effstilts.studies.report
    import effstilts.studies.texts  # noqa: F401

    assert torch.get_num_threads() == 1, "a child has none of its parent's threads"


def _fork(job: dict[str, Any], rank: int) -> int:
    child = os.fork()
    if child:
        return child
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{job['said']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    if job["ranks"] > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["ranks"], "MASTER_PORT": job["port"]}
        os.environ.update({name: str(value) for name, value in own.items()}, MASTER_ADDR="127.0.0.1")
    code = 1
    try:
        code = _run(job["fault"], job["words"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    _import_all()
    # What is here already no collection of a child looks at, which copied every page: a run took three times as long.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        began, signals = time.monotonic(), list(job["signals"])
        living = {_fork(job, rank) for rank in range(job["ranks"])}
        codes: list[int] = []
        while living:
            for child in list(living):
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    living.remove(child)
                    codes.append(os.waitstatus_to_exitcode(status))
            if -signal.SIGKILL in codes:
                # As a launcher does, or the machine's end.
                for child in living:
                    os.kill(child, signal.SIGKILL)
            while signals and time.monotonic() - began >= signals[0][0]:
                number = signals.pop(0)[1]
                for child in living:
                    os.kill(child, number)
            time.sleep(0.0005)
        print(json.dumps([min(codes) if min(codes) < 0 else max(codes), time.monotonic() - began]), flush=True)


class Driver:
    """The server, seen from a test. Use as a context manager."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.said = folder / "said"
        self.seconds = 0.0
        own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | own | {"DS_ACCELERATOR": "cpu"} | environment,
        )  # fmt: skip

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def run(self, *words: str, signals: Sequence[tuple[float, int]] = (), ranks: int = 1, **fault: Any) -> int:
        """The exit code of `effstilts WORDS`, negative for a signal; of several ranks the worst. One that is killed
        takes the others along. signals: (seconds, number) sent to all."""
        assert self._process.stdin is not None and self._process.stdout is not None
        for name in ("out", "err"):
            Path(f"{self.said}.{name}").unlink(missing_ok=True)
        job = {"words": words, "fault": fault, "signals": signals, "ranks": ranks, "said": str(self.said)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job["port"] = free.getsockname()[1]
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code, self.seconds = json.loads(self._process.stdout.readline())
        return int(code)

    @property
    def errors(self) -> str:
        """What the last run said on stderr; nothing where it died before it had one."""
        path = Path(f"{self.said}.err")
        return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    _serve()
