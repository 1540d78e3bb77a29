"""Predictions of a trained model over encoded rows, longest first under a token budget, shared by the ranks.

Every rank plans the same micro-batches and runs each `world`-th of them, so an output does not depend on how many ranks
there are: it is computed beside the same rows, with the same padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from effstilts.data.batches import cut
from effstilts.data.cache import Rows
from effstilts.data.order import mix
from effstilts.engine.plain import Model, autocast, launch_tokens, to_tensors
from effstilts.engine.ranks import ALONE, Ranks
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
    *,
    log: Log = Log(),  # noqa: B008 - without state
    ranks: Ranks = ALONE,
) -> list[Any]:
    """The kind's outputs for every row, in row order; of several ranks, which all call it, the first has them and the
    others nothing. A masked LM's masks are fixed by the row's index. Where memory runs out, the rows that are left are
    cut finer; TrainingError where one row is too much."""
    ids = model.encoder.token_ids()
    device = model.encoder.device
    keys = mix(np.arange(len(rows), dtype=np.uint64))
    widths = kind.widths(rows)
    launch = launch_tokens(model.encoder, device)
    parts = cut(widths, micro_tokens * INFERENCE_BUDGET_FACTOR, launch)
    hands = [[index for part in parts[rank :: ranks.world] for index in part] for rank in range(ranks.world)]
    outputs: list[Any] = [None] * len(rows)
    whole = min(micro_tokens * INFERENCE_BUDGET_FACTOR, int(widths.max(initial=1)) * max(1, len(rows)))

    def work(tokens: int) -> None:
        # At first the parts that one process has, so that a row's output does not depend on the ranks.
        todo = parts[ranks.rank :: ranks.world]
        if tokens != whole:
            left = np.array([index for index in hands[ranks.rank] if outputs[index] is None], np.int64)
            todo = [left[part].tolist() for part in cut(widths[left], tokens, launch)]
        for chosen in todo:
            batch = to_tensors(kind.collate(rows, chosen, keys[chosen], ids, mask_share), device)
            for index, output in zip(chosen, kind.outputs(model.head(head), model.encoder, batch), strict=True):
                outputs[index] = output

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), autocast(precision, device):
            halving(work, whole, int(widths.min(initial=whole)), "evaluation", "tokens", log)
    finally:
        model.train(was_training)
    gathered = ranks.gather([outputs[index] for index in hands[ranks.rank]])
    if not ranks.leads:
        return []
    for hand, found in zip(hands, gathered, strict=True):
        for index, output in zip(hand, found, strict=True):
            outputs[index] = output
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
    *,
    log: Log = Log(),  # noqa: B008 - without state
    ranks: Ranks = ALONE,
) -> list[Any]:
    """One prediction for each example. Of several ranks, which all call it, the first has them and the others nothing,
    nor need they examples."""
    outputs = row_outputs(kind, model, head, rows, precision, micro_tokens, mask_share, log=log, ranks=ranks)
    return kind.decode(task, examples, rows, outputs) if ranks.leads else []
