"""BUCC 2018: find the translations that two comparable corpora hold, with the threshold never set on what it scores.

The protocol is LASER's and XTREME's (`third_party/utils_retrieve.py`): equal sentences of a side are one candidate;
a sentence whose text stands under several ids is never predicted, while its gold pairs still count as missed; ratio
margin over 4 neighbours, one-to-one. Two ways to set the threshold, and they are never mixed:

- tuned on dev, applied to the test set: `f1`;
- where one labelled set is all there is, cross-fitted: source sentences fall into folds by a hash of their id, each
  fold is scored at the threshold that is best on the others, and the counts are summed: `f1_cross_fitted`. Beside it
  stands `f1_in_sample`, at the threshold that is best on the very pairs it scores: what the XTREME scripts print for
  dev, and optimistic.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError
from effstilts.retrieval.benchmarks import tatoeba_accuracy
from effstilts.retrieval.mining import Candidates, best_cut, precision_recall_f1

FOLDS = 5


@dataclass(frozen=True)
class Side:
    """The distinct sentences of one language. ids: the id of each, "" where its text stands under several.

    row_of_id: id -> its row in texts, repeated texts included.
    """

    texts: list[str]
    ids: list[str]
    row_of_id: Mapping[str, int]

    @property
    def repeated(self) -> int:
        """Ids that share their text with another."""
        return len(self.row_of_id) - sum(map(bool, self.ids))


@dataclass(frozen=True)
class Corpora:
    """Two comparable corpora and the pairs (source id, target id) that translate each other."""

    source: Side
    target: Side
    gold: frozenset[tuple[str, str]]

    def names(self, pairs: NDArray[np.int64]) -> list[tuple[str, str]]:
        """Ids of pairs of rows [pairs, 2]."""
        return [(self.source.ids[i], self.target.ids[j]) for i, j in pairs.tolist()]


@dataclass(frozen=True)
class Scored:
    """What was mined from corpora, the best first, all [pairs]: rows of the texts, score, whether it is gold, and the
    fold of the source id. gold_by_fold [FOLDS]: gold pairs in each."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    score: NDArray[np.float64]
    correct: NDArray[np.bool_]
    fold: NDArray[np.int64]
    gold_by_fold: NDArray[np.int64]

    @property
    def gold(self) -> int:
        return int(self.gold_by_fold.sum())


@dataclass(frozen=True)
class Found:
    """Extracted pairs (rows of the texts, [pairs, 2]) and their percentages. thresholds, choices: one, or one for each
    fold; a choice is the index of the setting (a layer, say) that was best where the threshold was set."""

    precision: float
    recall: float
    f1: float
    thresholds: tuple[float, ...]
    choices: tuple[int, ...]
    pairs: NDArray[np.int64]

    def metrics(self, suffix: str = "") -> dict[str, float]:
        return {f"{name}{suffix}": getattr(self, name) for name in ("f1", "precision", "recall")}

    @property
    def finite_thresholds(self) -> list[float | None]:
        """For JSON: None where no dev candidate was correct and so nothing is extracted."""
        return [value if math.isfinite(value) else None for value in self.thresholds]


def corpora(examples: Iterable[Mapping[str, Any]], first: int = 0) -> Corpora:
    """Examples of kind mining (id, text, side, gold) as corpora; first: sentences of each side used, 0: all.

    DataError for a side without sentences, no gold pair, or a gold pair with an unknown id.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {"source": [], "target": []}
    for example in examples:
        rows[example["side"]].append(example)
    sides = {}
    for side, own in rows.items():
        used = own[:first] if first else own
        if not used:
            raise DataError(f"the corpora have no {side} sentences")
        sides[side] = _side(used)
    everyone = {row["id"] for row in rows["target"]}
    gold = set()
    for row in rows["source"]:
        for partner in row["gold"]:
            if partner not in everyone:
                raise DataError(f"{row.get('where', row['id'])}: no target sentence has the gold id {partner!r}")
            if row["id"] in sides["source"].row_of_id and partner in sides["target"].row_of_id:
                gold.add((str(row["id"]), str(partner)))
    if not gold:
        raise DataError(
            "the corpora have no gold pair"
            + (f" among the first {first} sentences of each side: take more rows" if first else "")
        )
    return Corpora(sides["source"], sides["target"], frozenset(gold))


def _side(rows: Sequence[Mapping[str, Any]]) -> Side:
    place: dict[str, int] = {}
    row_of_id: dict[str, int] = {}
    of_text: dict[str, list[str]] = {}
    for row in rows:
        row_of_id[row["id"]] = place.setdefault(row["text"], len(place))
        of_text.setdefault(row["text"].strip(), []).append(row["id"])
    texts = list(place)
    owners = [of_text[text.strip()] for text in texts]
    return Side(texts, [ids[0] if len(ids) == 1 else "" for ids in owners], row_of_id)


def fold_of(name: str) -> int:
    """The fold of a source id, from 0 to FOLDS - 1, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % FOLDS


def scored(candidates: Candidates, given: Corpora) -> Scored:
    """Candidates over the rows of both sides' texts, less those with a repeated sentence, judged by the gold pairs."""
    width = len(given.target.texts)
    alone = [np.array([bool(name) for name in side.ids]) for side in (given.source, given.target)]
    kept = alone[0][candidates.source] & alone[1][candidates.target]
    source, target = candidates.source[kept], candidates.target[kept]
    gold = [given.source.row_of_id[i] * width + given.target.row_of_id[j] for i, j in given.gold]
    folds = np.array([fold_of(name) for name in given.source.ids], np.int64)
    by_fold = np.bincount([fold_of(name) for name, _ in given.gold], minlength=FOLDS)
    correct = np.isin(source * width + target, np.array(gold, np.int64))
    return Scored(source, target, candidates.score[kept], correct, folds[source], by_fold.astype(np.int64))


def tuned(dev: Sequence[Scored], test: Sequence[Scored]) -> Found:
    """Setting and threshold that are best on dev, applied to the test set. One entry for each setting."""
    cuts = [best_cut(own.score, own.correct, own.gold) for own in dev]
    choice = max(range(len(cuts)), key=lambda i: cuts[i].f1)
    chosen = test[choice]
    taken = chosen.score >= cuts[choice].threshold
    return _found(chosen, taken, (cuts[choice].threshold,), (choice,))


def in_sample(settings: Sequence[Scored]) -> Found:
    """Setting and threshold that are best on the pairs they are scored on: optimistic, XTREME's number for dev."""
    return tuned(settings, settings)


def cross_fitted(settings: Sequence[Scored]) -> Found:
    """Each fold at the setting and threshold that are best on the other folds; the counts summed over folds."""
    thresholds, choices = [], []
    pairs = []
    extracted = correct = 0
    for fold in range(FOLDS):
        elsewhere = []
        for own in settings:
            others = own.fold != fold
            gold = own.gold - int(own.gold_by_fold[fold])
            if not gold:
                raise DataError(f"{own.gold} gold pairs are too few to set a threshold on {FOLDS - 1} of {FOLDS} folds")
            elsewhere.append(best_cut(own.score[others], own.correct[others], gold))
        choice = max(range(len(elsewhere)), key=lambda i: elsewhere[i].f1)
        chosen, threshold = settings[choice], elsewhere[choice].threshold
        taken = (chosen.fold == fold) & (chosen.score >= threshold)
        pairs.append(_rows(chosen, taken))
        extracted += int(taken.sum())
        correct += int(chosen.correct[taken].sum())
        thresholds.append(threshold)
        choices.append(choice)
    precision, recall, f1 = precision_recall_f1(extracted, correct, settings[0].gold)
    found = np.concatenate(pairs)
    return Found(100 * precision, 100 * recall, 100 * f1, tuple(thresholds), tuple(choices), found)


def _rows(chosen: Scored, taken: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.stack([chosen.source[taken], chosen.target[taken]], axis=1)


def _found(chosen: Scored, taken: NDArray[np.bool_], thresholds: tuple[float, ...], choices: tuple[int, ...]) -> Found:
    hits = int(chosen.correct[taken].sum())
    precision, recall, f1 = precision_recall_f1(int(taken.sum()), hits, chosen.gold)
    return Found(100 * precision, 100 * recall, 100 * f1, thresholds, choices, _rows(chosen, taken))


def gold_only_accuracy(given: Corpora, source: NDArray[Any], target: NDArray[Any]) -> float:
    """Percent of gold sentences whose nearest among the gold translations is the right one, English querying.

    Much easier than mining: no sentence lacks a partner. It is what mteb's `bucc-bitext-mining` and the hub's
    `bucc18` rows allow, and no BUCC number. source, target: vectors of the corpora's texts.
    """
    pairs = sorted(given.gold)
    rows = [given.source.row_of_id[i] for i, _ in pairs], [given.target.row_of_id[j] for _, j in pairs]
    return tatoeba_accuracy(np.asarray(source)[rows[0]], np.asarray(target)[rows[1]]).accuracy
