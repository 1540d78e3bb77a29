"""The two sides of a retrieval task as vectors, pooling by pooling, as many from one pass as memory bears."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effstilts.model.encoder import Encoder
from effstilts.model.packed import Precision
from effstilts.recipe import Retrieval
from effstilts.retrieval.embed import Embedded, Embedder, Pooling
from effstilts.retrieval.spaces import into_space

# What the vectors of several poolings may take at once.
_VECTOR_BYTES = 1 << 31
# What a sentence is called in messages.
_SOURCE, _TARGET = "source sentence {} (from 0)".format, "target sentence {} (from 0)".format


@dataclass(frozen=True)
class Sides:
    """source [n, D], target [m, D]: vectors of one pooling in the settings' space. over_length: sentences of both that
    were longer than the model reads, and cut; tokens: that were read for them."""

    pooling: Pooling
    source: NDArray[np.float32]
    target: NDArray[np.float32]
    over_length: int
    tokens: int


class _Last:
    """The vectors of the last candidates: a set of candidates is the same for the queries of every language."""

    def __init__(self) -> None:
        self._encoder: weakref.ref[Encoder] | None = None
        self._key: tuple[Any, ...] = ()
        self._embedded = Embedded([], np.empty(0, np.int64), 0)

    def embedded(self, embedder: Embedder, texts: list[str], key: tuple[Any, ...]) -> tuple[Embedded, bool]:
        """The texts' vectors for each pooling of the embedder, from the last call where that was the same; whether they
        were made now."""
        same = self._encoder is not None and self._encoder() is embedder.encoder
        made = not same or self._key != (key, texts)
        if made:
            self._embedded = embedder(texts, name=_TARGET)
            self._encoder, self._key = weakref.ref(embedder.encoder), (key, texts)
        return self._embedded, made


_LAST = _Last()


def sides(
    encoder: Encoder,
    source: list[str],
    target: list[str],
    over: Sequence[Pooling],
    max_length: int,
    settings: Retrieval,
    precision: Precision = "fp32",
    shared: bool = False,
) -> Iterator[Sides]:
    """Both sides in each pooling. shared: the next call may have the same targets."""
    row = 4 * encoder.hidden_size * (len(source) + len(target))
    together = max(1, _VECTOR_BYTES // max(row, 1))
    for start in range(0, len(over), together):
        part = list(over[start : start + together])
        with Embedder(encoder, part, max_length, settings.batch_tokens, precision) as embedder:
            ours = embedder(source, name=_SOURCE)
            key = part, max_length, embedder.precision
            theirs, made = _LAST.embedded(embedder, target, key) if shared else (embedder(target, name=_TARGET), True)
        tokens = int(ours.lengths.sum() + made * theirs.lengths.sum())
        for pooling, x, y in zip(part, ours.vectors, theirs.vectors, strict=True):
            yield Sides(pooling, *into_space(x, y, settings.space), ours.truncated + theirs.truncated, tokens)
