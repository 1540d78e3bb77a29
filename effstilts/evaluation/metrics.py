"""Accuracy and F1 over labels and tagged spans. Every score is a float in percent, 0 to 100, as in XTREME."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError

Labels = Sequence[Any] | NDArray[Any]
SeqevalVersion = Literal["1.x", "0.x"]
Entity = tuple[str, int, int]


@dataclass(frozen=True)
class SpanScores:
    """Micro-averaged precision, recall and F1 of spans, in percent."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ConfusionCounts:
    """counts [classes, classes]: number of items; rows are true classes, columns predicted ones."""

    classes: tuple[Hashable, ...]
    counts: NDArray[np.int64]


# Labels: one for each item


def accuracy(predictions: Labels, labels: Labels) -> float:
    """Share of predictions that equal their label, in percent. Source: `accuracy` of XTREME's evaluate.py.

    DataError on different lengths and on nothing to score; the official script would cut the longer list
    silently.
    """
    predicted, true = _paired(predictions, labels, "accuracy")
    return 100.0 * sum(bool(p == t) for p, t in zip(predicted, true, strict=True)) / len(true)


def macro_f1(predictions: Labels, labels: Labels, classes: Sequence[Hashable] | None = None) -> float:
    """Unweighted mean of each class's F1 = 2 TP / (2 TP + FP + FN), in percent: scikit-learn's
    `average="macro"`.

    classes: the classes averaged over; None: those that occur in either list. A class in neither counts as 0.
    """
    predicted, true = _paired(predictions, labels, "macro F1")
    right, guessed, real = _class_counts(predicted, true)
    chosen = list(dict.fromkeys(classes)) if classes is not None else list(real | guessed)
    if not chosen:
        raise DataError("macro F1: no classes to average over")
    return 100.0 * sum(_f1(right[c], guessed[c], real[c]) for c in chosen) / len(chosen)


def binary_f1(predictions: Labels, labels: Labels, positive: Hashable = 1) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) of the class `positive` in percent, 0 where it occurs in neither list
    (scikit-learn's `f1_score` with `pos_label`; the F1 of GLUE's MRPC and QQP)."""
    predicted, true = _paired(predictions, labels, "binary F1")
    right, guessed, real = _class_counts(predicted, true)
    return 100.0 * _f1(right[positive], guessed[positive], real[positive])


def confusion_counts(
    predictions: Labels,
    labels: Labels,
    classes: Sequence[Hashable] | None = None,
) -> ConfusionCounts:
    """How often each true class was predicted as each class.

    classes: the order of rows and columns; None: the classes that occur, sorted (by `repr` where types are
    mixed). DataError on a prediction or label outside `classes`.
    """
    predicted, true = _paired(predictions, labels, "confusion counts")
    order = _ordered({*predicted, *true}) if classes is None else list(dict.fromkeys(classes))
    place = {c: i for i, c in enumerate(order)}
    counts = np.zeros((len(order), len(order)), dtype=np.int64)
    for (t, p), n in Counter(zip(true, predicted, strict=True)).items():
        if t not in place or p not in place:
            stranger = p if t in place else t
            raise DataError(f"confusion counts: {stranger!r} is none of the classes {order}")
        counts[place[t], place[p]] = n
    return ConfusionCounts(tuple(order), counts)


def majority_share(predictions: Labels) -> tuple[Hashable, float]:
    """The most frequent prediction and its share in percent (of equally frequent ones, the first seen).

    A share near 100 over data whose labels are balanced means that a run has collapsed to one class.
    """
    counts = Counter(_listed(predictions, "majority share"))
    if not counts:
        raise DataError("majority share: no predictions")
    label, count = counts.most_common(1)[0]
    return label, 100.0 * count / sum(counts.values())


# Tags: a sequence for each sentence


def tag_accuracy(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> float:
    """Share of words with the right tag over all sentences, in percent. XTREME's POS score is `span_f1`
    instead."""
    _check_sentences(predicted, gold, "tag accuracy")
    words = sum(len(sentence) for sentence in gold)
    if not words:
        raise DataError("tag accuracy: the sentences have no words")
    right = sum(p == g for ps, gs in zip(predicted, gold, strict=True) for p, g in zip(ps, gs, strict=True))
    return 100.0 * right / words


def span_f1(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], *, version: SeqevalVersion = "1.x"
) -> SpanScores:
    """Micro-averaged scores over entities, in percent: XTREME's score for NER (PAN-X) and for POS (UDPOS).

    An entity counts as right where type, first and last word all agree. Source: seqeval's default (lenient)
    mode, which follows the CoNLL-2000 script conlleval. XTREME runs it over bare UPOS strings too, whose
    first letter it then takes for a place (S, I, B, E, O) and whose rest for a type, with consequences kept
    here:

    - a run of equal tags is *one* entity (PRON PRON is right or wrong as a whole), except for SYM and SCONJ
      (S);
    - CCONJ and SCONJ have the same type (CONJ): one predicted for the other can count as right, and a CCONJ
      directly before an SCONJ is no entity at all;
    - a tag of one letter, such as X, has the empty type, as O has: directly before an O or at the end of a
      sentence it is no entity at all, and directly after an O or at the start of any sentence but the first
      it opens none, so that the entity which then ends has the first word of an earlier one, even across the
      sentence border;
    - any tag that begins with O or a full stop is outside.

    version: "1.x" as seqeval 1.x; "0.x" as seqeval up to 0.0.12, the newest when XTREME (March 2020) and
    Phang et al. (May 2020) appeared: there the type is what follows the *last* hyphen, of a UPOS tag the
    whole word, so that of these oddities the second and third are absent.

    Raises DataError naming the sentence where the lengths differ or a tag is empty. No entity anywhere scores
    0.
    """
    _check_sentences(predicted, gold, "span F1")
    found, true = _entities(predicted, version), _entities(gold, version)
    right = len(found & true)
    return SpanScores(
        precision=100.0 * right / len(found) if found else 0.0,
        recall=100.0 * right / len(true) if true else 0.0,
        f1=100.0 * _f1(right, len(found), len(true)),
    )


def _entities(sentences: Iterable[Sequence[str]], version: SeqevalVersion) -> set[Entity]:
    """Entities (type, first, last) of all sentences laid end to end, an O after each; positions count those
    O's.

    One pass over the whole text, since an entity's first word can stem from an earlier sentence (see X
    above).
    """
    split: dict[str, tuple[str, str]] = {}
    entities: set[Entity] = set()
    place, kind, first, position = "O", "", 0, 0
    for number, sentence in enumerate(sentences):
        for tag in (*sentence, "O"):
            if tag not in split:
                if not tag:
                    raise DataError(f"sentence {number}: a tag is the empty string")
                split[tag] = _place_and_type(tag, version)
            next_place, next_kind = split[tag]
            if _ends(place, next_place, kind != next_kind):
                entities.add((kind, first, position - 1))
            if _starts(place, next_place, kind != next_kind):
                first = position
            place, kind, position = next_place, next_kind, position + 1
    return entities


def _place_and_type(tag: str, version: SeqevalVersion) -> tuple[str, str]:
    if version == "0.x":
        return tag[0], tag.rpartition("-")[2]
    head, hyphen, tail = tag[1:].partition("-")
    return tag[0], (tail if hyphen else head) or "_"


def _ends(place: str, following: str, type_changes: bool) -> bool:
    """Whether the word at `place` is the last of an entity, given the place of the word that follows."""
    if place in "ES":
        return True
    return (place in "BI" and following in "BSO") or (place not in "O." and type_changes)


def _starts(preceding: str, place: str, type_changes: bool) -> bool:
    """Whether the word at `place` is the first of an entity, given the place of the word that precedes."""
    if place in "BS":
        return True
    return (place in "EI" and preceding in "ESO") or (place not in "O." and type_changes)


# Checks and counts


def _f1(right: int, predicted: int, true: int) -> float:
    """2 TP / (predicted + true), the harmonic mean of precision and recall, 0 to 1; 0 of nothing."""
    return 2 * right / (predicted + true) if predicted + true else 0.0


def _class_counts(predicted: list[Any], true: list[Any]) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    right = Counter(p for p, t in zip(predicted, true, strict=True) if p == t)
    return right, Counter(predicted), Counter(true)


def _ordered(classes: set[Any]) -> list[Any]:
    try:
        return sorted(classes)
    except TypeError:
        return sorted(classes, key=repr)


def _listed(items: Labels, what: str) -> list[Any]:
    if isinstance(items, np.ndarray) and items.ndim != 1:
        raise DataError(f"{what}: one label for each item expected, got an array of shape {items.shape}")
    return items.tolist() if isinstance(items, np.ndarray) else list(items)


def _paired(predictions: Labels, labels: Labels, what: str) -> tuple[list[Any], list[Any]]:
    predicted, true = _listed(predictions, what), _listed(labels, what)
    if len(predicted) != len(true):
        raise DataError(f"{what}: {len(predicted)} predictions for {len(true)} labels")
    if not true:
        raise DataError(f"{what}: nothing to score")
    return predicted, true


def _check_sentences(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], what: str) -> None:
    if len(predicted) != len(gold):
        raise DataError(f"{what}: {len(predicted)} predicted sentences for {len(gold)} gold ones")
    if not len(gold):
        raise DataError(f"{what}: nothing to score")
    for index, (tags, true) in enumerate(zip(predicted, gold, strict=True)):
        if isinstance(tags, str) or isinstance(true, str):
            raise DataError(f"{what}: sentence {index} is a string, not a sequence of tags")
        if len(tags) != len(true):
            raise DataError(f"{what}: sentence {index} has {len(tags)} predicted tags for {len(true)} words")
