"""The token budget of micro-batches: the recipe's, halved whenever memory runs out.

A step that ran out is done again from its start, cut finer; how a batch is cut does not change its gradient. The
halved budget stands in the step's work folder, so the same command goes on with it, and in no step's key.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from effstilts.engine.ranks import Ranks
from effstilts.errors import TrainingError
from effstilts.log import Log
from effstilts.model.memory import is_shortage, release
from effstilts.store import write_atomic

FILE = "budget.json"
_ADVICE = (
    "Shorten the task's max_length, or try training.gradient_checkpointing, freeze_layers, precision bf16, an adapter "
    "method, or engine.config zero2_offload"
)


class AgreedShortage(MemoryError):
    """Memory ran out on some rank, every rank knows it, and none has updated anything."""


class Budget:
    """tokens: of a micro-batch at most, padding included.

    As a context manager it lets a step that runs out of memory fall through; `halve` then makes ready for the next
    try.
    """

    def __init__(self, tokens: int, folder: Path, log: Log, label: str, ranks: Ranks) -> None:
        self.path, self.log, self.label, self.ranks = folder / FILE, log, label, ranks
        self._reason, self._agreed = "", False
        self.tokens = min(tokens, int(ranks.tell(lambda: self._kept(tokens))))
        if self.tokens < tokens:
            log.say(f"{label}: micro-batches of {self.tokens} tokens, as memory ran out before")

    def _kept(self, tokens: int) -> int:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return max(1, int(json.loads(self.path.read_text(encoding="utf-8"))["micro_tokens"]))
        return tokens

    def __enter__(self) -> Budget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not is_shortage(error):
            return False
        self._reason = str(error).partition("\n")[0] or type(error).__name__
        self._agreed = isinstance(error, AgreedShortage)
        return True

    def halve(
        self,
        shares: Sequence[Sequence[Sequence[int]]],
        widths: NDArray[np.int64],
        redoes: bool,
        name: Callable[[int], str],
    ) -> None:
        """Half the tokens of the largest micro-batch that was tried: bounded by its logarithm.

        shares: rows of each micro-batch of each rank, as places in `widths` [batch]; name: the sample at a place.
        redoes: whether the engine can begin the step again in this process. TrainingError where it cannot, or where
        one row alone is too much.
        """
        release()
        parts = [part for own in shares for part in own]
        largest = max(len(part) * int(widths[list(part)].max()) for part in parts)
        if max(map(len, parts)) == 1:
            longest = int(np.argmax(widths))
            raise TrainingError(
                f"{self.label}: memory does not suffice for one example of {int(widths[longest])} tokens "
                f"({name(longest)}): {self._reason}. {_ADVICE}"
            )
        self.tokens = max(1, min(self.tokens, largest) // 2)
        alone = self.ranks.world == 1
        here = redoes and (alone or self._agreed)
        if self.ranks.leads or not here:
            write_atomic(self.path, json.dumps({"micro_tokens": self.tokens}))
        if not here:
            raise TrainingError(
                f"{self.label}: out of memory ({self._reason}) where this step cannot be begun again; nothing is lost: "
                f"run the same command again, which goes on with micro-batches of {self.tokens} tokens"
            )
        self.log.warn(
            f"{self.label}: out of memory ({self._reason}); the step is done again with micro-batches of "
            f"{self.tokens} tokens",
            micro_tokens=self.tokens,
        )
