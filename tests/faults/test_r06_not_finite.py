"""R6: NaN or Inf in a loss or gradient stops before the update and names the samples; checkpoints stay as they are."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from effstilts.errors import TrainingError
from effstilts.model.encoder import Encoder
from effstilts.store import file_hash
from tests.unit.engine.test_loop import Bench, same

Amount = Callable[[int, int], int]


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_hash(path) for path in folder.rglob("*") if path.is_file()}


def poison(monkeypatch: pytest.MonkeyPatch, texts: list[tuple[int, ...]], what: str, value: float) -> None:
    """Rows with these tokens give a loss, or a gradient alone, that is `value`."""
    forward, backward = Encoder.forward, torch.autograd.backward
    struck: list[Encoder] = []

    def poisoned(self: Encoder, ids: torch.Tensor, mask: torch.Tensor, *rest: Any, **named: Any) -> Any:
        states = forward(self, ids, mask, *rest, **named)
        kept = [tuple(row[on.bool()].tolist()) for row, on in zip(ids, mask, strict=True)]
        for place, row in enumerate(kept):
            if row in texts:
                struck.append(self)
                if what == "loss":
                    states = states.clone()
                    states[place] = value
        return states

    def then(*rest: Any, **named: Any) -> None:
        backward(*rest, **named)
        if struck and what == "gradient":
            parameter = next(p for p in struck[0].parameters() if p.grad is not None)
            parameter.grad.view(-1)[0] = value
        struck.clear()

    monkeypatch.setattr(Encoder, "forward", poisoned)
    monkeypatch.setattr(torch.autograd, "backward", then)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_samples_are_named_and_nothing_is_updated(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, value: float, amount: Amount,
    figures: dict[str, Any],
) -> None:  # fmt: skip
    draw = random.Random(f"{what} {value}")
    tried = amount(1, 50)
    for number in range(tried):
        folder = tmp_path / str(number)
        bench = Bench(tokenizer, folder, checkpoint_every=2)
        bench.run(5, only=0)
        before, weights = files(folder), bench.checkpoints.read_newest()
        assert weights is not None
        rows = bench.tasks[0].rows
        texts = [tuple(rows["input_ids"][row]) for row in range(len(rows))]
        chosen = draw.sample(range(len(rows)), draw.choice([1, 2]))
        bad = {row for row in range(len(rows)) if texts[row] in {texts[one] for one in chosen}}
        again = Bench(tokenizer, folder, checkpoint_every=10**6)
        with monkeypatch.context() as patch:
            poison(patch, [texts[row] for row in chosen], what, value)
            last: list[dict[str, torch.Tensor]] = []
            step = again.engine.step

            def kept(rate: float, step: Any = step, last: Any = last, again: Any = again) -> None:
                step(rate)
                last.append(again.weights())

            again.engine.step = kept  # type: ignore[method-assign]
            with pytest.raises(TrainingError) as raised:
                again.run(5 + len(rows), only=0)
        text = str(raised.value)
        named = {int(word) for word in text.partition("samples row ")[2].partition(".")[0].split(", row ")}
        assert named and named <= bad, (text, bad)
        assert ("gradient norm" if what == "gradient" else "the loss") in text and raised.value.exit_code == 6
        assert same(again.weights(), last[-1] if last else dict(weights.weights)), "stopped before the update"
        assert files(folder) == before, "the last good checkpoint is untouched"
    figures.update(tried=tried)
