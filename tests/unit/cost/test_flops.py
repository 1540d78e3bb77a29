"""Operations of a step: torch's counter against sums by hand, and the estimate of the cost meter against both."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from effstilts.cost.flops import counted, encoder_flops_per_token
from effstilts.model.adapters import attach
from effstilts.model.encoder import Encoder
from effstilts.model.opening import create
from effstilts.model.quantised import quantise
from effstilts.recipe import Method

ROWS, WIDTH, DIM, INNER, LAYERS = 4, 8, 64, 128, 3
TOKENS = ROWS * WIDTH
CONFIG: dict[str, Any] = {
    "model_type": "xlm-roberta", "hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": INNER, "max_position_embeddings": 130, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
LINEAR = 2 * (4 * DIM * DIM + 2 * DIM * INNER) * TOKENS
ATTENTION = 4 * WIDTH * DIM * TOKENS
QUERY_KEY_VALUE = 2 * 3 * DIM * DIM * TOKENS


def fresh(tokenizer: Any, fused: bool = False) -> Encoder:
    encoder = create(CONFIG, tokenizer, seed=0).train()
    if not fused:
        encoder.prefer_eager_attention()
    return encoder


def operations(encoder: Encoder, backward: bool = True) -> int:
    ids = torch.randint(5, 200, (ROWS, WIDTH))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0

    def step() -> None:
        with torch.set_grad_enabled(backward):
            out = encoder(ids, mask)
        if backward:
            out.pow(2).sum().backward()

    return counted(step)


@pytest.mark.parametrize("fused", [False, True])
def test_forward_is_the_sum_by_hand(tokenizer: Any, fused: bool) -> None:
    assert operations(fresh(tokenizer, fused), backward=False) == LAYERS * (LINEAR + ATTENTION)


def test_full_fine_tuning_is_three_times_forward(tokenizer: Any) -> None:
    encoder = fresh(tokenizer)
    found = operations(encoder)
    assert found == 3 * LAYERS * (LINEAR + ATTENTION)
    assert encoder_flops_per_token(encoder.backbone) * TOKENS == found - 3 * LAYERS * ATTENTION


@pytest.mark.parametrize("frozen", [1, 2])
def test_nothing_is_computed_backwards_below_the_lowest_trained_block(tokenizer: Any, frozen: int) -> None:
    encoder = fresh(tokenizer)
    encoder.freeze(frozen)
    trained = LAYERS - frozen
    # The lowest trained block needs no gradient of its input, which is that of its query, key and value layers.
    exact = LAYERS * (LINEAR + ATTENTION) + 2 * trained * (LINEAR + ATTENTION) - QUERY_KEY_VALUE
    assert operations(encoder) == exact
    estimate = encoder_flops_per_token(encoder.backbone) * TOKENS
    assert estimate == (LAYERS + 2 * trained) * LINEAR


def test_gradient_checkpointing_computes_blocks_once_more(tokenizer: Any) -> None:
    encoder = fresh(tokenizer)
    encoder.checkpoint_gradients()
    found = operations(encoder)
    # Recomputation ends at the last tensor that is needed, so a product at a block's end may be left out.
    assert 3.5 * LAYERS * (LINEAR + ATTENTION) < found <= 4 * LAYERS * (LINEAR + ATTENTION)
    assert encoder_flops_per_token(encoder.backbone) * TOKENS == 4 * LAYERS * LINEAR


@pytest.mark.parametrize("name", ["lora", "qlora", "lora-int8", "bitfit"])
def test_the_estimate_is_near_the_count_for_adapters(tokenizer: Any, name: str) -> None:
    encoder = fresh(tokenizer)
    if name in ("qlora", "lora-int8"):
        pytest.importorskip("bitsandbytes")
        quantise(encoder, "nf4" if name == "qlora" else "int8")
    attach(encoder, Method(name=name, rank=4))  # type: ignore[arg-type]
    found = operations(encoder)
    estimate = encoder_flops_per_token(encoder.backbone) * TOKENS
    added = 0 if name == "bitfit" else 3 * 4 * (4 * 2 * DIM + 2 * (DIM + INNER)) / (4 * DIM * DIM + 2 * DIM * INNER)
    passes = 2 + added
    assert abs(estimate / (passes * LAYERS * LINEAR) - 1) < 0.001
    assert abs((found - 3 * LAYERS * ATTENTION) / estimate - 1) < 0.1


def test_an_encoder_of_which_nothing_is_trained_costs_its_forward_pass(tokenizer: Any) -> None:
    encoder = fresh(tokenizer)
    encoder.requires_grad_(False)
    assert encoder_flops_per_token(encoder.backbone) * TOKENS == LAYERS * LINEAR
