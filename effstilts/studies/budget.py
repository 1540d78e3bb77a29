"""A run within a number of hours: the most informative cells first, then an end that loses nothing.

The first arm, which the others are compared with, in retrieval and on every target; then the other arms' retrieval,
which needs no target training; then the targets, all arms on one before the next. Each of these in all seeds before
what follows: a number without its spread says little. What is left out when time is up is thus whole columns.
"""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType

from effstilts.procedure import Cell, Graph
from effstilts.studies.report import unique
from effstilts.workbench import Step


def by_information(graph: Graph) -> list[Step]:
    """All steps of the graph, each after its inputs, in the order of the cells that they serve."""
    seeds, arms, tasks = (unique(getattr(cell, name) for cell in graph.cells) for name in ("seed", "arm", "task"))

    def rank(cell: Cell) -> tuple[int, ...]:
        first, retrieved = cell.arm == arms[0], cell.section == "retrieval"
        stage = (0 if retrieved else 1) if first else (2 if retrieved else 3)
        seed, task, arm = seeds.index(cell.seed), tasks.index(cell.task), arms.index(cell.arm)
        return (stage, task, seed, arm) if stage == 3 else (stage, seed, task, arm)

    found: dict[str, Step] = {}

    def add(step: Step) -> None:
        if step.name not in found:
            for before in step.inputs:
                add(before)
            found[step.name] = step

    for cell in sorted(graph.cells, key=rank):
        add(cell.step)
    for step in graph.steps:
        add(step)
    return list(found.values())


class Hours:
    """So many hours from entering on. Where the system has alarms, one then reaches a training as SIGTERM would: it
    writes a checkpoint and raises Interrupted. 0: no end."""

    def __init__(self, hours: float) -> None:
        self._seconds = hours * 3600.0
        self._end = float("inf")

    def __enter__(self) -> Hours:
        if self._seconds:
            self._end = time.monotonic() + self._seconds
            if hasattr(signal, "setitimer"):
                # Outside a training nothing is to be broken off; the alarm comes again, for one that begins later.
                signal.signal(signal.SIGALRM, _nothing)
                signal.setitimer(signal.ITIMER_REAL, self._seconds, 1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._seconds and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def left(self) -> bool:
        return time.monotonic() < self._end


def _nothing(number: int, frame: FrameType | None) -> None:
    pass
