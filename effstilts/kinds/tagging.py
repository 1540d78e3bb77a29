"""Word-level tagging: POS, NER, CCG supertags.

A word's tag sits on its first subword. A sentence with more subwords than fit is split at word borders into several
rows and put together again when decoded (the preprocessing of XTREME's PAN-X and UDPOS); a word that the tokenizer
turns into nothing is one unknown token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from effstilts.data.batches import pad
from effstilts.data.cache import Rows
from effstilts.evaluation.metrics import span_f1, tag_accuracy
from effstilts.kinds.kind import (
    IGNORED,
    TOKENIZER_CHUNK,
    Arrays,
    Columns,
    Example,
    Keys,
    Tensors,
    TokenHead,
    collate_inputs,
    hidden_states,
    text_columns,
)
from effstilts.model.encoder import Encoder, TokenIds
from effstilts.tasks.task import Task


class Tagging:
    name = "tagging"
    version = 1
    shared_head = ""
    cuts = False
    metrics: tuple[str, ...] = ("f1", "precision", "recall", "accuracy")

    def encode(self, examples: Sequence[Example], task: Task, tokenizer: Any, max_length: int) -> Columns:
        columns = text_columns() | {"places": [], "tags": []}
        around = list(tokenizer("")["input_ids"])
        prefix, suffix = around[:1], around[1:]
        room = max_length - len(around)
        pieces = _word_pieces(tokenizer, {word for example in examples for word in example["tokens"]})
        tag_ids = {tag: i for i, tag in enumerate(task.labels)}
        for index, example in enumerate(examples):
            words = example["tokens"]
            tags = example["tags"] or [None] * len(words)
            ids: list[int] = []
            places: list[int] = []
            own_tags: list[int] = []
            for word, tag in zip(words, tags, strict=True):
                piece = pieces[word][:room]
                if ids and len(ids) + len(piece) > room:
                    _close(columns, index, prefix + ids + suffix, places, own_tags)
                    ids, places, own_tags = [], [], []
                places.append(len(prefix) + len(ids))
                own_tags.append(tag_ids.get(tag, IGNORED))
                ids += piece
            _close(columns, index, prefix + ids + suffix, places, own_tags)
        return columns

    def widths(self, rows: Rows) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = rows["input_ids"].lengths
        return lengths

    def collate(self, rows: Rows, indices: Sequence[int], keys: Keys, ids: TokenIds, mask_share: float) -> Arrays:
        """`places` [B, W]: the first subword of each word, 0 beyond the last; `labels` [B, W]."""
        arrays = collate_inputs([rows["input_ids"][i] for i in indices], [0] * len(indices), ids)
        arrays["places"] = pad([rows["places"][i] for i in indices], 0)
        arrays["labels"] = pad([rows["tags"][i] for i in indices], IGNORED)
        arrays["words"] = np.array([len(rows["places"][i]) for i in indices], np.int64)
        return arrays

    def units(self, arrays: Arrays) -> int:
        return int((arrays["labels"] != IGNORED).sum())

    def head(self, task: Task, encoder: Encoder, dropout: float) -> nn.Module:
        return TokenHead(encoder.hidden_size, len(task.labels), dropout)

    def _scores(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        hidden_BTD = hidden_states(encoder, batch)
        places_BW = batch["places"]
        words_BWD = hidden_BTD.gather(1, places_BW[:, :, None].expand(-1, -1, hidden_BTD.shape[-1]))
        scores_BWL: Tensor = head(words_BWD)
        return scores_BWL.float()

    def loss(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        scores_BWL = self._scores(head, encoder, batch)
        return functional.cross_entropy(
            scores_BWL.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def outputs(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> list[Any]:
        best_BW = self._scores(head, encoder, batch).argmax(-1).cpu().numpy()
        counts = batch["words"].tolist()
        return [best[:count] for best, count in zip(best_BW, counts, strict=True)]

    def decode(self, task: Task, examples: Sequence[Example], rows: Rows, outputs: Sequence[Any]) -> list[Any]:
        predictions: list[list[str]] = [[] for _ in examples]
        for index, tags in zip(rows["example"], outputs, strict=True):
            predictions[int(index)] += [task.labels[int(tag)] for tag in tags]
        return predictions

    def score(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Example], language: str
    ) -> dict[str, float]:
        gold = [example["tags"] for example in examples]
        spans = span_f1(predictions, gold)
        return {
            "f1": spans.f1,
            "precision": spans.precision,
            "recall": spans.recall,
            "accuracy": tag_accuracy(predictions, gold),
        }


def _close(columns: Columns, index: int, ids: list[int], places: list[int], tags: list[int]) -> None:
    columns["input_ids"].append(ids)
    columns["second"].append(0)
    columns["example"].append(index)
    columns["places"].append(places)
    columns["tags"].append(tags)


def _word_pieces(tokenizer: Any, words: set[str]) -> dict[str, list[int]]:
    """Token ids of each word on its own; the unknown token where there are none."""
    ordered = sorted(words)
    pieces: dict[str, list[int]] = {}
    for start in range(0, len(ordered), TOKENIZER_CHUNK):
        part = ordered[start : start + TOKENIZER_CHUNK]
        for word, ids in zip(part, tokenizer(part, add_special_tokens=False)["input_ids"], strict=True):
            pieces[word] = list(ids) or [tokenizer.unk_token_id]
    return pieces
