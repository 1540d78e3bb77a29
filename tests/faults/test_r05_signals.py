"""R5: SIGTERM and SIGINT end a run with a checkpoint of the step under way; a second one ends it at once."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effstilts.store import read_manifest
from tests.faults.driver import Driver
from tests.faults.recipes import Quiet, clear, words
from tests.unit.engine.test_loop import Bench

Amount = Callable[[int, int], int]
BOTH = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_in_the_middle_of_a_step(driver: Driver, quiet: Quiet, tmp_path: Path, name: str) -> None:
    """The step is finished, its checkpoint written, nothing after it is done; the second signal does not wait."""
    store, marker = tmp_path / "store", tmp_path / "marker"
    settings = words(quiet.recipe, store, "training.checkpoint_every=1000")
    # The third update of the first phase, which has five.
    fault: dict[str, Any] = {"step": 3, "marker": str(marker)}
    ended = driver.run(*settings, signals_in_step=[BOTH[name]], **fault)
    assert ended == 130 and marker.exists(), driver.errors
    lines = [line for line in driver.errors.splitlines() if line.startswith("effstilts: ")]
    assert len(lines) == 1 and f"{name}: stopped mlm" in lines[0] and "after step 3 of 5" in lines[0]
    assert "run the same command again to go on" in lines[0] and "Traceback" not in driver.errors
    (checkpoint,) = (store / "work").glob("mlm-*/checkpoint-*")
    assert checkpoint.name == "checkpoint-00000003" and read_manifest(checkpoint)["facts"] == {"step": 3}
    clear(store)
    marker.unlink()
    ended = driver.run(*settings, signals_in_step=[BOTH[name], BOTH[name]], **fault)
    assert ended == -BOTH[name] and not marker.exists(), "the second one ends it in the middle of the step"


@pytest.mark.slow
def test_at_random_moments_of_a_run(
    driver: Driver, quiet: Quiet, tmp_path: Path, amount: Amount, figures: dict[str, Any]
) -> None:
    """Wherever it strikes: training, caching, evaluating, mining. Then the same command goes on to the same bits."""
    store, draw = tmp_path / "store", random.Random(3)
    ends: Counter[int] = Counter()
    longest, finished = 0.0, 0
    while ends.total() < amount(3, 100):
        at, number = draw.uniform(0, quiet.seconds), draw.choice(list(BOTH.values()))
        ended = driver.run(*words(quiet.recipe, store), signals=[(at, number)])
        assert "Traceback" not in driver.errors, driver.errors
        # Outside of a training nothing is lost by ending at once.
        assert ended in (0, 130, -signal.SIGTERM), driver.errors
        longest = max(longest, driver.seconds - at)
        if ended:
            ends[ended] += 1
            continue
        quiet.assert_same(store)
        clear(store)
        finished += 1
    assert driver.run(*words(quiet.recipe, store)) == 0
    quiet.assert_same(store)
    assert longest < 30
    figures.update(
        ends={str(code): count for code, count in ends.items()}, finished=finished, longest=round(longest, 2)
    )


def test_an_evaluation_is_broken_off_and_owed(tokenizer: Any, tmp_path: Path) -> None:
    """A dev set may take minutes: the signal does not wait for it, and the score is made up for later."""
    from effstilts.errors import Interrupted

    bench = Bench(tokenizer, tmp_path, evaluate_every=2, checkpoint_every=100)
    asked = 0

    def evaluate() -> dict[str, float]:
        nonlocal asked
        asked += 1
        if asked == 2:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the evaluation went on")
        return {"score": float(asked)}

    with pytest.raises(Interrupted, match="after step 4 of 8"):
        bench.run(8, evaluate)
    found = bench.checkpoints.read_newest()
    assert found is not None and [entry["step"] for entry in found.progress.history] == [2]
    again = Bench(tokenizer, tmp_path, evaluate_every=2, checkpoint_every=100)
    assert [entry["step"] for entry in again.run(8, evaluate).history] == [2, 4, 6, 8]
