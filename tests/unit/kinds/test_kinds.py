"""Each kind on a tiny encoder: encoding, collation, loss, decoding against what must come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.data.cache import Ragged, Rows
from effstilts.data.order import mix
from effstilts.errors import DataError
from effstilts.kinds import KINDS, kind_of
from effstilts.kinds.kind import IGNORED
from effstilts.kinds.span import best_span
from effstilts.synthetic import rows as synthetic_rows
from effstilts.tasks.task import Task


def as_rows(columns: dict[str, list[Any]]) -> Rows:
    out: dict[str, Any] = {}
    for name, column in columns.items():
        if column and isinstance(column[0], list):
            offsets = np.cumsum([0, *map(len, column)])
            out[name] = Ragged(np.array([x for row in column for x in row], np.int32), offsets)
        else:
            out[name] = np.array(column, np.int64)
    return Rows(out)


def batch_of(kind: Any, rows: Rows, indices: list[int], encoder: Any) -> dict[str, torch.Tensor]:
    keys = mix(np.array(indices, np.uint64))
    arrays = kind.collate(rows, indices, keys, encoder.token_ids(), 0.3)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


SEED = 3

TAGGING = Task("t", "tagging", {"tokens": "tokens", "tags": "tags"}, labels=("NOUN", "VERB"), score="f1")
NLI = Task("c", "classification", {"text": "a", "label": "l"}, labels=("yes", "no"), score="accuracy")
CHOICE = Task("m", "choice", {"prompt": "p", "choices": "c", "label": "l"}, score="accuracy")
SPAN = Task("s", "span", {"id": "id", "question": "q", "context": "c", "answers": "a"}, score="f1", stride=8)
MLM = Task("l", "masked_lm", {"text": "text"}, score="accuracy")


def examples_of(kind: str) -> tuple[Task, list[dict[str, Any]]]:
    text = [row["text"] for row in synthetic_rows("text", "dev", "en", 24)]
    if kind == "classification":
        return NLI, [{"text": t, "text_pair": t[::2], "label": ("yes", "no")[i % 2]} for i, t in enumerate(text)]
    if kind == "choice":
        return CHOICE, [
            {"prompt": t, "choices": [t, t[:9], "x"][: 2 + i % 2], "label": i % 2} for i, t in enumerate(text)
        ]
    if kind == "tagging":
        words = [t.split() for t in text]
        return TAGGING, [{"tokens": w, "tags": [TAGGING.labels[len(x) % 2] for x in w]} for w in words]
    if kind == "span":
        made = synthetic_rows("tydiqa", "dev", "en", 24)
        return SPAN, [
            {
                "id": row["id"], "question": row["question"], "context": row["context"],
                "answers": [{"text": row["answers"]["text"][0], "start": row["answers"]["answer_start"][0]}],
            }
            for row in made
        ]  # fmt: skip
    return MLM, [{"text": t, "text_pair": None} for t in text]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_summed_loss_does_not_depend_on_the_cut(name: str, encoder: Any) -> None:
    """What idea 5 rests on: loss and gradient of the whole batch equal those of its micro-batches together."""
    kind = kind_of(name)
    task, examples = examples_of(name)
    rows = as_rows(kind.encode(examples, task, encoder.tokenizer, 48))
    torch.manual_seed(SEED)
    head = kind.head(task, encoder, 0.0)
    encoder.eval()

    def run(parts: list[list[int]]) -> tuple[float, int, torch.Tensor]:
        encoder.zero_grad()
        total, units = 0.0, 0
        for part in parts:
            batch = batch_of(kind, rows, part, encoder)
            loss = kind.loss(head, encoder, batch)
            loss.backward()
            total += float(loss.detach())
            units += kind.units({k: v.numpy() for k, v in batch.items()})
        return total, units, encoder.embedding.grad.clone()

    everything = list(range(len(rows)))
    whole = run([everything])
    cut = run([everything[i::5] for i in range(5)])
    assert cut[1] == whole[1] > 0
    assert cut[0] == pytest.approx(whole[0], rel=1e-5)
    assert torch.allclose(cut[2], whole[2], atol=1e-3 * float(whole[2].abs().max()))


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"masked_lm"}))
def test_a_kind_learns_and_its_prediction_is_its_label(name: str, encoder: Any) -> None:
    """Overfits a few rows; then decode and score must say 100 %: head, loss, decoding and metric agree."""
    kind = kind_of(name)
    task, examples = examples_of(name)
    examples = examples[:8]
    rows = as_rows(kind.encode(examples, task, encoder.tokenizer, 64))
    torch.manual_seed(SEED)
    head = kind.head(task, encoder, 0.0)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
    batch = batch_of(kind, rows, list(range(len(rows))), encoder)
    encoder.train()
    for _ in range(600):
        loss = kind.loss(head, encoder, batch)
        if float(loss.detach()) < 0.02 * len(rows):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval()
    with torch.inference_mode():
        predictions = kind.decode(task, examples, rows, kind.outputs(head, encoder, batch))
    scores = kind.score(task, predictions, examples, "en")
    assert scores[task.score] == 100.0, (float(loss), predictions)


words = st.lists(st.sampled_from(["the", "doctor", "Anna", "behindo", "ბამა", "\u200d", "x" * 30, "."]), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=5), st.integers(8, 24))
def test_a_split_sentence_is_put_together_again(tokenizer: Any, sentences: list[list[str]], length: int) -> None:
    examples = [
        {"tokens": s, "tags": [TAGGING.labels[(i + j) % 2] for j in range(len(s))]} for i, s in enumerate(sentences)
    ]
    kind = kind_of("tagging")
    rows = as_rows(kind.encode(examples, TAGGING, tokenizer, length))
    assert max(rows["input_ids"].lengths) <= length
    gold = [tags[tags != IGNORED] for tags in rows["tags"]]
    assert kind.decode(TAGGING, examples, rows, gold) == [e["tags"] for e in examples]
    for ids, places in zip(rows["input_ids"], rows["places"], strict=True):
        assert all(0 < place < len(ids) - 1 for place in places)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.sampled_from(["en", "qad"]), st.integers(40, 90), st.integers(0, 40))
def test_the_true_positions_decode_to_the_true_answer(
    tokenizer: Any, index: int, language: str, length: int, stride: int
) -> None:
    """Windows and offsets: scores that point at the labels give back exactly the gold text."""
    row = list(synthetic_rows("tydiqa", "dev", language, 40))[index % 40]
    context = " ".join([row["context"]] * 3)
    start = len(row["context"]) + 1 + row["answers"]["answer_start"][0]
    answer = {"text": row["answers"]["text"][0], "start": start}
    example = {"id": "1", "question": row["question"], "context": context, "answers": [answer]}
    task = Task("s", "span", SPAN.columns, stride=stride, score="f1")
    kind = kind_of("span")
    rows = as_rows(kind.encode([example], task, tokenizer, length))
    assert max(rows["input_ids"].lengths) <= length
    outputs = []
    for i in range(len(rows)):
        scores = np.full((len(rows["input_ids"][i]), 2), -5.0, np.float32)
        scores[rows["start"][i], 0] = scores[rows["end"][i], 1] = 5.0
        outputs.append(
            np.where((rows["starts"][i] >= 0)[:, None] | (np.arange(len(scores)) == 0)[:, None], scores, -np.inf)
        )
    # An answer that a window cuts is labelled 0 there; it is whole in some window unless longer than the overlap.
    if any(rows["start"][i] > 0 for i in range(len(rows))):
        (prediction,) = kind.decode(task, [example], rows, outputs)
        assert prediction.strip() == answer["text"]


def test_windows_cover_the_whole_context(tokenizer: Any) -> None:
    context = " ".join(row["text"] for row in synthetic_rows("text", "dev", "en", 20))
    example = {"id": "1", "question": "who?", "context": context, "answers": [{"text": context[:3], "start": 0}]}
    rows = as_rows(kind_of("span").encode([example], SPAN, tokenizer, 48))
    covered = np.zeros(len(context), bool)
    for starts, ends in zip(rows["starts"], rows["ends"], strict=True):
        for start, end in zip(starts, ends, strict=True):
            if start >= 0:
                covered[start:end] = True
    assert all(covered[i] or context[i] == " " for i in range(len(context)))


def test_no_answer(tokenizer: Any) -> None:
    example = {"id": "1", "question": "who?", "context": "Anna ran.", "answers": []}
    task = Task("s", "span", SPAN.columns, no_answer=True, score="f1")
    rows = as_rows(kind_of("span").encode([example], task, tokenizer, 48))
    assert (rows["start"][0], rows["end"][0]) == (0, 0)
    length = len(rows["input_ids"][0])
    scores = np.where((rows["starts"][0] >= 0)[:, None], 0.0, -np.inf).repeat(2, 1).astype(np.float32)
    scores[0] = 3.0
    assert kind_of("span").decode(task, [example], rows, [scores]) == [""]
    scores[0] = -3.0
    assert kind_of("span").decode(task, [example], rows, [scores])[0] != ""
    assert kind_of("span").decode(SPAN, [example], rows, [scores])[0] != "" and length > 4


@given(st.integers(0, 1000))
def test_best_span_is_the_exhaustive_best(seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(12, 2)).astype(np.float32)
    expected = max((scores[i, 0] + scores[j, 1], i, j) for i in range(1, 12) for j in range(i, 12))
    found = best_span(scores)
    assert found is not None and found[1:] == expected[1:]
    assert best_span(np.full((5, 2), -np.inf, np.float32)) is None


def test_masks_depend_on_the_key_alone_and_keep_their_shares(tokenizer: Any, encoder: Any) -> None:
    kind = kind_of("masked_lm")
    texts = [{"text": row["text"], "text_pair": None} for row in synthetic_rows("text", "dev", "en", 150)]
    rows = as_rows(kind.encode(texts, MLM, tokenizer, 64))
    ids = encoder.token_ids()
    everything = list(range(len(rows)))
    keys = mix(np.arange(len(rows), dtype=np.uint64))
    whole = kind.collate(rows, everything, keys, ids, 0.15)
    for i in (3, 77):
        alone = kind.collate(rows, [i], keys[[i]], ids, 0.15)
        width = alone["input_ids"].shape[1]
        assert np.array_equal(alone["labels"][0], whole["labels"][i][:width])
        assert np.array_equal(alone["input_ids"][0], whole["input_ids"][i][:width])
    other = kind.collate(rows, everything, keys + np.uint64(1), ids, 0.15)
    assert not np.array_equal(other["labels"], whole["labels"])
    chosen = whole["labels"] != IGNORED
    assert chosen.any(1).all()
    special = np.isin(whole["labels"], ids.special)
    assert not special.any()
    eligible = sum(len(row) - 2 for row in rows["input_ids"])
    assert 0.12 < chosen.sum() / eligible < 0.19
    kept = whole["input_ids"][chosen] == whole["labels"][chosen]
    masked = whole["input_ids"][chosen] == ids.mask
    assert 0.75 < masked.mean() < 0.85 and 0.05 < kept.mean() < 0.15


def test_a_long_text_becomes_several_rows(tokenizer: Any) -> None:
    text = " ".join(row["text"] for row in synthetic_rows("text", "dev", "en", 10))
    rows = as_rows(kind_of("masked_lm").encode([{"text": text, "text_pair": None}], MLM, tokenizer, 32))
    inner = [token for row in rows["input_ids"] for token in row[1:-1]]
    assert inner == tokenizer(text, add_special_tokens=False)["input_ids"]
    with pytest.raises(DataError, match="no token"):
        kind_of("masked_lm").encode([{"text": "", "text_pair": None}], MLM, tokenizer, 32)


def test_the_second_text_of_a_translation_pair_begins_at_the_firsts_positions(tokenizer: Any, encoder: Any) -> None:
    kind, ids = kind_of("masked_lm"), encoder.token_ids()
    texts = [("Anna waited.", "the doctor is sad."), ("a cat", "the old cat slept.")]
    rows = as_rows(kind.encode([{"text": a, "text_pair": b} for a, b in texts], MLM, tokenizer, 32))
    arrays = kind.collate(rows, [0, 1], [1, 2], ids, 0.15)
    for row, (first, second) in enumerate(texts):
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (first, second)]
        start = 1 + lengths[0] + 2  # <s> first </s></s> second </s>
        assert arrays["positions"][row, :start].tolist() == list(range(start))
        assert arrays["positions"][row, start : start + lengths[1]].tolist() == list(range(1, lengths[1] + 1))
    alone = as_rows(kind.encode([{"text": texts[0][0], "text_pair": None}], MLM, tokenizer, 32))
    assert "positions" not in kind.collate(alone, [0], [1], ids, 0.15)
