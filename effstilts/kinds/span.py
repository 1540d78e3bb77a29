"""Span extraction: SQuAD v1.1 and v2.0, XQuAD, MLQA, TyDiQA-GoldP.

A context longer than fits is cut into overlapping windows (Devlin et al. 2019). A window whose answer lies outside
points at its first token, which also stands for "no answer". Decoding pools the best spans of all windows of a
question; the answer is the exact substring of the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from effstilts.data.cache import Rows
from effstilts.errors import DataError
from effstilts.evaluation.qa_text import mlqa_score, squad_score
from effstilts.kinds.kind import (
    Arrays,
    Columns,
    Example,
    Keys,
    Tensors,
    TokenHead,
    collate_inputs,
    hidden_states,
    second_start,
    text_columns,
    tokenize,
)
from effstilts.model.encoder import Encoder, TokenIds
from effstilts.tasks.task import Task

MAX_QUERY_TOKENS = 64
MAX_ANSWER_TOKENS = 30
BEST_ENDS = 20


class Span:
    name = "span"
    version = 1
    shared_head = ""
    cuts = False
    metrics: tuple[str, ...] = ("f1", "exact_match")

    def encode(self, examples: Sequence[Example], task: Task, tokenizer: Any, max_length: int) -> Columns:
        """`task.stride` is the overlap of two windows in tokens. Character offsets of a window's context tokens are
        kept as `starts` and `ends` (-1 outside the context)."""
        columns = text_columns() | {"starts": [], "ends": [], "start": [], "end": []}
        specials = len(tokenizer("", "")["input_ids"])
        limit = min(MAX_QUERY_TOKENS, (max_length - specials) // 2)
        questions, longest = _clip_questions(tokenizer, [e["question"].strip() for e in examples], limit)
        contexts = [example["context"] for example in examples]
        # A window must advance, whatever the question's length.
        stride = max(0, min(task.stride, (max_length - specials - longest) // 2))
        for begin in range(0, len(examples), 200):
            part = slice(begin, begin + 200)
            batch = tokenizer(
                questions[part],
                contexts[part],
                truncation="only_second",
                max_length=max_length,
                stride=stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_token_type_ids=True,
            )
            for encoding, sample in zip(batch.encodings, batch["overflow_to_sample_mapping"], strict=True):
                index = begin + sample
                inside = np.array([s == 1 for s in encoding.sequence_ids])
                offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
                starts = np.where(inside, offsets[:, 0], -1)
                ends = np.where(inside, offsets[:, 1], -1)
                start, end = _locate(examples[index]["answers"], starts, ends)
                columns["input_ids"].append(encoding.ids)
                columns["second"].append(second_start(encoding))
                columns["example"].append(index)
                columns["starts"].append(starts.tolist())
                columns["ends"].append(ends.tolist())
                columns["start"].append(start)
                columns["end"].append(end)
        return columns

    def widths(self, rows: Rows) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = rows["input_ids"].lengths
        return lengths

    def collate(self, rows: Rows, indices: Sequence[int], keys: Keys, ids: TokenIds, mask_share: float) -> Arrays:
        chosen = list(indices)
        arrays = collate_inputs([rows["input_ids"][i] for i in chosen], rows["second"][chosen], ids)
        width = arrays["input_ids"].shape[1]
        allowed = np.zeros((len(chosen), width), np.int64)
        for place, i in enumerate(chosen):
            allowed[place, : len(rows["starts"][i])] = rows["starts"][i] >= 0
        allowed[:, 0] = 1
        arrays["allowed"] = allowed
        arrays["start"] = np.asarray(rows["start"][chosen], np.int64)
        arrays["end"] = np.asarray(rows["end"][chosen], np.int64)
        return arrays

    def units(self, arrays: Arrays) -> int:
        return len(arrays["start"])

    def head(self, task: Task, encoder: Encoder, dropout: float) -> nn.Module:
        return TokenHead(encoder.hidden_size, 2, dropout)

    def _scores(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        """[B, T, 2], -inf where no answer can begin or end."""
        scores_BT2: Tensor = head(hidden_states(encoder, batch)).float()
        return scores_BT2.masked_fill(batch["allowed"][:, :, None] == 0, -torch.inf)

    def loss(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        """Mean of the start's and the end's cross-entropy, summed over windows."""
        scores_BT2 = self._scores(head, encoder, batch)
        start = functional.cross_entropy(scores_BT2[:, :, 0], batch["start"], reduction="sum")
        end = functional.cross_entropy(scores_BT2[:, :, 1], batch["end"], reduction="sum")
        return (start + end) / 2

    def outputs(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> list[Any]:
        scores = self._scores(head, encoder, batch).cpu().numpy()
        return [row[:length] for row, length in zip(scores, batch["attention_mask"].sum(1).tolist(), strict=True)]

    def decode(self, task: Task, examples: Sequence[Example], rows: Rows, outputs: Sequence[Any]) -> list[Any]:
        """Best span of each example; the empty string where "no answer" scores higher and the task allows it."""
        best: list[tuple[float, int, int] | None] = [None] * len(examples)
        null = [np.inf] * len(examples)
        for row, scores in enumerate(outputs):
            index = int(rows["example"][row])
            null[index] = min(null[index], float(scores[0].sum()))
            found = best_span(scores)
            if found is None:
                continue
            score, start, end = found
            held = best[index]
            if held is None or score > held[0]:
                best[index] = (score, int(rows["starts"][row][start]), int(rows["ends"][row][end]))
        answers = []
        for example, span, no_answer in zip(examples, best, null, strict=True):
            if span is None or (task.no_answer and no_answer > span[0]):
                answers.append("")
            else:
                answers.append(example["context"][span[1] : span[2]])
        return answers

    def score(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Example], language: str
    ) -> dict[str, float]:
        """EM and F1: with SQuAD's English normaliser, as XTREME scores XQuAD and TyDiQA, or with MLQA's."""
        ids = [str(example["id"]) for example in examples]
        if len(set(ids)) != len(ids):
            raise DataError(f"{task.name} ({language}): question ids repeat")
        gold = {i: [a["text"] for a in e["answers"]] for i, e in zip(ids, examples, strict=True)}
        predicted = dict(zip(ids, predictions, strict=True))
        if task.normaliser == "mlqa":
            scores = mlqa_score(predicted, gold, language)
        else:
            scores = squad_score(predicted, gold, no_answer=task.no_answer)
        return {"f1": scores["f1"], "exact_match": scores["exact_match"]}


def best_span(scores: NDArray[np.float32]) -> tuple[float, int, int] | None:
    """The best (score, start, end) of a window's scores [T, 2], the first token aside: start <= end, at most
    MAX_ANSWER_TOKENS tokens, out of the BEST_ENDS best starts and ends. None if no span is allowed."""
    starts = _best(scores[1:, 0]) + 1
    ends = _best(scores[1:, 1]) + 1
    total = scores[starts, 0][:, None] + scores[ends, 1][None, :]
    length = ends[None, :] - starts[:, None] + 1
    total = np.where((length >= 1) & (length <= MAX_ANSWER_TOKENS), total, -np.inf)
    if not total.size or not np.isfinite(total.max()):
        return None
    i, j = np.unravel_index(int(total.argmax()), total.shape)
    return float(total[i, j]), int(starts[i]), int(ends[j])


def _best(values: NDArray[np.float32]) -> NDArray[np.int64]:
    count = min(BEST_ENDS, len(values))
    chosen = np.argpartition(-values, count - 1)[:count] if count else np.zeros(0, np.int64)
    finite: NDArray[np.int64] = chosen[np.isfinite(values[chosen])]
    return np.sort(finite)


def _clip_questions(tokenizer: Any, questions: list[str], limit: int) -> tuple[list[str], int]:
    """Questions cut after `limit` tokens, as the official SQuAD scripts do after 64; and the longest in tokens."""
    clipped, longest = [], 0
    for question, encoding in zip(
        questions, tokenize(tokenizer, questions, None, add_special_tokens=False), strict=True
    ):
        if len(encoding.ids) > limit:
            question = question[: encoding.offsets[limit - 1][1]]
        clipped.append(question)
        longest = max(longest, min(len(encoding.ids), limit))
    return clipped, longest


def _locate(answers: Sequence[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[int, int]:
    """Token positions of the first answer in a window, (0, 0) where it is not wholly inside."""
    if not answers:
        return 0, 0
    begin = int(answers[0]["start"])
    finish = begin + len(answers[0]["text"])
    inside = np.flatnonzero(starts >= 0)
    if not len(inside) or starts[inside[0]] > begin or ends[inside[-1]] < finish:
        return 0, 0
    covering = inside[(ends[inside] > begin) & (starts[inside] < finish)]
    return (int(covering[0]), int(covering[-1])) if len(covering) else (0, 0)
