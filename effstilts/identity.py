"""What a step's key is made of: its part of the recipe and the fingerprint of its data.

A setting that changes no number stays out; one that came later enters only where it differs from what was done before,
so that older artefacts keep their keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from effstilts.data import sources
from effstilts.kinds import kind_of
from effstilts.recipe import Method, Retrieval, Training
from effstilts.retrieval.evaluate import EVALUATORS
from effstilts.tasks.task import SplitName
from effstilts.workbench import Source, Step, TaskPart, Workbench

# Raised when a change moves the numbers of any step: old artefacts are then no longer taken for new ones.
NUMERICS_VERSION = 1

# Settings of retrieval that came later: they count where they are not what was done before.
_LATER_RETRIEVAL = ("margin", "neighbours", "mode", "space")

# Settings that say how a step is carried out and not what it computes.
_NOT_IN_KEY = ("checkpoint_every", "gradient_checkpointing")
# Settings that came later: they enter a key where they differ from what was done before.
_LATER_TRAINING = ("optimizer", "warmup_steps", "freeze_embeddings", "freeze_layers", "restarts")

# Settings of adalora alone.
_ADALORA = ("initial_rank", "budget_warmup", "budget_settle", "allocate_every", "orthogonality")


def of_training(training: Training) -> dict[str, Any]:
    """Of a training's settings those that its weights depend on."""
    kept = {k: v for k, v in dataclasses.asdict(training).items() if k not in _NOT_IN_KEY}
    # Once some parameters that frozen blocks read went on training.
    frozen = {"frozen": 2} if training.freeze_embeddings or training.freeze_layers else {}
    return {k: v for k, v in kept.items() if k not in _LATER_TRAINING or v != getattr(Training, k)} | frozen


def of_method(method: Method, base: Source | Step) -> dict[str, Any]:
    """The method's part of a key: fields that mean nothing for it do not count."""
    carry = method.carry if isinstance(base, Step) and base.leaves_adapter else None
    if method.name == "full":
        return {"name": "full"} if carry != "fresh" else {"name": "full", "carry": carry}
    fields = dataclasses.asdict(method)
    if method.name != "loraplus":
        del fields["rate_ratio"]
    if method.name != "adalora":
        for field_ in _ADALORA:
            del fields[field_]
    # Once the frozen adapter below kept its dropout.
    below = {"below": 2} if carry == "stack" and isinstance(base, Step) and base.method.dropout else {}
    return {**fields, "carry": carry, **below}


def of_part(bench: Workbench, part: TaskPart, split: SplitName) -> Mapping[str, Any]:
    """Everything about a part's rows that a step depends on."""
    task = part.task
    kind = kind_of(task.kind) if task.kind not in EVALUATORS else None
    return {
        "task": task.name,
        "language": part.language,
        "split": split,
        "rows": part.rows,
        "data": sources.fingerprint(task, split, part.language, bench.where),
        "kind": [task.kind, kind.version if kind else 1],
        "labels": list(task.labels),
        "lengths": [task.max_length, task.stride],
        "no_answer": task.no_answer,
        **({"normaliser": task.normaliser} if task.normaliser != "squad" else {}),
        "score": task.score,
        "head": task.head,
    }


def of_retrieval(settings: Retrieval) -> dict[str, Any]:
    """Of the settings of one retrieval task those that its numbers depend on."""
    later = {name: value for name in _LATER_RETRIEVAL if (value := getattr(settings, name)) != getattr(Retrieval, name)}
    return {
        **later,
        "layer": settings.layer,
        "pooling": settings.pooling,
        # Once <unk> did not count either.
        "special_tokens": settings.special_tokens or "not around",
    }
