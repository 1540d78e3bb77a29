"""Answer texts. The literal figures were computed with the official scripts: SQuAD v1.1 as in XTREME, SQuAD
v2.0, MLQA v1."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.errors import DataError
from effstilts.evaluation.qa_text import (
    apply_no_answer_threshold,
    best_no_answer_threshold,
    mlqa_score,
    normalise_answer,
    normalise_mlqa,
    squad_score,
)

LANGUAGES = ["en", "es", "hi", "vi", "de", "ar", "zh"]
quickly = settings(max_examples=200, deadline=None, derandomize=True, database=None)
WORDS = ["the", "a", "The", "cat", "Dog,", "!", "of-it", "—x", "ال", "北京", "der", "una", ""]
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
# A word of each text is no article or punctuation in any language, so that no text normalises to nothing.
solid = texts.map(lambda text: f"kern {text}")
answered = st.lists(st.tuples(solid, st.lists(solid, max_size=2)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("prediction", "gold", "exact_match", "f1"),
    [
        ("the Cat sat, down", ["a cat sat", "cat sat down there"], 0.0, 85.71428571428571),
        ("The Cat!", ["cat"], 100.0, 100.0),
        ("The", ["the"], 100.0, 0.0),  # nothing is left: equal, but no token in common
        ("", ["Paris"], 0.0, 0.0),
        ("в Москве", ["Москве", "Москва"], 0.0, 66.66666666666666),
        ("—x—", ["x"], 0.0, 0.0),  # only ASCII punctuation is removed
        ("a.n. other", ["another"], 0.0, 0.0),  # punctuation goes before articles: "an other", then "other"
        ("New-York city", ["New York"], 0.0, 0.0),  # a hyphen goes without leaving a space
        ("cat cat cat", ["cat cat dog"], 0.0, 66.66666666666666),  # bags, not sets
    ],
)
def test_squad_v1_figures(prediction: str, gold: list[str], exact_match: float, f1: float) -> None:
    scores = squad_score({"q": prediction}, {"q": gold})
    assert scores["exact_match"] == exact_match
    assert scores["f1"] == pytest.approx(f1)


@pytest.mark.parametrize(
    ("language", "prediction", "gold", "exact_match", "f1"),
    [
        ("en", 'the "Red House"!', ["red house on a hill"], 0.0, 66.66666666666666),
        ("en", "the end — of it", ["end of it"], 100.0, 100.0),
        ("en", "the", ["The"], 100.0, 0.0),
        ("es", "¿Las casas rojas?", ["una casa roja", "casas"], 0.0, 66.66666666666666),
        ("hi", "वह घर।", ["वह घर", "घर"], 100.0, 100.0),
        ("vi", "Những ngôi nhà của tôi", ["ngôi nhà tôi", "nhà"], 100.0, 100.0),
        ("de", "Der Rat der Stadt »Köln«", ["den Rat einer Stadt Köln am Rhein"], 0.0, 74.99999999999999),
        ("ar", "البيت الكبير", ["بيت كبير"], 100.0, 100.0),
        ("ar", "حال الدنيا", ["الحال"], 0.0, 66.66666666666666),  # cut inside the word
        ("zh", "北京市2008年，奥运会", ["北京2008年奥运"], 0.0, 85.71428571428571),
        ("zh", "GPU 时代 abc", ["gpu时代"], 0.0, 85.71428571428571),
        ("zh", "。", ["！"], 100.0, 0.0),
    ],
)
def test_mlqa_figures(language: str, prediction: str, gold: list[str], exact_match: float, f1: float) -> None:
    scores = mlqa_score({"q": prediction}, {"q": gold}, language)
    assert scores["exact_match"] == exact_match
    assert scores["f1"] == pytest.approx(f1)


@pytest.mark.parametrize(
    ("language", "text", "normalised"),
    [
        ("ar", "وقال: «السلام»", "وق سلام"),
        ("vi", "Là cái-ghế", "cáighế"),
        ("de", "Ein-Eine des dessen", "eineine dessen"),
        ("zh", "在2008年 GPU，时代abc", "在 2008 年 gpu 时 代 abc"),
        ("zh", "龦龥x", "龦 龥 x"),  # U+9FA5 is the last character that is a token, U+9FA6 is not
        ("zh", "龦龦", "龦龦"),
        ("es", "La Casa", "casa"),
        ("hi", "The La", "the la"),
    ],
)
def test_mlqa_normaliser(language: str, text: str, normalised: str) -> None:
    assert normalise_mlqa(text, language) == normalised


@pytest.mark.parametrize(
    ("text", "normalised"),
    [("The  Cat!", "cat"), ("a an the", ""), ("U.S.A.", "usa"), ("Theatre", "theatre"), ("«Лев»", "«лев»")],
)
def test_squad_normaliser(text: str, normalised: str) -> None:
    assert normalise_answer(text) == normalised


def test_the_english_normalisers_differ_in_punctuation_alone() -> None:
    assert normalise_answer("«The  Cat»") == "« cat»"
    assert normalise_mlqa("«The  Cat»", "en") == "cat"


def test_squad_v2_figures() -> None:
    references = {"a": ["Paris"], "b": [], "c": ["the red cat", "cat"], "d": [], "e": ["Rome"], "f": ["?"]}
    predictions = {"a": "paris", "b": "dog", "c": "a cat sat", "d": "", "e": "Oslo", "f": ""}
    no_answer_scores = {"b": 0.9, "a": 0.1, "c": 0.3, "d": 0.6, "e": 0.3, "f": 0.2}
    expected = {
        "exact_match": 50.0,
        "f1": 61.11111111111111,
        "total": 6,
        "missing": 0,
        "extra": 0,
        "has_ans_exact_match": 50.0,  # f counts as answerable, though its gold answer normalises to nothing
        "has_ans_f1": 66.66666666666666,
        "has_ans_total": 4,
        "no_ans_exact_match": 50.0,
        "no_ans_f1": 50.0,
        "no_ans_total": 2,
    }
    assert squad_score(predictions, references, no_answer=True) == pytest.approx(expected)
    best = {
        "best_exact_match": 66.66666666666667,
        "best_exact_match_threshold": 0.2,
        "best_f1": 77.77777777777779,
        "best_f1_threshold": 0.3,
    }
    assert best_no_answer_threshold(predictions, references, no_answer_scores) == pytest.approx(best)


def test_the_f1_of_two_empty_texts_differs_between_versions() -> None:
    assert squad_score({"q": "a"}, {"q": ["the"]})["f1"] == 0.0
    assert squad_score({"q": "a"}, {"q": ["the"]}, no_answer=True)["f1"] == 100.0


def test_scores_without_a_kind_of_question_lack_its_keys() -> None:
    assert "no_ans_f1" not in squad_score({"q": "x"}, {"q": ["x"]}, no_answer=True)
    assert "has_ans_f1" not in squad_score({"q": ""}, {"q": []}, no_answer=True)
    assert "has_ans_f1" not in squad_score({"q": "x"}, {"q": ["x"]})


def test_missing_and_extra_predictions() -> None:
    references, predictions = {"one": ["x"], "two": ["y"]}, {"one": "x", "three": "z"}
    for score in (squad_score, lambda p, r, **how: mlqa_score(p, r, "de", **how)):
        with pytest.raises(DataError, match="no prediction for question 'two'"):
            score(predictions, references)
        scores = score(predictions, references, missing="zero")
        assert scores == {"exact_match": 50.0, "f1": 50.0, "total": 2.0, "missing": 1.0, "extra": 1.0}


@pytest.mark.parametrize("gold", [[], [""], [" ", ""]])
def test_stripped_gold_is_refused(gold: list[str]) -> None:
    references = {"one": ["x"], "two": gold}
    for score in (squad_score, lambda p, r: mlqa_score(p, r, "en")):
        with pytest.raises(DataError, match=r"'two' has no gold answer.*stripped"):
            score({"one": "x", "two": "x"}, references)
    assert squad_score({"one": "x", "two": ""}, references, no_answer=True)["f1"] == 100.0


def test_malformed_input_is_named() -> None:
    with pytest.raises(DataError, match="nothing to score"):
        squad_score({}, {})
    with pytest.raises(DataError, match="'q': its gold answers are one string"):
        squad_score({"q": "Paris"}, {"q": "Paris"})
    with pytest.raises(DataError, match="prediction for question 'q' is not a string"):
        squad_score({"q": None}, {"q": ["Paris"]})  # type: ignore[dict-item]
    with pytest.raises(DataError, match="no language 'zh-CN'; it has en, es, hi, vi, de, ar, zh"):
        mlqa_score({"q": "x"}, {"q": ["x"]}, "zh-CN")


def test_malformed_no_answer_scores_are_named() -> None:
    predictions, references = {"q": "x", "r": "y"}, {"q": ["x"], "r": []}
    with pytest.raises(DataError, match="no no-answer score for question 'r'"):
        best_no_answer_threshold(predictions, references, {"q": 0.5})
    with pytest.raises(DataError, match="score of question 'r' is not a number"):
        best_no_answer_threshold(predictions, references, {"q": 0.5, "r": float("nan")})
    with pytest.raises(DataError, match="no no-answer score for question 'r'"):
        apply_no_answer_threshold(predictions, {"q": 0.5}, 0.5)


def test_the_threshold_itself_still_answers() -> None:
    assert apply_no_answer_threshold({"q": "x", "r": "y"}, {"q": 0.5, "r": 0.51}, 0.5) == {"q": "x", "r": ""}


@quickly
@given(answered, st.randoms(use_true_random=False))
def test_the_best_threshold_is_best(questions: list[tuple[str, list[str]]], random: Random) -> None:
    references = {str(i): gold for i, (_, gold) in enumerate(questions)}
    predictions = {str(i): text for i, (text, _) in enumerate(questions)}
    order = list(references)
    random.shuffle(order)
    scores = {question: 0.1 + rank / 10 for rank, question in enumerate(order)}  # distinct, above 0
    best = best_no_answer_threshold(predictions, references, scores)
    for metric in ("exact_match", "f1"):
        at = {}
        for threshold in (0.0, *scores.values()):
            left = apply_no_answer_threshold(predictions, scores, threshold)
            at[threshold] = squad_score(left, references, no_answer=True)[metric]
        assert best[f"best_{metric}"] == pytest.approx(max(at.values()))
        assert at[best[f"best_{metric}_threshold"]] == pytest.approx(max(at.values()))


@quickly
@given(texts, solid, st.sampled_from(LANGUAGES))
def test_pair_scores_are_bounded_symmetric_and_consistent(text: str, other: str, language: str) -> None:
    text = f"rest {text}"
    for score in (squad_score, lambda p, r: mlqa_score(p, r, language)):
        there, back = score({"q": text}, {"q": [other]}), score({"q": other}, {"q": [text]})
        assert there == pytest.approx(back)
        assert 0.0 <= there["exact_match"] <= there["f1"] <= 100.0
        assert score({"q": text}, {"q": [other, text]})["f1"] == 100.0  # the best of the gold answers
        assert score({"q": text}, {"q": [text, other]})["exact_match"] == 100.0


@quickly
@given(st.lists(st.tuples(texts, st.lists(solid, min_size=1, max_size=3)), min_size=2, max_size=6))
def test_the_order_of_questions_and_answers_does_not_matter(questions: list[tuple[str, list[str]]]) -> None:
    numbered = list(enumerate(questions))
    predictions = {str(i): text for i, (text, _) in numbered}
    forward = {str(i): gold for i, (_, gold) in numbered}
    backward = {str(i): gold[::-1] for i, (_, gold) in reversed(numbered)}
    assert squad_score(predictions, forward) == pytest.approx(squad_score(predictions, backward))
    assert mlqa_score(predictions, forward, "zh") == pytest.approx(mlqa_score(predictions, backward, "zh"))
