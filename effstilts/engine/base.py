"""What the loop asks of an engine: the only seam between the loop and the way the work is spread over devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from effstilts.kinds.kind import Arrays, Kind


class Engine(Protocol):
    """Runs forward, backward and update. An engine owns placement, precision and the optimizer.

    launch_tokens: what starting a micro-batch costs, in tokens' worth of time; the cut weighs it against padding.
    redoes: whether `discard` makes ready to begin a step again that broke off anywhere before its update; and whether
        `forward_backward` then waits for no other rank.
    """

    launch_tokens: int
    redoes: bool

    def forward_backward(self, kind: Kind, head: str, arrays: Arrays, scale: float, last: bool) -> float:
        """Adds the gradient of `scale` x (sum of the micro-batch's losses); returns that sum, unscaled. `last`: no
        more follow in this step. Every rank calls it equally often in a step."""
        ...

    def clip(self, limit: float) -> float:
        """Sums the gradient over the ranks and scales it down to the 2-norm `limit`; returns the norm before."""
        ...

    def step(self, rate: float) -> None:
        """One optimizer update at `rate` times the peak learning rates; clears the gradient. Runs out of memory before
        anything is updated, or ends in TrainingError."""
        ...

    def discard(self) -> None:
        """Clears the gradient without an update."""
        ...

    def publish(self) -> None:
        """Puts the current weights into the model that rank 0 evaluates."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters by name, whole and in float32. Every rank calls it; rank 0 has the result, others
        may get nothing. So for `moments`."""
        ...

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state by name, whole."""
        ...

    def load(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], step: int) -> None:
        """Puts a checkpoint's state back; `step` is the number of updates so far."""
        ...
