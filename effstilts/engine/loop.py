"""The only training loop.

A step, from top to bottom: ask the order for the step's rows, cut them under the token budget, run the micro-batches
so that the gradient is that of the mean loss over the global batch, look at the numbers, clip, update. Then, where
due, evaluate on dev, keep the best weights, write a checkpoint.

Several ranks share each global batch: every rank plans every rank's cut from the lengths, runs its own, and the sums
of gradients, losses and units make the step of one process. Rank 0 evaluates and writes.

Everything random in a step is seeded by (seed, step), so a run that was killed and resumed does the same arithmetic
as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effstilts.data.batches import share
from effstilts.data.cache import Rows
from effstilts.data.order import Order, key
from effstilts.engine.base import Engine
from effstilts.engine.checkpoint import Checkpoints, Progress, Snapshot
from effstilts.engine.guard import Signals, require_finite
from effstilts.engine.ranks import ALONE, Ranks
from effstilts.errors import StoreError
from effstilts.kinds.kind import Kind
from effstilts.log import Log
from effstilts.model.encoder import TokenIds
from effstilts.recipe import Training


@dataclass(frozen=True)
class TrainTask:
    """One task as the loop sees it: encoded rows, the kind that trains on them, the head it uses.

    widths: tokens that each row takes [rows]; sample_ids names the examples of rows in messages.
    """

    name: str
    kind: Kind
    head: str
    rows: Rows
    widths: NDArray[np.int64]
    sample_ids: Callable[[Sequence[int]], list[str]]


def learning_rate_factor(step: int, steps: int, warmup: float, warmup_steps: int = 0) -> float:
    """Linear warm-up over `warmup_steps`, or `warmup` of the steps (at least one, at most all), then linear decay
    towards 0. Factor of update `step` >= 1."""
    rising = min(steps, max(1, warmup_steps or round(warmup * steps)))
    if step <= rising:
        return step / rising
    return (steps + 1 - step) / (steps + 1 - rising)


def train(
    engine: Engine,
    tasks: Sequence[TrainTask],
    order: Order,
    steps: int,
    training: Training,
    ids: TokenIds,
    seed: int,
    evaluate: Callable[[], Mapping[str, float]] | None,
    checkpoints: Checkpoints,
    log: Log,
    label: str,
    ranks: Ranks = ALONE,
) -> tuple[Progress, Mapping[str, Tensor]]:
    """Trains for `steps` updates, from the newest checkpoint if there is one.

    evaluate: scores of the current weights, with the key "score" (higher is better) that selection goes by; None
        keeps the last weights.
    Returns the progress and the weights chosen. Raises Interrupted after a signal (a checkpoint is written first),
    TrainingError when numbers are not finite.
    """
    progress = Progress()
    best: Mapping[str, Tensor] = {}
    found = _newest(checkpoints, ranks)
    if found is not None:
        progress, best = found.progress, found.best
        engine.load(found.weights, found.moments, progress.step)
        log.event("resumed", step=progress.step)
        log.say(f"{label}: going on after step {progress.step} of {steps}")

    def write() -> None:
        snapshot = Snapshot(engine.weights(), engine.moments(), best, progress)
        if ranks.leads:
            checkpoints.write(snapshot)

    with Signals(0.0 if ranks.world == 1 else 5.0) as signals, log.progress(steps, label, progress.step) as bar:
        written = progress.step
        while progress.step < steps and not progress.stopped:
            began = time.perf_counter()
            loss, norm = _update(engine, tasks, order, progress, steps, training, ids, seed, ranks)
            progress.step += 1
            progress.seconds += time.perf_counter() - began
            progress.loss_sum += loss
            bar.advance(note=f"loss {loss:.3f}")
            log.event("step", step=progress.step, loss=round(loss, 6), gradient_norm=round(norm, 6))
            last = progress.step == steps
            due = training.evaluate_every and progress.step % training.evaluate_every == 0
            if evaluate is not None and (due or last):
                best = _evaluate(engine, evaluate, progress, training, best, log, ranks)
            signals.agree(ranks)
            if progress.step % training.checkpoint_every == 0 and not last and not progress.stopped:
                write()
                written = progress.step
            if signals.received is not None and not last:
                if written != progress.step:
                    write()
                signals.raise_if_received(f"{label} after step {progress.step} of {steps}, checkpoint written")
        # A signal during the last step still ends the run, after the artefact's weights are safe in a checkpoint.
        if signals.received is not None:
            write()
            signals.raise_if_received(f"{label} after its last step, checkpoint written")
    # Asked of the progress, which is the same on every rank: rank 0 alone has the weights.
    return progress, best if progress.best_step >= 0 else engine.weights()


def _newest(checkpoints: Checkpoints, ranks: Ranks) -> Snapshot | None:
    """The newest good checkpoint: rank 0 finds it and clears damaged ones away, then the others read it."""
    found: Snapshot | None = None

    def look() -> int:
        nonlocal found
        found = checkpoints.read_newest()
        return -1 if found is None else found.progress.step

    step = ranks.tell(look)
    if not ranks.leads and step >= 0:
        found = checkpoints.read_newest()
        if found is None or found.progress.step != step:
            raise StoreError(
                f"rank {ranks.rank} does not see the checkpoint of step {step} in {checkpoints.folder}: "
                "the store must lie where every machine reads it"
            )
    return found


def _update(
    engine: Engine,
    tasks: Sequence[TrainTask],
    order: Order,
    progress: Progress,
    steps: int,
    training: Training,
    ids: TokenIds,
    seed: int,
    ranks: Ranks,
) -> tuple[float, float]:
    """One optimizer step; returns the mean loss over the global batch and the gradient's norm before clipping."""
    batch = order.batch(progress.step)
    task = tasks[batch.task]
    rows = batch.rows.tolist()
    shares = share(task.widths[batch.rows], training.micro_tokens, engine.launch_tokens, ranks.world)
    own = shares[ranks.rank]
    # A rank with fewer micro-batches than another runs one of the batch's rows again, with weight 0.
    idle = max(map(len, shares)) - len(own)
    micro = [
        task.kind.collate(task.rows, [rows[i] for i in part], batch.keys[part], ids, training.mask_share)
        for part in own + [[0]] * idle
    ]
    units, tokens, padded = ranks.totals(
        [
            sum(task.kind.units(arrays) for arrays in micro[: len(own)]),
            sum(int(arrays["attention_mask"].sum()) for arrays in micro[: len(own)]),
            sum(arrays["attention_mask"].size for arrays in micro[: len(own)]),
        ]
    )
    torch.manual_seed(int(key(seed, progress.step, 2, *([ranks.rank] if ranks.world > 1 else []))) >> 1)
    total = 0.0
    for index, arrays in enumerate(micro):
        counts = index < len(own)
        scale = 1.0 / max(int(units), 1) if counts else 0.0
        found = engine.forward_backward(task.kind, task.head, arrays, scale, index == len(micro) - 1)
        total += found if counts else 0.0
    progress.tokens += int(tokens)
    progress.padded_tokens += int(padded)
    (total,) = ranks.totals([total])
    loss = total / max(units, 1)
    norm = engine.clip(training.clip_norm)
    try:
        require_finite(loss, norm, progress.step + 1, task.name, lambda: task.sample_ids(rows))
    except Exception:
        engine.discard()
        raise
    engine.step(learning_rate_factor(progress.step + 1, steps, training.warmup, training.warmup_steps))
    return loss, norm


def _evaluate(
    engine: Engine,
    evaluate: Callable[[], Mapping[str, float]],
    progress: Progress,
    training: Training,
    best: Mapping[str, Tensor],
    log: Log,
    ranks: Ranks,
) -> Mapping[str, Tensor]:
    """Scores dev, keeps a copy of the weights if they are the best so far, counts patience."""
    engine.publish()
    scores = ranks.tell(lambda: dict(evaluate()))
    log.event("dev", step=progress.step, **scores)
    progress.history.append({"step": progress.step, **scores})
    if scores["score"] > progress.best_score:
        progress.best_score, progress.best_step, progress.without_gain = scores["score"], progress.step, 0
        return engine.weights()
    progress.without_gain += 1
    progress.stopped = bool(training.patience) and progress.without_gain >= training.patience
    return best
