"""The launcher's end is a SIGTERM to its processes.

`deepspeed` on one machine is killed by SIGTERM without a word to the process that it started to start the ranks, and no
launcher passes on what cannot be caught. Without this they would train on, unseen. Linux alone tells who a process's
parent is and what it runs; elsewhere nothing is watched.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 0.5
# Words of a command line: a script's name, or a module's. A shell or a scheduler may end before what it started.
_LAUNCHERS = frozenset(
    ("deepspeed", "ds", "deepspeed.launcher.runner", "deepspeed.launcher.launch", "torchrun", "torch.distributed.run")
)


@contextmanager
def followed(seconds: float = SECONDS) -> Iterator[None]:
    """Within, this process gets SIGTERM when a launcher above it has ended, looked for every `seconds`."""
    chain = launchers_above(os.getpid())
    over = threading.Event()

    def look() -> None:
        while not over.wait(seconds):
            if any(parent_of(child) != parent for child, parent in chain):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=look, daemon=True)
    if chain:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if chain:
            thread.join(5)


def launchers_above(process: int) -> list[tuple[int, int]]:
    """(child, parent) from `process` upwards, as long as the parent is a launcher."""
    found: list[tuple[int, int]] = []
    parent = parent_of(process)
    while parent is not None and _is_launcher(parent):
        found.append((process, parent))
        process, parent = parent, parent_of(parent)
    return found


def parent_of(process: int) -> int | None:
    """None where it cannot be told, or there is no such process."""
    try:
        # The name before it is in parentheses and may hold any.
        return int(Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _is_launcher(process: int) -> bool:
    """By its script or module: `python [-options] [-m] WORD`."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    named = next((word for word in words[1:] if not word.startswith("-")), "")
    return "python" in words[0].rpartition("/")[2] and named.rpartition("/")[2] in _LAUNCHERS
