"""Flaws of the official training scripts, each shown in a sketch of what they do and looked for here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.engine.loop import learning_rate_factor
from effstilts.kinds import kind_of
from effstilts.kinds.kind import IGNORED
from effstilts.tasks.registry import declare

TAGS = ["A", "B", "C"]
POS = declare("pos", {"kind": "tagging", "files": {"train": "x.tsv"}, "labels": TAGS})


def example(words: list[str]) -> dict[str, Any]:
    return {"tokens": words, "tags": [TAGS[i % 3] for i in range(len(words))]}


def cut_as_jiant_does(pieces: list[list[int]], length: int) -> int:
    """Words whose label jiant still trains on (tasks/lib/udpos.py): one row of `length` tokens, the rest is cut; the
    tokens at length - 2, the labels, counting a second separator that it does not write, one before."""
    firsts = [sum(len(piece) for piece in pieces[:i]) for i in range(len(pieces))]
    return sum(first < length - 3 for first in firsts)


@settings(max_examples=40)
@given(st.integers(1, 60), st.sampled_from([8, 12, 24]))
def test_no_label_of_a_long_sentence_is_lost(tokenizer: Any, count: int, length: int) -> None:
    words = ["Anna", "waited", "for", "the", "old", "boat", "."]
    sentence = [words[i % len(words)] for i in range(count)]
    columns = kind_of("tagging").encode([example(sentence)], POS, tokenizer, length)
    kept = [tag for row in columns["tags"] for tag in row]
    assert kept == [i % 3 for i in range(count)] and IGNORED not in kept
    assert all(len(ids) <= length for ids in columns["input_ids"]) and set(columns["example"]) == {0}
    for ids, places in zip(columns["input_ids"], columns["places"], strict=True):
        assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
        assert places == sorted(set(places)) and (not places or (places[0] == 1 and places[-1] < len(ids) - 1))


def test_what_a_cut_loses(tokenizer: Any) -> None:
    """The sketch of jiant's cut loses labels where splitting loses none: the test above can fail."""
    sentence = ["Anna", "waited", "."] * 20
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in sentence]
    columns = kind_of("tagging").encode([example(sentence)], POS, tokenizer, 16)
    assert cut_as_jiant_does(pieces, 16) <= 13 < len(sentence) == sum(map(len, columns["tags"]))


def test_a_sentence_that_just_fits_is_one_row_with_all_its_labels(tokenizer: Any) -> None:
    """jiant drops the label of the last token that it keeps."""
    candidates = ["a", "the", "Anna", ".", "was", "boat"]
    last = next(w for w in candidates if len(tokenizer(w, add_special_tokens=False)["input_ids"]) == 1)
    sentence = ["waited", last]
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in sentence]
    length = sum(map(len, pieces)) + 2
    columns = kind_of("tagging").encode([example(sentence)], POS, tokenizer, length)
    assert columns["tags"] == [[0, 1]] and len(columns["input_ids"][0]) == length
    assert cut_as_jiant_does(pieces, length) == 1


@pytest.mark.parametrize("nothing", ["\u200d", "\u200b", "\ufeff", "\u00ad", " "])
def test_a_word_without_pieces_keeps_its_place_and_its_tag(tokenizer: Any, nothing: str) -> None:
    """Joiners alone, as in the Hindi and Persian treebanks: a script that skips them shifts every later tag."""
    columns = kind_of("tagging").encode([example(["Anna", nothing, "waited"])], POS, tokenizer, 32)
    ((first, middle, last),) = columns["places"]
    ((*tags,),) = columns["tags"]
    assert tags == [0, 1, 2] and first < middle < last
    waited = tokenizer("waited", add_special_tokens=False)["input_ids"]
    assert columns["input_ids"][0][last : last + len(waited)] == waited


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0.0), (200, 0.0), (1000, 0.1), (200, 0.5)])
def test_the_learning_rate_is_that_of_transformers(steps: int, warmup: float) -> None:
    """Without warm-up, as XTREME's scripts classify and tag, update for update. With it one update earlier: the first
    update of transformers' schedule has a rate of 0 and is lost."""
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rising = round(warmup * steps)
    schedule = get_linear_schedule_with_warmup(optimizer, rising, steps)
    theirs = []
    for _ in range(steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    ours = [learning_rate_factor(step, steps, warmup) for step in range(1, steps + 1)]
    if not rising:
        assert ours == pytest.approx(theirs)
        return
    assert theirs[0] == 0 < ours[0] and max(ours) == 1
    assert ours[:rising] == pytest.approx(theirs[1 : rising + 1])
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 1 / rising + 1 / (steps - rising)
