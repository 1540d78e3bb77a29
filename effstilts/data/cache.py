"""Encoded rows as Arrow files in the store, keyed by everything that decides them.

Tokenising is done once for each (rows, tokenizer, kind, lengths) and shared by all methods, seeds and processes.
The file is memory-mapped: a table larger than memory costs pages, not a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "rows.arrow"

Column = Sequence[Any]


@dataclass(frozen=True)
class Ragged:
    """A column of integer lists: row i is values[offsets[i] : offsets[i + 1]]; offsets [rows + 1]."""

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Rows:
    """Encoded rows by column: integer lists (`Ragged`), integers (arrays) or texts (lists)."""

    columns: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def head(self, count: int) -> Rows:
        """The first `count` rows."""
        if count >= len(self):
            return self
        return Rows(
            {
                name: Ragged(c.values, c.offsets[: count + 1]) if isinstance(c, Ragged) else c[:count]
                for name, c in self.columns.items()
            }
        )


def write_rows(path: Path, columns: Mapping[str, Column]) -> None:
    """Writes columns of ints, texts or lists of ints (int32) as one Arrow IPC file."""
    import pyarrow as pa

    arrays, names = [], []
    for name, column in columns.items():
        first = next(iter(column), 0)
        if isinstance(first, list | tuple | np.ndarray):
            offsets = np.zeros(len(column) + 1, np.int64)
            np.cumsum([len(row) for row in column], out=offsets[1:])
            flat = np.fromiter((x for row in column for x in row), np.int32, int(offsets[-1]))
            array: Any = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))
        elif isinstance(first, str):
            array = pa.array(list(column), pa.large_string())
        else:
            array = pa.array(np.asarray(column, np.int64))
        arrays.append(array)
        names.append(name)
    table = pa.Table.from_arrays(arrays, names=names)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_rows(path: Path) -> Rows:
    """Memory-maps a file of `write_rows`."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all().combine_chunks()
    columns: dict[str, Any] = {}
    for name in table.column_names:
        chunked = table.column(name)
        if chunked.num_chunks == 0:
            columns[name] = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))
            continue
        array = chunked.chunk(0)
        if pa.types.is_large_list(array.type):
            columns[name] = Ragged(array.values.to_numpy(zero_copy_only=True), array.offsets.to_numpy())
        elif pa.types.is_large_string(array.type):
            columns[name] = array.to_pylist()
        else:
            columns[name] = array.to_numpy()
    return Rows(columns)
