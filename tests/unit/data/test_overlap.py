"""Texts that meet: found whatever their case, spacing and role; short ones and near ones are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effstilts.data.overlap import Overlap, digest, digests, known_texts, overlaps

LONG = "The quick brown fox jumps over the lazy dog"


@pytest.mark.parametrize("same", ["the QUICK brown fox, jumps over the lazy dog!", f"  {LONG.replace(' ', chr(9))} "])
def test_case_spacing_and_punctuation_do_not_hide_a_text(same: str) -> None:
    assert digest(same) == digest(LONG) != 0
    assert digest(LONG + " twice") != digest(LONG)


def test_scripts_without_case_or_spaces_are_compared_as_well() -> None:
    chinese = "敏捷的棕色狐狸跳过了那只懒惰的狗然后跑回了家"
    assert digest(chinese) == digest(f"{chinese}。") != 0 != digest("الثعلب البني السريع يقفز فوق الكلب الكسول")


def test_a_text_is_found_in_another_role_and_short_ones_are_left_out() -> None:
    trained = digests([{"context": LONG, "question": "Who jumps over the lazy dog?"}, {"context": "Yes."}])
    evaluated = digests([{"text": LONG.upper(), "text_pair": "Yes."}, {"text": "Another sentence that is long enough"}])
    assert overlaps(known_texts(trained), evaluated) == [Overlap("text", 1, 2)]
    tagged = digests([{"tokens": LONG.split(), "tags": ["X"]}])
    assert overlaps(known_texts(trained), tagged) == [Overlap("tokens", 1, 1)]
    assert overlaps(known_texts({}), evaluated) == [] == overlaps(known_texts(trained), {})


@given(st.lists(st.text(min_size=0, max_size=60), max_size=12), st.lists(st.text(max_size=60), max_size=12))
def test_what_is_counted_is_what_a_set_would_count(first: list[str], second: list[str]) -> None:
    def rows(texts: list[str]) -> list[dict[str, Any]]:
        return [{"text": text} for text in texts]

    known = {digest(text) for text in first} - {0}
    expected = sum(digest(text) in known for text in second)
    assert sum(one.rows for one in overlaps(known_texts(digests(rows(first))), digests(rows(second)))) == expected


def test_a_pair_that_both_sets_have_is_told_from_a_shared_premise() -> None:
    other = "A sentence of another kind, and long enough"
    trained = known_texts(digests([{"text": LONG, "text_pair": other}, {"text": other * 2, "text_pair": "No."}]))
    evaluated = digests(
        [
            {"text": LONG, "text_pair": other.upper()},
            {"text": LONG, "text_pair": "Something that is said nowhere else"},
            {"text": other * 2, "text_pair": "Yes."},
            {"text": other, "text_pair": LONG},
        ]
    )
    assert overlaps(trained, evaluated) == [Overlap("whole", 1, 4), Overlap("text", 4, 4), Overlap("text_pair", 2, 4)]
    assert "whole" not in digests([{"text": LONG, "text_pair": None}, {"tokens": LONG.split()}])


def test_a_sentence_within_a_training_text_is_known() -> None:
    """66 sentences of BUCC's Chinese stood in lines of a Wikipedia that the guard compared whole."""
    chinese = "北京是中华人民共和国的首都也是直辖市和国家中心城市之一"
    lines = [
        'He said: "No more." The second sentence of the line is long enough! And a third.',
        f"其他的句子在这里。{chinese}。",
    ]
    trained = digests([{"text": line} for line in lines])
    evaluated = digests(
        [{"text": text} for text in ("the second sentence of the line is long enough", chinese, "other")]
    )
    assert overlaps(known_texts(trained), evaluated) == [Overlap("text", 2, 3)]
    assert not overlaps(known_texts(evaluated), trained), "what is evaluated is compared whole"
