"""Who a launcher is, and that its end reaches what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from effstilts.engine.guard import Signals
from effstilts.engine.launchers import followed, launchers_above, parent_of
from effstilts.engine.ranks import Ranks
from effstilts.errors import Interrupted, TimeUp

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="parents are told by /proc")

# A rank: says its name once it watches, and what ended it.
RANK = """
import os, signal, sys, time
from effstilts.engine.guard import Signals
from effstilts.engine.launchers import followed
signal.signal(signal.SIGTERM, lambda *_: (print("SIGTERM", flush=True), os._exit(3)))
with followed(0.05):
    print(os.getpid(), flush=True)
    time.sleep(20)
print("outlived", flush=True)
"""
STARTER = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)"


def start(folder: Path, *names: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Scripts of these names, each starting the next, the rank last; their processes from the top."""
    (folder / "rank.py").write_text(RANK)
    for name in names:
        (folder / name).write_text(STARTER)
    process = subprocess.Popen(
        [sys.executable, *(str(folder / name) for name in names), str(folder / "rank.py")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = [int(process.stdout.readline())]
    while found[0] != process.pid:
        found.insert(0, parent_of(found[0]) or 0)
    return process, found


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_any_launcher_above_is_a_sigterm(tmp_path: Path, killed: int, how: signal.Signals) -> None:
    process, chain = start(tmp_path, "deepspeed", "torchrun")
    assert launchers_above(chain[2]) == [(chain[2], chain[1]), (chain[1], chain[0])]
    os.kill(chain[killed], how)
    assert process.stdout is not None and process.stdout.read() == "SIGTERM\n"
    process.wait()


def test_who_is_no_launcher_may_end(tmp_path: Path) -> None:
    process, chain = start(tmp_path, "shell.py")
    assert launchers_above(chain[1]) == []
    process.kill()
    process.wait()
    time.sleep(0.3)
    assert parent_of(chain[1]) is not None
    os.kill(chain[1], signal.SIGKILL)


def test_a_signal_after_all_have_agreed_to_stop_is_an_echo() -> None:
    """One rank may see the launcher's end half a second after the other, while it writes its last lines."""

    class Other(Ranks):
        def highest(self, values: Sequence[int]) -> list[int]:
            return [max(*values, signal.SIGTERM)]

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Interrupted, match="SIGTERM: stopped there"), Signals(5.0) as signals:
            signals.agree(Other())
            signals.raise_if_received("there")
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_rank_that_lost_the_others_says_so_before_the_launcher_ends_it() -> None:
    """torchrun's SIGTERM follows a dead rank within a tenth of a second; alone there is no launcher to wait for."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(RuntimeError, match="connection"), Signals(5.0):
            raise RuntimeError("connection closed by peer")
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
        with pytest.raises(RuntimeError), Signals(0.0):
            raise RuntimeError
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_alarm_of_one_rank_ends_all_alike() -> None:
    """One rank's hours may be over a moment before another's, which began later."""

    class Other(Ranks):
        def highest(self, values: Sequence[int]) -> list[int]:
            return [max(*values, signal.SIGALRM)]

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(TimeUp, match="the time is up: stopped there"), Signals(5.0) as signals:
            signals.received = signal.SIGALRM
            signals.raise_if_received("before all have agreed")
            signals.agree(Other())
            signals.raise_if_received("there")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_cannot_be_told_is_not_watched() -> None:
    assert parent_of(2**30) is None and launchers_above(2**30) == []
    assert parent_of(os.getpid()) == os.getppid()
    with followed():
        pass
