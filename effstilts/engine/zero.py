"""DeepSpeed ZeRO (Rajbhandari et al. 2020), stages 1 to 3 with offload. The only file that imports deepspeed.

DeepSpeed shards parameters, gradients and moments; the optimizer and its groups, the learning rate and the loop are
those of the plain engine, so the numbers are too. Rank 0 keeps a plain copy of the model, in which it evaluates and
from which it saves: what leaves this file is whole and does not depend on the number of ranks.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from effstilts.engine.optimizers import MOMENTS
from effstilts.engine.plain import (
    Model,
    autocast,
    check_precision,
    head_key,
    launch_tokens,
    parameter_groups,
    to_tensors,
)
from effstilts.engine.ranks import Ranks
from effstilts.errors import MissingDependencyError, RecipeError, StoreError
from effstilts.kinds.kind import Arrays, Kind, Tensors
from effstilts.recipe import Training


class _Losses(nn.Module):
    """The model as one module whose forward pass is the loss, as DeepSpeed wants it."""

    def __init__(self, model: Model, precision: str, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.precision, self.device = precision, device
        self.work: tuple[Kind, str] | None = None

    def forward(self, batch: Tensors) -> Tensor:
        assert self.work is not None
        kind, head = self.work
        with autocast(self.precision, self.device):
            return kind.loss(self.model.head(head), self.model.encoder, batch)


class _AdamW(torch.optim.AdamW):
    """AdamW that leaves the groups of heads alone that had no part in the step, as absent gradients do elsewhere."""

    idle: frozenset[str] = frozenset()

    def step(self, closure: Any = None) -> Any:
        groups = self.param_groups
        self.param_groups = [group for group in groups if group["head"] not in self.idle]
        try:
            return super().step(closure) if self.param_groups else None
        finally:
            self.param_groups = groups


class ZeroEngine:
    """ZeRO over the ranks of a launch, or on one process alone. `config`: see `zero_config.resolve`."""

    # Forward and backward passes are full of collectives, and DeepSpeed's own state is then half way through them.
    redoes = False

    def __init__(
        self, model: Model, training: Training, device: torch.device, ranks: Ranks, config: Mapping[str, Any]
    ) -> None:
        check_precision(training.precision, device)
        if training.precision == "bf16" and device.type == "cpu":
            model.encoder.prefer_eager_attention()
        deepspeed = _deepspeed(device)
        self.ranks, self.device, self.training = ranks, device, training
        self.launch_tokens = launch_tokens(model.encoder, device)
        self.stage = int(config["zero_optimization"]["stage"])
        self._plain = model if ranks.leads else None
        working = (_copied(model) if ranks.leads else model).to(device)
        working.train()
        if self._plain is not None:
            self._plain.to("cpu")
        self._names: dict[str, Any] = {name: p for name, p in working.named_parameters() if p.requires_grad}
        self._used: set[str] = set()
        self._optimizer = _AdamW(
            _groups_by_head(self._names, training),
            lr=training.learning_rate,
            betas=(0.9, training.beta2),
            eps=training.epsilon,
            fused=True,
        )
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._group_of = {
            name: index
            for index, group in enumerate(self._optimizer.param_groups)
            for name, p in self._names.items()
            if any(p is member for member in group["params"])
        }
        self._losses = _Losses(working, training.precision, device)
        try:
            self._engine, *_ = deepspeed.initialize(
                model=self._losses, optimizer=self._optimizer, config=dict(config), dist_init_required=False
            )
        except (ValueError, AssertionError, TypeError) as error:
            # A key's value that does not fit, in words of its own.
            raise RecipeError(f"engine.config: DeepSpeed refuses it: {' '.join(str(error).split())[:300]}") from error
        self._zero = self._engine.optimizer
        self._begin_moments()

    def _begin_moments(self) -> None:
        """Moments of zero before the first step, so that a checkpoint can be put into them."""
        for flat in self._flats():
            self._optimizer.state[flat] = {
                "step": torch.zeros((), dtype=torch.float32, device=flat.device),
                **{moment: torch.zeros_like(flat.detach()) for moment in MOMENTS},
            }
        if self.stage < 3:
            self._zero._lazy_init_hp_params_optimizer_state()

    def _flats(self) -> list[Tensor]:
        """This rank's flat fp32 partitions."""
        zero = self._zero
        return list(zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups)

    def _flats_of(self, group: int) -> list[Tensor]:
        if self.stage < 3:
            return [self._flats()[group]]
        owners = self._zero.sub_group_to_group_id
        return [flat for index, flat in enumerate(self._flats()) if owners[index] == group]

    def forward_backward(self, kind: Kind, head: str, arrays: Arrays, scale: float, last: bool) -> float:
        self._used.add(head_key(head))
        self._losses.work = (kind, head)
        self._engine.set_gradient_accumulation_boundary(last)
        loss = self._engine(to_tensors(arrays, self.device))
        # DeepSpeed takes the mean over the ranks; the loop's scale makes it a sum.
        self._engine.backward(loss * (scale * self.ranks.world), scale_wrt_gas=False)
        return float(loss.detach())

    def clip(self, limit: float) -> float:
        """The norm; DeepSpeed does the clipping in its step, at the same limit."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        if self.stage == 3:
            self._clear_stale()
            norm = float(combine_grad_norm_groups(self._zero._get_norm_groups()))
        else:
            norm = float(self._zero.scaled_global_norm())
        # DeepSpeed's mark for a norm that is not finite.
        return float("nan") if norm < 0 else norm

    def _clear_stale(self) -> None:
        """Stage 3 keeps the gradient that a head without part in this step had in an earlier one: it counts for 0."""
        from deepspeed.utils import safe_set_local_grad

        for name, parameter in self._names.items():
            if self._optimizer.param_groups[self._group_of[name]]["head"] not in self._used | {""}:
                safe_set_local_grad(parameter, torch.zeros(parameter.ds_tensor.numel(), device=self.device))

    def step(self, rate: float) -> None:
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate
        self._optimizer.idle = frozenset(g["head"] for g in self._optimizer.param_groups) - self._used - {""}
        self._engine.step()
        self._used.clear()

    def discard(self) -> None:
        self._engine.zero_grad()
        self._zero.zero_grad()
        self._used.clear()

    def publish(self) -> None:
        weights = self.weights()
        if self._plain is not None:
            with torch.no_grad():
                for name, parameter in self._plain.named_parameters():
                    if name in weights:
                        parameter.copy_(weights[name])
            self._plain.to(self.device)

    def weights(self) -> dict[str, Tensor]:
        return self._whole(None)

    def moments(self) -> dict[str, Tensor]:
        found = {f"{name}.{m}": tensor for m in MOMENTS for name, tensor in self._whole(m).items()}
        steps = {group: self._step_of(group) for group in set(self._group_of.values())}
        counted = {name: steps[group] for name, group in self._group_of.items() if steps[group] > 0}
        whole = {key: tensor for key, tensor in found.items() if key.rpartition(".")[0] in counted}
        if not self.ranks.leads:
            return {}
        return whole | {f"{name}.step": torch.tensor(float(step)) for name, step in counted.items()}

    def _step_of(self, group: int) -> int:
        return int(max(float(self._optimizer.state[flat]["step"]) for flat in self._flats_of(group)))

    def _whole(self, moment: str | None) -> dict[str, Tensor]:
        """Every trained parameter, or one of its moments, gathered to rank 0's memory."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        found: dict[str, Tensor] = {}
        for name, parameter in self._names.items():
            if moment is None:
                whole = safe_get_full_fp32_param(parameter)
            else:
                whole = safe_get_full_optimizer_state(parameter, moment)
            if self.ranks.leads:
                found[name] = whole.detach().float().reshape(self._shape(parameter)).to("cpu", copy=True)
        return found

    def _shape(self, parameter: Any) -> torch.Size:
        shape: torch.Size = parameter.ds_shape if self.stage == 3 else parameter.shape
        return shape

    def load(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], step: int) -> None:
        if set(weights) != set(self._names):
            odd = sorted(set(weights) ^ set(self._names))[0]
            raise StoreError(f"the checkpoint does not fit this model: {odd} stands on one side alone")
        for name, parameter in self._names.items():
            self._put(parameter, weights[name], None)
            for moment in MOMENTS:
                if f"{name}.{moment}" in moments:
                    self._put(parameter, moments[f"{name}.{moment}"], moment)
            if f"{name}.step" in moments:
                for flat in self._flats_of(self._group_of[name]):
                    self._optimizer.state[flat]["step"].fill_(float(moments[f"{name}.step"]))
        self._refresh(weights)

    def _put(self, parameter: Any, whole: Tensor, moment: str | None) -> None:
        """Sets this rank's part of a parameter's fp32 value or moment."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        whole = whole.float()
        if self.stage < 3:
            if moment is None:
                safe_set_full_fp32_param(parameter, whole)
            else:
                safe_set_full_optimizer_state(parameter, whole, moment)
            return
        # A rank's slice has one size everywhere; the last one is padded.
        size = parameter.ds_tensor.numel()
        local = torch.zeros(size)
        mine = whole.reshape(-1)[self.ranks.rank * size : (self.ranks.rank + 1) * size]
        local[: mine.numel()] = mine
        if moment is None:
            safe_set_local_fp32_param(parameter, local)
        else:
            safe_set_local_optimizer_state(parameter, local, moment)

    def _refresh(self, weights: Mapping[str, Tensor]) -> None:
        """The weights that the forward pass uses, from the fp32 ones."""
        if self.stage < 3:
            self._zero.update_lp_params()
            return
        from deepspeed.runtime.zero import GatheredParameters

        for name, parameter in self._names.items():
            with GatheredParameters([parameter], modifier_rank=0):
                if self.ranks.leads:
                    parameter.data.copy_(weights[name])


def _copied(model: Model) -> Model:
    """A copy of its own memory. torch copies a parameter's numbers and drops what was set on it."""
    copied = copy.deepcopy(model)
    for own, other in zip(model.parameters(), copied.parameters(), strict=True):
        if hasattr(own, "rate_scale"):
            other.rate_scale = own.rate_scale  # type: ignore[attr-defined]
    return copied


def _groups_by_head(named: Mapping[str, nn.Parameter], training: Training) -> list[dict[str, Any]]:
    """The plain engine's groups, each cut by the head it belongs to; the encoder's is ""."""
    head_of = {id(p): name.split(".")[1] if name.startswith("heads.") else "" for name, p in named.items()}
    groups: list[dict[str, Any]] = []
    for group in parameter_groups(named, training):
        parts: dict[str, list[nn.Parameter]] = {}
        for parameter in group["params"]:  # type: ignore[attr-defined]
            parts.setdefault(head_of[id(parameter)], []).append(parameter)
        groups += [{**group, "params": members, "head": head} for head, members in parts.items()]
    return groups


def _deepspeed(device: torch.device) -> Any:
    """The library, quiet, on this process's group."""
    import torch.distributed as dist

    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    try:
        import deepspeed
    except ImportError as error:
        raise MissingDependencyError("engine zero needs DeepSpeed: pip install 'effstilts[zero]'") from error
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not dist.is_initialized():
        from torch._C._distributed_c10d import HashStore

        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    # It prints what it compiles; stdout is for results.
    with contextlib.redirect_stdout(io.StringIO()):
        if device.type == "cpu" and (operators := getattr(deepspeed.ops, "__compatible_ops__", None)) is not None:
            # Of a CPU's collectives; training calls it nowhere. It would be compiled under a lock file of torch, for
            # which all wait for ever once a process was killed at that.
            operators["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return deepspeed
