"""What a kind of task provides, and what its files share.

A kind is one file that holds everything about how such a task works: encode rows, head, loss, decode, metric. The
loop, the cache and the procedure know kinds only through this protocol.

Shapes: B rows, T tokens, D hidden size, C choices, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effstilts.data.batches import pad
from effstilts.data.cache import Rows
from effstilts.model.encoder import Encoder, TokenIds
from effstilts.tasks.task import Task

Example = Mapping[str, Any]
Arrays = dict[str, NDArray[np.int64]]
Tensors = Mapping[str, Tensor]
Columns = dict[str, list[Any]]
Keys = NDArray[np.uint64]

IGNORED = -100
TOKENIZER_CHUNK = 1000


class Kind(Protocol):
    """How a kind of task works.

    version: raised when the encoding changes; part of the cache's key.
    metrics: the names that `score` gives.
    shared_head: name of the head that all tasks of the kind share and that a checkpoint may bring; empty: a fresh
        head for each task.
    cuts: what is longer than `max_length` is cut off, not put into further rows.
    """

    name: str
    version: int
    shared_head: str
    cuts: bool
    metrics: tuple[str, ...]

    def encode(self, examples: Sequence[Example], task: Task, tokenizer: Any, max_length: int) -> Columns:
        """Rows of token ids, and what training and decoding need. One example may give several rows: the column
        `example` holds the index of the example of each row."""
        ...

    def widths(self, rows: Rows) -> NDArray[np.int64]:
        """Tokens that each row takes in a micro-batch, padding aside: [rows]."""
        ...

    def collate(self, rows: Rows, indices: Sequence[int], keys: Keys, ids: TokenIds, mask_share: float) -> Arrays:
        """A padded micro-batch. `keys` [B] seed whatever is drawn at random for a row."""
        ...

    def units(self, arrays: Arrays) -> int:
        """What the loss is averaged over: examples, labelled words, masked tokens."""
        ...

    def head(self, task: Task, encoder: Encoder, dropout: float) -> nn.Module:
        """A fresh head."""
        ...

    def loss(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        """Sum of the losses of the micro-batch's units: a scalar."""
        ...

    def outputs(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> list[Any]:
        """What decoding needs of each row, as numpy arrays or numbers: [B]."""
        ...

    def decode(self, task: Task, examples: Sequence[Example], rows: Rows, outputs: Sequence[Any]) -> list[Any]:
        """One prediction for each example."""
        ...

    def score(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Example], language: str
    ) -> dict[str, float]:
        """The task's metrics in percent, higher is better for `task.score`."""
        ...


def text_columns() -> Columns:
    return {"input_ids": [], "second": [], "example": []}


def tokenize(tokenizer: Any, firsts: Sequence[str], seconds: Sequence[str] | None, **options: Any) -> Iterator[Any]:
    """Tokenises texts or pairs in chunks; yields one encoding (ids, offsets, sequence ids) for each row."""
    for start in range(0, len(firsts), TOKENIZER_CHUNK):
        part = list(firsts[start : start + TOKENIZER_CHUNK])
        pair = None if seconds is None else list(seconds[start : start + TOKENIZER_CHUNK])
        # Not told of long texts, which are cut after that.
        yield from tokenizer(part, pair, verbose=False, **options).encodings


def cut_at_most(columns: Columns, max_length: int) -> int:
    """Examples that take all of `max_length` tokens, of a kind that cuts: all are cut but the few that just fit."""
    lengths = columns.get("lengths") or [[len(row)] for row in columns["input_ids"]]
    return sum(max(row) >= max_length for row in lengths)


def lost_answers(examples: Sequence[Example], columns: Columns) -> int:
    """Examples with an answer that no window of theirs holds whole, so that they are trained as having none."""
    if "start" not in columns:
        return 0
    found = {index for index, start in zip(columns["example"], columns["start"], strict=True) if start > 0}
    return sum(bool(example["answers"]) and index not in found for index, example in enumerate(examples))


def second_start(encoding: Any) -> int:
    """Index of the first token that belongs to segment 2 (by type id, else 0 for none)."""
    types = encoding.type_ids
    return types.index(1) if 1 in types else 0


def collate_inputs(ids: Sequence[Any], seconds: Sequence[int], tokens: TokenIds) -> Arrays:
    """input_ids, attention_mask and token_type_ids [B, T] from lists of token ids."""
    input_ids = pad(ids, tokens.pad)
    lengths = np.array([len(row) for row in ids], np.int64)[:, None]
    places = np.arange(input_ids.shape[1], dtype=np.int64)[None, :]
    attention = (places < lengths).astype(np.int64)
    starts = np.asarray(seconds, np.int64)[:, None]
    types = ((starts > 0) & (places >= starts)).astype(np.int64) * attention
    return {"input_ids": input_ids, "attention_mask": attention, "token_type_ids": types}


def hidden_states(encoder: Encoder, batch: Tensors) -> Tensor:
    """Last hidden states [B, T, D]."""
    out: Tensor = encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], batch.get("positions"))
    return out


class SentenceHead(nn.Module):
    """Dropout, dense, tanh, dropout, linear over the first token's state, as RoBERTa's classification head."""

    def __init__(self, hidden_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, outputs)
        self.dropout = nn.Dropout(dropout)
        initialise(self)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        first_BD = self.dropout(hidden_BTD[:, 0])
        scores: Tensor = self.out(self.dropout(torch.tanh(self.dense(first_BD))))
        return scores


class TokenHead(nn.Module):
    """Dropout and a linear layer over every token's state."""

    def __init__(self, hidden_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.out = nn.Linear(hidden_size, outputs)
        self.dropout = nn.Dropout(dropout)
        initialise(self)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        scores: Tensor = self.out(self.dropout(hidden_BTD))
        return scores


def initialise(module: nn.Module, spread: float = 0.02) -> None:
    """BERT's initialisation: normal(0, 0.02) weights, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=spread)
            nn.init.zeros_(part.bias)
