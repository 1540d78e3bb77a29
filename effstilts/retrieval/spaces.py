"""What may be done to vectors before they are compared.

Pretrained encoders put every sentence into a narrow cone, and each language into a corner of it. Each of these takes
some of that away. All are fitted on the very sentences that are compared, which needs no labels and no pairs; the
vectors then depend on the set that they stand in, and a figure says so.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError

Space = Literal["none", "centre", "language_mean", "whiten"]

# Directions with less than this share of the largest variance are noise of the arithmetic and are dropped.
_LEAST_VARIANCE = 1e-6


def into_space(
    source: NDArray[Any], target: NDArray[Any], space: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both sides' vectors, [n, D] and [m, D], in a space. Whitening may leave fewer than D dimensions.

    none: as they are; centre: less the mean of all rows, each side weighing half; language_mean: each side less its
    own mean (Libovický et al. 2020); whiten: centred, then turned and scaled so that the covariance of both sides,
    each weighing half, is the unit matrix (Su et al. 2021).
    """
    x, y = np.asarray(source, np.float32), np.asarray(target, np.float32)
    if space == "none":
        return x, y
    if not len(x) or not len(y):
        raise DataError(f"the space {space!r} is fitted on the sentences of both sides, got {len(x)} and {len(y)}")
    means = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    if space == "language_mean":
        return (x - means[0]).astype(np.float32), (y - means[1]).astype(np.float32)
    middle = (means[0] + means[1]) / 2
    if space == "centre":
        return (x - middle).astype(np.float32), (y - middle).astype(np.float32)
    if space != "whiten":
        raise DataError(f"no space {space!r}; there are {', '.join(get_args(Space))}")
    x, y = (x - middle).astype(np.float32), (y - middle).astype(np.float32)
    covariance = sum((side.T @ side).astype(np.float64) / len(side) for side in (x, y)) / 2
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > variances[-1] * _LEAST_VARIANCE
    if not variances[-1] > 0 or not kept.any():
        raise DataError("all vectors are the same: they cannot be whitened")
    turn = (directions[:, kept] / np.sqrt(variances[kept])).astype(np.float32)
    return x @ turn, y @ turn
