"""Damage to files: cut at offsets spread over the file, and single bits flipped anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator


def damaged(content: bytes, cuts: int, flips: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, the damaged content): `cuts` lengths from 0 to one byte short, `flips` random bits."""
    for length in sorted({len(content) * i // cuts for i in range(cuts - 1)} | {max(0, len(content) - 1)}):
        if length < len(content):
            yield f"cut to {length} of {len(content)} bytes", content[:length]
    draw = random.Random(seed)
    for _ in range(flips if content else 0):
        at, bit = draw.randrange(len(content)), draw.randrange(8)
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        yield f"bit {bit} of byte {at} of {len(content)}", bytes(flipped)
