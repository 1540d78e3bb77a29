from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.errors import DataError
from effstilts.retrieval.benchmarks import tatoeba_accuracy
from effstilts.retrieval.embed import Pooling, embed, protocol_layer
from effstilts.retrieval.neighbours import normalise, search
from effstilts.synthetic import rows

SENTENCES = [row["text"] for row in rows("text", "dev", "en", 30)] + ["", "a"]


@pytest.mark.parametrize("pooling", [Pooling(2), Pooling(0), Pooling(3, "cls"), Pooling(1, "mean", False)])
def test_vectors_are_those_of_transformers_one_by_one(encoder: Any, pooling: Pooling) -> None:
    found = embed(encoder, SENTENCES, pooling, batch_tokens=300)
    encoder.eval()
    for sentence, vector in zip(SENTENCES, found, strict=True):
        tokens = encoder.tokenizer(sentence, return_tensors="pt")
        with torch.inference_mode():
            states = encoder.backbone(tokens["input_ids"], output_hidden_states=True).hidden_states[pooling.layer][0]
        if pooling.how == "cls":
            expected = states[0]
        else:
            inner = states if pooling.special_tokens or len(states) == 2 else states[1:-1]
            expected = inner.mean(0)
        assert np.allclose(vector, expected.numpy(), atol=1e-5)


def test_vectors_do_not_depend_on_the_batching(encoder: Any) -> None:
    one = embed(encoder, SENTENCES, Pooling(2), batch_tokens=1)
    for budget in (64, 1000, 10**6):
        many = embed(encoder, SENTENCES, Pooling(2), batch_tokens=budget)
        assert np.abs(many - one).max() <= 1e-5 * np.abs(one).max()
    assert np.array_equal(embed(encoder, SENTENCES[::-1], Pooling(2), batch_tokens=1)[::-1], one)


def test_the_protocols_layers() -> None:
    """XTREME: specific_layer 7 of 12 kept outputs (mBERT) and 13 of 24 (XLM-R Large), the embedding output dropped."""
    assert [protocol_layer(depth) for depth in (12, 24, 6, 4)] == [8, 14, 4, 3]


def test_direction_english_queries_the_foreign_side() -> None:
    """Two English sentences are nearest to foreign 0: one of them is right; backwards both foreign ones are."""
    foreign = np.array([[1, 0], [0, 1]], np.float32)
    english = np.array([[1, 0.1], [1, 0.9]], np.float32)
    result = tatoeba_accuracy(foreign, english)
    assert result.predictions.tolist() == [0, 0]
    assert (result.accuracy, result.accuracy_reverse) == (50.0, 100.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 99))
def test_exact_search_is_numpys(count: int, dim: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    queries, database = (normalise(generator.normal(size=(count, dim)).astype(np.float32)) for _ in range(2))
    scores, found = search(queries, database, 1)
    products = queries @ database.T
    assert np.allclose(scores[:, 0], products.max(1), atol=1e-5)
    assert np.allclose(products[np.arange(count), found[:, 0]], products.max(1), atol=1e-5)


def test_bad_vectors_are_refused() -> None:
    with pytest.raises(DataError, match=r"^vector 1 \(from 0\) has no direction: its length is 0"):
        normalise(np.array([[1, 0], [0, 0]], np.float32))
    with pytest.raises(DataError, match="vector 0"):
        normalise(np.array([[np.nan, 0]], np.float32))
    with pytest.raises(DataError, match="dimensions"):
        search(np.ones((1, 2), np.float32), np.ones((1, 3), np.float32), 1)
    with pytest.raises(DataError, match="one shape"):
        tatoeba_accuracy(np.ones((1, 2), np.float32), np.ones((2, 2), np.float32))


def test_half_precision_vectors_are_normalised_in_float32() -> None:
    """float16 as `embed --dtype float16` writes it: lengths in float16 were off by 5e-4, and long rows overflowed."""
    vectors = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float16)
    made = normalise(vectors)
    assert made.dtype == np.float32 and np.array_equal(made, normalise(vectors.astype(np.float32)))
    assert np.abs(np.linalg.norm(made, axis=1) - 1).max() < 1e-6
    assert np.abs(np.linalg.norm(normalise(vectors * np.float16(1000)), axis=1) - 1).max() < 1e-6


def test_without_special_tokens_unknown_pieces_still_count(encoder: Any) -> None:
    """Only what stands around a sentence is left out; packed and padded alike."""
    sentence = f"{SENTENCES[0]} 𓀀"
    tokens = encoder.tokenizer(sentence, return_tensors="pt")
    assert encoder.tokenizer.unk_token_id in tokens["input_ids"]
    encoder.eval()
    with torch.inference_mode():
        states = encoder.backbone(tokens["input_ids"], output_hidden_states=True).hidden_states[2][0]
    (found,) = embed(encoder, [sentence], Pooling(2, "mean", False))
    assert np.allclose(found, states[1:-1].mean(0).numpy(), atol=1e-5)
