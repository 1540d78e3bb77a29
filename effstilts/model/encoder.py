"""The encoder: a transformers backbone without any head, cut at a layer, frozen below one.

Shapes: B rows, T tokens, D hidden size, V vocabulary. Layers are counted as transformers counts hidden_states:
0 is the embedding output, k the output of block k.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effstilts.errors import ModelError


@dataclass(frozen=True)
class TokenIds:
    """The token ids that batches are built from. `prefix` and `suffix` go around a single text."""

    pad: int
    mask: int | None
    vocabulary: int
    special: tuple[int, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


class Encoder(nn.Module):
    """A transformers encoder without any head, and its tokenizer."""

    def __init__(self, backbone: Any, tokenizer: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self._embeddings_only = False
        self._takes_types = (
            getattr(backbone.config, "type_vocab_size", 0) > 1
            and "token_type_ids" in inspect.signature(backbone.forward).parameters
        )
        self._takes_positions = "position_ids" in inspect.signature(backbone.forward).parameters

    @property
    def config(self) -> Any:
        return self.backbone.config

    @property
    def hidden_size(self) -> int:
        return int(self.config.hidden_size)

    @property
    def depth(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def max_length(self) -> int:
        """Longest input in tokens, specials included."""
        positions = int(getattr(self.config, "max_position_embeddings", 0) or 1 << 30)
        return positions - self.first_position

    @property
    def first_position(self) -> int:
        """The row of position 0: RoBERTa-like models count from the padding index on, which padding itself has."""
        padded = self.config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
        return int(self.config.pad_token_id) + 1 if padded else 0

    @property
    def embedding(self) -> Tensor:
        """The input embedding matrix [V, D]."""
        weight: Tensor = self.backbone.get_input_embeddings().weight
        return weight

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [B, T, D] of input_ids [B, T]; attention_mask is 1 on tokens, 0 on padding.

        positions [B, T]: of the tokens, from 0; None: one after the other. Models with relative positions alone
        ignore them.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._takes_types and token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if self._takes_positions and positions is not None:
            first = self.first_position
            inputs["position_ids"] = torch.where(attention_mask == 1, positions + first, max(first - 1, 0))
        if self._embeddings_only:
            embedded: Tensor = self.backbone(**inputs, output_hidden_states=True).hidden_states[0]
            return embedded
        out: Tensor = self.backbone(**inputs)[0]
        return out

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """Hidden states 0 to the highest block that runs (`cut_at`), each [B, T, D]."""
        types = {"token_type_ids": token_type_ids} if self._takes_types else {}
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **types}
        states: tuple[Tensor, ...] = tuple(self.backbone(**inputs, output_hidden_states=True).hidden_states)
        return states

    def token_ids(self) -> TokenIds:
        tokenizer = self.tokenizer
        around = list(tokenizer("")["input_ids"])
        return TokenIds(
            pad=int(tokenizer.pad_token_id),
            mask=None if tokenizer.mask_token_id is None else int(tokenizer.mask_token_id),
            vocabulary=len(tokenizer),
            special=tuple(sorted(set(tokenizer.all_special_ids))),
            prefix=tuple(around[:1]),
            suffix=tuple(around[1:]),
        )

    def set_dropout(self, share: float) -> None:
        """Sets every dropout of the backbone; -1 leaves the checkpoint's own."""
        if share >= 0:
            for module in self.backbone.modules():
                if isinstance(module, nn.Dropout):
                    module.p = share

    def freeze(self, layers: int) -> None:
        """Trains neither the embeddings nor the lowest `layers` blocks. ModelError if the encoder has fewer."""
        self.check_freezing(layers)
        _, _, blocks = _find_blocks(self.backbone, self.depth)
        inside = {id(p) for block in blocks for p in block.parameters()}
        below = {id(p) for block in blocks[:layers] for p in block.parameters()}
        for name, parameter in self.backbone.named_parameters():
            if id(parameter) in below or (id(parameter) not in inside and self._is_below_blocks(name, layers)):
                parameter.requires_grad_(False)

    def _is_below_blocks(self, name: str, layers: int) -> bool:
        """Whether a parameter of no block is read by the lowest one; a norm after the last block is not."""
        # The bias is MPNet's, which every block reads.
        marks = ["embeddings.", "embeddings_project.", "embedding_hidden_mapping_in.", "relative_attention_bias."]
        if self.config.model_type in ("deberta", "deberta-v2"):
            # The norm of its relative positions, which every block reads, and the convolution beside the first block.
            marks += ["encoder.LayerNorm.", *(["encoder.conv."] if layers else [])]
        return any(mark in name for mark in marks)

    def check_freezing(self, layers: int) -> None:
        if layers > self.depth:
            raise ModelError(f"freeze_layers is {layers}, this encoder has {self.depth} blocks")

    def checkpoint_gradients(self) -> None:
        """Keeps a block's input alone for the backward pass, which computes the rest again (Chen et al. 2016)."""
        base = self.backbone.get_base_model() if hasattr(self.backbone, "get_base_model") else self.backbone
        with warnings.catch_warnings():
            # Newer versions of transformers have another name for it, older ones this one alone.
            warnings.simplefilter("ignore", FutureWarning)
            base.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers makes the embedding's output ask for a gradient, which reentrant checkpointing needs; here it
        # would only carry gradients down through frozen blocks.
        if any(name.startswith("_require_grads_hook") for name in vars(base)):
            base.disable_input_require_grads()

    def prefer_eager_attention(self) -> None:
        """Plain matrix products for attention: on a CPU in bf16 faster than the fused kernel at the lengths of a
        sentence (2.5 times in a training step of 16 tokens a row, 1.2 at 384)."""
        base = self.backbone.get_base_model() if hasattr(self.backbone, "get_base_model") else self.backbone
        if hasattr(base, "set_attn_implementation"):
            base.set_attn_implementation("eager")

    @contextmanager
    def cut_at(self, layer: int) -> Iterator[None]:
        """Within this block the forward pass ends after block `layer`: the blocks above are not computed.

        ModelError if the encoder has fewer blocks.
        """
        if not 0 <= layer <= self.depth:
            raise ModelError(f"layer {layer} does not exist: this encoder has hidden states 0 to {self.depth}")
        parent, name, blocks = _find_blocks(self.backbone, self.depth)
        # DeBERTa cannot run without a block: for layer 0 one is run and its input taken.
        setattr(parent, name, blocks[: max(layer, 1)])
        self._embeddings_only = layer == 0
        try:
            yield
        finally:
            setattr(parent, name, blocks)
            self._embeddings_only = False


def blocks_of(encoder: Encoder) -> nn.ModuleList:
    """The encoder's blocks, from the lowest."""
    return _find_blocks(encoder.backbone, encoder.depth)[2]


def _find_blocks(backbone: nn.Module, depth: int) -> tuple[nn.Module, str, nn.ModuleList]:
    for parent in backbone.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == depth and name in ("layer", "layers"):
                return parent, name, child
    raise ModelError(f"{type(backbone).__name__}: cannot find its list of {depth} blocks")


def describe(encoder: Encoder) -> dict[str, Any]:
    """Architecture and size, for manifests."""
    config = json.loads(encoder.config.to_json_string())
    return {
        "model_type": config.get("model_type"),
        "layers": encoder.depth,
        "hidden_size": encoder.hidden_size,
        "vocabulary": int(encoder.config.vocab_size),
        "parameters": sum(p.numel() for p in encoder.parameters()),
    }
