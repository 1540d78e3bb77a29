"""A user's text file as distinct lines on disk and a memory map of vectors, made in chunks and gone on with.

What is held in memory does not grow with the text's length: the lines stand in a file of their own, reached by offsets,
and the vectors in another. By the line it is some 70 bytes while equal lines are looked for, and 16 afterwards.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effstilts.data.text_files import lines_of
from effstilts.errors import DataError, StoreError
from effstilts.log import Log
from effstilts.retrieval.embed import Embedder
from effstilts.store import disk_errors, read_signed, signed, sync_file, write_atomic

CHUNK = 2048  # sentences that are embedded at once; what an interruption can lose

_WHITE = str.maketrans("\t\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", " " * 10)


@dataclass(frozen=True)
class Lines:
    """Lines of a text file that are not blank, equal ones once unless asked otherwise.

    numbers [n]: where each first stands in the file, from 1; lines, blank, repeated: what the file held.
    """

    path: Path
    text: Path
    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    lines: int
    blank: int
    repeated: int

    def __len__(self) -> int:
        return len(self.numbers)

    def chunks(self, size: int, first: int = 0) -> Iterator[list[str]]:
        """The lines from `first` on, `size` at a time."""
        with self.text.open("rb") as file:
            for start in range(first, len(self), size):
                stop = min(start + size, len(self))
                file.seek(int(self.offsets[start]))
                block = file.read(int(self.offsets[stop] - self.offsets[start]))
                yield block.decode().split("\n")[:-1]

    def at(self, rows: NDArray[np.int64]) -> Iterator[str]:
        """Single lines, in the order asked for."""
        with self.text.open("rb") as file:
            for row in rows.tolist():
                file.seek(int(self.offsets[row]))
                yield file.read(int(self.offsets[row + 1] - self.offsets[row]) - 1).decode()

    def told(self) -> str:
        """One line for people about what was read."""
        parts = [f"{self.path}: {self.lines:,} lines"]
        parts += [f"{count:,} {what}" for count, what in ((self.blank, "blank"), (self.repeated, "repeated")) if count]
        return ", ".join(parts)


def read_lines(path: Path, folder: Path, distinct: bool = True) -> Lines:
    """Reads a UTF-8 file (plain, .gz or .bz2) into the folder. White space that would break a TSV becomes a space.

    DataError for a file that cannot be read, is not UTF-8 (file and line named), or has no text.
    """
    digests = bytearray()
    blank: list[int] = []
    count = 0
    for count, (line, _) in enumerate(lines_of(path), 1):
        if line.strip():
            digests += hashlib.blake2b(line.strip().encode(), digest_size=16).digest()
        else:
            blank.append(count)
    if len(blank) == count:
        raise DataError(f"{path} holds no text: {count} lines, all blank" if count else f"{path} is empty")
    pairs = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    kept = np.ones(len(pairs), bool)
    if distinct:
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        ranked = pairs[order]
        kept[order[1:][(ranked[1:] == ranked[:-1]).all(1)]] = False
    numbers = np.setdiff1d(np.arange(1, count + 1), np.array(blank, np.int64), assume_unique=True)[kept]
    offsets = np.zeros(len(numbers) + 1, np.int64)
    text = folder / "lines.txt"
    with disk_errors(text):
        folder.mkdir(parents=True, exist_ok=True)
        with text.open("wb") as file:
            row = 0
            for number, (line, _) in enumerate(lines_of(path), 1):
                if row < len(numbers) and number == numbers[row]:
                    written = file.write(line.strip().translate(_WHITE).encode() + b"\n")
                    row += 1
                    offsets[row] = offsets[row - 1] + written
    if row != len(numbers):
        raise DataError(f"{path} changed while it was read: start again")
    return Lines(path, text, offsets, numbers, count, len(blank), int((~kept).sum()))


@dataclass(frozen=True)
class Vectors:
    """Unit vectors [n, D] as a read-only memory map, and how many lines were longer than the model reads."""

    rows: NDArray[np.float32]
    over_length: int


def embed_lines(embedder: Embedder, lines: Lines, folder: Path, identity: Mapping[str, Any], log: Log) -> Vectors:
    """Embeds the lines chunk by chunk into `folder`, or goes on where an earlier call with this identity stopped.

    embedder: entered, of one pooling. The state is written after the vectors are on the disk, with their hash, so that
    every row it counts is whole. DataError names the line whose vector has no direction (zero, or not finite).
    """
    path, state_path = folder / "vectors.f32", folder / "vectors.json"
    dim = embedder.encoder.hidden_size
    wanted = {**identity, "rows": len(lines), "dim": dim}
    done, cut, digest = 0, 0, hashlib.sha256()
    width = dim * 4
    try:
        state = read_signed(state_path, "")
        if state["identity"] == wanted:
            found = _digest(path, state["done"] * width)
            if found.hexdigest() == state["vectors"]:
                done, cut, digest = state["done"], state["over_length"], found
    except (OSError, StoreError, KeyError):
        pass
    with (
        disk_errors(path),
        log.progress(len(lines), f"embed {lines.path.name}", done) as progress,
        path.open("r+b" if done else "wb") as file,
    ):
        file.truncate(done * width)
        file.seek(done * width)
        for sentences in lines.chunks(CHUNK, done):
            made = embedder(sentences, None, functools.partial(_line, lines, done))
            (vectors,) = made.vectors
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            bad = np.flatnonzero(norms[:, 0] == 0)
            if len(bad):
                name = _line(lines, done, int(bad[0]))
                raise DataError(f"{name} has a vector of zeros, which has no direction; is the model whole?")
            block = np.ascontiguousarray(vectors / norms, dtype="<f4").tobytes()
            file.write(block)
            digest.update(block)
            file.flush()
            sync_file(path)
            cut += made.truncated
            done += len(sentences)
            state = {"identity": wanted, "done": done, "over_length": cut, "vectors": digest.hexdigest()}
            write_atomic(state_path, signed(state))
            progress.advance(len(sentences))
    rows = np.memmap(path, "<f4", "r", shape=(len(lines), dim))
    return Vectors(rows, cut)


def _digest(path: Path, size: int) -> Any:
    """SHA-256 of the first `size` bytes, or of all of a shorter file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(min(size, 1 << 20)):
            digest.update(block)
            size -= len(block)
    return digest


def _line(lines: Lines, done: int, row: int) -> str:
    return f"{lines.path}:{lines.numbers[done + row]}: the line"
