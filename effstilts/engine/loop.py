"""The only training loop.

A step, from top to bottom: ask the order for the step's rows, cut them under the token budget, run the micro-batches
so that the gradient is that of the mean loss over the global batch, look at the numbers, clip, update. Then, where
due, evaluate on dev, keep the best weights, write a checkpoint.

Several ranks share each global batch: every rank plans every rank's cut from the lengths, runs its own, and the sums
of gradients, losses and units make the step of one process. Rank 0 evaluates and writes. Where memory runs out, the
step is begun again with smaller micro-batches.

Everything random in a step is seeded by (seed, step), so a run that was killed and resumed does the same arithmetic
as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effstilts.data.batches import share
from effstilts.data.cache import Rows
from effstilts.data.order import Order, key
from effstilts.engine.base import Engine
from effstilts.engine.budget import AgreedShortage, Budget
from effstilts.engine.checkpoint import Checkpoints, Progress, Snapshot
from effstilts.engine.guard import Signals, culprits, require_finite
from effstilts.engine.ranks import ALONE, Ranks
from effstilts.errors import StoreError
from effstilts.kinds.kind import Arrays, Kind
from effstilts.log import Log
from effstilts.model.encoder import TokenIds
from effstilts.model.memory import is_shortage
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
    evaluate: Callable[[], Mapping[str, Any]] | None,
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

    budget = Budget(training.micro_tokens, checkpoints.folder, log, label, ranks)
    with Signals(0.0 if ranks.world == 1 else 5.0) as signals, log.progress(steps, label, progress.step) as bar:
        written = progress.step
        while True:
            if evaluate is not None and _owes_scores(progress, steps, training.evaluate_every):
                best = _evaluate(engine, evaluate, progress, training, best, log, ranks, signals)
            signals.agree(ranks)
            ended = progress.stopped or progress.step == steps
            due = progress.step % training.checkpoint_every == 0 and not ended
            if progress.step > written and (due or signals.agreed is not None):
                write()
                written = progress.step
            signals.raise_if_received(f"{label} after step {progress.step} of {steps}, checkpoint written")
            if ended:
                break
            began = time.perf_counter()
            loss, norm = _update(engine, tasks, order, progress, steps, training, ids, seed, ranks, budget)
            progress.step += 1
            progress.seconds += time.perf_counter() - began
            progress.add_loss(loss, steps)
            bar.advance(note=f"loss {loss:.3f}")
            log.event("step", step=progress.step, loss=round(loss, 6), gradient_norm=round(norm, 6))
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
    budget: Budget,
) -> tuple[float, float]:
    """One optimizer step; returns the mean loss over the global batch and the gradient's norm before clipping."""
    batch = order.batch(progress.step)
    task = tasks[batch.task]
    widths = task.widths[batch.rows]
    rate = learning_rate_factor(progress.step + 1, steps, training.warmup, training.warmup_steps)
    torch_seed = int(key(seed, progress.step, 2, *([ranks.rank] if ranks.world > 1 else []))) >> 1

    def collate(part: Sequence[int]) -> Arrays:
        return task.kind.collate(task.rows, batch.rows[part].tolist(), batch.keys[part], ids, training.mask_share)

    def alone(part: Sequence[int]) -> float:
        return engine.forward_backward(task.kind, task.head, collate(part), 1.0, True)

    def named(odd: Sequence[int]) -> list[str]:
        engine.discard()
        places = culprits(engine, alone, odd, len(batch.rows), training.clip_norm, ranks)
        return task.sample_ids(batch.rows[places].tolist())

    while True:
        shares = share(widths, budget.tokens, engine.launch_tokens, ranks.world)
        with budget:
            torch.manual_seed(torch_seed)
            summed = _gradient(engine, task, collate, shares, ranks)
            loss = summed.loss / max(summed.units, 1)
            norm = engine.clip(training.clip_norm)
            require_finite(loss, norm, progress.step + 1, task.name, partial(named, summed.odd))
            engine.step(rate)
            progress.tokens += summed.tokens
            progress.padded_tokens += summed.padded
            return loss, norm
        engine.discard()
        budget.halve(shares, widths, engine.redoes, lambda place: task.sample_ids([int(batch.rows[place])])[0])


@dataclass
class _Sums:
    """Of a global batch: losses, units, tokens; odd: places of this rank's rows beside a loss that is not finite."""

    loss: float
    units: float
    tokens: int
    padded: int
    odd: list[int]


def _gradient(
    engine: Engine,
    task: TrainTask,
    collate: Callable[[Sequence[int]], Arrays],
    shares: Sequence[Sequence[Sequence[int]]],
    ranks: Ranks,
) -> _Sums:
    """Adds the gradient of the mean loss over the global batch. AgreedShortage, on every rank alike, where memory runs
    out on one of several."""
    own = list(shares[ranks.rank])
    # A rank with fewer micro-batches than another runs one of the batch's rows again, with weight 0.
    idle: list[Sequence[int]] = [[0]] * (max(map(len, shares)) - len(own))
    micro = [collate(part) for part in own + idle]
    units, tokens, padded = ranks.totals(
        [
            sum(task.kind.units(arrays) for arrays in micro[: len(own)]),
            sum(int(arrays["attention_mask"].sum()) for arrays in micro[: len(own)]),
            sum(arrays["attention_mask"].size for arrays in micro[: len(own)]),
        ]
    )
    total, short = 0.0, 0.0
    odd: list[int] = []
    try:
        for index, arrays in enumerate(micro):
            counts = index < len(own)
            scale = 1.0 / max(int(units), 1) if counts else 0.0
            found = engine.forward_backward(task.kind, task.head, arrays, scale, index == len(micro) - 1)
            total += found if counts else 0.0
            if counts and not math.isfinite(found):
                odd += own[index]
    except (RuntimeError, MemoryError) as error:
        if ranks.world == 1 or not engine.redoes or not is_shortage(error):
            raise
        short = 1.0
    total, short = ranks.totals([total, short])
    if short:
        raise AgreedShortage(f"on {short:.0f} of {ranks.world} ranks")
    return _Sums(total, units, int(tokens), int(padded), odd)


def _owes_scores(progress: Progress, steps: int, every: int) -> bool:
    """Whether dev is to be scored at this step and was not yet: a signal may have come before."""
    done = progress.history[-1]["step"] if progress.history else 0
    return progress.step > done and (progress.step == steps or (every > 0 and progress.step % every == 0))


def _evaluate(
    engine: Engine,
    evaluate: Callable[[], Mapping[str, Any]],
    progress: Progress,
    training: Training,
    best: Mapping[str, Tensor],
    log: Log,
    ranks: Ranks,
    signals: Signals,
) -> Mapping[str, Tensor]:
    """Scores dev, keeps a copy of the weights if they are the best so far, counts patience. A signal breaks it off."""
    engine.publish()
    scores = ranks.tell(lambda: signals.unless_received(lambda: dict(evaluate())))
    if scores is None:
        return best
    log.event("dev", step=progress.step, **scores)
    progress.history.append({"step": progress.step, **scores})
    if scores["score"] > progress.best_score:
        progress.best_score, progress.best_step, progress.without_gain = scores["score"], progress.step, 0
        return engine.weights()
    progress.without_gain += 1
    progress.stopped = bool(training.patience) and progress.without_gain >= training.patience
    return best
