from __future__ import annotations

from effstilts.errors import DataError


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    said = str(DataError("a.csv:3: got two\nlines, \x1b[2J, \u2028, a\x00b and \ud800; schön, 日本"))
    assert said == r"a.csv:3: got two\nlines, \x1b[2J, \u2028, a\x00b and \ud800; schön, 日本"
    assert said.encode() and str(DataError()) == ""
