"""Answers compared as text: exact match and F1 of SQuAD v1.1 and v2.0 and of MLQA, in percent, 0 to 100.

Sources: the official evaluate-v1.1.py and evaluate-v2.0.py (Rajpurkar et al. 2016, 2018) and
mlqa_evaluation_v1.py (Lewis et al. 2020). XTREME scores XQuAD and TyDiQA by SQuAD v1.1 with its English
normaliser in every language.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError

Missing = Literal["error", "zero"]

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ENGLISH_ARTICLES = r"\b(?:a|an|the)\b"
# By language, what MLQA takes for an article. Arabic: every alef-lam, also inside a word; the official
# pattern has an alternative for the start of a word, which can never match.
_MLQA_ARTICLES: dict[str, str] = {
    "en": _ENGLISH_ARTICLES,
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "hi": "",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": "ال",
    "zh": "",
}
# What is a token of its own in Chinese. The official range ends at U+9FA5, not at U+9FFF.
_HAN = re.compile("([\u4e00-\u9fa5])")


def normalise_answer(text: str) -> str:
    """SQuAD's normaliser: lower case, without ASCII punctuation and English articles, white space folded."""
    return " ".join(re.sub(_ENGLISH_ARTICLES, " ", text.lower().translate(_ASCII_PUNCTUATION)).split())


def normalise_mlqa(text: str, language: str) -> str:
    """MLQA's normaliser: lower case, without any Unicode punctuation and the language's articles, one space
    between tokens. Tokens stand between white space; in Chinese each Han character is one too.

    language: of the *answer* (in G-XLT that is the context's, not the question's): en, es, hi, vi, de, ar,
    zh.
    """
    if language not in _MLQA_ARTICLES:
        raise DataError(f"MLQA has no language {language!r}; it has {', '.join(_MLQA_ARTICLES)}")
    bare = "".join(c for c in text.lower() if not _is_punctuation(c))
    articles = _MLQA_ARTICLES[language]
    if articles:
        bare = re.sub(articles, " ", bare)
    if language == "zh":
        bare = _HAN.sub(r" \1 ", bare)
    return " ".join(bare.split())


def squad_score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    no_answer: bool = False,
    missing: Missing = "error",
) -> dict[str, float]:
    """SQuAD's scores: the best over a question's gold answers, averaged over `references`.

    predictions: question id -> answer text; references: question id -> gold answer texts.
    no_answer: False (v1.1): every question has an answer; one without, or with only blank ones as in XTREME's
    public test files, is refused, since its gold was stripped. True (v2.0): a question without answers asks
    for the empty prediction.
    missing: what a question without a prediction is: an "error" (DataError with its id), or a score of "zero"
    as in the official v1.1 script (v2.0's leaves it out of the mean, and stops at it later).

    Returns `exact_match` and `f1` in percent and the counts `total`, `missing` and `extra` (predictions for
    unknown ids, ignored); with no_answer also `has_ans_*` and `no_ans_*` (`exact_match`, `f1`, `total`) for
    the questions with and without gold answers, where there are any.

    An answer that normalises to nothing ("The"), predicted exactly, has exact match 100, and F1 0 under v1.1
    but 100 under v2.0: so the two official scripts.
    """
    exact, f1, has_answer = _score(predictions, references, normalise_answer, no_answer, missing)
    scores = _summary(exact, f1, predictions, references)
    if no_answer:
        for prefix, chosen in (("has_ans", has_answer), ("no_ans", ~has_answer)):
            if chosen.any():
                scores[f"{prefix}_exact_match"] = 100.0 * float(exact[chosen].mean())
                scores[f"{prefix}_f1"] = 100.0 * float(f1[chosen].mean())
                scores[f"{prefix}_total"] = float(chosen.sum())
    return scores


def mlqa_score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    language: str,
    missing: Missing = "error",
) -> dict[str, float]:
    """MLQA's scores: as `squad_score` for v1.1, over texts that `normalise_mlqa` has normalised."""
    normalise_mlqa("", language)  # an unknown language is an error also where no text would be normalised
    normalise = partial(normalise_mlqa, language=language)
    exact, f1, _ = _score(predictions, references, normalise, no_answer=False, missing=missing)
    return _summary(exact, f1, predictions, references)


def best_no_answer_threshold(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    no_answer_scores: Mapping[str, float],
) -> dict[str, float]:
    """The threshold on the no-answer score that is best for exact match and for F1: SQuAD v2.0's
    `find_best_thresh`.

    predictions: the best *non-empty* answer of each question (an empty one is taken as "no answer" already).
    no_answer_scores: question id -> score, in any unit; where it is above the threshold the question is
    unanswered.

    Returns `best_exact_match`, `best_f1` in percent and `best_exact_match_threshold`, `best_f1_threshold` in
    the scores' unit. As in the official script: "no question is answered" is the start and has the threshold
    0.0, which is only right for scores above 0; equal scores are passed one by one in the order of
    `no_answer_scores`, so a best score between two of them cannot be reached; a non-empty prediction for a
    question without an answer is wrong even if it normalises to nothing. Tune on dev, never on test.
    """
    exact, f1, has_answer = _score(predictions, references, normalise_answer, True, "error")
    place = {question: i for i, question in enumerate(references)}
    known = [question for question in no_answer_scores if question in place]
    if len(known) != len(place):
        question = next(question for question in references if question not in no_answer_scores)
        raise DataError(f"no no-answer score for question {question!r}")
    thresholds = np.array([no_answer_scores[question] for question in known], dtype=np.float64)
    undefined = np.isnan(thresholds)
    if undefined.any():
        raise DataError(f"the no-answer score of question {known[int(undefined.argmax())]!r} is not a number")
    by_score = np.argsort(thresholds, kind="stable")
    rows = np.array([place[question] for question in known])[by_score]
    # What answering a question, rather than leaving it out, adds to the sum of scores.
    lost = np.array([-1.0 if predictions[question] else 0.0 for question in references])
    best: dict[str, float] = {}
    for name, scores in (("exact_match", exact), ("f1", f1)):
        gain = np.where(has_answer, scores, lost)[rows]
        sums = np.cumsum(np.concatenate([[float((~has_answer).sum())], gain]))
        answered = int(sums.argmax())
        best[f"best_{name}"] = 100.0 * float(sums[answered]) / len(rows)
        best[f"best_{name}_threshold"] = float(thresholds[by_score[answered - 1]]) if answered else 0.0
    return best


def apply_no_answer_threshold(
    predictions: Mapping[str, str], no_answer_scores: Mapping[str, float], threshold: float
) -> dict[str, str]:
    """The predictions, with the empty answer where a question's no-answer score is *above* the threshold."""
    absent = next((question for question in predictions if question not in no_answer_scores), None)
    if absent is not None:
        raise DataError(f"no no-answer score for question {absent!r}")
    return {q: "" if no_answer_scores[q] > threshold else text for q, text in predictions.items()}


def _score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    normalise: Callable[[str], str],
    no_answer: bool,
    missing: Missing,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Exact match, F1 (each 0 to 1) and whether gold answers exist, each [questions], ordered as
    references."""
    if not references:
        raise DataError("question answering: nothing to score")
    exact = np.zeros(len(references))
    f1 = np.zeros(len(references))
    has_answer = np.zeros(len(references), dtype=np.bool_)
    for row, (question, answers) in enumerate(references.items()):
        if isinstance(answers, str):
            raise DataError(f"question {question!r}: its gold answers are one string, not a list of strings")
        has_answer[row] = len(answers) > 0
        if not no_answer and not any(answer.strip() for answer in answers):
            raise DataError(f"question {question!r} has no gold answer: the gold of this set is stripped")
        if question not in predictions:
            if missing == "error":
                raise DataError(f"no prediction for question {question!r}")
            continue
        if not isinstance(predictions[question], str):
            raise DataError(f"the prediction for question {question!r} is not a string")
        predicted = normalise(predictions[question])
        gold = [normalise(answer) for answer in answers]
        if no_answer:
            # v2.0 drops gold answers that normalise to nothing; where none is left, "" is wanted.
            gold = [answer for answer in gold if answer] or [""]
        exact[row] = max(predicted == answer for answer in gold)
        f1[row] = max(_token_f1(predicted, answer, empty_agree=no_answer) for answer in gold)
    return exact, f1, has_answer


def _token_f1(predicted: str, gold: str, empty_agree: bool) -> float:
    """F1 over the bags of tokens of two normalised texts, 0 to 1. Two empty texts: `empty_agree`."""
    predicted_tokens, gold_tokens = predicted.split(), gold.split()
    if not predicted_tokens and not gold_tokens:
        return float(empty_agree)
    shared = (Counter(predicted_tokens) & Counter(gold_tokens)).total()
    if not shared:
        return 0.0
    # Through precision and recall, not 2 * shared / (both lengths): the official rounding, so ties stay ties.
    precision, recall = shared / len(predicted_tokens), shared / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def _summary(
    exact: NDArray[np.float64],
    f1: NDArray[np.float64],
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    return {
        "exact_match": 100.0 * float(exact.mean()),
        "f1": 100.0 * float(f1.mean()),
        "total": float(len(references)),
        "missing": float(sum(question not in predictions for question in references)),
        "extra": float(sum(question not in references for question in predictions)),
    }


@cache
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
