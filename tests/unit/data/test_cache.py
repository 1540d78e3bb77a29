from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from effstilts.data.cache import read_rows, write_rows

row = st.tuples(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5), st.integers(-9, 9), st.text(max_size=5))


@given(st.lists(row, min_size=1, max_size=20))
def test_round_trip(rows: list[tuple[list[int], int, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.arrow"
        write_rows(path, {"ids": [r[0] for r in rows], "n": [r[1] for r in rows], "t": [r[2] for r in rows]})
        back = read_rows(path)
        assert len(back) == len(rows)
        assert [x.tolist() for x in back["ids"]] == [r[0] for r in rows]
        assert back["n"].tolist() == [r[1] for r in rows] and back["t"] == [r[2] for r in rows]
        assert back["ids"].lengths.tolist() == [len(r[0]) for r in rows]
        head: Any = back.head(3)
        assert len(head) == min(3, len(rows)) and [x.tolist() for x in head["ids"]] == [r[0] for r in rows[:3]]
