from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

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
