"""Adapters on the encoder: attach, save, carry over, merge. The only file that imports peft.

Adapters sit on the bare encoder with named target layers; the head is a module of its own and is always trained
whole, so no adapter library ever decides whether a head is saved or frozen.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from effstilts.errors import ModelError, did_you_mean
from effstilts.model.encoder import Encoder, quiet_transformers
from effstilts.recipe import Method

FOLDER = "adapter"


def attach(encoder: Encoder, method: Method, weights: Path | None = None) -> None:
    """Puts a LoRA adapter on the encoder and freezes everything else of it.

    weights: folder of a saved adapter to go on training (`carry: continue`); its shape must fit `method`.
    ModelError for a target layer that the encoder does not have, or a rank above a layer's size.
    """
    import peft

    targets = _targets(encoder, method)
    linear = [m for name, m in encoder.backbone.named_modules() if name in targets]
    smallest = min(min(m.in_features, m.out_features) for m in linear)
    if method.rank > smallest:
        raise ModelError(f"lora rank {method.rank} is larger than a target layer's size, {smallest}")
    config = peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=sorted(targets),
        bias="none",
    )
    with quiet_transformers():
        if weights is None:
            encoder.backbone = peft.get_peft_model(encoder.backbone, config)
        else:
            saved = peft.PeftConfig.from_pretrained(str(weights))
            if (saved.r, saved.lora_alpha) != (method.rank, method.alpha):
                raise ModelError(
                    f"carry continue: the adapter so far has rank {saved.r}, alpha {saved.lora_alpha}; this phase "
                    f"asks for rank {method.rank}, alpha {method.alpha}"
                )
            encoder.backbone = peft.PeftModel.from_pretrained(encoder.backbone, str(weights), is_trainable=True)
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    if not trained or any("lora_" not in name for name in trained):
        raise ModelError("the adapter library trains something other than the adapter: please report this")


def attached(encoder: Encoder) -> bool:
    return hasattr(encoder.backbone, "peft_config")


def save(encoder: Encoder, folder: Path) -> None:
    """Writes the adapter alone, as peft's PeftModel.from_pretrained reads it."""
    with quiet_transformers():
        encoder.backbone.save_pretrained(str(folder), safe_serialization=True)


def load_merged(encoder: Encoder, folder: Path) -> None:
    """Adds a saved adapter to the encoder's weights."""
    import peft

    with quiet_transformers():
        encoder.backbone = peft.PeftModel.from_pretrained(encoder.backbone, str(folder))
    merge(encoder)


def merge(encoder: Encoder) -> None:
    """W <- W + alpha / rank * B A; afterwards no adapter is attached and every weight may be trained again."""
    encoder.backbone = encoder.backbone.merge_and_unload()
    for parameter in encoder.backbone.parameters():
        parameter.requires_grad_(True)


def _targets(encoder: Encoder, method: Method) -> set[str]:
    """Full names of the linear layers that get an adapter: those of the blocks, or those whose last name is given."""
    linear = {n: m for n, m in encoder.backbone.named_modules() if isinstance(m, nn.Linear) and ".layer" in f".{n}"}
    last_names = {name.rpartition(".")[2] for name in linear}
    for wanted in method.targets:
        if wanted not in last_names:
            raise ModelError(
                f"lora target {wanted!r} is no linear layer of this encoder{did_you_mean(wanted, last_names)}; "
                f"there are {', '.join(sorted(last_names))}"
            )
    return {name for name in linear if not method.targets or name.rpartition(".")[2] in method.targets}
