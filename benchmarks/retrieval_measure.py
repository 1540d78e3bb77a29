"""What the parts of `retrieval_speed.py` share: turns, ratios, the machine's own rates, vectors, memory."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effstilts.model.packed import PackedLinear
from effstilts.retrieval.neighbours import normalise

NEIGHBOURS = 4


class Clock:
    """The time that the whole benchmark may take; a part that has run once may be cut short."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes

    def left(self) -> float:
        return self.end - time.perf_counter()


Runs = dict[str, list[tuple[float, float]]]


def alternate(contenders: dict[str, Callable[[], Any]], rounds: int, clock: Clock) -> Runs:
    """(seconds, processor seconds) of each run, A B A B; at least two rounds, then as many as asked while time is left.

    The processor's seconds tell what a run takes when other jobs hold the machine.
    """
    seconds: Runs = {name: [] for name in contenders}
    for done in range(max(2, rounds)):
        began = time.perf_counter()
        for name, run in contenders.items():
            start, used = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - start, time.process_time() - used))
        if done >= 1 and clock.left() < time.perf_counter() - began:
            break
    return seconds


def compare(seconds: Runs, ours: str) -> dict[str, Any]:
    """Ratios of each peer's median to ours, with the extremes over all pairs of runs, and by processor time."""
    mine = [wall for wall, _ in seconds[ours]]
    return {
        name: {
            "seconds": round(median(seconds, name), 4),
            "runs": [round(wall, 4) for wall, _ in runs],
            "ratio": round(median(seconds, name) / median(seconds, ours), 2),
            "spread": [round(min(runs)[0] / max(mine), 2), round(max(runs)[0] / min(mine), 2)],
            "processor seconds": round(median(seconds, name, 1), 4),
            "ratio by processor time": round(median(seconds, name, 1) / median(seconds, ours, 1), 2),
        }
        for name, runs in seconds.items()
    }


def median(seconds: Runs, name: str, which: int = 0) -> float:
    return float(np.median([run[which] for run in seconds[name]]))


def rate(dtype: torch.dtype) -> float:
    """The best GFLOP/s (int8: GOP/s) of a product [2048, 768] x [768, 3072] here, over ten runs, by processor time:
    what the machine gives when nothing else runs."""
    run: Callable[[], Any]
    if dtype == torch.int8:
        left, right = (torch.ones(rows, 768, dtype=dtype) for rows in (2048, 3072))
        run = lambda: torch._int_mm(left, right.T)  # noqa: E731
    else:
        linear = PackedLinear(torch.randn(3072, 768), torch.zeros(3072), dtype, 2048)
        rows = torch.randn(2048, 768).to(dtype)
        run = lambda: linear(rows)  # noqa: E731
    best = 0.0
    with torch.inference_mode():
        for _ in range(10):
            start = time.process_time()
            run()
            taken = (time.process_time() - start) / torch.get_num_threads()
            best = max(best, 2 * 2048 * 768 * 3072 / taken / 1e9)
    return best


def planted(count: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1 and noisy copies in another order."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((count, dim), np.float32)
    y = generator.standard_normal((count, dim), np.float32)
    y *= 0.8
    y += x
    return normalise(x), normalise(y[generator.permutation(count)])


_CHILD = """
import json, sys, time
import numpy as np, torch
torch.set_num_threads(int(sys.argv[4]))
from effstilts.retrieval.neighbours import both_directions
small = np.random.default_rng(0).standard_normal((600, 256), np.float32)
for way in ("bf16", "int8"):
    both_directions(small, small, 4, way)
x, y = (np.load(path) for path in sys.argv[1:3])
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
wall, used = time.perf_counter(), time.process_time()
both_directions(x, y, 4, sys.argv[3])
wall, used = time.perf_counter() - wall, time.process_time() - used
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({"seconds": wall, "processor": used, "peak": int(status["VmHWM"].split()[0]) * 1024}))
"""


def alone(count: int, dim: int, method: str = "auto") -> dict[str, float] | None:
    """Both directions in a process of their own: seconds, processor seconds, and peak resident bytes with the vectors
    over the vectors', less what the process takes without any. None where Linux does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    made = _child(count, dim, method)
    peak = (made["peak"] - _child(8, dim, method)["peak"]) / (2 * count * dim * 4)
    return {"seconds": made["seconds"], "processor": made["processor"], "peak over vectors": peak}


@functools.cache
def _child(count: int, dim: int, method: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{name}.npy") for name in "xy"]
        for path, values in zip(paths, planted(count, dim), strict=True):
            np.save(path, values)
        command = [sys.executable, "-c", _CHILD, *paths, method, str(torch.get_num_threads())]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    made: dict[str, float] = json.loads(done.stdout.split("\n")[-2])
    return made


def text_of(record: dict[str, Any], depth: int = 0) -> str:
    lines = []
    for key, value in record.items():
        pad = "  " * depth
        if isinstance(value, dict) and "ratio" in value:
            low, high = value["spread"]
            processor = f"{value['processor seconds']} s of processor, {value['ratio by processor time']} x"
            lines.append(f"{pad}{key}: {value['seconds']} s, {value['ratio']} x ours ({low} to {high}); {processor}")
        elif isinstance(value, dict):
            lines += [f"{pad}{key}:", text_of(value, depth + 1)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{pad}{key}:", *(f"{pad}  " + "  ".join(f"{k} {v}" for k, v in row.items()) for row in value)]
        else:
            lines.append(f"{pad}{key}: {value}")
    return "\n".join(lines)
