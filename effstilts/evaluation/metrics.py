"""Accuracy and F1, in percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effstilts.errors import DataError


@dataclass(frozen=True)
class SpanScores:
    """Micro-averaged precision, recall and F1 of spans, in percent."""

    precision: float
    recall: float
    f1: float


def _same_length(predictions: Sequence[Any], gold: Sequence[Any], what: str) -> None:
    if len(predictions) != len(gold):
        raise DataError(f"{what}: {len(predictions)} predictions for {len(gold)} labels")
    if not gold:
        raise DataError(f"{what}: nothing to score")


def accuracy(predictions: Sequence[Any], gold: Sequence[Any]) -> float:
    """Share of equal items in percent. DataError on different lengths (XTREME's script cuts silently)."""
    _same_length(predictions, gold, "accuracy")
    return 100.0 * sum(p == g for p, g in zip(predictions, gold, strict=True)) / len(gold)


def macro_f1(predictions: Sequence[Any], gold: Sequence[Any]) -> float:
    """Unweighted mean of each label's F1 over the labels that occur in either, as sklearn's macro average."""
    _same_length(predictions, gold, "macro F1")
    right = Counter(p for p, g in zip(predictions, gold, strict=True) if p == g)
    predicted, true = Counter(predictions), Counter(gold)
    labels = set(predicted) | set(true)
    return 100.0 * sum(2 * right[x] / (predicted[x] + true[x]) for x in labels) / len(labels)


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Entities (type, first, last) of a tag sequence, by the lenient rules of conlleval that seqeval follows.

    A tag's first letter is its place (B, I, E, S, O or any other), what stands after the hyphen its type. Over bare
    UPOS tags, as XTREME scores POS, the "type" is the rest of the word, so a run of one tag is one span, and tags
    that begin with S (SCONJ, SYM) are spans of their own each time.
    """
    found: set[tuple[str, int, int]] = set()
    before_place, before_type, first = "O", "", 0
    for i, tag in enumerate([*tags, "O"]):
        place, type_ = tag[:1], tag[1:].split("-", 1)[-1] or "_"
        if _ends(before_place, place, before_type, type_):
            found.add((before_type, first, i - 1))
        if _starts(before_place, place, before_type, type_):
            first = i
        before_place, before_type = place, type_
    return found


def _ends(before: str, place: str, before_type: str, type_: str) -> bool:
    if before in ("E", "S") or (before in ("B", "I") and place in ("B", "S", "O")):
        return True
    return before not in ("O", ".") and before_type != type_


def _starts(before: str, place: str, before_type: str, type_: str) -> bool:
    if place in ("B", "S") or (before in ("E", "S", "O") and place in ("E", "I")):
        return True
    return place not in ("O", ".") and before_type != type_


def span_f1(predictions: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> SpanScores:
    """Micro F1 over entities of all sentences: seqeval's default, and XTREME's score for NER and POS.

    DataError naming the sentence where the lengths differ.
    """
    _same_length(predictions, gold, "span F1")
    predicted_spans: set[tuple[str, int, int]] = set()
    gold_spans: set[tuple[str, int, int]] = set()
    start = 0
    for index, (predicted, true) in enumerate(zip(predictions, gold, strict=True)):
        if len(predicted) != len(true):
            raise DataError(f"sentence {index}: {len(predicted)} predicted tags for {len(true)} words")
        predicted_spans |= {(kind, start + a, start + b) for kind, a, b in spans(predicted)}
        gold_spans |= {(kind, start + a, start + b) for kind, a, b in spans(true)}
        start += len(true) + 1
    right = len(predicted_spans & gold_spans)
    precision = right / len(predicted_spans) if predicted_spans else 0.0
    recall = right / len(gold_spans) if gold_spans else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return SpanScores(100.0 * precision, 100.0 * recall, 100.0 * f1)


def tag_accuracy(predictions: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> float:
    """Share of words with the right tag, in percent."""
    _same_length(predictions, gold, "tag accuracy")
    right = sum(p == g for ps, gs in zip(predictions, gold, strict=True) for p, g in zip(ps, gs, strict=True))
    return 100.0 * right / max(1, sum(len(gs) for gs in gold))
