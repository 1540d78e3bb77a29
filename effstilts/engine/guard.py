"""What can go wrong while training: signals, numbers that are not finite, collapse to one answer."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, TypeVar

from effstilts.engine.base import Engine
from effstilts.engine.checkpoint import Progress
from effstilts.engine.ranks import Ranks
from effstilts.errors import Interrupted, TimeUp, TrainingError
from effstilts.evaluation.metrics import majority_share

COLLAPSE_SHARE = 0.99
# A loss that ends this many times above where it began; with fewer steps chance alone may do that.
DIVERGED = 1.5
_LEAST_STEPS = 20
_Result = TypeVar("_Result")


# The alarm is that of `--budget`.
_ALARM = getattr(signal, "SIGALRM", None)
_ENDING = (signal.SIGTERM, signal.SIGINT, *([_ALARM] if _ALARM else []))


def _name(number: int) -> str:
    return "the time is up" if number == _ALARM else signal.Signals(number).name


class _BrokenOff(Interrupted):
    """What a signal raises inside `Signals.unless_received`."""


class Signals:
    """Remembers SIGTERM, SIGINT and the alarm of a time budget so that the loop stops at the next step; a second signal
    ends the process at once."""

    def __init__(self, patience: float = 0.0) -> None:
        """patience: seconds in which further signals are the first one's echoes: a launcher sends its own after the
        terminal's."""
        self.patience = patience
        self.received: int | None = None
        self.agreed: int | None = None
        self._when = 0.0
        self._breaks_off = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in _ENDING:
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:
                # Not the main thread: the host program owns the signals.
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Of several ranks one may get its signal after all have agreed to stop: an echo too, while the run ends. And a
        # launcher sends one as soon as a rank has died: the others say first what they lost.
        if self.patience and (self.received is not None or isinstance(error, Exception)):
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._when = number, time.monotonic()
            if self._breaks_off:
                raise _BrokenOff(f"{_name(number)}: run the same command again to go on")
        elif number != _ALARM and time.monotonic() - self._when >= self.patience:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def unless_received(self, work: Callable[[], _Result]) -> _Result | None:
        """work(), which a signal breaks off at once: None then. For what leaves nothing half done."""
        try:
            self._breaks_off = True
            return None if self.received else work()
        except _BrokenOff:
            return None
        finally:
            self._breaks_off = False

    def agree(self, ranks: Ranks) -> None:
        """A signal that reached any rank counts on all, from the same step on: what all do then is told from `agreed`,
        as one may receive its own right after."""
        (most,) = ranks.highest([self.received or 0])
        self.agreed = most or None
        if most and self.received is None:
            self.received, self._when = most, time.monotonic()

    def raise_if_received(self, where: str) -> None:
        if self.agreed is not None:
            kind = TimeUp if self.agreed == _ALARM else Interrupted
            raise kind(f"{_name(self.agreed)}: stopped {where}; run the same command again to go on")


def culprits(
    engine: Engine,
    forward: Callable[[Sequence[int]], float],
    odd: Sequence[int],
    rows: int,
    limit: float,
    ranks: Ranks,
) -> list[int]:
    """Places in the global batch of the samples that give a loss or gradient that is not finite.

    One process tries the rows one by one; several name the rows of each micro-batch with such a loss. All rows where
    none can be told from the others. odd: this rank's rows in such micro-batches; forward: runs some rows, gives their
    loss.
    """
    if ranks.world > 1 or not engine.redoes:
        counts = ranks.totals([float(place in set(odd)) for place in range(rows)])
        return [place for place, count in enumerate(counts) if count] or list(range(rows))
    found = []
    for place in range(rows):
        loss = forward([place])
        norm = engine.clip(limit)
        engine.discard()
        if not math.isfinite(loss) or not math.isfinite(norm):
            found.append(place)
    return found or list(range(rows))


def require_finite(loss: float, norm: float, step: int, task: str, sample_ids: Callable[[], list[str]]) -> None:
    """TrainingError before the update if the loss or the gradient's norm is NaN or infinite; names the samples, which
    are looked up then alone: of a mixture of many languages that reads files."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    ids = list(dict.fromkeys(sample_ids()))
    what = "loss" if not math.isfinite(loss) else "gradient norm"
    shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    raise TrainingError(
        f"the {what} of step {step} of {task} is {loss if what == 'loss' else norm}; samples {shown}. Nothing was "
        "updated; the last good checkpoint is kept. Lower the learning rate, or look at these samples"
    )


def collapse(predictions: Sequence[Any]) -> str:
    """A note where nearly all predictions, or all tags of them, are one and the same answer; else the empty string."""
    if predictions and isinstance(predictions[0], list | tuple):
        predictions = [tag for tags in predictions for tag in tags]
    if len(predictions) < 20 or not isinstance(predictions[0], str | int):
        return ""
    answer, share = majority_share(predictions)
    if share < 100.0 * COLLAPSE_SHARE:
        return ""
    return f"collapsed: {share:.1f} % of the predictions are {answer!r}"


def failures(progress: Progress) -> list[str]:
    """What went wrong with a training that came to its end: one answer for all of dev with the weights that were
    chosen, a dev score that never moved, a loss that rose."""
    found = [
        f"dev {scores['collapsed']}"
        for scores in progress.history
        if scores["step"] == progress.best_step and scores.get("collapsed")
    ]
    seen = [scores["score"] for scores in progress.history]
    if len(seen) > 2 and len(set(seen)) == 1 and 0 <= seen[0] < 100:
        found.append(f"constant dev score: {seen[0]:.1f} at all {len(seen)} evaluations")
    began, ended = progress.first_loss, progress.recent_loss
    if progress.step >= _LEAST_STEPS and ended > DIVERGED * began > 0:
        found.append(f"diverged: the loss rose from {began:.3g} to {ended:.3g}")
    return found
