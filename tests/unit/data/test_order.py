from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.data.order import Order, key, mix, mixture_weights, permutation, stream, uniform


@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(1, 50))
def test_every_row_comes_once_an_epoch_whatever_the_batch(size: int, seed: int, batch: int) -> None:
    order = Order((size,), (1.0,), batch, seed)
    steps = -(-2 * size // batch)
    rows = np.concatenate([order.batch(step).rows for step in range(steps)])[: 2 * size]
    assert sorted(rows[:size].tolist()) == list(range(size))
    assert sorted(rows[size:].tolist()) == list(range(size))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=4), st.integers(0, 2**30), st.integers(1, 16))
def test_each_task_of_a_mixture_walks_its_own_epochs(sizes: list[int], seed: int, batch: int) -> None:
    order = Order(tuple(sizes), mixture_weights(sizes, 1 << 17, 1.0), batch, seed)
    cycle = sum(order.cycle)
    seen: dict[int, list[int]] = {task: [] for task in range(len(sizes))}
    counts = dict.fromkeys(range(len(sizes)), 0)
    for step in range(cycle):
        drawn = order.batch(step)
        seen[drawn.task] += drawn.rows.tolist()
        counts[drawn.task] += 1
    assert tuple(counts.values()) == order.cycle
    for task, size in enumerate(sizes):
        if len(seen[task]) >= size:
            assert sorted(seen[task][:size]) == list(range(size))


def test_a_step_is_a_pure_function() -> None:
    order = Order((37, 11), (3.0, 1.0), 4, 9)
    late = Order((37, 11), (3.0, 1.0), 4, 9).batch(1234)
    for step in (0, 7, 1234):
        order.batch(step)
    again = order.batch(1234)
    assert late.task == again.task and late.rows.tolist() == again.rows.tolist()
    assert late.keys.tolist() == again.keys.tolist()


def test_pinned_numbers_so_that_an_upgrade_cannot_change_an_order() -> None:
    assert mix(np.array([0, 1], np.uint64)).tolist() == [16294208416658607535, 10451216379200822465]
    assert permutation(6, 1, 0).tolist() == permutation(6, 1, 0).tolist()
    assert permutation(50, 1, 0).tolist() != permutation(50, 1, 1).tolist()
    assert permutation(50, 1, 0).tolist() != permutation(50, 2, 0).tolist()


def test_keys_differ_between_epochs_and_rows() -> None:
    _, keys = stream(20, 3, 0, 60)
    assert len(set(keys.tolist())) == 60
    assert key(1, 2) != key(2, 1)


def test_uniform_is_uniform() -> None:
    numbers = uniform(mix(np.arange(200, dtype=np.uint64)), 100)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    counts, _ = np.histogram(numbers, 20, (0, 1))
    assert counts.std() / counts.mean() < 0.1


def test_mixture_weights() -> None:
    assert mixture_weights([100, 400], 200, 1.0) == (100, 200)
    assert mixture_weights([100, 400], 1000, 2.0) == (10, 20)
    assert Order((100, 400), (1, 1), 10, 0).steps_for(2, (50, 1000)) == 2 * (5 + 40)
    with pytest.raises(ValueError):
        Order((), (), 4, 0)
