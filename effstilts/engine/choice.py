"""Which engine a recipe asks for."""

from __future__ import annotations

import torch

from effstilts.engine import zero_config
from effstilts.engine.base import Engine
from effstilts.engine.optimizers import check_optimizer
from effstilts.engine.plain import Model, PlainEngine, check_precision, default_device
from effstilts.engine.rank_budget import RankBudget
from effstilts.engine.ranks import Ranks
from effstilts.errors import RecipeError
from effstilts.model.quantised import FORMS, bitsandbytes
from effstilts.recipe import Method, Spread, Training


def make_engine(
    spread: Spread,
    model: Model,
    training: Training,
    device: torch.device,
    ranks: Ranks,
    method: Method = Method(),  # noqa: B008 - frozen
    steps: int = 0,
) -> Engine:
    """The engine of a training step of `steps` updates; see `zero_config.resolve` for what can be wrong with it."""
    if not spread.zero:
        adaptive = method.name == "adalora"
        budget = RankBudget(dict(model.to(device).named_parameters()), method, steps) if adaptive else None
        return PlainEngine(model, training, device, ranks, budget)
    config = zero_config.resolve(spread, training, ranks.world, model.encoder.hidden_size)
    from effstilts.engine.zero import ZeroEngine

    return ZeroEngine(model, training, device, ranks, config)


def check_spread(spread: Spread, training: Training, method: Method) -> None:
    """RecipeError or MissingDependencyError now, for what would be raised when the step begins."""
    check_optimizer(training, default_device(), spread.zero)
    check_precision(training.precision, default_device())
    if method.name in FORMS:
        bitsandbytes(f"method {method.name}")
    if not spread.zero:
        return
    if method.name == "adalora":
        raise RecipeError(
            "engine.name: adalora weighs whole gradients between backward pass and update, which zero shards; use "
            "plain, over any number of ranks, or method lora"
        )
    config = zero_config.resolve(spread, training, 1, 1)
    if FORMS.get(method.name) == "int8" and config["zero_optimization"]["stage"] == 3:
        raise RecipeError(
            f"engine.config: ZeRO-3 cannot shard the int8 base of {method.name}: bitsandbytes holds it whole on every "
            "process; use zero1 or zero2, or method qlora"
        )
