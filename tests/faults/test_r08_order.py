"""R8: every sample once an epoch whatever the number of processes, and a position that survives being written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.data.batches import share
from effstilts.data.order import Order
from effstilts.engine.checkpoint import Progress

Amount = Callable[[int, int], int]


def dealt(order: Order, step: int, world: int, widths: np.ndarray[Any, Any]) -> list[int]:
    """The rows that the ranks run between them at a step, rank by rank."""
    batch = order.batch(step)
    shares = share(widths[batch.rows], 64, 16, world)
    assert len(shares) == world
    return [int(batch.rows[place]) for own in shares for part in own for place in part]


def test_every_sample_once_an_epoch_for_every_size_and_world(amount: Amount, figures: dict[str, Any]) -> None:
    """All n <= 200; the fast form takes one world for each, the full form all eight and several batches."""
    tried = 0
    for size in range(1, 201):
        worlds = range(1, 9) if amount(0, 1) else [1 + size % 8]
        for world in worlds:
            for batch in (8 + size % 7,) if len(worlds) == 1 else (3, 32):
                order = Order((size,), (1.0,), batch, seed=size * 31 + world)
                widths = 1 + np.arange(size, dtype=np.int64) % 13
                seen: list[int] = []
                for step in range(-(-2 * size // batch)):
                    rows = dealt(order, step, world, widths)
                    assert sorted(rows) == sorted(order.batch(step).rows.tolist())
                    seen += order.batch(step).rows.tolist()
                assert sorted(seen[:size]) == sorted(seen[size : 2 * size]) == list(range(size))
                tried += 1
    figures.update(tried=tried)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 2**40),
    st.integers(1, 8), st.integers(1, 8), st.data(),
)  # fmt: skip
def test_a_position_round_trips_into_another_world(
    sizes: list[int], batch: int, seed: int, before: int, after: int, data: st.DataObject
) -> None:
    """A mixture's samples are the same sequence whether a run is broken off, where, and how many processes go on."""
    weights = tuple(float(size) for size in sizes)
    widths = [1 + np.arange(size, dtype=np.int64) % 9 for size in sizes]
    steps = 30
    cut = data.draw(st.integers(0, steps))

    def walk(order: Order, progress: Progress, until: int, world: int) -> list[tuple[int, list[int]]]:
        found = []
        while progress.step < until:
            task = order.batch(progress.step).task
            found.append((task, sorted(dealt(order, progress.step, world, widths[task]))))
            progress.step += 1
        return found

    whole = walk(Order(tuple(sizes), weights, batch, seed), Progress(), steps, 1)
    progress = Progress()
    first = walk(Order(tuple(sizes), weights, batch, seed), progress, cut, before)
    kept = Progress(**json.loads(json.dumps(progress.__dict__ | {"best_score": 0.0})))
    assert first + walk(Order(tuple(sizes), weights, batch, seed), kept, steps, after) == whole
