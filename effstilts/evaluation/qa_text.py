"""Answers compared as text: exact match and F1 of SQuAD v1.1 and v2.0 (Rajpurkar et al. 2016, 2018), in percent."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from effstilts.errors import DataError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower case, ASCII punctuation and English articles out, white space folded: SQuAD's official normaliser,
    which XTREME also applies to XQuAD and TyDiQA in every language."""
    bare = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if the normalised texts are equal, else 0.0."""
    return float(normalise_answer(prediction) == normalise_answer(answer))


def token_f1(prediction: str, answer: str) -> float:
    """F1 over the white-space tokens of the normalised texts, 0 to 1. Two empty texts agree (SQuAD v2.0's rule)."""
    predicted, true = normalise_answer(prediction).split(), normalise_answer(answer).split()
    if not predicted or not true:
        return float(predicted == true)
    shared = sum((Counter(predicted) & Counter(true)).values())
    return 2 * shared / (len(predicted) + len(true))


def squad_score(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], no_answer: bool = False
) -> dict[str, float]:
    """Mean over questions of the best score over a question's gold answers: exact_match and f1 in percent.

    no_answer: a question without gold answers asks for the empty prediction (v2.0); else such a question means that
    the gold was stripped, which is refused. DataError names a question without a prediction.
    """
    if not references:
        raise DataError("question answering: nothing to score")
    matches = overlaps = 0.0
    for question, answers in references.items():
        if question not in predictions:
            raise DataError(f"no prediction for question {question!r}")
        if not answers and not no_answer:
            raise DataError(f"question {question!r} has no gold answer: the answers of this set are stripped")
        # SQuAD v2.0 drops gold answers that are empty after normalisation; one with none left wants "".
        golds = [a for a in answers if normalise_answer(a)] if no_answer else list(answers)
        golds = golds or [""]
        prediction = predictions[question]
        matches += max(exact_match(prediction, answer) for answer in golds)
        overlaps += max(token_f1(prediction, answer) for answer in golds)
    count = len(references)
    return {"exact_match": 100.0 * matches / count, "f1": 100.0 * overlaps / count}
