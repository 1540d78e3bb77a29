from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.data.order import Order, Share, key, long_cycle_possible, mix, mixture, permutation, stream, uniform


def weights(sizes: list[int], cap: int, temperature: float = 1.0) -> tuple[float, ...]:
    return mixture(sizes, [Share()] * len(sizes), cap, temperature, fixed=False)[0]


@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(1, 50))
def test_every_row_comes_once_an_epoch_whatever_the_batch(size: int, seed: int, batch: int) -> None:
    order = Order((size,), (1.0,), batch, seed)
    steps = -(-2 * size // batch)
    rows = np.concatenate([order.batch(step).rows for step in range(steps)])[: 2 * size]
    assert sorted(rows[:size].tolist()) == list(range(size))
    assert sorted(rows[size:].tolist()) == list(range(size))


@settings(max_examples=25)
@given(st.lists(st.integers(4, 60), min_size=2, max_size=4), st.integers(0, 2**30), st.integers(1, 16))
def test_each_task_of_a_mixture_walks_its_own_epochs(sizes: list[int], seed: int, batch: int) -> None:
    order = Order(tuple(sizes), weights(sizes, 1 << 17), batch, seed)
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


def test_examples_proportional_mixing_with_cap_and_temperature() -> None:
    assert weights([100, 400], 200) == (100, 200)
    assert weights([100, 400], 1000, 2.0) == (10, 20)
    _, counted = mixture([100, 400], [Share(), Share()], 200, 1.0, fixed=False)
    assert counted == [100, 200] and Order((100, 400), (1, 1), 10, 0).steps_for(2, counted) == 2 * (10 + 20)
    with pytest.raises(ValueError):
        Order((), (), 4, 0)


def test_epochs_go_on_across_the_borders_of_cycles() -> None:
    """Every row of every task once in each of its own epochs, over two borders, whatever the batch."""
    sizes = (7, 30, 11)
    order = Order(sizes, (3.0, 1.0, 6.0), 4, 5)
    seen: list[list[int]] = [[], [], []]
    for step in range(2 * sum(order.cycle) + 57):
        drawn = order.batch(step)
        seen[drawn.task] += drawn.rows.tolist()
    for size, rows in zip(sizes, seen, strict=True):
        epochs = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
        assert len(epochs) > 20 and all(sorted(epoch) == list(range(size)) for epoch in epochs)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3000), min_size=2, max_size=40), st.integers(0, 2**30))
def test_steps_are_shared_as_the_weights_say(parts: list[int], seed: int) -> None:
    """To 6 % of each share, however small next to the others; and every cycle anew."""
    order = Order((50,) * len(parts), tuple(float(part) for part in parts), 1, seed)
    slots, total = np.array(order.cycle), sum(parts)
    shares = np.array(parts) / total
    known = shares >= 1e-4
    assert (np.abs(slots / slots.sum() - shares) <= 0.06 * shares)[known].all()
    whole = slots.sum()
    if whole < 3000:
        drawn = np.bincount([order.batch(step).task for step in range(whole)], minlength=len(parts))
        assert drawn.tolist() == slots.tolist()


def test_a_rare_task_gets_its_share_and_no_more() -> None:
    """At 1 in 4,000 a cycle of 1,000 steps would give it four times its part."""
    order = Order((1000, 1000), (3999.0, 1.0), 1, 0)
    assert order.cycle == (99_975, 25)
    # What was a cycle of 1,000 stays one, slot by slot: the order of a run that is resumed.
    assert Order((9, 9, 9), (59.0, 176.0, 765.0), 1, 0).cycle == (59, 176, 765)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 400), st.sampled_from(["", "a"])), min_size=2, max_size=9),
    st.booleans(),
)
def test_a_long_cycle_is_announced_to_the_key(entries: list[tuple[int, int, str]], fixed: bool) -> None:
    sizes = tuple(size for size, _, _ in entries)
    shares = [Share(group, weight, 0.5 if group else 0.0) for _, weight, group in entries]
    found, _ = mixture(sizes, shares, 1 << 17, 1.0, fixed=fixed)
    long = sum(Order(sizes, found, 1, 0).cycle) > 1000 + len(sizes)
    assert not long or long_cycle_possible(shares, fixed)


def test_fixed_shares() -> None:
    found, counted = mixture([100, 400], [Share(weight=3), Share(weight=1)], 1 << 17, 1.0, fixed=True)
    assert found == (3, 1) and counted == [100, 400]


def test_languages_of_one_task_share_its_steps_by_their_exponent() -> None:
    """16 and 1 million lines at exponent 0.5 are drawn 4 to 1; the task weighs what its rows weigh under the cap."""
    shares = [Share("lm", 1.0, 0.5), Share("lm", 1.0, 0.5), Share()]
    found, counted = mixture([16_000_000, 1_000_000, 50_000], shares, 100_000, 1.0, fixed=False)
    assert found == pytest.approx((80_000, 20_000, 50_000)) and counted == [80_000, 20_000, 50_000]
    fixed, _ = mixture([16_000_000, 1_000_000, 50_000], shares, 100_000, 1.0, fixed=True)
    assert fixed == pytest.approx((0.8, 0.2, 1.0))


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.sampled_from(["", "a", "b"])), min_size=2, max_size=8),
    st.integers(1, 10**6),
    st.floats(0.05, 1),
    st.floats(0.5, 5),
)
def test_a_tasks_weight_does_not_depend_on_how_its_languages_share_it(
    entries: list[tuple[int, str]], cap: int, exponent: float, temperature: float
) -> None:
    sizes = [size for size, _ in entries]
    shares = [Share(group, 1.0, exponent if group else 0.0) for _, group in entries]
    found, counted = mixture(sizes, shares, cap, temperature, fixed=False)
    assert all(weight > 0 for weight in found) and all(1 <= n <= size for n, size in zip(counted, sizes, strict=True))
    for group in ("a", "b"):
        own = [i for i, (_, name) in enumerate(entries) if name == group]
        if own:
            rows = min(sum(sizes[i] for i in own), cap)
            assert sum(found[i] for i in own) == pytest.approx(rows ** (1 / temperature))
