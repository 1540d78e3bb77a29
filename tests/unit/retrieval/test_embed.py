"""Embedding against transformers sentence by sentence, in every form: packed, padded, bf16, several layers."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from effstilts.commands.embed import Embed
from effstilts.errors import DataError, ModelError
from effstilts.model.opening import create
from effstilts.model.packed import PackedEncoder, PackedLinear, bf16_gain, refusal, resolve_precision
from effstilts.retrieval import embed as embedding
from effstilts.retrieval.embed import Embedder, Pooling, embed
from effstilts.studies.trained import Named
from effstilts.synthetic import rows
from tests.conftest import TINY_CONFIG

SENTENCES = [row["text"] for row in rows("text", "dev", "en", 40)] + ["", "a", "<pad> a", "a " * 200]
POOLINGS = [
    Pooling(layer, how, special)
    for layer in (0, 2, 3)
    for how in ("mean", "cls", "weighted")
    for special in (True, False)
]

BERT = {**TINY_CONFIG, "model_type": "bert"}
DISTIL = {
    "model_type": "distilbert", "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64,
    "max_position_embeddings": 130,
}  # fmt: skip


def expected(encoder: Any, sentence: str, pooling: Pooling) -> np.ndarray:
    """One sentence alone through transformers, pooled by numpy."""
    encoder.eval()
    ids = encoder.tokenizer(sentence, truncation=True, max_length=encoder.max_length)["input_ids"]
    with torch.inference_mode():
        out = encoder.backbone(torch.tensor([ids]), output_hidden_states=True)
    states = out.hidden_states[pooling.layer][0].double().numpy()
    if pooling.how == "cls":
        return states[0]
    special = np.isin(ids, encoder.tokenizer("")["input_ids"])
    keep = np.ones(len(ids)) if pooling.special_tokens or special.all() else (~special).astype(float)
    weights = keep * (np.arange(1, len(ids) + 1) if pooling.how == "weighted" else 1)
    return weights @ states / weights.sum()


@pytest.mark.parametrize("config", [TINY_CONFIG, BERT, DISTIL], ids=lambda c: c["model_type"])
def test_every_pooling_in_one_pass(tokenizer: Any, config: dict[str, Any]) -> None:
    encoder = create(config, tokenizer, seed=1)
    with Embedder(encoder, POOLINGS, batch_tokens=400, precision="fp32") as embedder:
        assert embedder.packed == (config is not DISTIL)
        found = embedder(SENTENCES)
    assert found.truncated == 1 and found.lengths[-1] == encoder.max_length
    for pooling, vectors in zip(POOLINGS, found.vectors, strict=True):
        for sentence, vector in zip(SENTENCES, vectors, strict=True):
            assert np.allclose(vector, expected(encoder, sentence, pooling), atol=2e-5), (pooling, sentence)


@pytest.mark.parametrize("config", [TINY_CONFIG, DISTIL], ids=lambda c: c["model_type"])
def test_bf16_stays_within_the_tolerance_that_is_stated(tokenizer: Any, config: dict[str, Any]) -> None:
    """Cosine to float32's vector above 1 - 1e-3, whatever the batching."""
    encoder = create(config, tokenizer, seed=2)
    exact = embed(encoder, SENTENCES, Pooling(3), precision="fp32")
    for budget in (1, 300, 10**6):
        found = embed(encoder, SENTENCES, Pooling(3), batch_tokens=budget, precision="bf16")
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
        assert ((exact * found).sum(1) / norms > 1 - 1e-3).all()
        assert not np.array_equal(found, exact)


@settings(max_examples=15)
@given(st.permutations(range(len(SENTENCES))), st.integers(1, 3000))
def test_neither_order_nor_budget_matters(tokenizer: Any, order: list[int], budget: int) -> None:
    encoder = create(TINY_CONFIG, tokenizer, seed=3)
    one = embed(encoder, SENTENCES, Pooling(2))
    found = embed(encoder, [SENTENCES[i] for i in order], Pooling(2), batch_tokens=budget)
    assert np.abs(found - one[order]).max() <= 1e-5 * np.abs(one).max()


def test_names_of_arrays_say_what_they_are() -> None:
    """<s> has no mean, so there is nothing to leave out of it."""
    made = [Pooling(8), Pooling(8, "mean", False), Pooling(2, "cls", False), Pooling(0, "weighted", False)]
    assert [pooling.name for pooling in made] == [
        "layer8-mean", "layer8-mean-nospecial", "layer2-cls", "layer0-weighted-nospecial",
    ]  # fmt: skip


@given(st.lists(st.integers(3, 90), min_size=1, max_size=60), st.integers(1, 400))
@example([5, 5], 9)
def test_no_batch_is_over_the_budget_and_none_could_take_the_next_row(lengths: list[int], budget: int) -> None:
    """A row that is longer alone stands alone."""
    widths = np.array(lengths)
    batches = list(Embedder._batches(SimpleNamespace(_packed_encoder=object()), widths, budget))  # type: ignore[arg-type]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    inside = [widths[row] for batch in batches for row in batch]
    assert inside == sorted(inside, reverse=True), "the longest first, while there is most memory"
    tokens = [int(widths[batch].sum()) for batch in batches]
    assert all(total <= budget or len(batch) == 1 for total, batch in zip(tokens, batches, strict=True))
    for total, following in zip(tokens, batches[1:], strict=False):
        assert total + widths[following[0]] > budget


def test_only_the_blocks_asked_for_run(encoder: Any) -> None:
    ran: list[int] = []
    for index, block in enumerate(encoder.backbone.encoder.layer):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    padded = Embedder(encoder, [Pooling(2), Pooling(1)], precision="fp32")
    padded.packed = False
    with padded:
        padded(["a b c"])
    assert ran == [0, 1] and len(encoder.backbone.encoder.layer) == 3
    assert len(PackedEncoder(encoder, 2, "fp32").blocks) == 2


def test_long_sentences_use_the_fused_kernel_with_the_same_result(tokenizer: Any, monkeypatch: Any) -> None:
    encoder = create(TINY_CONFIG, tokenizer, seed=4)
    eager = embed(encoder, SENTENCES, Pooling(3))
    monkeypatch.setattr("effstilts.model.packed._EAGER_TOKENS", 4)
    assert np.allclose(embed(encoder, SENTENCES, Pooling(3)), eager, atol=1e-5)


def test_a_build_without_packed_products_gives_the_same(tokenizer: Any, monkeypatch: Any) -> None:
    encoder = create(TINY_CONFIG, tokenizer, seed=5)
    packed = embed(encoder, SENTENCES, Pooling(3))
    monkeypatch.setattr("effstilts.model.packed._packing_works", lambda dtype: False)
    assert np.allclose(embed(encoder, SENTENCES, Pooling(3)), packed, atol=1e-5)


def test_what_has_no_unpadded_form_is_named(tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    assert "distilbert" in refusal(create(DISTIL, tokenizer, seed=0))
    assert "relu" in refusal(create({**TINY_CONFIG, "hidden_act": "relu"}, tokenizer, seed=0))
    encoder = create(TINY_CONFIG, tokenizer, seed=0)
    assert refusal(encoder) == ""
    plain = embed(encoder, SENTENCES, Pooling(3))
    encoder.backbone = get_peft_model(encoder.backbone, LoraConfig(target_modules=["query"], init_lora_weights=False))
    assert "wrapped" in refusal(encoder) or "adapted" in refusal(encoder)
    with pytest.raises(ModelError, match="no unpadded form"):
        PackedEncoder(encoder, 1, "fp32")
    assert np.abs(embed(encoder, SENTENCES, Pooling(3)) - plain).max() > 1e-4, "the adapter must count"


def test_training_mode_dropout_and_depth_are_given_back(tokenizer: Any) -> None:
    encoder = create({**TINY_CONFIG, "hidden_dropout_prob": 0.5}, tokenizer, seed=0).train()
    first, second = (embed(encoder, SENTENCES, Pooling(2)) for _ in range(2))
    assert np.array_equal(first, second) and encoder.training


def test_the_weights_of_the_moment_are_used(encoder: Any) -> None:
    before = embed(encoder, ["a b"], Pooling(1))
    with torch.no_grad():
        encoder.backbone.encoder.layer[0].output.dense.weight.mul_(3)
    assert not np.allclose(embed(encoder, ["a b"], Pooling(1)), before)


def test_bad_requests(encoder: Any) -> None:
    for layer in (-1, 4):
        with pytest.raises(ModelError, match="hidden states 0 to 3, where 0 is"):
            Embedder(encoder, [Pooling(layer)])
    with pytest.raises(ModelError, match="no pooling"):
        Embedder(encoder, [])
    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight[encoder.tokenizer("a")["input_ids"][1]] = float("nan")
    clean = next(s for s in SENTENCES if np.isfinite(embed(encoder, [s], Pooling(0), precision="fp32")).all())
    with (
        Embedder(encoder, [Pooling(1)], precision="fp32") as embedder,
        pytest.raises(DataError, match="sentence 11 .* not finite"),
    ):
        embedder([clean, "a"], None, lambda row: f"sentence {10 + row} here")


def test_auto_precision_follows_the_measured_gain(monkeypatch: Any) -> None:
    cpu = torch.device("cpu")
    assert bf16_gain() > 0
    for gain, choice in ((1.2, "fp32"), (4.0, "bf16")):
        monkeypatch.setattr("effstilts.model.packed.bf16_gain", lambda gain=gain: gain)
        assert resolve_precision("auto", cpu) == choice
    assert resolve_precision("fp32", cpu) == "fp32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_products_are_the_plain_ones(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48, 20), torch.randn(48), torch.randn(7, 20).to(dtype)
    with torch.inference_mode():
        plain = torch.nn.functional.linear(x.double(), weight.to(dtype).double(), bias.to(dtype).double())
        for gelu in (False, True):
            wanted = torch.nn.functional.gelu(plain) if gelu else plain
            found = PackedLinear(weight, bias, dtype, 8)(x, gelu)
            rounding = 1e-5 if dtype == torch.float32 else 2**-7
            assert torch.allclose(found.double(), wanted, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("packed", [True, False])
def test_batches_begin_with_what_all_rows_need_and_no_more(encoder: Any, monkeypatch: Any, packed: bool) -> None:
    """Halved from there where memory runs out, down to the shortest row."""
    asked: list[tuple[Any, ...]] = []
    original = embedding.halving
    monkeypatch.setattr(embedding, "halving", lambda work, *more: asked.append(more[:2]) or original(work, *more))
    texts = ["a", "a b c d", "a b"]
    lengths = [len(encoder.tokenizer(text)["input_ids"]) for text in texts]
    for given_, budget, limit in ((texts, 10**6, 3 * max(lengths)), (texts[:1], 10**6, lengths[0]), (texts, 7, 7)):
        embedder = Embedder(encoder, [Pooling(1)], batch_tokens=budget, precision="fp32")
        embedder.packed = packed
        with embedder:
            found = embedder(given_)
        assert found.lengths.tolist() == lengths[: len(given_)]
        assert asked.pop() == (limit, min(lengths[: len(given_)]))
    with Embedder(encoder, [Pooling(1)], precision="fp32") as embedder:
        assert embedder.packed
        embedder(["a b c d e f g"] * 400)
        assert asked.pop()[0] == 2048
        assert embedder([]).vectors[0].shape == (0, 32)


def test_the_functions_defaults_are_the_commands() -> None:
    for of in (embed, Embedder.__init__):
        defaults = {name: one.default for name, one in inspect.signature(of).parameters.items()}
        assert (defaults["batch_tokens"], defaults["max_length"]) == (Embed.batch_tokens, Named.max_length)


def test_what_was_embedded_before_a_shortage_is_not_embedded_again(encoder: Any, monkeypatch: Any) -> None:
    texts = ["a b c d", "a", "a b c", "a b", "a b c d e"]
    whole = embed(encoder, texts, Pooling(1), batch_tokens=8)
    told: list[int] = []
    with Embedder(encoder, [Pooling(1)], batch_tokens=8, precision="fp32") as embedder:
        original, calls = embedder._packed_batch, []

        def short(rows: Any, part: list[int]) -> Any:
            calls.append(len(part))
            if len(calls) == 3:
                raise MemoryError
            return original(rows, part)

        monkeypatch.setattr(embedder, "_packed_batch", short)
        assert embedder(texts[:2]).vectors[0].shape == (2, 32) and embedder.batch_tokens == 8
        calls.clear()
        found = embedder(texts, told.append)
        assert embedder.batch_tokens == 4, "from now on"
    assert sum(told) == 5 and sum(calls) == 5 + calls[2]
    assert np.allclose(found.vectors[0], whole, atol=1e-6)


def test_large_numbers_are_finite(encoder: Any, monkeypatch: Any) -> None:
    """Their sum is not, in float32."""
    with Embedder(encoder, [Pooling(1)], precision="fp32") as embedder:
        monkeypatch.setattr(embedder, "_packed_batch", lambda _, part: [torch.full((len(part), 32), 3e38)])
        assert (embedder(["a", "b"]).vectors[0] == np.float32(3e38)).all()
        monkeypatch.setattr(embedder, "_packed_batch", lambda _, part: [torch.full((len(part), 32), float("inf"))])
        with pytest.raises(DataError, match=r"^sentence 0 \(from 0\) has a vector that is not finite \(layer1-mean\)$"):
            embedder(["a", "b"])
