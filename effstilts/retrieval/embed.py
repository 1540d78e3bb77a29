"""Sentences -> pooled hidden states of one layer or several, in one pass.

Only the blocks up to the highest layer are computed. Sentences are sorted by length and cut under a token budget. On
a CPU, BERT-like encoders run without any padding (`effstilts.model.packed`); other encoders and devices run
transformers' own modules over batches with next to no padding. The result is in the order of the input.

A vector does not depend on the sentences beside it beyond the rounding of the matrix products: in float32 the
relative difference is below 1e-5, in bf16 cosines differ by less than 1e-3 from those of float32 (both tested).

Layers are counted as transformers counts hidden_states: 0 is the embedding output. XTREME's scripts count otherwise:
for XLM-R Large their `specific_layer 13` of 24 kept outputs is hidden state 14 here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effstilts.data.batches import cut
from effstilts.errors import DataError, ModelError
from effstilts.kinds.kind import TOKENIZER_CHUNK, collate_inputs
from effstilts.log import Log
from effstilts.model.encoder import Encoder
from effstilts.model.memory import halving
from effstilts.model.packed import PackedEncoder, Precision, refusal, resolve_precision
from effstilts.recipe import How

# Starting a padded batch costs about as much as this many tokens; the cut weighs it against padding.
LAUNCH_TOKENS = 512
# Without padding nothing is gained by larger batches, and these stay in a CPU's cache.
PACKED_TOKENS = 2048


@dataclass(frozen=True)
class Pooling:
    """layer: hidden state. how: mean over tokens, the first token (cls), or the mean weighted by the token's place
    1, 2, ... T (SGPT, arXiv 2202.08904; sentence-transformers' `weightedmean`). special_tokens: whether <s>, </s>
    count; a sentence of special tokens alone keeps them, since a vector of zeros has no direction."""

    layer: int
    how: How = "mean"
    special_tokens: bool = True

    @property
    def name(self) -> str:
        """`layer8-mean`, `layer8-mean-nospecial`: its file's name."""
        bare = self.how != "cls" and not self.special_tokens
        return f"layer{self.layer}-{self.how}" + ("-nospecial" if bare else "")


def protocol_layer(depth: int) -> int:
    """XTREME's layer for Tatoeba: 8 of 12 (mBERT), 14 of 24 (XLM-R Large); two thirds of any other depth."""
    return {12: 8, 24: 14}.get(depth, round(depth * 2 / 3))


def embed(
    encoder: Encoder,
    sentences: Sequence[str],
    pooling: Pooling,
    max_length: int = 512,
    batch_tokens: int = 16384,
    precision: Precision = "fp32",
) -> NDArray[np.float32]:
    """Vectors [sentences, D] in the order of the input. batch_tokens: rows x longest row of a batch at most.

    ModelError for a layer that does not exist, DataError for a vector that is not finite.
    """
    with Embedder(encoder, [pooling], max_length, batch_tokens, precision) as embedder:
        return embedder(sentences).vectors[0]


@dataclass(frozen=True)
class Embedded:
    """vectors: [sentences, D] for each pooling; lengths: tokens of each sentence [sentences]; truncated: sentences
    that were longer than the limit."""

    vectors: list[NDArray[np.float32]]
    lengths: NDArray[np.int64]
    truncated: int


class Embedder:
    """An encoder made ready to embed: a context manager; call it with sentences.

    Poolings may name several layers: one pass gives them all. precision "auto": `resolve_precision`. Where memory runs
    out, the batches are halved from then on.
    """

    def __init__(
        self,
        encoder: Encoder,
        poolings: Sequence[Pooling],
        max_length: int = 512,
        batch_tokens: int = 16384,
        precision: Precision = "auto",
        log: Log = Log(),  # noqa: B008 - without state
    ) -> None:
        if not poolings:
            raise ModelError("no pooling is given: name a layer")
        for pooling in poolings:
            if not 0 <= pooling.layer <= encoder.depth:
                raise ModelError(
                    f"layer {pooling.layer} does not exist: this encoder has hidden states 0 to {encoder.depth}, "
                    "where 0 is the output of the embeddings"
                )
        self.encoder, self.poolings = encoder, list(poolings)
        self.top = max(pooling.layer for pooling in poolings)
        self.max_length = min(max_length, encoder.max_length)
        self.batch_tokens, self.log = batch_tokens, log
        self.precision = resolve_precision(precision, encoder.device)
        self.packed = encoder.device.type == "cpu" and not refusal(encoder)
        ids = encoder.token_ids()
        self._ids = ids
        self._special = torch.tensor([*ids.prefix, *ids.suffix], device=encoder.device)
        self._packed_encoder: PackedEncoder | None = None
        self._was_training = encoder.training

    def __enter__(self) -> Embedder:
        self._was_training = self.encoder.training
        self.encoder.eval()
        if self.packed:
            self._packed_encoder = PackedEncoder(self.encoder, self.top, self.precision, PACKED_TOKENS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._packed_encoder = None
        self.encoder.train(self._was_training)

    def __call__(
        self,
        sentences: Sequence[str],
        advance: Any = None,
        name: Callable[[int], str] = "sentence {} (from 0)".format,
    ) -> Embedded:
        """advance: called with the number of sentences done after each batch. name: of a sentence, for messages.
        DataError for a vector that is not finite."""
        rows, truncated = self._tokenize(sentences)
        lengths = np.array([len(row) for row in rows], np.int64)
        vectors = [np.empty((len(rows), self.encoder.hidden_size), np.float32) for _ in self.poolings]
        done = np.zeros(len(rows), bool)

        def work(tokens: int) -> None:
            if tokens < asked:
                self.batch_tokens = tokens
            left = np.flatnonzero(~done)
            for places in self._batches(lengths[left], tokens):
                part = left[places].tolist()
                pooled = self._packed_batch(rows, part) if self._packed_encoder else self._padded_batch(rows, part)
                for into, pooled_BD in zip(vectors, pooled, strict=True):
                    into[part] = pooled_BD.float().cpu().numpy()
                done[part] = True
                if advance is not None:
                    advance(len(part))

        with torch.inference_mode(), self._ready():
            most = int(lengths.max(initial=1)) * max(1, len(rows))
            limit = min(most, PACKED_TOKENS) if self.packed else most
            asked = min(self.batch_tokens, limit)
            halving(work, asked, int(lengths.min(initial=asked)), "embedding", "tokens", self.log)
        for pooling, values in zip(self.poolings, vectors, strict=True):
            # float64 holds the sum of any finite float32 row, so the sum is finite exactly if the row is.
            bad = ~np.isfinite(values.sum(1, dtype=np.float64))
            if bad.any():
                raise DataError(f"{name(int(np.argmax(bad)))} has a vector that is not finite ({pooling.name})")
        return Embedded(vectors, lengths, truncated)

    def _tokenize(self, sentences: Sequence[str]) -> tuple[list[list[int]], int]:
        rows: list[list[int]] = []
        truncated = 0
        for start in range(0, len(sentences), TOKENIZER_CHUNK):
            part = list(sentences[start : start + TOKENIZER_CHUNK])
            encoded = self.encoder.tokenizer(part, truncation=True, max_length=self.max_length).encodings
            rows += [encoding.ids for encoding in encoded]
            truncated += sum(bool(encoding.overflowing) for encoding in encoded)
        return rows, truncated

    def _batches(self, lengths: NDArray[np.int64], tokens: int) -> Iterator[list[int]]:
        """Indices of the rows of each batch, longest rows first."""
        if self._packed_encoder is None:
            yield from cut(lengths, tokens, LAUNCH_TOKENS)
            return
        order = np.argsort(-lengths, kind="stable")
        budget = min(tokens, PACKED_TOKENS)
        ends = np.cumsum(lengths[order])
        start = 0
        while start < len(order):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + budget, "right")))
            yield order[start:stop].tolist()
            start = stop

    def _packed_batch(self, rows: list[list[int]], part: list[int]) -> list[Tensor]:
        assert self._packed_encoder is not None
        groups = [torch.tensor([rows[i] for i in same]) for _, same in groupby(part, lambda i: len(rows[i]))]
        weights = {p: [self._weights(p, group, None) for group in groups] for p in self.poolings}
        pooled: list[Tensor] = [torch.empty(0)] * len(self.poolings)
        for layer, hidden_ND in enumerate(self._packed_encoder.hidden_states(groups)):
            for place, pooling in enumerate(self.poolings):
                if pooling.layer != layer:
                    continue
                split = torch.split(hidden_ND, [group.numel() for group in groups])
                states = [part_ND.view(*group.shape, -1) for part_ND, group in zip(split, groups, strict=True)]
                pooled[place] = torch.cat([_pool(s, w) for s, w in zip(states, weights[pooling], strict=True)])
        return pooled

    def _padded_batch(self, rows: list[list[int]], part: list[int]) -> list[Tensor]:
        arrays = collate_inputs([rows[i] for i in part], [0] * len(part), self._ids)
        batch = {name: torch.from_numpy(a).to(self.encoder.device) for name, a in arrays.items()}
        states = self.encoder.hidden_states(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        return [
            _pool(states[p.layer].float(), self._weights(p, batch["input_ids"], batch["attention_mask"]))
            for p in self.poolings
        ]

    def _weights(self, pooling: Pooling, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor | None:
        """Weight of each token in float32 [B, T]; None: the first token alone."""
        if pooling.how == "cls":
            return None
        counted_BT = torch.ones_like(ids_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        if not pooling.special_tokens:
            bare_BT = counted_BT & ~torch.isin(ids_BT, self._special)
            counted_BT = torch.where(bare_BT.any(1, keepdim=True), bare_BT, counted_BT)
        weights_BT = counted_BT.float()
        if pooling.how == "weighted":
            weights_BT = weights_BT * torch.arange(1, ids_BT.shape[1] + 1, device=ids_BT.device)
        return weights_BT

    @contextmanager
    def _ready(self) -> Iterator[None]:
        if self._packed_encoder is not None:
            yield
            return
        device = self.encoder.device.type
        with (
            self.encoder.cut_at(self.top),
            torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            yield


def _pool(states_BTD: Tensor, weights_BT: Tensor | None) -> Tensor:
    if weights_BT is None:
        return states_BTD[:, 0]
    return (states_BTD * weights_BT.unsqueeze(-1)).sum(1) / weights_BT.sum(1, keepdim=True)
