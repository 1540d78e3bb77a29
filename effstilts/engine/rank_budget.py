"""AdaLoRA's rank budget (Zhang et al. 2023): which singular directions of which layer are kept while training.

An update of a layer is B diag(E) A with `initial_rank` directions. After each optimizer step every direction has an
importance; at an allocation the least important ones of all layers together are switched off (E = 0), so that as many
stay as the budget allows. The budget falls as a cubic from the initial to the wanted mean rank:

    0 ── warm ──▶ allocate every `allocate_every` steps ──▶ settle: the mask stays ──▶ steps

Everything goes by names and by the gradient of the whole batch, so nothing depends on the number of processes; the
state is tensors, so a checkpoint holds it. Held against peft's RankAllocator in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effstilts.recipe import Method

# Smoothing of sensitivity and of uncertainty (Zhang et al. 2023, section 4.1).
_BETA = 0.85
_STATES = ("sensitivity", "uncertainty")
_KEPT = "kept"


@dataclass(frozen=True)
class Schedule:
    """Budget of each step, in directions over all layers. warm, settle: first and last steps without reallocation."""

    steps: int
    warm: int
    settle: int
    every: int
    first: int
    last: int

    def budget(self, step: int) -> int:
        """Directions kept after update `step` >= 1 (equation 12 of the paper)."""
        if step <= self.warm:
            return self.first
        if step >= self.steps - self.settle:
            return self.last
        left = 1 - (step - self.warm) / (self.steps - self.settle - self.warm)
        return int((self.first - self.last) * left**3 + self.last)

    def allocates(self, step: int) -> bool:
        end = self.steps - self.settle
        return step == end or (self.warm < step < end and step % self.every == 0)


class RankBudget:
    """The budget over the trained AdaLoRA parameters of a model, by their names."""

    def __init__(self, named: Mapping[str, nn.Parameter], method: Method, steps: int) -> None:
        """named: a model's parameters; frozen ones and those of other modules do not count. steps: of the training."""
        self._named = {n: p for n, p in sorted(named.items()) if p.requires_grad and ".lora_" in n}
        self._layers = [n.replace(".lora_E.", ".{}.") for n in self._named if ".lora_E." in n]
        rows = [self._part(layer, "lora_E").shape[0] for layer in self._layers]
        warm, settle = round(method.budget_warmup * steps), round(method.budget_settle * steps)
        # At least the last step allocates, however short the training is.
        settle = min(settle, steps - 1)
        self.schedule = Schedule(
            steps=steps,
            warm=min(warm, steps - settle - 1),
            settle=settle,
            every=method.allocate_every,
            first=sum(rows),
            last=min(method.rank * len(rows), sum(rows)),
        )
        self._weight = method.orthogonality
        self._averages = {what: {n: torch.zeros_like(p) for n, p in self._named.items()} for what in _STATES}
        self._kept: dict[str, Tensor] = {}

    def add_regulariser(self) -> None:
        """Adds to the gradient that of orthogonality x mean over A and B of |P P' - I| (Frobenius; equation 4). To be
        called once a step, after gradients were summed over the ranks; the reported loss is the task's alone."""
        if not self._weight:
            return
        frames = [(p, ".lora_B." in n) for n, p in self._named.items() if ".lora_E." not in n]
        for parameter, columns in frames:
            frame = parameter.detach().requires_grad_(True)
            with torch.enable_grad():
                rows = frame.T if columns else frame
                distance = torch.linalg.matrix_norm(rows @ rows.T - torch.eye(rows.shape[0], device=rows.device))
            (gradient,) = torch.autograd.grad(distance * (self._weight / len(frames)), frame)
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    @torch.no_grad()
    def update(self, step: int) -> None:
        """To be called after optimizer step `step` >= 1, while its gradients are still there."""
        schedule = self.schedule
        end = schedule.steps - schedule.settle
        if step < end:
            self._observe()
        if schedule.allocates(step):
            self._allocate(schedule.budget(step))
        elif step > end:
            for layer, kept in self._kept.items():
                self._part(layer, "lora_E").mul_(kept)

    def _observe(self) -> None:
        """Moving averages of |weight x gradient| and of its distance from its average (equations 8 to 10)."""
        for name, parameter in self._named.items():
            if parameter.grad is None:
                continue
            sensitivity, uncertainty = (self._averages[what][name] for what in _STATES)
            now = (parameter * parameter.grad).abs()
            sensitivity.mul_(_BETA).add_((1 - _BETA) * now)
            uncertainty.mul_(_BETA).add_((1 - _BETA) * (now - sensitivity).abs())

    def _allocate(self, budget: int) -> None:
        scores = {layer: self._importance(layer) for layer in self._layers}
        dropped = self.schedule.first - budget
        every = torch.cat(list(scores.values()))
        limit = float(every.kthvalue(dropped).values) if dropped else float("-inf")
        for layer, score in scores.items():
            direction = self._part(layer, "lora_E")
            self._kept[layer] = (score > limit).to(direction.dtype).reshape(direction.shape)
            direction.mul_(self._kept[layer])

    def _importance(self, layer: str) -> Tensor:
        """Of each direction: its singular value's, and the means over its two vectors' (equation 7) [rank]."""

        def element(part: str) -> Tensor:
            name = layer.format(part)
            return self._averages["sensitivity"][name] * self._averages["uncertainty"][name]

        vectors = torch.stack([element("lora_A").mean(1), element("lora_B").mean(0)], dim=1)
        return element("lora_E").reshape(-1) + vectors.sum(1)

    def _part(self, layer: str, part: str) -> nn.Parameter:
        return self._named[layer.format(part)]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs to go on bit for bit."""
        found = {f"{n}.{what}": t.clone() for what in _STATES for n, t in self._averages[what].items()}
        return found | {f"{layer.format('lora_E')}.{_KEPT}": kept for layer, kept in self._kept.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for what in _STATES:
            for name, average in self._averages[what].items():
                average.copy_(state[f"{name}.{what}"])
        for layer in self._layers:
            kept = state.get(f"{layer.format('lora_E')}.{_KEPT}")
            if kept is not None:
                self._kept[layer] = kept.to(self._part(layer, "lora_E")).clone()
