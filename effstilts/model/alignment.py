"""Which pieces translate each other, learnt from parallel text in minutes on a processor.

IBM Model 1 (Brown et al. 1993) in both directions over the pieces of a vocabulary, without the empty word; a link
counts by the product of both directions' posteriors (Liang, Taskar and Klein 2006, alignment by agreement). New
embeddings that begin as their translations' (Minixhofer, Paischer and Rekabsaz 2022, WECHSEL, from bilingual
dictionaries) let a body of one language read others before it has been trained on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = "translations.npz"
# Of a task and language. Beyond, frequent pieces gain nothing, and the cells take gigabytes.
MOST_PAIRS = 50_000
_ROUNDS = 5
# Expected links of a pair of pieces below which it is noise.
_LEAST = 0.05


class Translations(NamedTuple):
    """Pieces [links], what they translate [links], and how often that is expected [links]."""

    piece: NDArray[np.int64]
    source: NDArray[np.int64]
    times: NDArray[np.float64]


NONE = Translations(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def align(sources: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]) -> Translations:
    """Links of the targets' pieces to the sources'. Row i of both is a text and its translation, piece ids of any
    integer type without special ones; a piece counts once a row."""
    base, cells = 1 + max((int(ids.max(initial=0)) for ids in (*sources, *targets)), default=0), []
    starts = np.zeros(2, np.int64)
    for source_ids, target_ids in zip(sources, targets, strict=True):
        # Codes of pairs of pieces do not fit the ids' own 32 bits.
        left, right = (np.unique(ids).astype(np.int64) for ids in (source_ids, target_ids))
        rows, columns = np.divmod(np.arange(len(left) * len(right)), max(1, len(right)))
        cells.append((right[columns] * base + left[rows], starts[0] + rows, starts[1] + columns))
        starts += len(left), len(right)
    if not cells:
        return NONE
    pair, own, other = (np.concatenate(parts) for parts in zip(*cells, strict=True))
    codes, at = np.unique(pair, return_inverse=True)
    piece, source = codes // base, codes % base
    agreed = _model_1(at, piece, own) * _model_1(at, source, other)
    times = np.bincount(at, agreed, len(codes)).astype(np.float64)
    kept = times >= _LEAST
    return Translations(piece[kept], source[kept], times[kept])


def _model_1(at: NDArray[np.int64], given: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.float64]:
    """Posterior of each cell [cells] that its slot, a piece of one row on one side, comes from the other side's piece.

    at [cells]: the pair of pieces; given [pairs]: the piece that explains; slot [cells].
    """
    chance = np.ones(len(given))

    def posterior() -> NDArray[np.float64]:
        weight = chance[at]
        return weight / np.bincount(slot, weight)[slot]

    for _ in range(_ROUNDS):
        counts = np.bincount(at, posterior(), len(given))
        chance = counts / np.bincount(given, counts)[given]
    return posterior()


def merged(parts: Sequence[Translations]) -> Translations:
    """Links of several parallel texts, counts of the same link added."""
    piece, source, times = (np.concatenate(columns) for columns in zip(NONE, *parts, strict=True))
    links, at = np.unique(np.stack([piece, source]), axis=1, return_inverse=True)
    return Translations(links[0], links[1], np.bincount(at.reshape(-1), times, links.shape[1]).astype(np.float64))


def write(translations: Translations, folder: Path) -> None:
    np.savez(folder / FILE, allow_pickle=False, **translations._asdict())


def read(folder: Path) -> Translations:
    """What `write` wrote."""
    with np.load(folder / FILE, allow_pickle=False) as saved:
        return Translations(*(saved[name] for name in Translations._fields))
