"""Sentences -> pooled hidden states of one layer.

Only the blocks up to that layer are computed. Sentences are sorted by length and cut under a token budget, so there
is next to no padding; the result is in the order of the input. A vector does not depend on the sentences beside it
beyond the rounding of the matrix products (float32: relative difference below 1e-5, tested).

Layers are counted as transformers counts hidden_states: 0 is the embedding output. XTREME's scripts count otherwise:
for XLM-R Large their `specific_layer 13` of 24 kept outputs is hidden state 14 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from effstilts.data.batches import cut
from effstilts.kinds.kind import collate_inputs, tokenize
from effstilts.model.encoder import Encoder

# Starting a batch costs about as much as this many tokens; the cut weighs it against padding.
LAUNCH_TOKENS = 512


@dataclass(frozen=True)
class Pooling:
    """layer: hidden state; how: mean over tokens or the first token; special_tokens: whether <s>, </s> count."""

    layer: int
    how: Literal["mean", "cls"] = "mean"
    special_tokens: bool = True


def protocol_layer(depth: int) -> int:
    """XTREME's layer for Tatoeba: 8 of 12 (mBERT), 14 of 24 (XLM-R Large); two thirds of any other depth."""
    return {12: 8, 24: 14}.get(depth, round(depth * 2 / 3))


def embed(
    encoder: Encoder, sentences: Sequence[str], pooling: Pooling, max_length: int = 512, batch_tokens: int = 16384
) -> NDArray[np.float32]:
    """Vectors [sentences, D] in the order of the input. batch_tokens: rows x longest row of a batch at most."""
    vectors = np.empty((len(sentences), encoder.hidden_size), np.float32)
    ids = encoder.token_ids()
    length = min(max_length, encoder.max_length)
    encoded = [e.ids for e in tokenize(encoder.tokenizer, sentences, None, truncation=True, max_length=length)]
    special = torch.tensor(ids.special, device=encoder.device)
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode(), encoder.cut_at(pooling.layer):
            for part in cut([len(row) for row in encoded], batch_tokens, LAUNCH_TOKENS):
                arrays = collate_inputs([encoded[i] for i in part], [0] * len(part), ids)
                batch = {name: torch.from_numpy(a).to(encoder.device) for name, a in arrays.items()}
                hidden_BTD = encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
                if pooling.how == "cls":
                    pooled_BD = hidden_BTD[:, 0]
                else:
                    counted_BT = batch["attention_mask"].bool()
                    if not pooling.special_tokens:
                        bare_BT = counted_BT & ~torch.isin(batch["input_ids"], special)
                        # A sentence of special tokens alone keeps them: a vector of zeros has no direction.
                        counted_BT = torch.where(bare_BT.any(1, keepdim=True), bare_BT, counted_BT)
                    weights_BT1 = counted_BT.unsqueeze(-1).to(hidden_BTD.dtype)
                    pooled_BD = (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
                vectors[part] = pooled_BD.float().cpu().numpy()
    finally:
        encoder.train(was_training)
    return vectors
