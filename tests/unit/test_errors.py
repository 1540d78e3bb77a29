from __future__ import annotations

from typing import Any

import pytest

from effstilts.errors import DataError, say


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    said = str(DataError("a.csv:3: got two\nlines, \x1b[2J, \u2028, a\x00b and \ud800; schön, 日本"))
    assert said == r"a.csv:3: got two\nlines, \x1b[2J, \u2028, a\x00b and \ud800; schön, 日本"
    assert said.encode() and str(DataError()) == ""


def test_a_rank_without_a_launch_is_no_silent_one(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """RANK may be left over in a shell; of several processes the first alone speaks."""
    monkeypatch.setenv("RANK", "5")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    say("heard")
    monkeypatch.setenv("WORLD_SIZE", "8")
    say("not heard")
    assert capsys.readouterr().err == "heard\n"
