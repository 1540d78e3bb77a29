"""Tatoeba: does the nearest foreign sentence to an English one translate it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError
from effstilts.retrieval.neighbours import normalise, search


@dataclass(frozen=True)
class TatoebaResult:
    """Accuracies in percent. predictions [n]: index of the foreign sentence found for English sentence i.

    accuracy: English queries the foreign side, as XTREME does; accuracy_reverse: foreign queries English.
    """

    accuracy: float
    accuracy_reverse: float
    predictions: NDArray[np.int64]


def tatoeba_accuracy(foreign: NDArray[np.float32], english: NDArray[np.float32]) -> TatoebaResult:
    """Top-1 accuracy by cosine between aligned sentences, vectors [n, D] each (XTREME's protocol)."""
    if foreign.shape != english.shape or not len(foreign):
        raise DataError(f"aligned vectors need one shape and a row, got {foreign.shape} and {english.shape}")
    source, target = normalise(foreign), normalise(english)
    truth = np.arange(len(source))
    found = search(target, source, 1)[1][:, 0]
    back = search(source, target, 1)[1][:, 0]
    return TatoebaResult(
        100.0 * float((found == truth).mean()), 100.0 * float((back == truth).mean()), found.astype(np.int64)
    )
