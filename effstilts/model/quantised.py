"""Quantised backbones: the blocks' linear layers in NF4 or int8. The only file that imports bitsandbytes.

Embeddings, norms and heads stay in full precision, and so do the biases. A quantised backbone is for training adapters
on; what is kept is the adapter, and whoever reads it merges it into the full-precision weights. Merging into 4 bits
would round the adapter away. How far the two are apart is measured (`effstilts.phases`).
"""

from __future__ import annotations

import logging
import warnings
from typing import Any, Literal

import torch
from torch import nn

from effstilts.errors import MissingDependencyError
from effstilts.model.encoder import Encoder

Form = Literal["nf4", "int8"]
FORMS: dict[str, Form] = {"qlora": "nf4", "lora-int8": "int8"}


def quantise(encoder: Encoder, form: Form) -> None:
    """Puts quantised layers in the place of the blocks' linear layers.

    nf4: 4-bit NormalFloat with double quantisation (Dettmers et al. 2023); int8: LLM.int8 with outliers above 6
    (Dettmers et al. 2022). MissingDependencyError without bitsandbytes.
    """
    bnb = bitsandbytes()
    for name, layer in block_linears(encoder.backbone).items():
        parent = encoder.backbone.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _quantised(bnb, layer, form))
    # By these peft tells which of its layers to put on top.
    encoder.backbone.is_loaded_in_4bit = form == "nf4"
    encoder.backbone.is_loaded_in_8bit = form == "int8"
    if form == "int8":
        warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")


def block_linears(backbone: nn.Module) -> dict[str, nn.Linear]:
    """Name -> linear layer, of the encoder's blocks."""
    return {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Linear) and ".layer" in f".{n}"}


def bitsandbytes(what: str = "a quantised base") -> Any:
    """bitsandbytes, or the one line that says how to get it for `what`."""
    hush()
    try:
        import bitsandbytes as bnb
    except ImportError as error:
        raise MissingDependencyError(f"{what} needs bitsandbytes: pip install 'effstilts[quant]'") from error
    return bnb


def hush() -> None:
    """bitsandbytes says at import that a faster kernel could be downloaded; nothing is downloaded here."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _quantised(bnb: Any, layer: nn.Linear, form: Form) -> nn.Module:
    weight = layer.weight.detach().clone()
    shape: dict[str, Any] = {"bias": layer.bias is not None}
    if form == "nf4":
        made = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, compute_dtype=torch.float32, quant_type="nf4", **shape
        )
        made.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
    else:
        made = bnb.nn.Linear8bitLt(
            layer.in_features, layer.out_features, has_fp16_weights=False, threshold=6.0, **shape
        )
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    quantised: nn.Module = made.to(layer.weight.device).train()
    # In evaluation bitsandbytes packs 4-bit weights anew for a CPU kernel that fails on narrow layers; nothing else in
    # these layers asks whether they are being trained.
    quantised.train = lambda mode=True: quantised  # type: ignore[method-assign]
    return quantised
