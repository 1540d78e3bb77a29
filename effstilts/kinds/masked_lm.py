"""Masked language modelling (Devlin et al. 2019), and translation LM on pairs (Conneau and Lample 2019).

In a pair the second text's positions begin anew, as in section 3.2 there, so that a word and its translation stand at
like positions: a small model finds the alignment several times sooner.

Of a row's tokens `mask_share` are predicted: 80 % of them are replaced by the mask token, 10 % by a random piece,
10 % stay. What is drawn is a function of the row's key alone, so it does not change with the batch's cut, and differs
from epoch to epoch. Logits over the vocabulary are computed at the predicted places only.
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
from effstilts.data.order import uniform
from effstilts.errors import DataError, ModelError
from effstilts.kinds.kind import (
    IGNORED,
    Arrays,
    Columns,
    Example,
    Keys,
    Tensors,
    collate_inputs,
    hidden_states,
    initialise,
    second_start,
    text_columns,
    tokenize,
)
from effstilts.model.encoder import Encoder, TokenIds
from effstilts.tasks.task import Task

# Where embeddings are narrower than hidden states and transformers' own head is of this form, its dense layer between.
_NARROW_HEADS = ("electra", "convbert")


class MaskedLMHead(nn.Module):
    """Dense, gelu, LayerNorm, then the transposed input embedding (tied) plus a bias.

    width: of the embedding, smaller than the hidden state where a model factors it (ELECTRA).
    """

    def __init__(self, hidden_size: int, width: int, vocabulary: int, epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        initialise(self)

    def forward(self, hidden_ND: Tensor, embedding_VD: Tensor) -> Tensor:
        return functional.linear(self.norm(functional.gelu(self.dense(hidden_ND))), embedding_VD, self.bias)


class MaskedLM:
    name = "masked_lm"
    version = 2
    shared_head = "masked_lm"
    cuts = False
    metrics: tuple[str, ...] = ("accuracy", "loss", "perplexity")

    def encode(self, examples: Sequence[Example], task: Task, tokenizer: Any, max_length: int) -> Columns:
        """A text longer than `max_length` becomes several rows; a pair is cut from the end of the longer side."""
        columns = text_columns() | {"restart": []}
        paired = any(example.get("text_pair") is not None for example in examples)
        if paired:
            encodings = tokenize(
                tokenizer,
                [example["text"] for example in examples],
                [example.get("text_pair") or "" for example in examples],
                truncation="longest_first",
                max_length=max_length,
                return_token_type_ids=True,
            )
            for index, encoding in enumerate(encodings):
                # Told by the sequence and not by the type ids, which XLM-R's tokenizer leaves at 0.
                of_second = [sequence == 1 for sequence in encoding.sequence_ids]
                restart = of_second.index(True) if any(of_second) else 0
                _append(columns, index, encoding.ids, second_start(encoding), restart)
            return columns
        around = list(tokenizer("")["input_ids"])
        room = max_length - len(around)
        texts = tokenize(tokenizer, [example["text"] for example in examples], None, add_special_tokens=False)
        for index, encoding in enumerate(texts):
            for start in range(0, len(encoding.ids), room):
                _append(columns, index, around[:1] + encoding.ids[start : start + room] + around[1:], 0, 0)
        if not columns["input_ids"]:
            raise DataError(f"{task.name}: its {len(examples)} texts hold no token")
        return columns

    def widths(self, rows: Rows) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = rows["input_ids"].lengths
        return lengths

    def collate(self, rows: Rows, indices: Sequence[int], keys: Keys, ids: TokenIds, mask_share: float) -> Arrays:
        """`labels` [B, T]: the true piece at predicted places, -100 elsewhere."""
        if ids.mask is None:
            raise ModelError("masked-LM training needs a tokenizer with a mask token")
        arrays = collate_inputs([rows["input_ids"][i] for i in indices], rows["second"][list(indices)], ids)
        clean = arrays["input_ids"]
        eligible = ~np.isin(clean, ids.special) & (arrays["attention_mask"] == 1)
        width = clean.shape[1]
        # Drawn in the order (token, purpose), so that a wider padding does not change a token's draws.
        draws = uniform(np.asarray(keys, np.uint64), 3 * width).reshape(len(indices), width, 3)
        chance = np.where(eligible, draws[:, :, 0], 2.0)
        chosen = chance < mask_share
        nothing = ~chosen.any(1) & eligible.any(1)
        chosen[nothing, chance[nothing].argmin(1)] = True
        masked = chosen & (draws[:, :, 1] < 0.8)
        swapped = chosen & (draws[:, :, 1] >= 0.9)
        noisy = np.where(masked, ids.mask, clean)
        noisy = np.where(swapped, (draws[:, :, 2] * ids.vocabulary).astype(np.int64), noisy)
        arrays |= {"input_ids": noisy, "labels": np.where(chosen, clean, IGNORED)}
        return arrays | _restarted(rows["restart"][list(indices)], width)

    def units(self, arrays: Arrays) -> int:
        return int((arrays["labels"] != IGNORED).sum())

    def head(self, task: Task, encoder: Encoder, dropout: float) -> nn.Module:
        epsilon = float(getattr(encoder.config, "layer_norm_eps", 1e-12))
        width = encoder.embedding.shape[1]
        if width != encoder.hidden_size and encoder.config.model_type not in _NARROW_HEADS:
            raise ModelError(
                f"masked LM ties its output to the embeddings: of {encoder.config.model_type} they have {width} "
                f"dimensions and the hidden states {encoder.hidden_size}: not supported"
            )
        return MaskedLMHead(encoder.hidden_size, width, int(encoder.config.vocab_size), epsilon)

    def _scores(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, V], true pieces [N] and places [B, T] of the N predicted tokens."""
        hidden_BTD = hidden_states(encoder, batch)
        chosen_BT = batch["labels"] != IGNORED
        logits: Tensor = head(hidden_BTD[chosen_BT], encoder.embedding)
        return logits.float(), batch["labels"][chosen_BT], chosen_BT

    def loss(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> Tensor:
        logits_NV, labels_N, _ = self._scores(head, encoder, batch)
        return functional.cross_entropy(logits_NV, labels_N, reduction="sum")

    def outputs(self, head: nn.Module, encoder: Encoder, batch: Tensors) -> list[Any]:
        """(loss sum in nats, correct, predicted) of each row."""
        logits_NV, labels_N, chosen_BT = self._scores(head, encoder, batch)
        losses = functional.cross_entropy(logits_NV, labels_N, reduction="none")
        right = (logits_NV.argmax(-1) == labels_N).float()
        row_of = chosen_BT.nonzero()[:, 0]
        table = torch.zeros(len(chosen_BT), 3, device=losses.device)
        table.index_add_(0, row_of, torch.stack([losses, right, torch.ones_like(right)], 1))
        return list(table.cpu().numpy())

    def decode(self, task: Task, examples: Sequence[Example], rows: Rows, outputs: Sequence[Any]) -> list[Any]:
        return [[float(x) for x in row] for row in outputs]

    def score(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Example], language: str
    ) -> dict[str, float]:
        """accuracy of the predicted tokens in percent, loss in nats a token, perplexity."""
        loss, right, count = np.asarray(predictions, np.float64).sum(0)
        mean = loss / max(count, 1.0)
        return {"accuracy": 100.0 * right / max(count, 1.0), "loss": mean, "perplexity": float(np.exp(mean))}


def _restarted(restarts: NDArray[np.int64], width: int) -> Arrays:
    """`positions` [B, T] that begin anew at each second text, where the first text's began; none for single texts."""
    if not restarts.any():
        return {}
    places = np.arange(width, dtype=np.int64)[None, :]
    starts = restarts.astype(np.int64)[:, None]
    return {"positions": np.where((starts > 0) & (places >= starts), places - starts + 1, places)}


def _append(columns: Columns, index: int, ids: list[int], second: int, restart: int) -> None:
    columns["input_ids"].append(ids)
    columns["second"].append(second)
    columns["restart"].append(restart)
    columns["example"].append(index)
