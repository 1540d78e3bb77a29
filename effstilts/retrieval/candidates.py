"""Search in a set of candidates: LAReQA and Mewsli-X (XTREME-R), mAP@20 from pooled hidden states.

XTREME-R tunes a dual encoder for both; here the encoder is taken as it is, as Tatoeba's and BUCC's is, so these numbers
say how well a phase's encoder aligns questions with answers, and are no XTREME-R baseline. A candidate is embedded by
its own text (LAReQA's dual encoder reads the paragraph beside it); a mention by the text around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError
from effstilts.evaluation.ranking import mean_average_precision
from effstilts.retrieval.neighbours import normalise, search

# XTREME-R's cut-off for both benchmarks.
DEPTH = 20
# Characters to either side of a mention: more than any encoder's share of the window takes.
_AROUND = 160


@dataclass(frozen=True)
class Candidates:
    """queries, candidates: texts; the ids of both, and for each query the ids of the candidates that answer it."""

    query_ids: list[str]
    queries: list[str]
    candidate_ids: list[str]
    candidates: list[str]
    relevant: Mapping[str, frozenset[str]]


def candidates(examples: Sequence[Mapping[str, Any]], first: int = 0) -> Candidates:
    """Rows of kind candidates (id, text, side, gold, span) as both sides; first: queries used, 0: all.

    A candidate is relevant to a query where either names the other in its gold. DataError without queries or
    candidates, for an id that stands twice on a side, and for a query that no candidate answers.
    """
    asked = [row for row in examples if row["side"] == "query"]
    offered = [row for row in examples if row["side"] == "candidate"]
    asked = asked[:first] if first else asked
    for rows, what in ((asked, "queries"), (offered, "candidates")):
        if not rows:
            raise DataError(f"a search needs queries and candidates, there are no {what}")
        names = [row["id"] for row in rows]
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise DataError(f"the id {twice!r} stands twice among the {what}")
    known = {row["id"] for row in offered}
    answers: dict[str, set[str]] = {row["id"]: {gold for gold in row["gold"] if gold in known} for row in asked}
    for row in offered:
        for query in row["gold"]:
            if query in answers:
                answers[query].add(row["id"])
    for row in asked:
        if not answers[row["id"]]:
            raise DataError(f"{row.get('where', row['id'])}: no candidate answers the query {row['id']!r}")
    return Candidates(
        [row["id"] for row in asked],
        [_around(row) for row in asked],
        [row["id"] for row in offered],
        [row["text"] for row in offered],
        {name: frozenset(own) for name, own in answers.items()},
    )


def ranked(given: Candidates, queries: NDArray[Any], offered: NDArray[Any]) -> tuple[float, dict[str, list[str]]]:
    """mAP@20 in percent, and the ids of each query's 20 nearest candidates by cosine, the nearest first.

    queries [n, D] and offered [m, D] are the vectors of the texts.
    """
    count = min(DEPTH, len(offered))
    found = search(normalise(queries), normalise(offered), count, "auto")[1]
    names = np.array(given.candidate_ids, dtype=object)
    rankings = {query: list(names[row]) for query, row in zip(given.query_ids, found, strict=True)}
    return mean_average_precision(rankings, given.relevant, DEPTH), rankings


def _around(row: Mapping[str, Any]) -> str:
    """A question whole; of a text with a mention what surrounds it."""
    if not row.get("span"):
        return str(row["text"])
    start, end = row["span"]
    return str(row["text"])[max(0, start - _AROUND) : end + _AROUND]
