"""Labels against scikit-learn, spans against seqeval 1.2.2 over valid, invalid and odd tag sequences."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support  # type: ignore[import-untyped]
from sklearn.metrics import confusion_matrix, f1_score  # type: ignore[import-untyped]

from effstilts.errors import DataError
from effstilts.evaluation.metrics import (
    accuracy,
    binary_f1,
    confusion_counts,
    macro_f1,
    majority_share,
    span_f1,
    tag_accuracy,
)

Pair = tuple[list[list[str]], list[list[str]]]

UPOS = [
    "ADJ",
    "ADP",
    "AUX",
    "CCONJ",
    "DET",
    "INTJ",
    "NOUN",
    "PART",
    "PRON",
    "PUNCT",
    "SCONJ",
    "SYM",
    "X",
    "_",
]
BIO = ["O", *(f"{place}-{kind}" for place in "BI" for kind in ("PER", "LOC"))]
BIOES = ["O", *(f"{place}-{kind}" for place in "BIES" for kind in ("PER", "A-B"))]
ODD = ["O", "I-_", "B", "I", "E", "S", ".", ".-PER", "O-PER", "OTHER", "X", "-", "B-", "I--X", "é", "B-X"]
quickly = settings(max_examples=900, deadline=None, derandomize=True, database=None)


@st.composite
def tagged(draw: st.DrawFn, tags: list[str]) -> Pair:
    """Predicted and gold sentences of equal lengths, which agree on about half of the words."""
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    gold = [[str(t) for t in rng.choice(tags, n)] for n in lengths]
    return [[str(rng.choice(tags)) if rng.random() < 0.4 else t for t in sentence] for sentence in gold], gold


def check_against_seqeval(pair: Pair) -> None:
    predicted, gold = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = precision_recall_fscore_support(gold, predicted, average="micro")[:3]
    scores = span_f1(predicted, gold)
    found = [scores.precision, scores.recall, scores.f1]
    assert found == pytest.approx([100 * x for x in expected], abs=1e-9)


@quickly
@given(tagged(UPOS))
def test_span_f1_is_seqevals_over_upos(pair: Pair) -> None:
    check_against_seqeval(pair)


@quickly
@given(tagged(["O", "X", "CCONJ", "SCONJ", "SYM", "_"]))
def test_span_f1_is_seqevals_over_the_tags_it_misreads(pair: Pair) -> None:
    check_against_seqeval(pair)


@quickly
@given(tagged(BIO))
def test_span_f1_is_seqevals_over_bio(pair: Pair) -> None:
    check_against_seqeval(pair)


@quickly
@given(tagged(BIOES))
def test_span_f1_is_seqevals_over_bioes(pair: Pair) -> None:
    check_against_seqeval(pair)


@quickly
@given(tagged(ODD))
def test_span_f1_is_seqevals_over_odd_tags(pair: Pair) -> None:
    check_against_seqeval(pair)


@pytest.mark.parametrize(
    ("predicted", "gold", "f1"),
    [
        ("I-PER I-PER", "B-PER I-PER", 100.0),  # I- after nothing opens an entity
        ("O I-LOC", "O B-LOC", 100.0),
        ("B-PER I-LOC", "B-PER B-LOC", 100.0),  # a change of type opens one
        ("B-PER B-PER", "B-PER I-PER", 0.0),
        ("PRON VERB VERB", "PRON VERB VERB", 100.0),
        ("PRON VERB NOUN", "PRON VERB VERB", 40.0),  # a run is one span: 1 of 3 predicted, 1 of 2 gold
        ("SCONJ SCONJ VERB", "SCONJ SCONJ SCONJ", 200 * 2 / 6),  # but not of SCONJ
        ("DET NOUN VERB VERB", "DET NOUN NOUN VERB", 100 / 3),  # below the tag accuracy of 75
        ("CCONJ", "SCONJ", 100.0),  # the same type, CONJ
        ("O O", "O O", 0.0),
        ("NOUN X", "NOUN X", 100.0),  # of which X at the end is none
        ("X Y", "X Y", 0.0),
        ("OTHER", "OTHER", 0.0),  # outside
    ],
)
def test_span_f1_of_known_cases(predicted: str, gold: str, f1: float) -> None:
    assert span_f1([predicted.split()], [gold.split()]).f1 == pytest.approx(f1)


def test_an_x_after_an_outside_tag_opens_no_span() -> None:
    # seqeval 1.x gives this X the first word of the entity before it, so the two spans of X differ.
    assert span_f1([["NOUN"], ["X"]], [["NOUN"], ["X"]]).f1 == 100.0
    one, other = [["NOUN", "VERB"], ["X"]], [["NOUN", "NOUN"], ["X"]]
    assert span_f1(one, other).f1 == 0.0
    assert span_f1(one, other, version="0.x").f1 == pytest.approx(200 * 1 / 5)


def test_version_0x_gives_the_figures_of_seqeval_0_0_12() -> None:
    gold = [["X", "NOUN"], ["X", "O", "X", "NOUN"], ["CCONJ", "SCONJ", "SCONJ", "CCONJ"]]
    predicted = [["X", "NOUN"], ["X", "O", "NOUN", "X"], ["SCONJ", "CCONJ", "CCONJ", "CCONJ"]]
    new, old = span_f1(predicted, gold), span_f1(predicted, gold, version="0.x")
    # Computed by running seqeval 1.2.2 and 0.0.12.
    assert (new.precision, new.recall, new.f1) == pytest.approx((40.0, 28.57142857142857, 33.33333333333333))
    assert (old.precision, old.recall, old.f1) == pytest.approx((42.857142857142854, 33.33333333333333, 37.5))


def test_span_f1_names_the_sentence_that_does_not_fit() -> None:
    with pytest.raises(DataError, match="sentence 1 has 2 predicted tags for 1 words"):
        span_f1([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(DataError, match="sentence 1: a tag is the empty string"):
        span_f1([["O"], [""]], [["O"], ["O"]])
    with pytest.raises(DataError, match="sentence 0 is a string"):
        span_f1(["OO"], ["OO"])
    with pytest.raises(DataError, match="2 predicted sentences for 1"):
        span_f1([["O"], ["O"]], [["O"]])
    with pytest.raises(DataError, match="nothing to score"):
        span_f1([], [])


def test_tag_accuracy_counts_words_not_sentences() -> None:
    assert tag_accuracy([["A"], ["B", "B", "B"]], [["A"], ["B", "A", "A"]]) == 50.0
    with pytest.raises(DataError, match="sentence 0 has 1 predicted tags for 2 words"):
        tag_accuracy([["A"]], [["A", "A"]])
    with pytest.raises(DataError, match="no words"):
        tag_accuracy([[]], [[]])


labelled = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(labelled)
def test_label_scores_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    predicted, true = [p for p, _ in pairs], [t for _, t in pairs]
    macro = f1_score(true, predicted, average="macro", zero_division=0)
    assert accuracy(predicted, true) == pytest.approx(100 * np.mean(np.array(predicted) == true))
    assert macro_f1(predicted, true) == pytest.approx(100 * macro)
    assert macro_f1(predicted, true, classes=range(3)) == pytest.approx(
        100 * f1_score(true, predicted, average="macro", labels=[0, 1, 2], zero_division=0)
    )
    one = f1_score([t == 1 for t in true], [p == 1 for p in predicted], zero_division=0)
    assert binary_f1(predicted, true) == pytest.approx(100 * one)
    table = confusion_counts(predicted, true)
    present = sorted({*predicted, *true})
    assert table.classes == tuple(present)
    np.testing.assert_array_equal(
        table.counts, confusion_matrix(true, predicted, labels=range(5))[np.ix_(present, present)]
    )


def test_labels_may_be_arrays_or_strings() -> None:
    assert accuracy(np.array([1, 0, 1]), np.array([1, 1, 1])) == pytest.approx(200 / 3)
    assert accuracy(["a", "b"], np.array(["a", "c"])) == 50.0
    assert binary_f1(["yes", "no"], ["yes", "yes"], positive="yes") == pytest.approx(200 / 3)
    table = confusion_counts(["b", "b"], ["a", "b"], classes=["b", "a", "c"])
    assert table.counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert confusion_counts(["1", 1], [1, 1]).counts.sum() == 2  # types that do not compare


@pytest.mark.parametrize("score", [accuracy, macro_f1, binary_f1, confusion_counts])
def test_label_scores_refuse_what_a_zip_would_cut(score: object) -> None:
    assert callable(score)
    with pytest.raises(DataError, match="2 predictions for 3 labels"):
        score([1, 1], [1, 1, 0])
    with pytest.raises(DataError, match="nothing to score"):
        score([], [])
    with pytest.raises(DataError, match=r"array of shape \(2, 3\)"):
        score(np.zeros((2, 3)), [0, 0])


def test_confusion_counts_names_a_class_it_does_not_know() -> None:
    with pytest.raises(DataError, match="'c' is none of"):
        confusion_counts(["c"], ["a"], classes=["a", "b"])
    with pytest.raises(DataError, match="'d' is none of"):
        confusion_counts(["a"], ["d"], classes=["a", "b"])


def test_macro_f1_refuses_an_average_over_no_class() -> None:
    with pytest.raises(DataError, match="no classes"):
        macro_f1([1], [1], classes=[])


def test_majority_share() -> None:
    assert majority_share([2, 1, 2, 2]) == (2, 75.0)
    assert majority_share(np.array(["b", "a"])) == ("b", 50.0)  # the first seen of two
    with pytest.raises(DataError, match="no predictions"):
        majority_share([])


@quickly
@given(tagged(["O", "AB", "AC", "VX", "VY", "B", "I", "I-", "-A"]))
def test_span_f1_is_seqevals_over_tags_of_two_letters(pair: Pair) -> None:
    """The type of a tag without hyphen is all but its first letter."""
    check_against_seqeval(pair)
