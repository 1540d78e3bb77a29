from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from effstilts.data.order import Share
from effstilts.model.tokenizer import train_tokenizer
from effstilts.phases import tokenizer_rows

CODE = """
import hashlib
from effstilts.model.tokenizer import train_tokenizer
from effstilts.synthetic import rows
texts = [r["text"] for c in ("en", "qad") for r in rows("text", "train", c, 200)]
print(hashlib.sha256(train_tokenizer(texts, 300).to_str().encode()).hexdigest())
"""


def test_the_same_text_gives_the_same_pieces_in_every_process() -> None:
    """The trainer of the tokenizers library did not: a store's artefacts would differ under one key."""
    found = {
        subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1


def test_specials_stand_where_xlm_r_has_them(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1 and len(tokenizer) <= 500
    one, two = tokenizer("the dog.")["input_ids"], tokenizer("the cat.")["input_ids"]
    assert one[0] == 0 and one[-1] == 2
    assert tokenizer("the dog.", "the cat.")["input_ids"] == [*one, 2, *two[1:]]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("ბამა dog, <mask>")["input_ids"] == tokenizer("ბამა dog, <mask>")["input_ids"]


def test_offsets_point_into_the_text(tokenizer: Any) -> None:
    text = "Anna  visited the ბამა."
    encoding = tokenizer(text, add_special_tokens=False).encodings[0]
    covered = {i for a, b in encoding.offsets for i in range(a, b)}
    assert {i for i, c in enumerate(text) if c != " "} <= covered
    assert tokenizer.decode(encoding.ids) == "Anna visited the ბამა."


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=6),
    st.sampled_from([0.3, 0.5, 0.7, 1.0]),
)
def test_a_tokenizer_is_trained_on_languages_in_the_wanted_proportion(sizes: list[int], exponent: float) -> None:
    taken = tokenizer_rows(sizes, [Share("text", 1.0, exponent) for _ in sizes])
    assert all(0 < t <= n for t, n in zip(taken, sizes, strict=True))
    # The smallest language of all gives every row; two languages stand to each other as their sizes ** exponent.
    assert taken[sizes.index(min(sizes))] == min(sizes)
    scale = min(n / n**exponent for n in sizes)
    assert all(abs(t - scale * n**exponent) <= 0.5 for t, n in zip(taken, sizes, strict=True))


def test_without_an_exponent_all_rows_count() -> None:
    assert tokenizer_rows([5, 9, 7], [Share(), Share(weight=3.0), Share()]) == [5, 9, 7]
    # Each task on its own: the pair of "b" says nothing about "a".
    shares = [Share("a", 1.0, 0.5), Share("a", 1.0, 0.5), Share("b", 1.0, 0.5), Share()]
    assert tokenizer_rows([4, 100, 9, 8], shares) == [4, 20, 9, 8]


def test_rare_characters_are_left_out_at_a_smaller_coverage() -> None:
    texts = ["the cat sat on the mat and the dog too"] * 40 + [f"a cat {i} sat" for i in range(60)] + ["字"]
    for coverage, there in ((1.0, True), (0.99, False)):
        assert ("字" in train_tokenizer(texts, 60, coverage).get_vocab()) is there
