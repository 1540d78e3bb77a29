"""AdamW in the forms that a recipe names, and its state as tensors by name.

    adamw            torch's, moments in fp32
    adamw8bit        moments in blocks of 256 bytes, each with its scale (Dettmers et al. 2022)
    paged_adamw      fp32 moments that move to the host's memory where the GPU's is full (Dettmers et al. 2023)
    paged_adamw8bit  both

All but the first are bitsandbytes'. There, as with the Trainer of transformers, embeddings keep fp32 moments, and so
do tensors of less than 4,096 entries. adamw8bit runs on a CPU too; paging needs a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effstilts.errors import RecipeError
from effstilts.model.quantised import bitsandbytes
from effstilts.recipe import Training

MOMENTS = ("exp_avg", "exp_avg_sq")
# Of bitsandbytes: the moments, and of quantised ones the blocks' scales. Its code book is a constant.
_STATES = ("state1", "state2", "absmax1", "absmax2")


def make_optimizer(
    groups: Sequence[Mapping[str, Any]], training: Training, embeddings: Iterable[Tensor] = ()
) -> torch.optim.Optimizer:
    """The optimizer over parameter groups with "lr" and "weight_decay". embeddings: parameters with fp32 moments."""
    settings: dict[str, Any] = {"lr": training.learning_rate, "betas": (0.9, training.beta2), "eps": training.epsilon}
    if training.optimizer == "adamw":
        return torch.optim.AdamW([dict(group) for group in groups], **settings, fused=True)
    bnb = bitsandbytes(f"training.optimizer {training.optimizer}")
    whole = {id(parameter) for parameter in embeddings}

    class AdamW(bnb.optim.AdamW):  # type: ignore[misc, name-defined]
        def get_config(self, gindex: int, pindex: int, group: Mapping[str, Any]) -> dict[str, Any]:
            config: dict[str, Any] = super().get_config(gindex, pindex, group)
            return config | ({"optim_bits": 32} if id(group["params"][pindex]) in whole else {})

    made: torch.optim.Optimizer = AdamW(
        [dict(group) for group in groups],
        **settings,
        optim_bits=8 if training.optimizer.endswith("8bit") else 32,
        is_paged=training.optimizer.startswith("paged"),
    )
    return made


def check_optimizer(training: Training, device: torch.device, sharded: bool) -> None:
    """RecipeError where an optimizer does not run on this device, MissingDependencyError without bitsandbytes."""
    name = training.optimizer
    if name == "adamw":
        return
    if sharded:
        raise RecipeError(f"training.optimizer: engine zero shards the fp32 moments of adamw, it has no {name}")
    if name.startswith("paged") and device.type == "cpu":
        other = "adamw8bit" if name.endswith("8bit") else "adamw"
        raise RecipeError(
            f"training.optimizer: {name} pages a GPU's memory; this machine trains on the CPU: use {other}"
        )
    probe = nn.Parameter(torch.zeros(64, 64, device=device))
    probe.grad = torch.ones_like(probe)
    optimizer = make_optimizer([{"params": [probe], "lr": 1.0, "weight_decay": 0.0}], training)
    try:
        optimizer.step()
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise RecipeError(
            f"training.optimizer: this build of bitsandbytes does not run {name} on {device.type}: {first}"
        ) from error


def state_of(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The state of every parameter that has been updated, as `parameter.moment`; `step` counts its updates."""
    found = {}
    for name, parameter in named.items():
        state = optimizer.state.get(parameter)
        if not state:
            continue
        for moment in (*MOMENTS, *_STATES):
            if moment in state:
                found[f"{name}.{moment}"] = state[moment]
        found[f"{name}.step"] = torch.as_tensor(state["step"], dtype=torch.float32)
    return found


@torch.no_grad()
def restore(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Puts back what `state_of` gave."""
    names = {id(parameter): name for name, parameter in named.items()}
    for number, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            name = names[id(parameter)]
            if f"{name}.step" not in state:
                continue
            if isinstance(optimizer, torch.optim.AdamW):
                optimizer.state[parameter] = {
                    "step": state[f"{name}.step"].to(parameter.device).clone(),
                    **{m: state[f"{name}.{m}"].to(parameter.device, parameter.dtype).clone() for m in MOMENTS},
                }
                continue
            optimizer.init_state(group, parameter, number, place)  # type: ignore[attr-defined]
            own = optimizer.state[parameter]
            own["step"] = int(state[f"{name}.step"])
            for moment in _STATES:
                if moment in own:
                    own[moment].copy_(state[f"{name}.{moment}"])
