"""The plain engine: the whole model on every process, on the CPU or a GPU, in fp32 or bf16 autocast."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from effstilts.engine.optimizers import MOMENTS, make_optimizer, restore, state_of
from effstilts.engine.rank_budget import RankBudget
from effstilts.engine.ranks import ALONE, Ranks
from effstilts.errors import RecipeError, StoreError, TrainingError
from effstilts.kinds.kind import Arrays, Kind, Tensors
from effstilts.model.encoder import Encoder
from effstilts.model.memory import is_shortage
from effstilts.recipe import Training

# Starting a micro-batch on a CPU costs what some 1e8 / block parameters tokens do, a block having about 12 D^2
# (measured: 188 tokens at D = 128, where all is small; 71 at 384). A GPU waits for hundreds of kernel launches.
_LAUNCH_WORK, _LAUNCH_TOKENS_GPU = 100_000_000, 4096


class Model(nn.Module):
    """The encoder and the heads of a training step, one for each head name."""

    def __init__(self, encoder: Encoder, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({head_key(name): head for name, head in heads.items()})

    def head(self, name: str) -> nn.Module:
        return self.heads[head_key(name)]


def head_key(name: str) -> str:
    """A task's name as a module name, which may hold no dot."""
    return name.replace(".", "_")


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_precision(precision: str, device: torch.device) -> None:
    """RecipeError where bf16 is asked of a GPU that has none."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RecipeError("training.precision: this GPU has no bf16; use fp32")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """bf16 products with fp32 weights and sums, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def launch_tokens(encoder: Encoder, device: torch.device) -> int:
    """What starting a micro-batch costs on a device, in tokens' worth of time."""
    return _LAUNCH_WORK // (12 * encoder.hidden_size**2) if device.type == "cpu" else _LAUNCH_TOKENS_GPU


def to_tensors(arrays: Arrays, device: torch.device) -> Tensors:
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}


class PlainEngine:
    """AdamW (Loshchilov and Hutter 2019) without decay on biases and LayerNorm; gradients summed over the ranks."""

    redoes = True

    def __init__(
        self,
        model: Model,
        training: Training,
        device: torch.device,
        ranks: Ranks = ALONE,
        budget: RankBudget | None = None,
    ) -> None:
        """budget: of an AdaLoRA training; `model` is on the device already where one is given."""
        check_precision(training.precision, device)
        if training.precision == "bf16" and device.type == "cpu":
            model.encoder.prefer_eager_attention()
        self.model = model.to(device)
        self.device = device
        self.launch_tokens = launch_tokens(model.encoder, device)
        self.training = training
        self.ranks = ranks
        self._budget, self._updates = budget, 0
        self._names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        tables = [m.weight for m in model.encoder.modules() if isinstance(m, nn.Embedding)]
        self._optimizer = make_optimizer(parameter_groups(self._names, training), training, tables)
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]

    def forward_backward(self, kind: Kind, head: str, arrays: Arrays, scale: float, last: bool) -> float:
        with autocast(self.training.precision, self.device):
            loss = kind.loss(self.model.head(head), self.model.encoder, to_tensors(arrays, self.device))
        torch.autograd.backward(loss * scale)
        if last:
            self._reserve_moments()
        return float(loss.detach())

    def _reserve_moments(self) -> None:
        """Moments of zero where a gradient has none, as AdamW begins: made here, so that its step, which may not break
        off in the middle, takes no memory."""
        if not isinstance(self._optimizer, torch.optim.AdamW):
            return
        for parameter in self._names.values():
            if parameter.grad is not None and parameter not in self._optimizer.state:
                self._optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=self.device),
                    **{moment: torch.zeros_like(parameter) for moment in MOMENTS},
                }

    def clip(self, limit: float) -> float:
        self.ranks.sum_gradients(list(self._names.values()))
        if self._budget is not None:
            self._budget.add_regulariser()
        return float(nn.utils.clip_grad_norm_(list(self._names.values()), limit))

    def step(self, rate: float) -> None:
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate
        before = self._updates_begun().clone()
        try:
            self._optimizer.step()
            self._updates += 1
            if self._budget is not None:
                self._budget.update(self._updates)
        except (RuntimeError, MemoryError) as error:
            if is_shortage(error) and not torch.equal(self._updates_begun(), before):
                raise TrainingError(
                    "out of memory in the middle of an update; the last checkpoint is whole: run the same command again"
                ) from error
            raise
        self._optimizer.zero_grad(set_to_none=True)

    def _updates_begun(self) -> Tensor:
        """The optimizer's own count for the parameter it updates first."""
        parameters = (p for group in self._optimizer.param_groups for p in group["params"])
        first = next(p for p in parameters if p.grad is not None)
        return torch.as_tensor(self._optimizer.state.get(first, {}).get("step", 0))

    def discard(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def publish(self) -> None:
        """The model that trains is the one that is evaluated."""

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().to("cpu", copy=True) for name, p in self._names.items()}

    def moments(self) -> dict[str, Tensor]:
        moments = state_of(self._optimizer, self._names)
        return moments if self._budget is None else moments | self._budget.state()

    def load(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], step: int) -> None:
        if set(weights) != set(self._names):
            odd = sorted(set(weights) ^ set(self._names))[0]
            raise StoreError(f"the checkpoint does not fit this model: {odd} stands on one side alone")
        self._updates = step
        if self._budget is not None:
            self._budget.load(moments)
        with torch.no_grad():
            for name, parameter in self._names.items():
                parameter.copy_(weights[name])
        restore(self._optimizer, self._names, moments)


def parameter_groups(named: Mapping[str, nn.Parameter], training: Training) -> list[dict[str, object]]:
    """Groups: (encoder, heads) x (decayed, not decayed), and what a method trains at a rate of its own (`rate_scale`).
    Biases and normalisation weights are vectors."""
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        scale = float(getattr(parameter, "rate_scale", 1.0))
        groups.setdefault((name.startswith("heads."), parameter.dim() >= 2, scale), []).append(parameter)
    head_rate = training.head_learning_rate or training.learning_rate
    return [
        {
            "params": parameters,
            "lr": (head_rate if is_head else training.learning_rate) * scale,
            "weight_decay": training.weight_decay if decayed else 0.0,
        }
        for (is_head, decayed, scale), parameters in groups.items()
    ]
