from __future__ import annotations

import warnings

import pytest

from effstilts.errors import DataError
from effstilts.evaluation.metrics import accuracy, macro_f1, span_f1, tag_accuracy
from effstilts.evaluation.qa_text import normalise_answer, squad_score, token_f1
from hypothesis import given, settings
from hypothesis import strategies as st

BIO = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
BIOES = [*BIO, "E-PER", "S-LOC", "S-PER", "E-LOC"]
UPOS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()


def sentences(tags: list[str]) -> st.SearchStrategy[list[list[tuple[str, str]]]]:
    tag = st.sampled_from(tags)
    return st.lists(st.lists(st.tuples(tag, tag), min_size=1, max_size=8), min_size=1, max_size=4)


@settings(max_examples=600, deadline=None)
@given(st.one_of(sentences(BIO), sentences(BIOES), sentences(UPOS)))
def test_span_f1_is_that_of_seqeval(pairs: list[list[tuple[str, str]]]) -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    predicted = [[p for p, _ in sentence] for sentence in pairs]
    gold = [[g for _, g in sentence] for sentence in pairs]
    ours = span_f1(predicted, gold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ours.f1 == pytest.approx(100 * f1_score(gold, predicted))
        assert ours.precision == pytest.approx(100 * precision_score(gold, predicted))
        assert ours.recall == pytest.approx(100 * recall_score(gold, predicted))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_accuracy_and_macro_f1_are_those_of_sklearn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    predicted, gold = [p for p, _ in pairs], [g for _, g in pairs]
    assert accuracy(predicted, gold) == pytest.approx(100 * accuracy_score(gold, predicted))
    assert macro_f1(predicted, gold) == pytest.approx(100 * f1_score(gold, predicted, average="macro", zero_division=0))


def test_pos_scores_as_xtreme_has_them() -> None:
    """A run of one tag is one span, so span F1 over POS is below accuracy for the same one error."""
    gold, predicted = [["DET", "NOUN", "NOUN", "VERB"]], [["DET", "NOUN", "VERB", "VERB"]]
    assert tag_accuracy(predicted, gold) == 75.0
    assert span_f1(predicted, gold).f1 == pytest.approx(100 / 3)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="1 predictions for 2"):
        accuracy(["a"], ["a", "b"])
    with pytest.raises(DataError, match="sentence 1"):
        span_f1([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(DataError, match="nothing to score"):
        accuracy([], [])


@pytest.mark.parametrize(
    ("text", "normal"),
    [("The  Cat!", "cat"), ("a an the", ""), ("U.S.A.", "usa"), ("Theatre", "theatre"), ("«Лев»", "«лев»")],
)
def test_normalisation_of_squad(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


def test_squad_scores() -> None:
    gold = {"1": ["the red cat", "cat"], "2": ["1,000 metres"]}
    scores = squad_score({"1": "red cat", "2": "in metres", "9": "x"}, gold)
    # "red cat" equals "the red cat"; "in metres" shares one token of two with "1000 metres".
    assert scores == {"exact_match": 50.0, "f1": 75.0}
    assert token_f1("cat cat dog", "cat dog dog") == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="no prediction for question '2'"):
        squad_score({"1": ""}, gold)
    with pytest.raises(DataError, match="stripped"):
        squad_score({"1": ""}, {"1": []})
    assert squad_score({"1": "", "2": "x"}, {"1": [], "2": []}, no_answer=True) == {"exact_match": 50.0, "f1": 50.0}


@given(st.text(max_size=30), st.text(max_size=30))
def test_token_f1_is_symmetric_and_bounded(a: str, b: str) -> None:
    assert token_f1(a, b) == token_f1(b, a)
    assert 0 <= token_f1(a, b) <= 1 and token_f1(a, a) == 1
