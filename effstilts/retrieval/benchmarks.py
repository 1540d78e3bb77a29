"""Tatoeba: does the nearest foreign sentence to an English one translate it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError
from effstilts.retrieval.mining import margin_scores, neighbourhoods
from effstilts.retrieval.neighbours import normalise, search


@dataclass(frozen=True)
class TatoebaResult:
    """Accuracies in percent. predictions [n]: index of the foreign sentence found for English sentence i.

    accuracy: English queries the foreign side, as XTREME does; accuracy_reverse: foreign queries English.
    """

    accuracy: float
    accuracy_reverse: float
    predictions: NDArray[np.int64]


def tatoeba_accuracy(
    foreign: NDArray[Any], english: NDArray[Any], margin: str = "absolute", k: int = 4
) -> TatoebaResult:
    """Top-1 accuracy between aligned sentences, vectors [n, D] each.

    By cosine with the margin `absolute` (XTREME's protocol), else by that margin among the k nearest.
    """
    if foreign.shape != english.shape or not len(foreign):
        raise DataError(f"aligned vectors need one shape and a row, got {foreign.shape} and {english.shape}")
    if margin == "absolute":
        source, target = normalise(foreign, "foreign vector"), normalise(english, "English vector")
        found = search(target, source, 1)[1][:, 0]
        back = search(source, target, 1)[1][:, 0]
    else:
        near = neighbourhoods(foreign, english, k)
        own, other = near.forward.mean(1, dtype=np.float64), near.backward.mean(1, dtype=np.float64)
        rows = np.arange(len(foreign))
        ahead = margin_scores(near.forward, own[:, None], other[near.forward_index], margin)
        behind = margin_scores(near.backward, other[:, None], own[near.backward_index], margin)
        back = near.forward_index[rows, ahead.argmax(1)]
        found = near.backward_index[rows, behind.argmax(1)]
    truth = np.arange(len(foreign))
    return TatoebaResult(
        100.0 * float((found == truth).mean()), 100.0 * float((back == truth).mean()), found.astype(np.int64)
    )
