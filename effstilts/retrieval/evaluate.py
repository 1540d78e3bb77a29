"""One encoder on one language of a retrieval task: examples in, metrics, predictions and facts out.

`EVALUATORS` has a function for each kind of task that needs no training. Several poolings (layers) make a sweep. A
mining task has dev gold, so the pooling can be chosen on it; aligned sentences have a test set alone, so there the
sweep is shown and nothing is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effstilts.errors import ModelError, RecipeError
from effstilts.model.encoder import Encoder
from effstilts.model.packed import Precision
from effstilts.recipe import How, Retrieval
from effstilts.retrieval import bucc, candidates
from effstilts.retrieval.benchmarks import tatoeba_accuracy
from effstilts.retrieval.embed import Pooling, protocol_layer
from effstilts.retrieval.mining import mine, neighbourhoods
from effstilts.retrieval.sides import Sides, sides
from effstilts.tasks.task import SplitName, Task

Examples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Trial:
    """What is evaluated. examples: the rows of a split; over: the poolings; tune: a threshold is set on dev; precision:
    what the vectors are computed in."""

    encoder: Encoder
    examples: Callable[[SplitName], Examples]
    split: SplitName
    settings: Retrieval
    max_length: int
    over: Sequence[Pooling]
    tune: bool = False
    precision: Precision = "fp32"

    def sides(self, source: list[str], target: list[str], shared: bool = False) -> Iterator[Sides]:
        """Both sides' vectors, pooling by pooling (see `effstilts.retrieval.sides`)."""
        asked = self.max_length, self.settings, self.precision, shared
        return sides(self.encoder, source, target, self.over, *asked)


@dataclass(frozen=True)
class Outcome:
    """metrics in percent, `metric` the one that counts; predictions: lines of the official form, a file of type
    `form`; facts: what was chosen and counted; tokens: what the encoder read for it."""

    metrics: dict[str, float]
    metric: str
    predictions: list[str]
    facts: dict[str, Any]
    tokens: int
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
    hows: Sequence[How] = (),
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


def aligned(trial: Trial) -> Sweep:
    """Tatoeba: accuracy among aligned sentences, English querying. By cosine unless the settings name a margin."""
    settings = trial.settings
    rows = trial.examples(trial.split)
    foreign, english = ([str(row[side]) for row in rows] for side in ("source", "target"))
    outcomes = {}
    for made in trial.sides(foreign, english):
        result = tatoeba_accuracy(made.source, made.target, settings.margin or "absolute", settings.neighbours)
        outcomes[made.pooling] = Outcome(
            {"accuracy": result.accuracy, "accuracy_reverse": result.accuracy_reverse},
            "accuracy",
            [str(index) for index in result.predictions.tolist()],
            {
                "direction": "query English, index foreign (XTREME); reverse beside it",
                "repeated": [len(side) - len(set(side)) for side in (foreign, english)],
                "blank": _blank(foreign + english),
                "over_length": made.over_length,
                **_facts(made, settings, "absolute"),
            },
            made.tokens,
        )
    return Sweep(outcomes)


def mined(trial: Trial) -> Sweep:
    """BUCC: F1 of mined pairs, with the threshold of the dev split where the trial tunes; else cross-fitted (see
    `bucc`)."""
    settings, split, tune, over = trial.settings, trial.split, trial.tune, trial.over
    given = bucc.corpora(trial.examples(split), settings.rows)
    found: dict[Pooling, bucc.Scored] = {}
    easy: dict[Pooling, float] = {}
    shared: dict[Pooling, dict[str, Any]] = {}
    tokens: dict[Pooling, int] = {}
    for made in trial.sides(given.source.texts, given.target.texts):
        found[made.pooling] = _scored(made, given, settings)
        easy[made.pooling] = bucc.gold_only_accuracy(given, made.source, made.target)
        shared[made.pooling] = {"over_length": made.over_length, **_facts(made, settings, "ratio")}
        tokens[made.pooling] = made.tokens
    tuning = found
    if tune:
        dev = bucc.corpora(trial.examples("dev"), settings.rows)
        tuning = {}
        for made in trial.sides(dev.source.texts, dev.target.texts):
            tuning[made.pooling] = _scored(made, dev, settings)
            tokens[made.pooling] += made.tokens

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
            **shared[chosen],
        }
        if len(among) > 1:
            facts["chosen"] = [[among[i].layer, among[i].how] for i in best.choices]
        names = given.names(best.pairs)
        return Outcome(
            metrics | {"gold_only_accuracy": easy[chosen]},
            "f1" if tune else "f1_cross_fitted",
            [f"{i}\t{j}" for i, j in sorted(names)],
            facts,
            tokens[chosen],
        )

    return Sweep({p: outcome([p]) for p in over}, outcome(list(over)) if len(over) > 1 else None)


def searched(trial: Trial) -> Sweep:
    """LAReQA and Mewsli-X: mAP@20 of queries in a set of candidates, by cosine."""
    given = candidates.candidates(trial.examples(trial.split), trial.settings.rows)
    outcomes = {}
    for made in trial.sides(given.queries, given.candidates, shared=True):
        score, rankings = candidates.ranked(given, made.source, made.target)
        outcomes[made.pooling] = Outcome(
            {"map_at_20": score},
            "map_at_20",
            [json.dumps(rankings, ensure_ascii=False)],
            {
                "queries": len(given.queries),
                "candidates": len(given.candidates),
                "blank": _blank(given.queries + given.candidates),
                "over_length": made.over_length,
                **_facts(made, trial.settings, "absolute"),
            },
            made.tokens,
            "json",
        )
    return Sweep(outcomes)


@dataclass(frozen=True)
class Evaluator:
    """How a kind of task is evaluated, and what it `takes`. tunes_on_dev: a threshold is set on dev where there is one;
    limits_rows: the settings' `rows` is applied by the evaluator itself, which reads the whole split."""

    evaluate: Callable[[Trial], Sweep]
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


def _scored(made: Sides, given: bucc.Corpora, settings: Retrieval) -> bucc.Scored:
    near = neighbourhoods(made.source, made.target, settings.neighbours)
    return bucc.scored(mine(near, settings.margin or "ratio", settings.mode), given)


def passed_over(outcome: Outcome, max_length: int, settings: Retrieval) -> str:
    """What is odd about the sentences that were scored, for people; empty where nothing is."""
    odd = {
        f"longer than {max_length} tokens and cut": outcome.facts["over_length"],
        "blank, which all have one vector": outcome.facts["blank"],
    }
    told = [f"{count:,} sentences are {what}" for what, count in odd.items() if count]
    if outcome.facts["margin"] != "absolute" and outcome.facts["neighbours"] < settings.neighbours:
        told.append(f"{settings.neighbours} neighbours are asked, of a side's {outcome.facts['neighbours']}: all count")
    return "; ".join(told)


def _blank(texts: Sequence[str]) -> int:
    return sum(not text.strip() for text in texts)


def _facts(made: Sides, settings: Retrieval, margin: str) -> dict[str, Any]:
    pooling = made.pooling
    return {
        "layer": pooling.layer,
        "pooling": pooling.how,
        "special_tokens": pooling.special_tokens,
        "space": settings.space,
        "margin": settings.margin or margin,
        "neighbours": min(settings.neighbours, len(made.source), len(made.target)),
    }
