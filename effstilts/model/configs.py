"""Configs of encoders, by their fields, and untrained models of them.

What makes no encoder is refused here in one line, before a training of hours ends in a checkpoint that nobody can open.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from effstilts.errors import ModelError, did_you_mean, said_by
from effstilts.model.encoder import Encoder
from effstilts.model.quiet import quiet_transformers

# Room for the special tokens around two texts, a question and the overlap of windows; less panics in tokenizers.
_FEWEST_POSITIONS = 16
# Fields of a config that count something, and the fewest that there must be.
_FEWEST = {
    **dict.fromkeys(("vocab_size", "hidden_size", "embedding_size", "dim", "num_attention_heads", "n_heads"), 1),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "max_position_embeddings"), 1),
    **dict.fromkeys(("num_hidden_layers", "n_layers"), 0),
}
# Fields that a model reads but its config class does not declare.
_UNDECLARED_FIELDS = {
    "deberta-v2": {"position_buckets", "share_att_key", "norm_rel_ebd", "conv_kernel_size", "conv_act"},
}
_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError, AssertionError)


def masked_lm_types() -> set[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)


def config_of(config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Any:
    """The config of an architecture by its fields; ModelError for one that it does not have, or that is no encoder.

    defaults: of fields that count where the architecture has them.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    fields = dict(config)
    model_type = str(fields.pop("model_type"))
    for name, fewest in _FEWEST.items():
        if type(fields.get(name)) is int and fields[name] < fewest:
            raise ModelError(f"model.config: {name} is {fields[name]}, at least {fewest} is needed")
    if model_type not in masked_lm_types():
        hint = did_you_mean(model_type, masked_lm_types())
        raise ModelError(f"model.config: {model_type!r} is no masked-LM architecture of transformers{hint}")
    with quiet_transformers():
        known = set(AutoConfig.for_model(model_type).to_dict()) | _UNDECLARED_FIELDS.get(model_type, set())
        for name in fields:
            if name not in known:
                raise ModelError(f"model.config: {model_type} has no field {name!r}{did_you_mean(name, known)}")
        try:
            own = {name: value for name, value in (defaults or {}).items() if name in known}
            built = AutoConfig.for_model(model_type, **{**own, **fields})
        except (*_ERRORS, StrictDataclassError) as error:
            raise ModelError(f"model.config: {_said(error)}") from error
    check_encoder(built, "model.config")
    return built


def check_encoder(config: Any, source: str) -> None:
    """ModelError for the config of a decoder, or of an architecture without a masked-LM form."""
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise ModelError(f"{source}: {config.model_type} is not an encoder; use a masked LM such as XLM-R")
    if config.model_type not in masked_lm_types():
        raise ModelError(f"{source}: {config.model_type} has no masked-LM form in transformers: not an encoder")


def untrained(config: Any) -> Any:
    """An architecture's modules, without a pooling layer. ModelError for a config that makes none."""
    import transformers
    from transformers import AutoModel

    try:
        kind = transformers.MODEL_MAPPING[type(config)]
        pooling = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
        return AutoModel.from_config(config, **({"add_pooling_layer": False} if pooling else {}))
    except _ERRORS as error:
        raise ModelError(f"model.config: {_said(error)}") from error


def check_runs(encoder: Encoder) -> None:
    """ModelError for an encoder that has too few positions, or that a few tokens do not pass through."""
    if encoder.max_length < _FEWEST_POSITIONS:
        raise ModelError(
            f"model.config: max_position_embeddings leaves {encoder.max_length} places for tokens, "
            f"at least {_FEWEST_POSITIONS} are needed"
        )
    # Some models turn to another attention for good after a short input: a copy does, which shares all weights.
    shared = {id(tensor): tensor for tensor in (*encoder.backbone.parameters(), *encoder.backbone.buffers())}
    ids = torch.tensor([encoder.tokenizer("")["input_ids"] or [encoder.tokenizer.pad_token_id]])
    try:
        with quiet_transformers(), torch.inference_mode(), torch.random.fork_rng(devices=[]):
            Encoder(copy.deepcopy(encoder.backbone, shared), encoder.tokenizer)(ids, torch.ones_like(ids))
    except _ERRORS as error:
        raise ModelError(f"model.config: such a model cannot run ({_said(error)})") from error


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"transformers knows no {error}"
    # Of a field's own check the last line says what is wrong.
    return said_by(error)[-1].strip().removeprefix("TypeError: ")
