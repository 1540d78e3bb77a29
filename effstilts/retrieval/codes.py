"""int8 codes of two sets of vectors whose integer products bound the true products from above.

A vector less its side's centre is s q + e: a step, its code, and what the rounding left. So

    x.y = (x-c).(y-d) + (x-c).d + c.(y-d) + c.d      and      (x-c).(y-d) <= s_x s_y q.q' + |s_x q| |e'| + |e| |y-d|

by Cauchy and Schwarz. What depends on one vector alone, its term with the other centre and its error times the largest
length there is on the other side, is written in columns of its own, as digits against a constant: one integer product
gives the bound of every pair. A row's or column's threshold is then a single integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effstilts.errors import DataError
from effstilts.retrieval.exact import Floats, tensor

_LARGEST = 127
_ROWS = 256  # prepared at once: they and their codes stay in the second-level cache
_SAMPLE = 512
# The step is this many times the coordinates' root mean square over 127: less clips more, more rounds coarser.
_REACHES = (3.0, 3.5, 4.0, 5.0, 7.0, 10.0, 16.0)
# Where the centres' lengths multiply to less than this share of the vectors' own they are left out.
_COMMON = 0.02
# Columns for digits that are still cheap beside those of the vectors.
_MOST_DIGITS = 96
# What float32 arithmetic may take from the lengths and terms below, generously.
_INFLATE = 1.0001


@dataclass(frozen=True)
class Codes:
    """For every pair x_i.y_j <= unit * (left_i.right_j) + offset, of int8 codes left [n, K] and right [m, K].

    left is made anew for the rows asked for; right is held. left_length [n], right_length [m]: at least the vectors'
    lengths.
    """

    right: Tensor
    unit: float
    offset: float
    left_length: Floats
    right_length: Floats
    _source: _Side
    _own: Tensor
    _places: slice
    _ones: slice

    def left(self, start: int, stop: int) -> Tensor:
        """Codes of the source's vectors start to stop."""
        codes = torch.zeros(stop - start, self.right.shape[1], dtype=torch.int8)
        self._source.write(codes, start)
        _write_digits(codes, self._own[start:stop], self._places, self._ones)
        return codes


class _Side:
    """The vectors of one side, to be coded less `centre`.

    kept, error, size [n]: lengths of s q, of what it leaves, and of the centred vector; cross [n]: its product with the
    other side's centre.
    """

    def __init__(self, vectors: NDArray[Any], name: str, centre: Tensor, other: Tensor) -> None:
        rows = len(vectors)
        self.vectors, self.centre = vectors, centre if bool(other.any()) else None
        self.step = _step(tensor(_sample(vectors)) - centre)
        self.kept, self.error, self.size = torch.empty(rows), torch.empty(rows), torch.empty(rows)
        self.cross = torch.zeros(rows, dtype=torch.float64)
        for start in range(0, rows, _ROWS):
            part = slice(start, min(start + _ROWS, rows))
            exact = self._centred(part)
            if self.centre is not None:
                self.cross[part] = exact.double() @ other.double()
            rounded = self._rounded(exact)
            rounded *= self.step
            self.size[part] = torch.linalg.vector_norm(exact, dim=1)
            self.kept[part] = torch.linalg.vector_norm(rounded, dim=1)
            self.error[part] = torch.linalg.vector_norm(exact - rounded, dim=1)
        bad = ~torch.isfinite(self.size + self.kept + self.cross)
        if bad.any():
            raise DataError(f"{name} vector {int(bad.float().argmax())} (from 0) has numbers that are not finite")
        for lengths in (self.kept, self.error, self.size):
            lengths *= _INFLATE

    def write(self, codes: Tensor, first: int) -> None:
        """The codes of the vectors from `first` on into codes [rows, K]."""
        for start in range(0, len(codes), _ROWS):
            stop = min(start + _ROWS, len(codes))
            rounded = self._rounded(self._centred(slice(first + start, first + stop)))
            codes[start:stop, : rounded.shape[1]] = rounded

    def _centred(self, part: slice) -> Tensor:
        exact = tensor(self.vectors[part])
        return exact if self.centre is None else exact - self.centre

    def _rounded(self, exact: Tensor) -> Tensor:
        return (exact / self.step).round_().clamp_(-_LARGEST, _LARGEST)


def encode(source: NDArray[Any], target: NDArray[Any]) -> Codes | None:
    """Codes of source [n, D] and target [m, D], arrays or memory maps. None where they would bound too loosely to be
    of use: for sides of which some vectors are far longer than others. DataError for numbers that are not finite."""
    dim = source.shape[1]
    c, d = _centre(source), _centre(target)
    common = float(c.norm() * d.norm())
    if not common > _COMMON * _typical_length(source) * _typical_length(target):
        c, d = torch.zeros(dim), torch.zeros(dim)
    left, right = _Side(source, "source", c, d), _Side(target, "target", d, c)
    unit = left.step * right.step
    # float32 sums of D products, subtraction of the centre and the scaling: all of them below this share of the sizes.
    rounding = 4 * (dim + 8) * 2.0**-24
    longest = float(left.size.max()), float(right.size.max())
    own = left.error.double() * longest[1] + rounding * left.size * longest[1] + left.cross
    other = right.error.double() * float(left.kept.max()) + rounding * right.size * longest[0] + right.cross
    # The sums of the cross terms, in float64, and the rounding of the vectors that they are sums of.
    lengths = float(c.norm()), float(d.norm())
    spare = 2.0**-22 * (longest[0] * lengths[1] + longest[1] * lengths[0]) + 1e-30
    middle = [float(terms.min() + terms.max()) / 2 for terms in (own, other)]
    numbers = [
        torch.ceil((terms - mean) / (unit * _LARGEST)) + 1 for terms, mean in zip((own, other), middle, strict=True)
    ]
    digits = [max(1, -(-int(values.abs().max()) // _LARGEST)) for values in numbers]
    if sum(digits) > _MOST_DIGITS:
        return None
    places = slice(dim, dim + digits[0]), slice(dim + digits[0], dim + sum(digits))
    codes = torch.zeros(len(target), -(-places[1].stop // 16) * 16, dtype=torch.int8)
    right.write(codes, 0)
    _write_digits(codes, numbers[1], places[1], places[0])
    return Codes(
        codes,
        unit,
        float(c.double() @ d.double()) + sum(middle) + spare,
        ((left.size + lengths[0]) * _INFLATE).numpy(),
        ((right.size + lengths[1]) * _INFLATE).numpy(),
        left,
        numbers[0],
        places[0],
        places[1],
    )


def _write_digits(codes: Tensor, numbers: Tensor, places: slice, ones: slice) -> None:
    """numbers [rows] as digits that add up to them, and the constant that multiplies the other side's digits."""
    rest = numbers.clone()
    for place in range(places.start, places.stop):
        digit = rest.clamp(-_LARGEST, _LARGEST)
        codes[:, place] = digit.to(torch.int8)
        rest -= digit
    codes[:, ones] = _LARGEST


def _step(sample: Tensor) -> float:
    """The step that loses the least of a sample [rows, D]."""
    typical = float(sample.square().mean().sqrt())
    if not 0 < typical < float("inf"):
        return 1.0
    steps = [typical * reach / _LARGEST for reach in _REACHES]

    def lost(step: float) -> float:
        rounded = (sample / step).round_().clamp_(-_LARGEST, _LARGEST)
        return float(torch.linalg.vector_norm(rounded.mul_(step).sub_(sample), dim=1).mean())

    return min(steps, key=lost)


def _centre(vectors: NDArray[Any]) -> Tensor:
    return torch.from_numpy(_sample(vectors).mean(0, dtype=np.float64).astype(np.float32))


def _typical_length(vectors: NDArray[Any]) -> float:
    return float(np.linalg.norm(_sample(vectors), axis=1).mean())


def _sample(vectors: NDArray[Any]) -> Floats:
    return np.array(vectors[:: max(1, len(vectors) // _SAMPLE)][:_SAMPLE], np.float32)
