"""What a training step keeps for its backward pass: nothing below the lowest trained layer, logits at masked places
alone."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from effstilts.kinds import kind_of
from effstilts.model.adapters import attach
from effstilts.model.encoder import Encoder
from effstilts.model.encoder import blocks_of as blocks_in
from effstilts.model.opening import create
from effstilts.recipe import Method
from tests.unit.kinds.test_kinds import as_rows, batch_of, examples_of
from tests.unit.model.test_encoder import ARCHITECTURES

LAYERS, DIM, ROWS, WIDTH = 4, 64, 4, 24
CONFIG: dict[str, Any] = {
    "model_type": "xlm-roberta", "hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 130,
}  # fmt: skip


class Kept:
    """Within this block, the storages that autograd keeps, parameters aside: address -> (bytes, elements)."""

    def __init__(self, model: torch.nn.Module) -> None:
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.storages: dict[int, int] = {}
        self.tensors: list[tuple[int, ...]] = []

        def keep(tensor: Tensor) -> Tensor:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                self.storages[place] = tensor.untyped_storage().nbytes()
                self.tensors.append(tuple(tensor.shape))
            return tensor

        self._hooks = saved_tensors_hooks(keep, lambda tensor: tensor)

    def __enter__(self) -> Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


def fresh(tokenizer: Any) -> Encoder:
    return create(CONFIG, tokenizer, seed=0).train()


def blocks_of(encoder: Encoder) -> list[torch.nn.Module]:
    return [m for name, m in encoder.backbone.named_modules() if name.rpartition(".")[0].endswith("encoder.layer")]


def forward(encoder: Encoder) -> tuple[Tensor, Kept, list[bool], list[bool]]:
    """The output, what is kept for its backward pass, and for each block whether its output takes part in that and
    whether it is still alive."""
    ids = torch.randint(5, 200, (ROWS, WIDTH), generator=torch.Generator().manual_seed(0))
    outputs: list[tuple[bool, Any]] = []

    def look(module: Any, inputs: Any, output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output
        outputs.append((state.requires_grad, weakref.ref(state)))

    hooks = [block.register_forward_hook(look) for block in blocks_of(encoder)]
    assert len(hooks) == LAYERS
    with Kept(encoder) as kept:
        out = encoder(ids, torch.ones_like(ids))
    for hook in hooks:
        hook.remove()
    gc.collect()
    return out, kept, [needs for needs, _ in outputs], [state() is not None for _, state in outputs]


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_no_activation_below_the_lowest_trained_block_is_kept(tokenizer: Any, frozen: int) -> None:
    encoder = fresh(tokenizer)
    encoder.freeze(frozen)
    out, kept, needs, alive = forward(encoder)
    assert needs == [False] * frozen + [True] * (LAYERS - frozen)
    # The last frozen block's output is the input of a trained layer, so it is kept; those before it are gone.
    assert alive[: max(0, frozen - 1)] == [False] * max(0, frozen - 1)
    whole = forward(fresh(tokenizer))[1].bytes
    assert kept.bytes < whole * (LAYERS - frozen + 0.3) / LAYERS
    out.sum().backward()
    trained = {id(p) for block in blocks_of(encoder)[frozen:] for p in block.parameters()}
    assert all((p.grad is not None) == (id(p) in trained) for p in encoder.parameters())


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2", "distilbert", "electra", "xlm-roberta"])
def test_nothing_that_a_frozen_block_reads_is_trained(architecture: str, tokenizer: Any) -> None:
    """DeBERTa norms its relative positions outside the embeddings and the blocks, ELECTRA projects its embeddings."""
    own = {**CONFIG, "model_type": "electra", "embedding_size": 16}
    encoder = create(ARCHITECTURES.get(architecture, own), tokenizer, seed=0).train()
    blocks = blocks_in(encoder)
    encoder.freeze(1)
    needs: list[bool] = []

    def look(module: Any, inputs: Any, output: Any) -> None:
        needs.append((output[0] if isinstance(output, tuple) else output).requires_grad)

    for block in blocks:
        block.register_forward_hook(look)
    ids = torch.randint(5, 200, (ROWS, WIDTH), generator=torch.Generator().manual_seed(0))
    encoder(ids, torch.ones_like(ids))
    assert needs == [False] + [True] * (len(blocks) - 1)


def test_with_every_block_frozen_nothing_is_kept(tokenizer: Any) -> None:
    encoder = fresh(tokenizer)
    encoder.freeze(LAYERS)
    out, kept, needs, _ = forward(encoder)
    assert not out.requires_grad and not any(needs) and kept.bytes == 0


def test_frozen_blocks_under_checkpointing_are_not_computed_twice(tokenizer: Any) -> None:
    encoder = fresh(tokenizer)
    encoder.set_dropout(0.0)
    encoder.freeze(2)
    plain, whole, _, _ = forward(encoder)
    plain.pow(2).sum().backward()
    expected = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad(set_to_none=True)
    encoder.checkpoint_gradients()
    ran: list[int] = []
    for index, block in enumerate(blocks_of(encoder)):
        block.attention.register_forward_hook(lambda *_, i=index: ran.append(i))  # type: ignore[attr-defined]
    out, kept, _, _ = forward(encoder)
    out.pow(2).sum().backward()
    assert kept.bytes < whole.bytes / 3
    assert [ran.count(i) for i in range(LAYERS)] == [1, 1, 2, 2]
    found = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)


@pytest.mark.parametrize("frozen", [0, 2])
def test_adapters_below_frozen_blocks_get_no_gradient(tokenizer: Any, frozen: int) -> None:
    encoder = fresh(tokenizer)
    attach(encoder, Method(name="lora", rank=2))
    encoder.freeze(frozen)
    out, _, needs, _ = forward(encoder)
    assert needs == [False] * frozen + [True] * (LAYERS - frozen)
    out.sum().backward()
    trained = [name for name, p in encoder.named_parameters() if p.grad is not None]
    assert trained and all("lora_" in name for name in trained)
    assert {int(name.split("layer.")[1].split(".")[0]) for name in trained} == set(range(frozen, LAYERS))


@pytest.mark.parametrize("freeze", [False, True])
def test_masked_lm_logits_stand_at_masked_places_alone(tokenizer: Any, freeze: bool) -> None:
    encoder = fresh(tokenizer)
    if freeze:
        encoder.freeze(0)
    kind = kind_of("masked_lm")
    task, examples = examples_of("masked_lm")
    rows = as_rows(kind.encode(examples, task, tokenizer, 40))
    head = kind.head(task, encoder, 0.0)
    batch = batch_of(kind, rows, list(range(8)), encoder)
    places = int((batch["labels"] != -100).sum())
    vocabulary, tokens = int(encoder.config.vocab_size), batch["labels"].numel()
    assert 0 < places < tokens / 2
    with Kept(torch.nn.ModuleList([encoder, head])) as kept:
        loss = kind.loss(head, encoder, batch)
    # Shapes along the vocabulary: the embedding matrix itself, and logits of the masked places.
    wide = {shape for shape in kept.tensors if vocabulary in shape} - {(vocabulary, DIM), (DIM, vocabulary)}
    assert wide == {(places, vocabulary)}
    loss.backward()
    assert (encoder.embedding.grad is None) == freeze
    assert np.isfinite(loss.item())
