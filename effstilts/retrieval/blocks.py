"""Neighbours block by block: memory that does not grow with the sides, progress, and a search that is gone on with.

By the line it is 12 bytes for each neighbour of the result; beside that what a search of one block in another takes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import StoreError
from effstilts.log import Log
from effstilts.retrieval.neighbours import Neighbours, both_directions, search
from effstilts.store import DAMAGE, disk_errors, verify_folder, write_folder

BLOCK_ROWS = 1 << 15  # queries between two looks at the progress
DATABASE_ROWS = 1 << 18  # of what is searched, at once: a search holds codes of them all
KEEP_SECONDS = 60.0  # of a search that an interruption loses, or more where keeping takes long
_KEEP_SHARE = 20  # a twentieth of the time at most goes into keeping


class Keep:
    """What a search has found so far, kept in a folder that is this search's alone."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder, self._log = folder, log
        self._last, self._takes = time.monotonic(), 0.0

    def restore(self, found: Sequence[Neighbours], blocks: Sequence[int]) -> int:
        """Fills `found` from the newest whole state of a search over the same blocks; how many of them it holds."""
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)  # what killed processes had begun to keep
        for state in sorted(self.folder.glob("done-*"), reverse=True):
            try:
                facts = verify_folder(state)["facts"]
                if facts["blocks"] != list(blocks):
                    continue
                done, kept = int(facts["done"]), read_arrays(state, [side.scores.shape for side in found])
            except (StoreError, OSError, *DAMAGE):
                self._log.warn(f"{state} is damaged or was never completed: the search does not go on from it")
                continue
            for side, own in zip(found, kept, strict=True):
                side.scores[:], side.indices[:] = own
            return done
        return 0

    def after(self, done: int, found: Sequence[Neighbours], blocks: Sequence[int]) -> None:
        """Keeps the state, if the last one is old enough."""
        began = time.monotonic()
        if began - self._last < max(KEEP_SECONDS, _KEEP_SHARE * self._takes):
            return

        state = self.folder / f"done-{done:012d}"
        write_folder(
            state, self.folder / "tmp", lambda into: write_arrays(into, found), {"done": done, "blocks": list(blocks)}
        )
        with disk_errors(self.folder):
            for folder in self.folder.glob("done-*"):
                if folder != state:
                    shutil.rmtree(folder)
        self._last = time.monotonic()
        self._takes = self._last - began


def write_arrays(folder: Path, found: Sequence[Neighbours]) -> None:
    for i, array in enumerate(array for side in found for array in side):
        np.save(folder / f"{i}.npy", array, allow_pickle=False)


def read_arrays(folder: Path, sides: Sequence[tuple[int, ...]]) -> list[Neighbours]:
    """What `write_arrays` wrote, as read-only memory maps: a header is held against the file's size, and no pickle is
    read. sides: [rows, width] of each. ValueError for arrays of other shapes or types, OSError where one is not there.
    """
    kept = [np.lib.format.open_memmap(folder / f"{i}.npy", mode="r") for i in range(2 * len(sides))]
    wanted = [(tuple(shape), kind) for shape in sides for kind in (np.dtype(np.float32), np.dtype(np.int64))]
    if [(array.shape, array.dtype) for array in kept] != wanted:
        raise ValueError(f"{folder} holds arrays of another search")
    return [Neighbours(scores, indices) for scores, indices in zip(kept[::2], kept[1::2], strict=True)]


def both_ways(
    source: NDArray[np.float32],
    target: NDArray[np.float32],
    k: int,
    log: Log,
    keep: Keep | None = None,
    rows: int = BLOCK_ROWS,
    target_rows: int = DATABASE_ROWS,
) -> tuple[Neighbours, Neighbours]:
    """The k nearest targets of each source [n, min(k, m)] and sources of each target [m, min(k, n)], with progress.

    As `both_directions`. keep: where an interrupted search goes on from.
    """
    ahead, back = nothing(len(source), min(k, len(target))), nothing(len(target), min(k, len(source)))

    def look(block: slice, part: slice) -> None:
        forward, backward = both_directions(np.asarray(source[block]), target[part], k)
        _add(ahead, block, forward, part.start)
        _add(back, part, backward, block.start)

    _each_pair(look, (ahead, back), (len(source), rows, len(target), target_rows), log, keep)
    return ahead, back


def nearest(
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
    k: int,
    log: Log,
    keep: Keep | None = None,
    rows: int = BLOCK_ROWS,
    database_rows: int = DATABASE_ROWS,
) -> Neighbours:
    """The k rows of the database nearest to each query [n, min(k, m)], with progress.

    keep: where an interrupted search goes on from.
    """
    found = nothing(len(queries), min(k, len(database)))

    def look(block: slice, part: slice) -> None:
        there = database[part]
        _add(
            found, block, Neighbours(*search(np.asarray(queries[block]), there, min(k, len(there)), "auto")), part.start
        )

    _each_pair(look, (found,), (len(queries), rows, len(database), database_rows), log, keep)
    return found


def _each_pair(
    look: Callable[[slice, slice], None],
    found: Sequence[Neighbours],
    blocks: tuple[int, int, int, int],
    log: Log,
    keep: Keep | None,
) -> None:
    """Calls `look` with each block of queries and each part of what is searched. blocks: n, rows, m, rows."""
    n, rows, m, part_rows = blocks
    parts = -(-m // part_rows)
    done = keep.restore(found, blocks) if keep else 0
    passed = done // parts * parts * rows + done % parts * min(rows, n - done // parts * rows)
    with log.progress(n * parts, "neighbours", passed) as progress:
        for number in range(done, -(-n // rows) * parts):
            block, part = (size * at for size, at in zip((rows, part_rows), divmod(number, parts), strict=True))
            look(slice(block, min(block + rows, n)), slice(part, min(part + part_rows, m)))
            progress.advance(min(rows, n - block))
            if keep:
                keep.after(number + 1, found, blocks)


def nothing(rows: int, width: int) -> Neighbours:
    """Of each row no neighbour yet: [rows, width]."""
    return Neighbours(np.full((rows, width), -np.inf, np.float32), np.zeros((rows, width), np.int64))


def _add(known: Neighbours, block: slice, more: Neighbours, first: int) -> None:
    """The best of what is known of the rows in `block` and of `more`, whose indices are counted from `first`; of equal
    scores the lowest index stays first, as blocks come by rising index."""
    scores = np.hstack([known.scores[block], more.scores])
    found = np.hstack([known.indices[block], more.indices + first])
    best = np.argsort(-scores, axis=1, kind="stable")[:, : known.scores.shape[1]]
    known.scores[block] = np.take_along_axis(scores, best, 1)
    known.indices[block] = np.take_along_axis(found, best, 1)
