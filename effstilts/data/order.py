"""Stateless order: which samples an optimizer step trains on, as a pure function of (seed, step).

There is no iterator and nothing to save: a run that resumes at step s asks for step s. The order does not depend on
the number of processes, workers or micro-batches.

    one task    the rows of epoch e are permuted by (seed, e); step s takes positions s * B ... s * B + B - 1 of the
                endless stream of epochs, so that every row comes once an epoch whatever B is
    mixture     a step trains on one task. A cycle of steps gives each task its share; which step of the cycle is
                whose is permuted by (seed, cycle); within its own steps each task walks its own stream

Random numbers are splitmix64 of a counter (Steele, Lea and Flood 2014), written out here so that an order stays the
same across numpy releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

UInts = NDArray[np.uint64]
Ints = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CYCLES = (1000, 10_000, 100_000)
_FEWEST = 10
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def mix(values: UInts) -> UInts:
    """splitmix64's finaliser, elementwise: a bijection of the 64-bit numbers that looks random."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def key(*parts: int) -> np.uint64:
    """One 64-bit key out of several whole numbers; the order of the parts matters."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix(state ^ mix(np.array([part & 0xFFFFFFFFFFFFFFFF], np.uint64)))
    return cast("np.uint64", state[0])


def uniform(keys: UInts, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for each key: [keys, count]."""
    counters = keys[:, None] + np.arange(count, dtype=np.uint64)[None, :] * _GOLDEN
    return np.asarray((mix(mix(counters)) >> np.uint64(11)).astype(np.float64) / float(1 << 53))


@lru_cache(maxsize=32)
def permutation(size: int, seed: int, epoch: int) -> Ints:
    """The order of `size` rows in one epoch. Read-only, kept for the epochs in use."""
    hashes = mix(np.arange(size, dtype=np.uint64) * _GOLDEN ^ key(seed, epoch))
    order = np.argsort(hashes, kind="stable")
    order.setflags(write=False)
    return order


@dataclass(frozen=True)
class Batch:
    """The global batch of a step: row indices of one task, and a key for each occurrence of a row.

    `keys` differ between epochs and are the seed of whatever is drawn for the row (its masked tokens).
    """

    task: int
    rows: Ints
    keys: UInts


def stream(size: int, seed: int, start: int, count: int) -> tuple[Ints, UInts]:
    """Positions start ... start + count - 1 of the endless stream over `size` rows: row indices and keys."""
    positions = np.arange(start, start + count, dtype=np.int64)
    epochs, offsets = np.divmod(positions, size)
    rows = np.empty(count, np.int64)
    keys = np.empty(count, np.uint64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permutation(size, seed, int(epoch))[offsets[here]]
        keys[here] = mix(rows[here].astype(np.uint64) ^ key(seed, int(epoch), 1))
    return rows, keys


@dataclass(frozen=True)
class Order:
    """The order of a training run over one or several tasks.

    sizes: rows of each task; weights: share of the steps that each task gets (any positive scale).
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.weights) or min(self.sizes) < 1:
            raise ValueError(f"needs a positive size and a weight for each task, got {self.sizes}, {self.weights}")

    @property
    def cycle(self) -> tuple[int, ...]:
        """Steps that each task gets in a cycle: at least one, and together about 1,000 where tasks are several; ten or
        a hundred times as many where some task would get fewer than ten of these, so that a share above 1 in 10,000
        is met to 5 %."""
        if len(self.sizes) == 1:
            return (1,)
        total = sum(self.weights)
        least = min(self.weights) / total
        steps = next((count for count in _CYCLES if count * least >= _FEWEST), _CYCLES[-1])
        return tuple(max(1, round(steps * weight / total)) for weight in self.weights)

    def batch(self, step: int) -> Batch:
        """The global batch of optimizer step `step`, counted from 0."""
        shares = self.cycle
        if len(shares) == 1:
            task, index = 0, step
        else:
            cycle, place = divmod(step, sum(shares))
            owners = _owners(shares, self.seed, cycle)
            task = int(owners[place])
            index = cycle * shares[task] + int(np.count_nonzero(owners[:place] == task))
        rows, keys = stream(
            self.sizes[task], int(key(self.seed, task) >> np.uint64(1)), index * self.batch_size, self.batch_size
        )
        return Batch(task, rows, keys)

    def steps_for(self, epochs: float, counted: Sequence[int] = ()) -> int:
        """Steps of `epochs` passes; in a mixture an epoch is the `counted` rows of each task, else all rows."""
        counted = counted or self.sizes
        return max(1, round(epochs * sum(-(-rows // self.batch_size) for rows in counted)))


@lru_cache(maxsize=8)
def _owners(shares: tuple[int, ...], seed: int, cycle: int) -> Any:
    slots = np.repeat(np.arange(len(shares)), shares)
    return slots[permutation(len(slots), seed ^ 0x5EED, cycle)]


@dataclass(frozen=True)
class Share:
    """One entry of a mixture. weight: for fixed shares. group, exponent: entries of one group are languages of one
    task and share its steps as size ** exponent; an entry without a group is a task of its own."""

    group: str = ""
    weight: float = 1.0
    exponent: float = 0.0


def long_cycle_possible(shares: Sequence[Share], fixed: bool) -> bool:
    """Whether the cycle of such a mixture may be longer than 1,000 steps, as far as shares tell without the sizes."""
    if not fixed or any(share.group for share in shares):
        return True
    weights = [share.weight for share in shares]
    return _CYCLES[0] * min(weights) / sum(weights) < _FEWEST


def mixture(
    sizes: Sequence[int], shares: Sequence[Share], cap: int, temperature: float, fixed: bool
) -> tuple[tuple[float, ...], list[int]]:
    """Weights [entries] of a mixture, and how many rows of each entry count for an epoch [entries].

    A task weighs min(n, cap) ** (1 / T) (Raffel et al. 2020, section 3.5.2), or its fixed weight; in a task that is a
    group of languages, language l of them has size_l ** exponent / sum of these (Conneau and Lample 2019, 3.1).
    """
    if len(sizes) == 1:
        return (1.0,), list(sizes)
    groups: dict[str, list[int]] = {}
    for place, share in enumerate(shares):
        groups.setdefault(share.group or f"#{place}", []).append(place)
    weights, counted = [0.0] * len(sizes), [0] * len(sizes)
    for places in groups.values():
        own = [sizes[i] for i in places]
        powers = [size ** shares[i].exponent for size, i in zip(own, places, strict=True)]
        rows = min(sum(own), cap)
        whole = shares[places[0]].weight if fixed else rows ** (1.0 / temperature)
        for i, power in zip(places, powers, strict=True):
            weights[i] = whole * power / sum(powers)
            counted[i] = min(sizes[i], max(1, round(rows * power / sum(powers))))
    return tuple(weights), counted
