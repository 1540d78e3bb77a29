"""Parameter-efficient methods on the encoder: attach, save, carry over, merge. The only file that imports peft.

Adapters sit on the bare encoder with named target layers; the head is a module of its own and is always trained
whole, so no adapter library ever decides whether a head is saved or frozen.

    lora      W + alpha / rank * B A (Hu et al. 2021)       loraplus  the same, B at `rate_ratio` times the rate
    rslora    alpha / sqrt(rank) (Kalajdzievski 2023)                 (Hayou et al. 2024)
    dora      magnitude and direction (Liu et al. 2024)     qlora     LoRA on an NF4 base (Dettmers et al. 2023)
    adalora   B diag(E) A, of which the directions that     lora-int8 LoRA on an int8 base
              matter most are kept (Zhang et al. 2023)      ia3       keys, values, inner states rescaled (Liu 2022)
    vera      random A, B shared, two vectors trained       bitfit    the biases alone (Ben Zaken et al. 2022)
              (Kopiczko et al. 2024)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from effstilts.errors import ModelError, did_you_mean
from effstilts.model.encoder import Encoder
from effstilts.model.files import read_tensors, tensor_sizes
from effstilts.model.quantised import block_linears, hush
from effstilts.model.quiet import quiet_transformers
from effstilts.recipe import LORA_METHODS, Method

FOLDER = "adapter"
_BIASES = "biases.safetensors"
_BELOW = "below"
# Last names of what IA3 rescales: keys, values, and the input of the second feed-forward layer.
_IA3 = {"key", "value", "key_proj", "value_proj", "k_lin", "v_lin"}
_IA3_FEEDFORWARD = ("output.dense", "ffn.lin2")


def attach(
    encoder: Encoder, method: Method, weights: Path | None = None, below: Path | None = None, any_rank: bool = False
) -> None:
    """Puts a method's parameters on the encoder and freezes everything else of it.

    weights: folder of a saved adapter to go on training (`carry: continue`); its shape must fit `method`. below: of one
    that stays, frozen, under the new one (`carry: stack`). ModelError for a target layer that the encoder does not
    have, or, unless any_rank, a rank above a layer's size.
    """
    if method.name == "bitfit":
        _only_biases(encoder, weights)
        return
    hush()
    import peft

    for kept in (weights, below):
        _check_weights(kept)
    config = _config(encoder, method, any_rank)
    with quiet_transformers():
        if weights is not None:
            _check_fits(peft.PeftConfig.from_pretrained(str(weights)), method)
            encoder.backbone = peft.PeftModel.from_pretrained(encoder.backbone, str(weights), is_trainable=True)
        elif below is not None:
            encoder.backbone = peft.PeftModel.from_pretrained(encoder.backbone, str(below), adapter_name=_BELOW)
            encoder.backbone.add_adapter("default", config)
            encoder.backbone.base_model.set_adapter([_BELOW, "default"])
            for name, parameter in encoder.backbone.named_parameters():
                parameter.requires_grad_(".default" in name)
            for name, module in encoder.backbone.named_modules():
                if name.endswith(f"lora_dropout.{_BELOW}"):
                    # It is a part of the base now, and no longer trained.
                    module.p = 0.0
        else:
            encoder.backbone = peft.get_peft_model(encoder.backbone, config)
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    if not trained or any(not any(mark in name for mark in _OWN) for name in trained):
        raise ModelError("the adapter library trains something other than the adapter: please report this")
    if method.name == "loraplus":
        for name, parameter in trained.items():
            if "lora_B" in name:
                parameter.rate_scale = method.rate_ratio  # type: ignore[attr-defined]


# Parts of the names of peft's own parameters.
_OWN = ("lora_", "ia3_", "vera_lambda")


def check(encoder: Encoder, method: Method) -> None:
    """ModelError for what `attach` would refuse of this architecture. The encoder may be a skeleton."""
    if method.name not in ("full", "bitfit"):
        hush()
        _config(encoder, method)


def attached(encoder: Encoder) -> bool:
    return hasattr(encoder.backbone, "peft_config")


def save(encoder: Encoder, folder: Path) -> None:
    """Writes what was trained alone: as peft's PeftModel.from_pretrained reads it, or the biases by name."""
    if not attached(encoder):
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        biases = {n: p.detach().cpu().contiguous() for n, p in encoder.backbone.named_parameters() if _is_bias(n)}
        save_file(biases, str(folder / _BIASES))
        return
    kept = _kept_directions(encoder)
    if kept:
        encoder.backbone.peft_config["default"].rank_pattern = kept
    with quiet_transformers():
        encoder.backbone.save_pretrained(str(folder), safe_serialization=True, selected_adapters=["default"])
    # peft names the folder that the first encoder was loaded from: by a merged adapter it is another one's weights.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}, indent=2, sort_keys=True), encoding="utf-8")


def load_merged(encoder: Encoder, folder: Path) -> None:
    """Adds what was saved to the encoder's weights, which are in full precision."""
    if (folder / _BIASES).is_file():
        _load_biases(encoder, folder)
        return
    hush()
    import peft

    _check_weights(folder)
    with quiet_transformers():
        encoder.backbone = peft.PeftModel.from_pretrained(encoder.backbone, str(folder))
    merge(encoder)


def concatenate(encoder: Encoder, method: Method, parts: Sequence[tuple[Path, float]]) -> None:
    """Attaches one LoRA adapter that adds the weighted sum of what saved ones add, exactly.

    sum of w_i s_i B_i A_i = [w_1 s_1 B_1 | w_2 s_2 B_2 | ...] [A_1; A_2; ...], of rank sum r_i, s_i = alpha_i / r_i or
    alpha_i / sqrt(r_i). method: of that rank and an alpha that is as large. parts: folders and weights w_i.
    """
    import peft

    # A sum may have more directions than a layer, and stays exact.
    attach(encoder, method, any_rank=True)
    saved = [
        (read_tensors(folder / "adapter_model.safetensors"), peft.PeftConfig.from_pretrained(str(folder)), weight)
        for folder, weight in parts
    ]
    for name, parameter in encoder.backbone.named_parameters():
        if "lora_" not in name:
            continue
        key = name.replace(".default", "")
        if "lora_A" in name:
            whole = torch.cat([tensors[key] for tensors, _, _ in saved])
        else:
            scales = [weight * c.lora_alpha / (c.r**0.5 if c.use_rslora else c.r) for _, c, weight in saved]
            whole = torch.cat([t[key] * scale for (t, _, _), scale in zip(saved, scales, strict=True)], dim=1)
        with torch.no_grad():
            parameter.copy_(whole)


def _check_weights(folder: Path | None) -> None:
    """peft falls back on a pickle where the safetensors file is not there."""
    if folder is None:
        return
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder} holds no adapter_model.safetensors; other weight formats are pickles, not read")
    if not tensor_sizes(path):
        raise ModelError(f"{path} holds no tensor")


def merge(encoder: Encoder) -> None:
    """W <- W + what the adapter adds to it; afterwards none is attached and every weight may be trained again."""
    encoder.backbone = encoder.backbone.merge_and_unload()
    for parameter in encoder.backbone.parameters():
        parameter.requires_grad_(True)


def ranks(encoder: Encoder) -> dict[str, int]:
    """Layer -> directions that are left of its AdaLoRA update; empty for other methods."""
    return {name.removesuffix(".lora_E.default"): sum(kept) for name, kept in _kept_directions(encoder).items()}


def _kept_directions(encoder: Encoder) -> dict[str, list[bool]]:
    """Name of E -> which of its entries are not 0: of the weights that are saved, not of the last allocation."""
    if not attached(encoder) or encoder.backbone.peft_config["default"].peft_type.value != "ADALORA":
        return {}
    named = encoder.backbone.get_base_model().named_parameters()
    return {name: (p != 0).reshape(-1).tolist() for name, p in named if ".lora_E." in name}


def _config(encoder: Encoder, method: Method, any_rank: bool = False) -> Any:
    import peft

    targets = _targets(encoder, method)
    linear = block_linears(encoder.backbone)
    if method.name == "ia3":
        feedforward = {name for name in targets if name.endswith(_IA3_FEEDFORWARD)}
        return peft.IA3Config(target_modules=sorted(targets), feedforward_modules=sorted(feedforward))
    if method.name == "vera":
        # Its rank is that of random matrices which all layers share: above their size, too (Kopiczko et al. 2024).
        return peft.VeraConfig(
            r=method.rank,
            target_modules=sorted(targets),
            vera_dropout=method.dropout,
            save_projection=True,
            bias="none",
        )
    smallest = min(min(linear[name].in_features, linear[name].out_features) for name in targets)
    if method.first_rank > smallest and not any_rank:
        raise ModelError(f"{method.name} rank {method.first_rank} is larger than a target layer's size, {smallest}")
    if method.name == "adalora":
        # The schedule is `effstilts.engine.rank_budget`'s; peft's own needs some number of steps.
        return peft.AdaLoraConfig(
            init_r=method.first_rank,
            target_r=method.rank,
            lora_alpha=method.alpha,
            lora_dropout=method.dropout,
            target_modules=sorted(targets),
            total_step=1,
            bias="none",
        )
    return peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=sorted(targets),
        use_rslora=method.name == "rslora",
        use_dora=method.name == "dora",
        bias="none",
    )


def _check_fits(saved: Any, method: Method) -> None:
    if method.name in LORA_METHODS and (saved.r, saved.lora_alpha) != (method.rank, method.alpha):
        raise ModelError(
            f"carry continue: the adapter so far has rank {saved.r}, alpha {saved.lora_alpha}; this phase asks for "
            f"rank {method.rank}, alpha {method.alpha}"
        )


def _targets(encoder: Encoder, method: Method) -> set[str]:
    """Full names of the linear layers that get an adapter: those whose last name is given, or the method's own."""
    linear = block_linears(encoder.backbone)
    last_names = {name.rpartition(".")[2] for name in linear}
    for wanted in method.targets:
        if wanted not in last_names:
            hint = did_you_mean(wanted, last_names)
            raise ModelError(
                f"{method.name} target {wanted!r} is no linear layer of this encoder{hint}; "
                f"there are {', '.join(sorted(last_names))}"
            )
    if method.targets:
        return {name for name in linear if name.rpartition(".")[2] in method.targets}
    found = set(linear)
    if method.name == "ia3":
        found = {name for name in linear if name.rpartition(".")[2] in _IA3}
        found |= {n for n in linear if n.endswith(_IA3_FEEDFORWARD) and "attention" not in n}
    if not found:
        raise ModelError(
            f"{method.name} knows no linear layer of this encoder by its name; give method.targets: there are "
            f"{', '.join(sorted(last_names))}"
        )
    return found


def _only_biases(encoder: Encoder, weights: Path | None) -> None:
    if weights is not None:
        _load_biases(encoder, weights)
    for name, parameter in encoder.backbone.named_parameters():
        parameter.requires_grad_(_is_bias(name))


def _is_bias(name: str) -> bool:
    return name.endswith(".bias")


def _load_biases(encoder: Encoder, folder: Path) -> None:
    biases = read_tensors(folder / _BIASES)
    own = {name for name, _ in encoder.backbone.named_parameters() if _is_bias(name)}
    if set(biases) != own:
        raise ModelError(
            f"the saved biases do not fit this encoder: {sorted(set(biases) ^ own)[0]} is on one side alone"
        )
    encoder.backbone.load_state_dict(biases, strict=False)
