from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.errors import DataError
from effstilts.retrieval.bucc import (
    FOLDS,
    Corpora,
    Scored,
    corpora,
    cross_fitted,
    fold_of,
    gold_only_accuracy,
    in_sample,
    scored,
    tuned,
)
from effstilts.retrieval.mining import Candidates


def example(side: str, name: str, text: str, *gold: str) -> dict[str, Any]:
    return {"side": side, "id": name, "text": text, "gold": list(gold), "where": f"file:{name}"}


def plain(count: int, gold: int) -> Corpora:
    rows = [example("source", f"s{i}", f"s {i}", *([f"t{i}"] if i < gold else [])) for i in range(count)]
    return corpora(rows + [example("target", f"t{i}", f"t {i}") for i in range(count)])


def candidates(pairs: list[tuple[int, int, float]]) -> Candidates:
    pairs = sorted(pairs, key=lambda p: -p[2])
    return Candidates(*(np.array([p[i] for p in pairs], (np.int64, np.int64, float)[i]) for i in range(3)))


def test_equal_sentences_are_one_candidate_and_never_a_prediction() -> None:
    """As LASER's text_load_unify and read_sent2id: s1 and s2 are one row; neither can be named, both gold count."""
    given = corpora([
        example("source", "s1", "same", "t1"), example("source", "s2", "same"), example("source", "s3", "other", "t3"),
        example("source", "s4", "spaced "), example("source", "s5", "spaced"),
        example("target", "t1", "one"), example("target", "t3", "three"),
    ])  # fmt: skip
    assert given.source.texts == ["same", "other", "spaced ", "spaced"] and given.source.repeated == 4
    assert given.source.ids == ["", "s3", "", ""] and given.gold == {("s1", "t1"), ("s3", "t3")}
    found = scored(candidates([(0, 0, 0.9), (1, 1, 0.8), (2, 0, 0.7)]), given)
    assert given.names(np.stack([found.source, found.target], 1)) == [("s3", "t3")]
    assert found.correct.tolist() == [True] and found.gold == 2
    result = in_sample([found])
    assert (result.precision, result.recall) == (100.0, 50.0) and result.f1 == pytest.approx(200 / 3)


def test_the_threshold_of_dev_judges_the_test_set() -> None:
    given = plain(40, 30)
    dev = scored(candidates([(i, i, 1 - i / 100) for i in range(40)]), given)
    # On the test set correct pairs score lower by .2: dev's threshold between .71 and .70 keeps the first ten.
    test = scored(candidates([(i, i, 0.8 - i / 100) for i in range(40)]), given)
    result = tuned([dev], [test])
    assert result.thresholds[0] == pytest.approx(0.705) and len(result.pairs) == 10
    assert (result.precision, result.recall) == (100.0, pytest.approx(100 / 3))
    assert result.f1 < in_sample([test]).f1 == 100.0


def test_a_setting_is_chosen_on_dev_whatever_the_test_set_says() -> None:
    given = plain(40, 30)
    good = scored(candidates([(i, i, 1 - i / 100) for i in range(40)]), given)
    poor = scored(candidates([(i, (i + 1) % 40, 1 - i / 100) for i in range(40)]), given)
    result = tuned([poor, good], [good, poor])
    assert result.choices == (1,) and result.f1 == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_fold_is_scored_without_its_own_gold(seed: int) -> None:
    """Turning every label of one fold round moves neither its threshold nor its choice."""
    generator = np.random.default_rng(seed)
    folds = np.arange(60) % FOLDS
    order = np.sort(generator.random(60))[::-1].copy()
    gold = np.full(FOLDS, 12)

    def one(correct: Any) -> Scored:
        return Scored(np.arange(60), np.arange(60), order, correct, folds, gold)

    labels = generator.random((2, 60)) < 0.5
    before = cross_fitted([one(labels[0]), one(labels[1])])
    fold = seed % FOLDS
    turned = np.where(folds == fold, ~labels, labels)
    after = cross_fitted([one(turned[0]), one(turned[1])])
    assert before.thresholds[fold] == after.thresholds[fold] and before.choices[fold] == after.choices[fold]


def test_cross_fitting_is_the_sum_over_held_out_folds() -> None:
    """Where every fold has the same scores, each fold's threshold is the whole set's, and so is the F1."""
    folds = np.repeat(np.arange(FOLDS), 4)
    score, correct = np.tile([0.9, 0.8, 0.3, 0.2], FOLDS), np.tile([True, True, False, False], FOLDS)
    own = Scored(np.arange(20), np.arange(20), score, correct, folds, np.full(FOLDS, 3))
    result = cross_fitted([own])
    assert result.thresholds == pytest.approx([0.55] * FOLDS) and len(result.pairs) == 10
    assert result.precision == 100.0 and result.recall == pytest.approx(100 * 2 / 3)
    assert result.f1 == pytest.approx(in_sample([own]).f1)
    with pytest.raises(DataError, match="too few to set a threshold"):
        cross_fitted(
            [Scored(np.arange(1), np.arange(1), score[:1], correct[:1], folds[:1], np.eye(FOLDS, dtype=int)[0])]
        )


def test_of_settings_the_better_one_is_taken_wherever_it_stands() -> None:
    given = plain(60, 40)
    good = scored(candidates([(i, i, 1 - i / 100) for i in range(60)]), given)
    poor = scored(candidates([(i, i, i / 100) for i in range(60)]), given)
    for settings_, place in (([good, poor], 0), ([poor, good], 1), ([good, good], 0)):
        assert tuned(settings_, settings_).choices == (place,)
        assert cross_fitted(settings_).choices == (place,) * FOLDS


def test_a_held_out_pair_at_the_threshold_is_extracted() -> None:
    """Every score is the same, so the threshold of the other folds is that score."""
    given = plain(40, 40)
    found = cross_fitted([scored(candidates([(i, i, 0.5) for i in range(40)]), given)])
    assert set(found.thresholds) == {0.5} and (found.precision, found.recall) == (100.0, 100.0)


def test_folds_are_fixed_and_even() -> None:
    counts = np.bincount([fold_of(f"zh-{i:09d}") for i in range(5000)], minlength=FOLDS)
    assert counts.min() > 900 and [fold_of(f"zh-{i:09d}") for i in range(8)] == [2, 3, 3, 2, 3, 3, 0, 0]


def test_nothing_correct_on_dev_extracts_nothing() -> None:
    given = plain(10, 10)
    wrong = scored(candidates([(i, (i + 1) % 10, 0.5) for i in range(10)]), given)
    result = tuned([wrong], [wrong])
    assert result.f1 == 0.0 and not len(result.pairs) and result.finite_thresholds == [None]


def test_the_gold_only_variant_is_retrieval_among_partners() -> None:
    given = plain(5, 2)
    eye = np.eye(5, dtype=np.float32)
    assert gold_only_accuracy(given, eye, eye) == 100.0
    assert gold_only_accuracy(given, eye[[1, 0, 2, 3, 4]], eye) == 0.0
    # s0 stands first and its partner last; t0 has none.
    crossed = corpora(
        [example("source", f"s{i}", f"s {i}", f"t{(i + 2) % 3}") for i in range(2)]
        + [example("target", f"t{i}", f"t {i}") for i in range(3)]
    )
    assert gold_only_accuracy(crossed, eye[[0, 1]], eye[[1, 4, 0]]) == 100.0


def test_bad_corpora_are_one_line_each() -> None:
    with pytest.raises(DataError, match="file:s1: no target sentence has the gold id 't9'"):
        corpora([example("source", "s1", "a", "t9"), example("target", "t1", "b")])
    with pytest.raises(DataError, match="no target sentences"):
        corpora([example("source", "s1", "a")])
    with pytest.raises(DataError, match="no gold pair among the first 1 "):
        corpora([example("source", "s1", "a"), example("source", "s2", "b", "t1"), example("target", "t1", "c")], 1)
