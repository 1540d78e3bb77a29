"""R7: memory runs out, the step is done again with a smaller token budget, and the result is that of enough memory."""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effstilts.engine import predict
from effstilts.errors import TrainingError
from effstilts.log import Log
from effstilts.model.memory import is_shortage
from effstilts.retrieval import certified, integers, neighbours
from effstilts.retrieval.embed import Embedder, Pooling
from tests.faults.driver import Driver
from tests.faults.recipes import words, write_recipe
from tests.faults.shortage import FORMS, SITES, shortage
from tests.unit.engine.test_loop import Bench, same

Amount = Callable[[int, int], int]
Figures = dict[str, Any]


class Events:
    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def write(self, event: dict[str, Any]) -> None:
        if event["event"] == "warning":
            self.warnings.append(event)


@pytest.fixture(autouse=True)
def little_to_collect() -> Iterator[None]:
    """Collecting the garbage of all that the test process has imported takes most of a second."""
    gc.freeze()
    yield
    gc.unfreeze()


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("site", SITES)
def test_training_goes_on_and_gives_the_same(
    tokenizer: Any, tmp_path: Path, site: str, amount: Amount, figures: Figures
) -> None:
    steps = amount(8, 40)
    whole = Bench(tokenizer, tmp_path / "whole", learning_rate=1e-4)
    undisturbed = whole.run(steps)
    worst, shortages = 0.0, 0
    for form, capacity in itertools.product(FORMS, (60, 100) if steps > 8 else (60,)):
        small = Bench(tokenizer, tmp_path / f"{form}{capacity}", learning_rate=1e-4)
        with shortage(site, capacity, form) as counted:
            progress = small.run(steps)
        assert counted["shortages"] >= 1, "the fault must have been injected"
        if site in ("forward", "head", "backward"):
            assert counted["largest_done"] <= capacity
        assert (progress.step, progress.tokens) == (undisturbed.step, undisturbed.tokens)
        assert progress.loss_sum == pytest.approx(undisturbed.loss_sum, rel=1e-5)
        worst = max(worst, distance(small.weights(), whole.weights()))
        shortages += counted["shortages"]
    assert worst < 1e-5
    figures.update(site=site, steps=steps, shortages=shortages, largest_difference=worst)


def test_the_budget_is_kept_for_a_resumed_run(tokenizer: Any, tmp_path: Path, figures: Figures) -> None:
    """A shortage is found out once and not again after each kill."""
    whole = Bench(tokenizer, tmp_path / "whole", learning_rate=1e-4)
    whole.run(9)
    first = Bench(tokenizer, tmp_path / "cut", learning_rate=1e-4)
    with shortage("forward", 60) as counted:
        first.run(6)
    kept = json.loads((tmp_path / "cut" / "budget.json").read_text())["micro_tokens"]
    again = Bench(tokenizer, tmp_path / "cut", learning_rate=1e-4)
    with shortage("forward", 60) as later:
        again.run(9)
    assert counted["shortages"] >= 1 and later["shortages"] == 0 and kept <= 60
    figures.update(budget_kept=kept)


def test_a_shortage_leaves_no_gradient_and_no_odd_random_numbers(tokenizer: Any, tmp_path: Path) -> None:
    """With dropout the numbers drawn depend on the cut: the run is that of the smaller budget from the first step."""
    small = Bench(tokenizer, tmp_path / "small", dropout=0.3, micro_tokens=60)
    small.run(6)
    short = Bench(tokenizer, tmp_path / "short", dropout=0.3, micro_tokens=120)
    with shortage("optimizer", 0):
        short.run(6)
    kept = json.loads((tmp_path / "short" / "budget.json").read_text())["micro_tokens"]
    alike = Bench(tokenizer, tmp_path / "alike", dropout=0.3, micro_tokens=kept)
    alike.run(6)
    assert same(short.weights(), alike.weights())


def test_retries_are_bounded_and_one_line_says_what_does_not_fit(
    tokenizer: Any, tmp_path: Path, figures: Figures
) -> None:
    bench = Bench(tokenizer, tmp_path)
    before = bench.weights()
    with shortage("forward", 3) as counted, pytest.raises(TrainingError) as raised:
        bench.run(4)
    text = str(raised.value)
    assert "one example of" in text and "row " in text and "\n" not in text and raised.value.exit_code == 6
    assert counted["shortages"] <= 10 and same(before, bench.weights())
    figures.update(tries=counted["shortages"], message=text)


def test_an_update_that_broke_off_in_the_middle_is_not_done_twice(tokenizer: Any, tmp_path: Path) -> None:
    bench = Bench(tokenizer, tmp_path, checkpoint_every=1)
    original = torch.optim.AdamW.step

    def half(self: Any, *rest: Any) -> None:
        original(self, *rest)
        raise FORMS["cuda"]

    bench.run(2)
    kept = bench.checkpoints.read_newest()
    again = Bench(tokenizer, tmp_path, checkpoint_every=1)
    again.engine._optimizer.step = half.__get__(again.engine._optimizer)  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="middle of an update.*run the same command again"):
        again.run(4)
    found = again.checkpoints.read_newest()
    assert kept is not None and found is not None and found.progress.step == kept.progress.step == 1
    assert same(dict(found.weights), dict(kept.weights))


@pytest.mark.slow
def test_on_one_rank_only(driver: Driver, tmp_path: Path, figures: Figures) -> None:
    """Every rank begins the step again with the same smaller budget, in the same process."""
    from safetensors.torch import load_file

    sets = ["training.dropout=0", "training.batch_size=8", "training.learning_rate=1e-4", "targets=[]"]
    recipe, found = write_recipe(tmp_path / "data"), []
    for name, fault in (("whole", {}), ("short", {"site": "forward", "capacity": 40, "rank": 1})):
        store = tmp_path / name
        code = driver.run(*words(recipe, store, *sets), ranks=2, **fault)
        assert code == 0, driver.errors
        found.append({p: load_file(str(p)) for p in sorted((store / "artefacts").rglob("model.safetensors"))})
    lines = (store / "runs" / "crash.events.jsonl").read_text(encoding="utf-8").splitlines()
    warnings = [event for event in map(json.loads, lines) if event["event"] == "warning"]
    shortages = [event for event in warnings if "on 1 of 2 ranks" in event["text"]]
    assert shortages and min(event["micro_tokens"] for event in shortages) <= 40
    assert len(found[0]) == len(found[1]) == 2
    worst = max(distance(*pair) for pair in zip(*(one.values() for one in found), strict=True))
    assert worst < 1e-5
    figures.update(shortages=len(shortages), largest_difference=worst)


@pytest.mark.parametrize("form", FORMS)
def test_evaluation(tokenizer: Any, tmp_path: Path, form: str, figures: Figures) -> None:
    bench = Bench(tokenizer, tmp_path)
    task = bench.tasks[0]
    events = Events()

    def outputs(log: Log) -> list[Any]:
        return predict.row_outputs(task.kind, bench.model, task.head, task.rows, "fp32", 8192, 0.15, log=log)

    whole = outputs(Log(quiet=True))
    with shortage("forward", 60, form) as counted:
        cut = outputs(Log(events, quiet=True))
    worst = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(whole, cut, strict=True))
    assert worst < 1e-5 and counted["shortages"] == len(events.warnings) >= 1
    assert events.warnings[-1]["size"] <= 60 and bench.model.training
    with shortage("forward", 3), pytest.raises(TrainingError, match="evaluation: memory does not suffice"):
        outputs(Log(quiet=True))
    figures.update(largest_difference=worst, shortages=counted["shortages"])


@pytest.mark.parametrize("padded", [False, True])
def test_embedding(encoder: Any, monkeypatch: pytest.MonkeyPatch, padded: bool, figures: Figures) -> None:
    sentences = [f"{'word ' * (1 + i % 7)}{i}" for i in range(60)]
    rows: list[int] = []
    events = Events()
    with Embedder(encoder, [Pooling(2)], precision="fp32", log=Log(events, quiet=True)) as embedder:
        if padded:
            embedder.packed, embedder._packed_encoder = False, None
        whole = embedder(sentences)
        name = "_padded_batch" if padded else "_packed_batch"
        original = getattr(Embedder, name)

        def short(self: Embedder, ids: list[list[int]], part: list[int]) -> Any:
            if sum(len(ids[i]) for i in part) > 90:
                raise FORMS["cuda"]
            rows.append(len(part))
            return original(self, ids, part)

        monkeypatch.setattr(Embedder, name, short)
        advanced: list[int] = []
        cut = embedder(sentences, advanced.append)
        tried = len(events.warnings)
        embedder(sentences)
    assert np.abs(whole.vectors[0] - cut.vectors[0]).max() < 1e-5
    assert sum(advanced) == len(sentences) and tried >= 1
    assert len(events.warnings) == tried, "the smaller budget stays for later calls"
    figures.update(shortages=tried)


@pytest.mark.parametrize("method", ["bf16", "int8"])
@pytest.mark.parametrize("form", FORMS)
def test_search(monkeypatch: pytest.MonkeyPatch, form: str, method: Any, capsys: Any, figures: Figures) -> None:
    draw = np.random.default_rng(3)
    queries, database = (draw.standard_normal((n, 16)).astype(np.float32) for n in (300, 400))
    whole = [neighbours.search(queries, database, 4), *neighbours.both_directions(queries, database, 4, method)]
    faiss = neighbours.faiss_module()
    knn, tries = faiss.knn, []

    def short(part: Any, *rest: Any, **named: Any) -> Any:
        tries.append(len(part))
        if len(part) > 50:
            raise FORMS[form]
        return knn(part, *rest, **named)

    def scan(*rest: Any) -> Any:
        raise FORMS[form]

    monkeypatch.setattr(faiss, "knn", short)
    monkeypatch.setattr(certified, "scan", scan)
    monkeypatch.setattr(integers, "scan", scan)
    cut = [neighbours.search(queries, database, 4), *neighbours.both_directions(queries, database, 4, method)]
    for (scores, indices), (other, places) in zip(whole, cut, strict=True):
        assert np.array_equal(scores, other) and np.array_equal(indices, places)
    assert f"out of memory for the scan in {method}" in capsys.readouterr().err
    figures.update(shortages=sum(n > 50 for n in tries))


def test_what_is_a_shortage() -> None:
    assert all(is_shortage(error) for error in FORMS.values())
    others = RuntimeError("mat1 and mat2 shapes"), ValueError("out of memory"), RuntimeError("NCCL: out of memory")
    assert not any(map(is_shortage, others))


_REAL = """
import resource, sys
from pathlib import Path
import torch
from tests.faults.test_r07_memory import real_bench
kept, megabytes = sys.argv[1], int(sys.argv[2])
bench = real_bench(Path(kept))
if megabytes:
    own = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (own + (megabytes << 20), own + (megabytes << 20)))
bench.run(2, only=0)
from safetensors.torch import save_file
save_file(bench.weights(), kept + ".safetensors")
"""


def real_bench(folder: Path) -> Bench:
    """Rows and a batch so large that one micro-batch of all of it takes hundreds of megabytes."""
    from effstilts.model.opening import load_tokenizer

    return Bench(load_tokenizer(str(folder.parent / "tokenizer"), offline=True), folder, batch_size=1024,
                 micro_tokens=10**7, learning_rate=1e-4)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits the address space by /proc")
def test_an_address_space_that_is_really_too_small(tokenizer: Any, tmp_path: Path, figures: Figures) -> None:
    """The kernel refuses the memory, not a patched function."""
    from safetensors.torch import load_file

    tokenizer.save_pretrained(tmp_path / "tokenizer")
    # A thread that begins late reserves 64 MB of addresses for a heap of its own: half of what is left, now and then.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    for name, megabytes in (("large", 0), ("small", 120)):
        command = [sys.executable, "-c", _REAL, str(tmp_path / name), str(megabytes)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    kept = json.loads((tmp_path / "small" / "budget.json").read_text())["micro_tokens"]
    assert not (tmp_path / "large" / "budget.json").exists()
    worst = distance(*(load_file(str(tmp_path / f"{name}.safetensors")) for name in ("large", "small")))
    assert worst < 1e-5
    figures.update(budget_kept=kept, largest_difference=worst)
