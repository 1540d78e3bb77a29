"""Classification of one text or a pair: NLI, paraphrase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from effstilts.data.cache import Rows
from effstilts.evaluation.metrics import accuracy, macro_f1
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


class Classification:
    name = "classification"
    version = 1
    shared_head = ""
    cuts = True
    metrics: tuple[str, ...] = ("accuracy", "macro_f1")

    def encode(self, examples: Sequence[Example], task: Task, tokenizer: Any, max_length: int) -> Columns:
        """Pairs are cut from the end of the longer text first."""
        columns = text_columns() | {"label": []}
        label_ids = {label: i for i, label in enumerate(task.labels)}
        paired = any(example.get("text_pair") is not None for example in examples)
        encodings = tokenize(
            tokenizer,
            [example["text"] for example in examples],
            [example.get("text_pair") or "" for example in examples] if paired else None,
            truncation="longest_first",
            max_length=max_length,
            return_token_type_ids=True,
        )
        for index, (example, encoding) in enumerate(zip(examples, encodings, strict=True)):
            columns["input_ids"].append(encoding.ids)
            columns["second"].append(second_start(encoding))
            columns["example"].append(index)
            columns["label"].append(label_ids.get(example["label"], -1))
        return columns

    def widths(self, rows: Rows) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = rows["input_ids"].lengths
        return lengths

    def collate(self, rows: Rows, indices: Sequence[int], keys: Keys, ids: TokenIds, mask_share: float) -> Arrays:
        arrays = collate_inputs([rows["input_ids"][i] for i in indices], rows["second"][list(indices)], ids)
        return arrays | {"labels": np.asarray(rows["label"][list(indices)], np.int64)}

    def units(self, arrays: Arrays) -> int:
        return len(arrays["labels"])

    def head(self, task: Task, encoder: Encoder, dropout: float) -> nn.Module:
        return SentenceHead(encoder.hidden_size, len(task.labels), dropout)

    def loss(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        scores_BL = head(hidden_states(encoder, batch))
        return functional.cross_entropy(scores_BL.float(), batch["labels"], reduction="sum")

    def outputs(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> list[Any]:
        scores_BL = head(hidden_states(encoder, batch))
        return list(scores_BL.float().cpu().numpy())

    def decode(self, task: Task, examples: Sequence[Example], rows: Rows, outputs: Sequence[Any]) -> list[Any]:
        return [task.labels[int(np.argmax(scores))] for scores in outputs]

    def score(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Example], language: str
    ) -> dict[str, float]:
        gold = [example["label"] for example in examples]
        return {"accuracy": accuracy(predictions, gold), "macro_f1": macro_f1(predictions, gold)}
