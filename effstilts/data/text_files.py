"""Files as lines and as JSON, with the place of whatever is wrong in them.

Files that end in .gz or .bz2 are read through. Text is UTF-8 and nothing else. Lines end at a newline alone (a
carriage return before it belongs to the end): the other separators of Unicode, and a single carriage return, may stand
inside a text. A line, a JSON document and what a compressed file grows to are bounded: a few KB of gzip can be GB.
"""

from __future__ import annotations

import functools
import io
import json
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from effstilts.errors import DataError

# What the decompressors raise for a damaged file.
_DAMAGE = (OSError, EOFError, zlib.error)
MAX_LINE = 16 << 20  # bytes
MAX_JSON = 1 << 30  # bytes
# A compressed file may grow to this many bytes, and further to so many times its size: text is packed 3 to 30 times.
FREE_GROWTH, MAX_GROWTH = 16 << 20, 200
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def check_regular(path: Path) -> None:
    """DataError for what is not there and for what may never end: devices and pipes."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is no plain file")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot open {path}: {getattr(error, 'strerror', None) or error}") from error


def open_bytes(path: Path) -> IO[bytes] | io.BufferedIOBase:
    """A file, read through gzip or bzip2 by its ending. DataError if it cannot be opened."""
    check_regular(path)
    try:
        if path.suffix == ".gz":
            import gzip

            return gzip.open(path, "rb")
        if path.suffix == ".bz2":
            import bz2

            return bz2.open(path, "rb")
        return path.open("rb")
    except OSError as error:
        raise DataError(f"cannot open {path}: {error.strerror or error}") from error


def _decoded(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start : error.start + 1].hex()
        raise DataError(f"{place}: not UTF-8 (byte 0x{byte} at {error.start}: {error.reason})") from error


def raw_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(line with its end, "file:line"). A byte order mark before the first line is dropped."""
    number, left = 0, _most_bytes(path)
    with open_bytes(path) as file:
        try:
            for number, raw in enumerate(iter(functools.partial(file.readline, MAX_LINE + 1), b""), 1):
                if len(raw) > MAX_LINE:
                    raise DataError(f"{path}:{number}: a line of more than {MAX_LINE:,} bytes")
                left -= len(raw)
                if left < 0:
                    raise _bomb(path)
                line = _decoded(raw, f"{path}:{number}")
                yield line.removeprefix("\ufeff") if number == 1 else line, f"{path}:{number}"
        except _DAMAGE as error:
            raise DataError(f"{path}, after line {number}: cannot be read ({error})") from error


def blocks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file as they are, unpacked. DataError for a damaged one, and for one that grows too far."""
    left = _most_bytes(path)
    with open_bytes(path) as file:
        try:
            while block := file.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise _bomb(path)
                yield block
        except _DAMAGE as error:
            raise DataError(f"{path}: cannot be read ({error})") from error


def _most_bytes(path: Path) -> float:
    """How many bytes a file may hold once it is unpacked."""
    if path.suffix not in (".gz", ".bz2"):
        return float("inf")
    try:
        return FREE_GROWTH + MAX_GROWTH * path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot open {path}: {error.strerror or error}") from error


def _bomb(path: Path) -> DataError:
    return DataError(f"{path} unpacks to more than {MAX_GROWTH} times its size: unpack it yourself if that is meant")


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """(line without its end, "file:line")."""
    return ((line.removesuffix("\n").removesuffix("\r"), place) for line, place in raw_lines(path))


def parse_json(text: str, place: str) -> Any:
    """JSON; a lone surrogate (`"\\ud83d"`), which is no text, is refused here rather than in a tokenizer."""
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: half a surrogate pair stands in a text ({error.object[error.start]!r})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not valid JSON ({error})") from error
    return value


def json_of(path: Path) -> Any:
    most = min(MAX_JSON, _most_bytes(path))
    with open_bytes(path) as file:
        try:
            raw = file.read(int(most) + 1)
        except _DAMAGE as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
    if len(raw) > most:
        raise DataError(f"{path}: a JSON file of more than {MAX_JSON:,} bytes") if most == MAX_JSON else _bomb(path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason})") from error
    return parse_json(text.removeprefix("\ufeff"), str(path))


def misplaced(context: str, text: Any, start: Any) -> str | None:
    """What is wrong with an answer that should stand at `start` (characters) in the context, or None."""
    if isinstance(start, bool) or not isinstance(start, int) or not isinstance(text, str):
        return f"the answer is {text!r} at {start!r}, expected a text and its offset"
    if not text:
        return "the answer is empty: the gold answers are stripped"
    there = context[start : start + len(text)] if start >= 0 else ""
    return None if there == text else f"the answer {text!r} is not at {start}, there stands {there!r}"
