"""One encoder on one language of a retrieval task: examples in, metrics, predictions and facts out.

`EVALUATORS` has a function for each kind of task that needs no training. Several poolings (layers) make a sweep. A
mining task has dev gold, so the pooling can be chosen on it; aligned sentences have a test set alone, so there the
sweep is shown and nothing is chosen.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import ModelError, RecipeError
from effstilts.kinds.kind import tokenize
from effstilts.model.encoder import Encoder
from effstilts.recipe import Retrieval
from effstilts.retrieval import bucc, candidates
from effstilts.retrieval.benchmarks import tatoeba_accuracy
from effstilts.retrieval.embed import Embedder, Pooling, protocol_layer
from effstilts.retrieval.mining import mine, neighbourhoods
from effstilts.retrieval.spaces import into_space
from effstilts.tasks.task import SplitName, Task

Examples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """metrics in percent, `metric` the one that counts; predictions: lines of the official form, a file of type
    `form`; facts: what was chosen and counted."""

    metrics: dict[str, float]
    metric: str
    predictions: list[str]
    facts: dict[str, Any]
    form: str = "tsv"

    @property
    def score(self) -> float:
        return self.metrics[self.metric]


@dataclass(frozen=True)
class Sweep:
    """An outcome for each pooling, and, where gold of a dev set allows it, the one that was chosen there."""

    outcomes: dict[Pooling, Outcome] = field(default_factory=dict)
    chosen: Outcome | None = None


def poolings(
    encoder: Encoder,
    settings: Retrieval,
    layers: Sequence[int] = (),
    hows: Sequence[Literal["mean", "cls", "weighted"]] = (),
) -> list[Pooling]:
    """The settings' pooling, or one for each of the layers and ways given. ModelError for a layer outside the
    model."""
    wanted = list(layers) or [protocol_layer(encoder.depth) if settings.layer < 0 else settings.layer]
    for layer in wanted:
        if not 0 <= layer <= encoder.depth:
            raise ModelError(
                f"layer {layer} does not exist: this encoder has hidden states 0 to {encoder.depth}, where 0 is the "
                "embedding output and k the output of block k"
            )
    ways = dict.fromkeys(hows or [settings.pooling])
    return [Pooling(layer, how, settings.special_tokens) for how in ways for layer in dict.fromkeys(wanted)]


def over_length(encoder: Encoder, sentences: Sequence[str], max_length: int) -> int:
    """How many sentences are cut: longer than max_length or the model's own limit, in tokens with specials.

    A token stands for a byte or more, but for the mark of a word's start that SentencePiece puts before a text, so
    that only texts of many bytes are looked at.
    """
    limit = min(max_length, encoder.max_length)
    ids = encoder.token_ids()
    room = limit - len(ids.prefix) - len(ids.suffix) - 1
    long = [text for text in sentences if len(text.encode()) > room]
    return sum(len(row.ids) > limit for row in tokenize(encoder.tokenizer, long, None)) if long else 0


def aligned(
    encoder: Encoder,
    examples: Callable[[SplitName], Examples],
    split: SplitName,
    settings: Retrieval,
    max_length: int,
    over: Sequence[Pooling],
    tune: bool = False,
) -> Sweep:
    """Tatoeba: accuracy among aligned sentences, English querying. By cosine unless the settings name a margin."""
    rows = examples(split)
    foreign, english = ([str(row[side]) for row in rows] for side in ("source", "target"))
    cut = over_length(encoder, foreign + english, max_length)
    outcomes = {}
    for pooling, (x, y) in _vectors(encoder, foreign, english, over, max_length, settings):
        result = tatoeba_accuracy(x, y, settings.margin or "absolute", settings.neighbours)
        outcomes[pooling] = Outcome(
            {"accuracy": result.accuracy, "accuracy_reverse": result.accuracy_reverse},
            "accuracy",
            [str(index) for index in result.predictions.tolist()],
            {
                "direction": "query English, index foreign (XTREME); reverse beside it",
                "repeated": [len(side) - len(set(side)) for side in (foreign, english)],
                "blank": _blank(foreign + english),
                "over_length": cut,
                **_facts(pooling, settings, "absolute"),
            },
        )
    return Sweep(outcomes)


def mined(
    encoder: Encoder,
    examples: Callable[[SplitName], Examples],
    split: SplitName,
    settings: Retrieval,
    max_length: int,
    over: Sequence[Pooling],
    tune: bool = False,
) -> Sweep:
    """BUCC: F1 of mined pairs. tune: with the threshold of the dev split; else cross-fitted (see `bucc`)."""
    given = bucc.corpora(examples(split), settings.rows)
    cut = over_length(encoder, given.source.texts + given.target.texts, max_length)
    found: dict[Pooling, bucc.Scored] = {}
    easy: dict[Pooling, float] = {}
    for pooling, (x, y) in _sides(encoder, given, over, max_length, settings):
        found[pooling] = _scored(x, y, given, settings)
        easy[pooling] = bucc.gold_only_accuracy(given, x, y)
    tuning = found
    if tune:
        dev = bucc.corpora(examples("dev"), settings.rows)
        tuning = {
            pooling: _scored(x, y, dev, settings)
            for pooling, (x, y) in _sides(encoder, dev, over, max_length, settings)
        }

    def outcome(among: Sequence[Pooling]) -> Outcome:
        here, there = [found[p] for p in among], [tuning[p] for p in among]
        if tune:
            best = bucc.tuned(there, here)
            metrics = best.metrics()
            how = "best on dev"
        else:
            best = bucc.cross_fitted(here)
            metrics = best.metrics("_cross_fitted") | bucc.in_sample(here).metrics("_in_sample")
            how = f"cross-fitted over {bucc.FOLDS} folds of {split}; in_sample: set on the pairs it scores, optimistic"
        chosen = among[max(set(best.choices), key=best.choices.count)]
        facts = {
            "threshold": best.finite_thresholds,
            "threshold_from": how,
            "mode": settings.mode,
            "gold": len(given.gold),
            "extracted": len(best.pairs),
            "sentences": [len(given.source.row_of_id), len(given.target.row_of_id)],
            "repeated": [given.source.repeated, given.target.repeated],
            "blank": _blank(given.source.texts + given.target.texts),
            "over_length": cut,
            **_facts(chosen, settings, "ratio"),
        }
        if len(among) > 1:
            facts["chosen"] = [[among[i].layer, among[i].how] for i in best.choices]
        names = given.names(best.pairs)
        return Outcome(
            metrics | {"gold_only_accuracy": easy[chosen]},
            "f1" if tune else "f1_cross_fitted",
            [f"{i}\t{j}" for i, j in sorted(names)],
            facts,
        )

    return Sweep({p: outcome([p]) for p in over}, outcome(list(over)) if len(over) > 1 else None)


def searched(
    encoder: Encoder,
    examples: Callable[[SplitName], Examples],
    split: SplitName,
    settings: Retrieval,
    max_length: int,
    over: Sequence[Pooling],
    tune: bool = False,
) -> Sweep:
    """LAReQA and Mewsli-X: mAP@20 of queries in a set of candidates, by cosine."""
    given = candidates.candidates(examples(split), settings.rows)
    cut = over_length(encoder, given.queries + given.candidates, max_length)
    outcomes = {}
    for pooling, (x, y) in _vectors(encoder, given.queries, given.candidates, over, max_length, settings, shared=True):
        score, rankings = candidates.ranked(given, x, y)
        outcomes[pooling] = Outcome(
            {"map_at_20": score},
            "map_at_20",
            [json.dumps(rankings, ensure_ascii=False)],
            {
                "queries": len(given.queries),
                "candidates": len(given.candidates),
                "blank": _blank(given.queries + given.candidates),
                "over_length": cut,
                **_facts(pooling, settings, "absolute"),
            },
            "json",
        )
    return Sweep(outcomes)


@dataclass(frozen=True)
class Evaluator:
    """How a kind of task is evaluated, and what it `takes`. tunes_on_dev: a threshold is set on dev where there is one;
    limits_rows: the settings' `rows` is applied by the evaluator itself, which reads the whole split."""

    evaluate: Callable[..., Sweep]
    takes: str
    tunes_on_dev: bool = False
    limits_rows: bool = False


EVALUATORS: Mapping[str, Evaluator] = {
    "bitext": Evaluator(aligned, "aligned sentences"),
    "mining": Evaluator(mined, "comparable corpora with gold pairs", tunes_on_dev=True, limits_rows=True),
    "candidates": Evaluator(searched, "queries and candidates", limits_rows=True),
}


def evaluator_of(task: Task, where: str) -> Evaluator:
    """How the task is evaluated. RecipeError for a task that retrieves nothing."""
    if task.kind not in EVALUATORS:
        known = " or ".join(f"{evaluator.takes} ({kind})" for kind, evaluator in EVALUATORS.items())
        raise RecipeError(f"{where}: {task.name!r} is of kind {task.kind}; retrieval needs {known}")
    return EVALUATORS[task.kind]


def _scored(x: NDArray[Any], y: NDArray[Any], given: bucc.Corpora, settings: Retrieval) -> bucc.Scored:
    near = neighbourhoods(x, y, settings.neighbours)
    return bucc.scored(mine(near, settings.margin or "ratio", settings.mode), given)


def passed_over(outcome: Outcome, max_length: int) -> str:
    """What is odd about the sentences that were scored, for people; empty where nothing is."""
    odd = {
        f"longer than {max_length} tokens and cut": outcome.facts["over_length"],
        "blank, which all have one vector": outcome.facts["blank"],
    }
    return "; ".join(f"{count:,} sentences are {what}" for what, count in odd.items() if count)


def _blank(texts: Sequence[str]) -> int:
    return sum(not text.strip() for text in texts)


def _facts(pooling: Pooling, settings: Retrieval, margin: str) -> dict[str, Any]:
    return {
        "layer": pooling.layer,
        "pooling": pooling.how,
        "special_tokens": pooling.special_tokens,
        "space": settings.space,
        "margin": settings.margin or margin,
        "neighbours": settings.neighbours,
    }


# What the vectors of several poolings may take at once.
_VECTOR_BYTES = 1 << 31


class _Last:
    """The vectors of the last candidates: a set of candidates is the same for the queries of every language."""

    def __init__(self) -> None:
        self._encoder: weakref.ref[Encoder] | None = None
        self._key: tuple[Any, ...] = ()
        self._vectors: list[NDArray[np.float32]] = []

    def vectors(self, embedder: Embedder, texts: list[str], key: tuple[Any, ...]) -> list[NDArray[np.float32]]:
        """The texts' vectors for each pooling of the embedder, from the last call where that was the same."""
        same = self._encoder is not None and self._encoder() is embedder.encoder
        if not same or self._key != (key, texts):
            self._vectors = embedder(texts).vectors
            self._encoder, self._key = weakref.ref(embedder.encoder), (key, texts)
        return self._vectors


_LAST = _Last()
_Vectors = Iterator[tuple[Pooling, tuple[NDArray[np.float32], NDArray[np.float32]]]]


def _sides(
    encoder: Encoder, given: bucc.Corpora, over: Sequence[Pooling], max_length: int, settings: Retrieval
) -> _Vectors:
    return _vectors(encoder, given.source.texts, given.target.texts, over, max_length, settings)


def _vectors(
    encoder: Encoder,
    source: list[str],
    target: list[str],
    over: Sequence[Pooling],
    max_length: int,
    settings: Retrieval,
    shared: bool = False,
) -> _Vectors:
    """Both sides' vectors in the settings' space, pooling by pooling; as many from one pass as memory bears. shared:
    the next call may have the same targets."""
    row = 4 * encoder.hidden_size * (len(source) + len(target))
    together = max(1, _VECTOR_BYTES // max(row, 1))
    for start in range(0, len(over), together):
        part = over[start : start + together]
        with Embedder(encoder, part, max_length, settings.batch_tokens, "fp32") as embedder:
            ours = embedder(source).vectors
            theirs = _LAST.vectors(embedder, target, (part, max_length)) if shared else embedder(target).vectors
        for pooling, x, y in zip(part, ours, theirs, strict=True):
            yield pooling, into_space(x, y, settings.space)
