"""A machine with less memory than it has: a micro-batch above `capacity` tokens runs out, at a site of one's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from effstilts.engine.plain import PlainEngine
from effstilts.model.encoder import Encoder

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")
HOST = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
FORMS: dict[str, Exception] = {"cuda": CUDA, "host": HOST, "python": MemoryError()}
SITES = ("forward", "head", "backward", "clip", "moments", "optimizer")


@contextmanager
def shortage(site: str, capacity: int, form: str = "cuda") -> Iterator[dict[str, int]]:
    """Counts what ran out. `clip`, `moments` and `optimizer` run out once, whatever the micro-batch."""
    counted = {"shortages": 0, "tokens": 0, "largest_done": 0}
    patch = pytest.MonkeyPatch()

    def fail() -> None:
        counted["shortages"] += 1
        raise FORMS[form].with_traceback(None)

    def short() -> bool:
        return counted["tokens"] > capacity

    forward: Callable[..., Any] = Encoder.forward
    backward = torch.autograd.backward

    def measured(self: Encoder, ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
        counted["tokens"] = ids.numel()
        if site == "forward" and short():
            fail()
        found = forward(self, ids, *rest, **named)
        if site == "head" and short():
            fail()
        return found

    def passed_back(*rest: Any, **named: Any) -> None:
        if site == "backward" and short():
            # Half of the gradient is there already, as after a failure in the middle of a pass.
            backward(*rest, **named)
            fail()
        backward(*rest, **named)
        counted["largest_done"] = max(counted["largest_done"], counted["tokens"])

    def once(target: type, name: str) -> None:
        original = getattr(target, name)

        def failing(self: Any, *rest: Any, **named: Any) -> Any:
            if not counted["shortages"]:
                fail()
            return original(self, *rest, **named)

        patch.setattr(target, name, failing)

    patch.setattr(Encoder, "forward", measured)
    patch.setattr(torch.autograd, "backward", passed_back)
    if site == "moments":
        once(PlainEngine, "_reserve_moments")
    if site == "optimizer":
        once(torch.optim.AdamW, "step")
    if site == "clip":
        once(PlainEngine, "clip")
    try:
        yield counted
    finally:
        patch.undo()
