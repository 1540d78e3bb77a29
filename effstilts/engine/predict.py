"""Predictions of a trained model over encoded rows, longest first under a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from effstilts.data.batches import cut
from effstilts.data.cache import Rows
from effstilts.data.order import mix
from effstilts.engine.plain import Model, autocast, launch_tokens, to_tensors
from effstilts.kinds.kind import Example, Kind
from effstilts.log import Log
from effstilts.model.memory import halving
from effstilts.tasks.task import Task

# Without gradients a micro-batch may hold several times the tokens of a training one.
INFERENCE_BUDGET_FACTOR = 2


def row_outputs(
    kind: Kind,
    model: Model,
    head: str,
    rows: Rows,
    precision: str,
    micro_tokens: int,
    mask_share: float,
    log: Log = Log(),  # noqa: B008 - without state
) -> list[Any]:
    """The kind's outputs for every row, in row order. A masked LM's masks are fixed by the row's index. Where memory
    runs out, the rows that are left are cut finer; TrainingError where one row is too much."""
    ids = model.encoder.token_ids()
    device = model.encoder.device
    keys = mix(np.arange(len(rows), dtype=np.uint64))
    outputs: list[Any] = [None] * len(rows)
    widths = kind.widths(rows)

    def work(tokens: int) -> None:
        left = np.array([index for index, output in enumerate(outputs) if output is None], np.int64)
        for part in cut(widths[left], tokens, launch_tokens(device)):
            chosen = left[part].tolist()
            batch = to_tensors(kind.collate(rows, chosen, keys[chosen], ids, mask_share), device)
            for index, output in zip(chosen, kind.outputs(model.head(head), model.encoder, batch), strict=True):
                outputs[index] = output

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), autocast(precision, device):
            tokens = min(micro_tokens * INFERENCE_BUDGET_FACTOR, int(widths.max(initial=1)) * max(1, len(rows)))
            halving(work, tokens, int(widths.min(initial=tokens)), "evaluation", "tokens", log)
    finally:
        model.train(was_training)
    return outputs


def predict(
    kind: Kind,
    task: Task,
    model: Model,
    head: str,
    examples: Sequence[Example],
    rows: Rows,
    precision: str,
    micro_tokens: int,
    mask_share: float = 0.15,
    log: Log = Log(),  # noqa: B008 - without state
) -> list[Any]:
    """One prediction for each example."""
    outputs = row_outputs(kind, model, head, rows, precision, micro_tokens, mask_share, log)
    return kind.decode(task, examples, rows, outputs)
