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


def splitmix(state: int) -> int:
    """Steele, Lea and Flood 2014, figure 17, in whole numbers of Python."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(st.lists(st.integers(-(2**63), 2**64 - 1), max_size=4))
def test_mix_and_key_are_splitmix(parts: list[int]) -> None:
    numbers = [part % 2**64 for part in parts]
    assert mix(np.array(numbers, np.uint64)).tolist() == [splitmix(number) for number in numbers]
    state = 0
    for number in numbers:
        state = splitmix(state ^ splitmix(number))
    assert int(key(*parts)) == state


def test_pinned_numbers_so_that_an_upgrade_cannot_change_an_order() -> None:
    """A run that is resumed, and one that is repeated in ten years, sees these rows with these keys."""
    assert mix(np.array([0, 1], np.uint64)).tolist() == [16294208416658607535, 10451216379200822465]
    assert permutation(12, 3, 2).tolist() == [1, 11, 2, 8, 6, 4, 7, 5, 3, 9, 10, 0]
    assert permutation(50, 1, 0).tolist() != permutation(50, 1, 1).tolist()
    assert permutation(50, 1, 0).tolist() != permutation(50, 2, 0).tolist()
    rows, keys = stream(5, 9, 3, 4)
    assert rows.tolist() == [1, 3, 2, 1]
    assert keys.tolist() == [1564687333225039923, 2884522084910762273, 10796821378528804098, 5368725546834657918]
    mixed = Order((7, 30, 11), (3.0, 1.0, 6.0), 4, 5)
    for step, task, drawn, first in (
        (0, 2, [5, 4, 9, 10], 4091957094291753872),
        (1, 2, [1, 0, 8, 7], 6650993867542280712),
        (999, 0, [6, 4, 6, 5], 588858242965879761),
        (1000, 1, [23, 19, 1, 18], 9158232479580285760),
        (12345, 0, [6, 0, 5, 4], 10852767483251387555),
    ):
        batch = mixed.batch(step)
        assert (batch.task, batch.rows.tolist(), int(batch.keys[0])) == (task, drawn, first)
    assert uniform(np.array([1, 2], np.uint64), 3).tolist() == [
        [0.36818951565166946, 0.46696631092582586, 0.651475462601699],
        [0.3922164624235318, 0.09139235830587256, 0.5121232254543582],
    ]


def test_an_order_that_is_kept_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        permutation(5, 0, 0)[0] = 1


def test_a_run_has_at_least_one_step_and_rounds() -> None:
    assert Order((3,), (1.0,), 10, 0).steps_for(0.01) == 1
    assert Order((30,), (1.0,), 10, 0).steps_for(0.5) == 2 and Order((31,), (1.0,), 10, 0).steps_for(1) == 4
    assert Order((30, 5), (1.0, 1.0), 10, 0).steps_for(3) == 12
    assert Order((1, 1), (1.0, 1e9), 1, 0).cycle == (1, 100_000), "a task has at least one step of a cycle"


@pytest.mark.parametrize("sizes", [(), (3, 0), (3,), (3, 4, 5), (-1, 2)])
def test_sizes_and_weights_must_fit(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a positive size and a weight"):
        Order(sizes, (1.0, 1.0), 4, 0)


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
    assert Order((9, 9), (99.0, 1.0), 1, 0).cycle == (990, 10), "ten of a thousand are enough"
    assert Order((9, 9), (999.0, 1.0), 1, 0).cycle == (9990, 10)
    assert Order((9,), (5.0,), 1, 0).cycle == (1,)
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
    assert mixture([16, 1], [Share("lm"), Share("lm")], 100, 1.0, fixed=False)[0] == (8.5, 8.5), "0: all alike"


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


@pytest.mark.parametrize(
    ("shares", "fixed", "possible"),
    [
        ([Share(weight=99.0), Share()], True, False),
        ([Share(weight=100.0), Share()], True, True),
        ([Share(weight=3.0), Share()], False, True),
        ([Share(weight=3.0), Share("a")], True, True),
        ([Share(weight=98.0), Share(), Share()], True, False),
        ([Share(weight=99.0), Share(), Share()], True, True),
        ([Share(weight=198.0), Share(weight=2.0)], True, False),
    ],
)
def test_a_cycle_is_long_where_a_task_gets_fewer_than_ten_of_a_thousand(
    shares: list[Share], fixed: bool, possible: bool
) -> None:
    assert long_cycle_possible(shares, fixed) is possible


def test_one_task_has_no_mixture() -> None:
    assert mixture([7], [Share("a", 5.0, 0.5)], 3, 9.0, fixed=False) == ((1.0,), [7])


def test_a_language_counts_at_least_one_row_and_at_most_its_own() -> None:
    shares = [Share("a", 1.0, 1.0), Share("a", 1.0, 1.0)]
    assert mixture([1000, 1], shares, 100, 1.0, fixed=False)[1] == [100, 1]
    assert mixture([4, 4], shares, 100, 1.0, fixed=False)[1] == [4, 4]
    flat = [Share("a", 1.0, 0.0), Share("a", 1.0, 0.0)]
    assert mixture([1000, 2], flat, 100, 1.0, fixed=False)[1] == [50, 2]
