"""The command's entry: what happens before the command line is there."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from effstilts import __main__


@pytest.mark.parametrize(("rank", "said"), [("0", True), ("1", False)])
def test_an_interruption_of_the_imports_is_one_line(
    rank: str, said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def interrupted(name: str, *rest: Any) -> Any:
        if name == "effstilts.cli":
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert __main__.run() == 130
    assert capsys.readouterr().err == ("effstilts: interrupted; run the same command again to go on\n" if said else "")
