"""Which training rows of a recipe's graph meet rows that are evaluated, or another phase's training rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effstilts.data.overlap import ID, WHOLE, Digests, Overlap, known_texts, overlaps
from effstilts.procedure import Graph
from effstilts.tasks.task import SplitName
from effstilts.workbench import Source, Step, TaskPart, Workbench


def find_overlaps(graph: Graph, bench: Workbench) -> list[dict[str, Any]]:
    """One entry for each pair of row sets that share texts: `trained`, `evaluated`, `split`, `role`, `rows`, `of`.

    Pairs are: what an encoder was trained on in any phase with what it is evaluated on, and what it was trained on in
    an earlier phase with the target's training rows.
    """
    found = []
    seen: set[tuple[str, str, SplitName]] = set()
    # Each set meets many others, a Wikipedia every evaluated language: it is read and sorted once.
    known: dict[str, NDArray[np.uint64]] = {}
    hashed: dict[tuple[str, SplitName], Digests] = {}
    for trained, evaluated, split in _pairs(graph):
        place = (f"{trained.name}/{trained.rows}", f"{evaluated.name}/{evaluated.rows}", split)
        if place in seen:
            continue
        seen.add(place)
        if split == "train" and (trained.task.name, trained.language) == (evaluated.task.name, evaluated.language):
            rows = bench.count(trained, "train")
            shared = [Overlap("row", min(rows, bench.count(evaluated, "train")), rows)]
        else:
            if place[0] not in known:
                known[place[0]] = known_texts(bench.digests(trained, "train"))
            if place[1:] not in hashed:
                hashed[place[1:]] = bench.digests(evaluated, split)
            shared = overlaps(known[place[0]], hashed[place[1:]])
        for overlap in shared:
            found.append(
                {
                    "trained": trained.name,
                    "evaluated": evaluated.name,
                    "split": split,
                    "role": overlap.role,
                    "rows": overlap.rows,
                    "of": overlap.of,
                }
            )
    return found


def sentence(overlap: dict[str, Any]) -> str:
    """One line for people."""
    if overlap["role"] == "row":
        return f"overlap: an earlier phase trains on {overlap['trained']}, which the target is trained on as well"
    share = 100 * overlap["rows"] / max(overlap["of"], 1)
    stand = "stand whole" if overlap["role"] == WHOLE else f"have their {overlap['role']}"
    if overlap["role"] == ID:
        stand = "are, by their id, questions that stand, if in another language,"
    return (
        f"overlap: {overlap['rows']:,} of {overlap['of']:,} {overlap['split']} rows of {overlap['evaluated']} "
        f"({share:.1f} %) {stand} in the training rows of {overlap['trained']}"
    )


def of_evaluation(found: Iterable[dict[str, Any]]) -> list[str]:
    """Sentences on the overlaps that touch a number: those with evaluated rows. Training rows that two phases share
    are in the log."""
    return [sentence(overlap) for overlap in found if overlap["split"] != "train"]


def _pairs(graph: Graph) -> Iterator[tuple[TaskPart, TaskPart, SplitName]]:
    for step in graph.steps:
        if step.kind in ("evaluate", "retrieve"):
            (part,) = step.parts
            yield from ((trained, part, step.split) for trained in _trained_on(step.base))
        elif step.kind == "target":
            for part in step.parts:
                yield from ((trained, part, "train") for trained in _trained_on(step.base))


def _trained_on(step: Source | Step | None) -> Iterator[TaskPart]:
    """The parts that an encoder has been trained on, in all phases."""
    while isinstance(step, Step):
        yield from step.parts
        for arm, _ in step.arms:
            yield from arm.parts
        step = step.base
