"""Multiple choice: each choice is paired with the prompt, scored by one number, and the scores compete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from effstilts.data.cache import Rows
from effstilts.evaluation.metrics import accuracy
from effstilts.kinds.kind import (
    Arrays,
    Columns,
    Example,
    Keys,
    SentenceHead,
    Tensors,
    collate_inputs,
    hidden_states,
    second_start,
    text_columns,
    tokenize,
)
from effstilts.model.encoder import Encoder, TokenIds
from effstilts.tasks.task import Task


class Choice:
    name = "choice"
    version = 1
    shared_head = ""
    cuts = True
    metrics: tuple[str, ...] = ("accuracy",)

    def encode(self, examples: Sequence[Example], task: Task, tokenizer: Any, max_length: int) -> Columns:
        """One row an example: the token ids of its choices one after another, and the length of each."""
        columns = text_columns() | {"lengths": [], "seconds": [], "label": []}
        prompts = [example["prompt"] for example in examples for _ in example["choices"]]
        choices = [choice for example in examples for choice in example["choices"]]
        encodings = tokenize(
            tokenizer,
            prompts,
            choices,
            truncation="longest_first",
            max_length=max_length,
            return_token_type_ids=True,
        )
        for index, example in enumerate(examples):
            parts = [next(encodings) for _ in example["choices"]]
            columns["input_ids"].append([token for part in parts for token in part.ids])
            columns["lengths"].append([len(part.ids) for part in parts])
            columns["seconds"].append([second_start(part) for part in parts])
            columns["second"].append(0)
            columns["example"].append(index)
            columns["label"].append(-1 if example["label"] is None else example["label"])
        return columns

    def widths(self, rows: Rows) -> NDArray[np.int64]:
        """Choices times the longest of them."""
        return np.array([len(lengths) * int(lengths.max()) for lengths in rows["lengths"]], np.int64)

    def collate(self, rows: Rows, indices: Sequence[int], keys: Keys, ids: TokenIds, mask_share: float) -> Arrays:
        """Choices of all rows are stacked: input_ids [sum of C, T]; `counts` [B] says how many belong to a row."""
        texts, seconds = [], []
        for i in indices:
            ends = np.cumsum(rows["lengths"][i])
            texts += np.split(rows["input_ids"][i], ends[:-1])
            seconds += rows["seconds"][i].tolist()
        arrays = collate_inputs(texts, seconds, ids)
        arrays["counts"] = np.array([len(rows["lengths"][i]) for i in indices], np.int64)
        arrays["labels"] = np.asarray(rows["label"][list(indices)], np.int64)
        return arrays

    def units(self, arrays: Arrays) -> int:
        return len(arrays["labels"])

    def head(self, task: Task, encoder: Encoder, dropout: float) -> nn.Module:
        return SentenceHead(encoder.hidden_size, 1, dropout)

    def _scores(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        """[B, largest C], -inf where a row has fewer choices."""
        flat = head(hidden_states(encoder, batch)).squeeze(-1).float()
        parts = torch.split(flat, batch["counts"].tolist())
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=-torch.inf)

    def loss(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        return functional.cross_entropy(self._scores(head, encoder, batch), batch["labels"], reduction="sum")

    def outputs(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> list[Any]:
        return list(self._scores(head, encoder, batch).cpu().numpy())

    def decode(self, task: Task, examples: Sequence[Example], rows: Rows, outputs: Sequence[Any]) -> list[Any]:
        return [int(np.argmax(scores)) for scores in outputs]

    def score(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Example], language: str
    ) -> dict[str, float]:
        return {"accuracy": accuracy(predictions, [example["label"] for example in examples])}
