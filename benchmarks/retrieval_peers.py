"""What people use today, called as they call it: the other side of `retrieval_speed.py`.

sentence-transformers is called through its public API, and so is mteb where it is installed (`pip install mteb`: it is
in no extra of this package). google-research/xtreme's scripts do not install; their procedure is followed step by step:
`third_party/evaluate_retrieval.py` (tokens one sentence at a time, batches of 100 in file order, every layer kept and
pooled) and `third_party/utils_retrieve.py` (faiss flat in each direction, a Python
loop over sentences and candidates, a greedy one-to-one selection with sets), which is the mining of LASER's
`source/mine_bitexts.py`. LASER's own encoder is another model, and needs fairseq: not the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from effstilts.model.quiet import quiet_transformers


class _OneLayer(nn.Module):
    """Makes sentence-transformers' pooling see one hidden state, as its users do: all layers are computed and kept."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        features["token_embeddings"] = features["all_layer_embeddings"][self.layer]
        return features


def _pooled_model(folder: Path, layer: int = -1) -> Any:
    """A SentenceTransformer of the mean over one hidden state; layer -1: the last."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    options: dict[str, Any] = {} if layer < 0 else {"config_kwargs": {"output_hidden_states": True}}
    with quiet_transformers():
        body = Transformer(str(folder), **options)
    width = int(body.auto_model.config.hidden_size)
    picked = [] if layer < 0 else [_OneLayer(layer)]
    return SentenceTransformer(modules=[body, *picked, Pooling(width, "mean")], device="cpu")


def sentence_transformer(folder: Path, layer: int = -1) -> Callable[[Sequence[str]], np.ndarray]:
    """encode() with its defaults: batches of 32, longest first, float32. layer -1: the last."""
    model = _pooled_model(folder, layer)
    return lambda sentences: model.encode(list(sentences), show_progress_bar=False)


def mteb_tatoeba(folder: Path) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """mteb's bitext evaluator with its own wrapper of sentence-transformers and its batches: of each English line the
    nearest foreign one. Its evaluator is no public name: written for mteb 2.26."""
    import mteb
    from datasets import Dataset
    from mteb._evaluators.text.bitext_mining_evaluator import BitextMiningEvaluator
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from mteb.timing import TimingStack

    model = SentenceTransformerEncoderWrapper(_pooled_model(folder))
    metadata = mteb.get_task("Tatoeba").metadata

    def run(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        foreign, english = zip(*pairs, strict=True)
        lines = Dataset.from_dict({"sentence1": foreign, "sentence2": english})
        evaluator = BitextMiningEvaluator(
            lines, metadata, "test", "default", [("sentence2", "sentence1")], timer=TimingStack()
        )
        options = {"batch_size": 32, "show_progress_bar": False}
        (found,) = evaluator(model, encode_kwargs=options).values()
        return np.array([row["corpus_id"] for row in found])

    return run


def xtreme_embed(encoder: Any, layers: int, batch: int = 100) -> Callable[[Sequence[str]], list[np.ndarray]]:
    """Mean-pooled vectors of each of the last `layers` hidden states."""
    tokenizer, model = encoder.tokenizer, encoder.backbone

    def run(sentences: Sequence[str]) -> list[np.ndarray]:
        model.eval()
        pieces = [tokenizer.tokenize(sentence.strip()) for sentence in sentences]
        out = [np.zeros((len(pieces), encoder.hidden_size), np.float32) for _ in range(layers)]
        limit = encoder.max_length - 2
        for start in range(0, len(pieces), batch):
            part = [piece[:limit] for piece in pieces[start : start + batch]]
            width = max(map(len, part)) + 2
            rows = [tokenizer.convert_tokens_to_ids([tokenizer.cls_token, *p, tokenizer.sep_token]) for p in part]
            ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            with torch.no_grad():
                states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            for into, state in zip(out, states[-layers:], strict=True):
                pooled = (state * mask.unsqueeze(2).float()).sum(1) / mask.sum(1).view(-1, 1).float()
                into[start : start + batch] = pooled.numpy()
        return out

    return run


def faiss_flat(x: np.ndarray, y: np.ndarray, count: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Both directions: an index of each side, float32."""
    import faiss

    results = []
    for queries, database in ((x, y), (y, x)):
        index = faiss.IndexFlatIP(database.shape[1])
        index.add(database)
        results.append(index.search(queries, count))
    return results[0], results[1]


def semantic_search(x: np.ndarray, y: np.ndarray, count: int) -> None:
    """sentence-transformers' search, both directions; mteb's bitext evaluator is derived from the same loop."""
    from sentence_transformers import util

    for queries, database in ((x, y), (y, x)):
        util.semantic_search(torch.from_numpy(queries), torch.from_numpy(database), top_k=count)


def xtreme_mine(x: np.ndarray, y: np.ndarray, count: int = 4) -> list[tuple[int, int, float]]:
    """Ratio margin, `max` retrieval, without the files around it: LASER's and XTREME's. x, y: vectors of length 1."""
    (x_sim, x_ind), (y_sim, y_ind) = faiss_flat(x, y, count)
    x_mean, y_mean = x_sim.mean(axis=1), y_sim.mean(axis=1)

    def score(one: Any, other: Any, found: Any, one_mean: Any, other_mean: Any) -> np.ndarray:
        scores = np.zeros(found.shape)
        for i in range(scores.shape[0]):
            for j in range(scores.shape[1]):
                k = found[i, j]
                scores[i, j] = one[i].dot(other[k]) / ((one_mean[i] + other_mean[k]) / 2)
        return scores

    forward, backward = score(x, y, x_ind, x_mean, y_mean), score(y, x, y_ind, y_mean, x_mean)
    x_best = x_ind[np.arange(len(x)), forward.argmax(axis=1)]
    y_best = y_ind[np.arange(len(y)), backward.argmax(axis=1)]
    pairs = np.stack((np.concatenate((np.arange(len(x)), y_best)), np.concatenate((x_best, np.arange(len(y))))), axis=1)
    scores = np.concatenate((forward.max(axis=1), backward.max(axis=1)))
    seen_x: set[int] = set()
    seen_y: set[int] = set()
    mined = []
    for i in np.argsort(-scores):
        source, target = pairs[i]
        if source not in seen_x and target not in seen_y:
            seen_x.add(source)
            seen_y.add(target)
            mined.append((int(source), int(target), float(scores[i])))
    return mined
