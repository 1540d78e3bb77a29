"""Random draws that are the same everywhere: splitmix64 of a counter (Steele, Lea and Flood 2014)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_MASK = (1 << 64) - 1


def number(*parts: object) -> int:
    """A 64-bit number out of the parts' text."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Draw:
    """A stream of draws that begins at a seed."""

    def __init__(self, *parts: object) -> None:
        self._state = number(*parts)

    def bits(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, limit: int) -> int:
        return self.bits() % limit

    def chance(self, probability: float) -> bool:
        return (self.bits() >> 11) < probability * (1 << 53)

    def choice(self, items: Sequence[T]) -> T:
        return items[self.bits() % len(items)]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in random order."""
        left = list(items)
        for i in range(count):
            j = i + self.below(len(left) - i)
            left[i], left[j] = left[j], left[i]
        return left[:count]
