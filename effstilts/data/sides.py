"""Rows whose two sides lie in files of their own: aligned lines, comparable corpora, queries and candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from effstilts.data.readers import READERS, Reader, Row
from effstilts.errors import DataError


def _aligned(reader: Reader, paths: Sequence[Path], language: str) -> Iterator[Row]:
    """Line i of one file with line i of the other. DataError if they differ in length."""
    left, right = (list(reader(path)) for path in paths)
    if len(left) != len(right):
        raise DataError(f"{paths[0]} has {len(left)} lines, {paths[1]} has {len(right)}: they are not aligned")
    for (source, place), (target, _) in zip(left, right, strict=True):
        yield {"source": source["text"], "target": target["text"]}, place


def _bitext(reader: Reader, paths: Sequence[Path], language: str) -> Iterator[Row]:
    """Two files of texts are the two sides; two tables with both sides follow each other."""
    first = next(iter(reader(paths[0])), None)
    if first is None or "text" in first[0]:
        return _aligned(reader, paths, language)
    return chain.from_iterable(map(reader, paths))


def _corpora(reader: Reader, paths: Sequence[Path], language: str) -> Iterator[Row]:
    """The sentences of two comparable corpora, each with its gold partners. DataError for a pair of unknown ids."""
    sides = {"source": list(reader(paths[0])), "target": list(reader(paths[1]))}
    for row, place in chain.from_iterable(sides.values()):
        if "id" not in row or "text" not in row:
            raise DataError(f"{place}: comparable corpora are lines of an id, a tab and a sentence (format: bucc)")
    known = {side: {row["id"] for row, _ in rows} for side, rows in sides.items()}
    partners: dict[str, dict[str, list[str]]] = {"source": {}, "target": {}}
    for pair, place in READERS["bucc_gold"](paths[2]):
        for side, other in (("source", "target"), ("target", "source")):
            name = pair[f"{side}_id"]
            if name not in known[side]:
                raise DataError(f"{place}: no {side} sentence has the id {name!r}")
            partners[side].setdefault(name, []).append(pair[f"{other}_id"])
    for side, rows in sides.items():
        for row, place in rows:
            yield row | {"side": side, "gold": partners[side].get(row["id"], [])}, place


def _candidates(reader: Reader, paths: Sequence[Path], language: str) -> Iterator[Row]:
    """Queries in one language, and all candidates."""
    return (
        (row, place)
        for row, place in chain.from_iterable(map(reader, paths))
        if row.get("language", "") in ("", language)
    )


Joined = Callable[[Reader, Sequence[Path], str], Iterator[Row]]
# (kind, number of files of a split) -> how they become rows; other files are read one after another.
JOINED: Mapping[tuple[str, int], Joined] = {
    ("bitext", 2): _bitext,
    ("mining", 3): _corpora,
    ("candidates", 1): _candidates,
    ("candidates", 2): _candidates,
}
# Formats whose text i of one file belongs to text i of the other, whatever the kind.
_ALIGNED_FORMATS = ("aligned_lines", "stsb_csv")


def joined(kind: str, form: str, files: int) -> Joined | None:
    """How the files of a split become rows together; None: they are read one after another."""
    if form in _ALIGNED_FORMATS and files == 2:
        return _aligned
    return JOINED.get((kind, files))
