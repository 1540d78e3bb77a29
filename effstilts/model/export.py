"""An encoder for other libraries: cut at a layer, as a plain transformers folder or a sentence-transformers model.

Written by hand in the form that every sentence-transformers since 2.0 reads, so that the package itself is not needed:
`modules.json` names a Transformer (this folder) and a Pooling (`1_Pooling`). No normalisation is added: the vectors are
those of `effstilts.retrieval.embed`, compared by cosine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from effstilts.errors import ModelError
from effstilts.log import Log
from effstilts.model.encoder import Encoder
from effstilts.model.files import read_document, read_json
from effstilts.model.names import known_file, located
from effstilts.model.opening import LM_HEADS, save, write_model
from effstilts.model.quiet import quiet_transformers
from effstilts.recipe import How

_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
# Of `sentence_{}_config.json`, which older versions named by the architecture.
_LENGTH_OF = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_WAYS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_WAY_OF: dict[How, str] = {"mean": "mean_tokens", "cls": "cls_token", "weighted": "weightedmean_tokens"}


def save_cut(encoder: Encoder, folder: Path, layer: int, dtype: torch.dtype = torch.float32) -> None:
    """Writes the blocks up to `layer` with config and tokenizer; AutoModel's last hidden state is then that layer.

    ModelError for a layer outside the model, or 0: the embedding output alone is no model of transformers'.
    """
    if layer == 0:
        raise ModelError("layer 0 is the embedding output: there is no block to export, take layer 1 or higher")
    whole = encoder.depth
    with encoder.cut_at(layer):
        try:
            encoder.config.num_hidden_layers = layer
            save(encoder, folder, dtype)
        finally:
            encoder.config.num_hidden_layers = whole


def save_sentence_transformers(
    encoder: Encoder,
    folder: Path,
    layer: int,
    how: How = "mean",
    special_tokens: bool = True,
    max_length: int = 512,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a model whose `encode` gives the vectors of `embed` with this pooling.

    max_length: tokens read, specials included. ModelError for a mean without <s> and </s>, which
    sentence-transformers cannot express.
    """
    if how != "cls" and not special_tokens:
        raise ModelError(
            "sentence-transformers cannot leave <s> and </s> out of a mean; export with special tokens, or --as "
            "transformers"
        )
    save_cut(encoder, folder, layer, dtype)
    pooling: dict[str, Any] = {"word_embedding_dimension": encoder.hidden_size, "include_prompt": True}
    pooling |= {f"pooling_mode_{way}": way == _WAY_OF[how] for way in _WAYS}
    _write(folder / "modules.json", _MODULES)
    _write(
        folder / "sentence_bert_config.json",
        {"max_seq_length": min(max_length, encoder.max_length), "do_lower_case": False},
    )
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    _write(folder / "1_Pooling" / "config.json", pooling)


def declared_pooling(name: str, revision: str = "", offline: bool = False) -> How | None:
    """How a sentence-transformers model, in a folder or on the hub, pools its last hidden state; None for a model that
    is none. What of it has no counterpart here is said. ModelError for a declaration that cannot be read."""
    source, _ = located(name)
    path = known_file(source, "modules.json", revision, offline)
    if path is None:
        return None
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path}: expected a list of modules")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        Log().warn(f"{name}: it is made of {', '.join(kinds) or 'nothing'}; its encoder is taken, at the default layer")
        return None
    if others := [kind for kind in kinds[2:] if kind != "Normalize"]:
        Log().warn(f"{name}: its {', '.join(others)} is left out: the vectors are those of its encoder")
    place = modules[1].get("path")
    if not isinstance(place, str) or place != Path(place).name:
        raise ModelError(f"{path}: {str(place)[:100]!r} is no folder of this model")
    path = known_file(source, f"{place}/config.json", revision, offline)
    config = read_document(path) if path is not None else {}
    ways = [way for way in _WAYS if config.get(f"pooling_mode_{way}") is True]
    if (mode := config.get("pooling_mode")) is not None:  # as newer versions write it
        ways = [way for way in _WAYS if way.rsplit("_", 1)[0] == mode] or [str(mode)]
    how = next((how for how, way in _WAY_OF.items() if (ways or ["mean_tokens"]) == [way]), None)
    if how is None:
        Log().warn(f"{name}: it pools by {' and '.join(ways)}, which is not known here; the mean is taken")
    return how or "mean"


def declared_length(name: str, revision: str = "", offline: bool = False) -> int | None:
    """Tokens that a sentence-transformers model reads of a sentence; None where it leaves that to the tokenizer, as
    newer versions write it. ModelError for a declaration that cannot be read."""
    for kind in _LENGTH_OF:
        path = known_file(located(name)[0], f"sentence_{kind}_config.json", revision, offline)
        if path is None:
            continue
        longest = read_document(path).get("max_seq_length")
        if type(longest) is int and longest >= 3:
            return longest
        if longest is not None:
            Log().warn(f"{name}: its max_seq_length is {str(longest)[:60]}, which is no length; the tokenizer's counts")
        return None
    return None


def save_masked_lm(
    encoder: Encoder, head: Mapping[str, Tensor], folder: Path, dtype: torch.dtype = torch.float32
) -> None:
    """Writes encoder and masked-LM head so that plain transformers' AutoModelForMaskedLM loads them, and `load` and
    `masked_lm_head` of `model.encoder`. head: as that gives it."""
    import copy

    from transformers import AutoModelForMaskedLM

    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        whole = AutoModelForMaskedLM.from_config(copy.deepcopy(encoder.config))
    odd = whole.base_model.load_state_dict(encoder.backbone.state_dict(), strict=False)
    if odd.missing_keys:
        raise ModelError(f"{type(whole).__name__}: the encoder has no {odd.missing_keys[0]}")
    state = whole.state_dict()
    for dense, norm, biases in LM_HEADS:
        if f"{dense}.weight" in state:
            theirs = {"norm.weight": f"{norm}.weight", "norm.bias": f"{norm}.bias"}
            theirs |= {name: f"{dense}.{name.partition('.')[2]}" for name in ("dense.weight", "dense.bias")}
            for ours, tensor in head.items():
                for name in biases if ours == "bias" else (theirs[ours],):
                    if name in state and state[name].shape != tensor.shape:
                        raise ModelError(
                            f"{type(whole).__name__}: its {name} is {list(state[name].shape)}, that of the head here "
                            f"{list(tensor.shape)}"
                        )
                    if name in state:
                        state[name].copy_(tensor)
            break
    else:
        raise ModelError(f"{type(whole).__name__}: its masked-LM head is of no known form")
    # Tied tensors are kept once, the embedding under the encoder's name.
    names = sorted(state, key=lambda name: name.startswith(f"{whole.base_model_prefix}."))
    kept = {state[name].data_ptr(): name for name in names}
    write_model(
        encoder, folder, type(whole).__name__, {name: state[name] for name in state if name in kept.values()}, dtype
    )


# Kind of task -> transformers' class for it.
_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "choice": "AutoModelForMultipleChoice",
    "tagging": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
}
# Where transformers' models keep what is `dense` (before tanh) and `out` here.
_DENSE = ("classifier.dense", "pooler.dense")
_OUT = ("classifier.out_proj", "classifier", "qa_outputs")


def save_with_head(
    encoder: Encoder,
    kind: str,
    head: Mapping[str, Tensor],
    labels: Sequence[str],
    folder: Path,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Writes encoder and head of a target so that plain transformers' class for that kind of task loads them and gives
    the same logits; returns the class' name. labels: in the order of the head's outputs; none for spans and choices.

    ModelError where transformers' head of this architecture is another function: its DistilBERT has a ReLU.
    """
    import copy

    import transformers

    config = copy.deepcopy(encoder.config)
    if labels:
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    elif kind == "span":
        config.num_labels = 2
    # DeBERTa's head asks the config; the others' pooler is a tanh.
    config.pooler_hidden_act = "tanh"
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        whole = getattr(transformers, _CLASSES[kind]).from_config(config)
    prefix = f"{whole.base_model_prefix}."
    state, ours = whole.state_dict(), encoder.backbone.state_dict()
    placed: dict[str, Tensor] = {prefix + name: tensor for name, tensor in ours.items() if prefix + name in state}
    for part, places in (("dense", _DENSE), ("out", _OUT)):
        at = next((at for place in places for at in (place, prefix + place) if f"{at}.weight" in state), None)
        if f"{part}.weight" in head and at is not None:
            placed |= {f"{at}.{end}": head[f"{part}.{end}"] for end in ("weight", "bias")}
    odd = [name for name in state if name not in placed or placed[name].shape != state[name].shape]
    if odd or len(head) != sum(not name.startswith(prefix) or "pooler." in name for name in placed):
        raise ModelError(
            f"{type(whole).__name__} has another head than this model was trained with ({odd[0] if odd else 'no dense'}"
            "): export its encoder alone"
        )
    whole.load_state_dict(placed)
    _require_same_logits(encoder, whole.eval(), kind, head)
    write_model(Encoder(whole, encoder.tokenizer), folder, type(whole).__name__, placed, dtype)
    return type(whole).__name__


@torch.no_grad()
def _require_same_logits(encoder: Encoder, whole: Any, kind: str, head: Mapping[str, Tensor]) -> None:
    """ModelError where the other head is another function of the same numbers: an activation is no tensor."""
    ids = torch.arange(8).reshape(2, 4) % len(encoder.embedding)
    was_training, mask = encoder.training, torch.ones_like(ids)
    hidden = encoder.eval()(ids, mask)
    encoder.train(was_training)
    if "dense.weight" in head:
        hidden = torch.tanh(functional.linear(hidden[:, 0], head["dense.weight"], head["dense.bias"]))
    ours = functional.linear(hidden, head["out.weight"], head["out.bias"])
    if kind == "choice":
        theirs = whole(input_ids=ids[None], attention_mask=mask[None]).logits[0][:, None]
    else:
        found = whole(input_ids=ids, attention_mask=mask)
        theirs = torch.stack([found.start_logits, found.end_logits], -1) if kind == "span" else found.logits
    if not torch.allclose(theirs, ours, atol=1e-4, rtol=1e-3):
        raise ModelError(
            f"{type(whole).__name__} has another head than this model was trained with (its activation): export its "
            "encoder alone"
        )


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
