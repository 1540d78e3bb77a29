"""Several trainings from one encoder made one: weighted sums of what each has added to it (task vectors).

    linear       sum of w_i d_i (task arithmetic, Ilharco et al. 2023)
    ties         the largest `density` of each d_i; where they disagree in sign, the sign of the weighted sum; then the
                 weighted mean of those that have it (Yadav et al. 2023)
    dare_linear  a random `density` of each d_i, over density, then linear (Yu et al. 2024)
    dare_ties    the same, then elected and averaged as in ties

d_i is a difference of whole weight matrices, of adapters B A and not B and A apart. peft's add_weighted_adapter(linear)
sums the factors: (sum of sqrt(w_i) B_i)(sum of sqrt(w_i) A_i) has the cross terms B_1 A_2, and an adapter with itself
at 0.5 and 0.5 comes out doubled. A matrix is trimmed on its own, as in peft. Weights count relatively in ties, whose
mean is of the elected; `scale` multiplies any outcome.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from effstilts.errors import ModelError
from effstilts.model.encoder import Encoder
from effstilts.recipe import Combine


@torch.no_grad()
def add_combined(base: Encoder, arms: Sequence[tuple[Encoder, float]], how: Combine, seed: int) -> None:
    """Adds the combination of the arms' differences to the encoder `base`, that all of them began with.

    The order of the arms matters to dare alone. ModelError where an arm has other weights than the base.
    """
    trained = [(dict(arm.backbone.named_parameters()), weight) for arm, weight in arms]
    for name, parameter in base.backbone.named_parameters():
        if any(name not in weights or weights[name].shape != parameter.shape for weights, _ in trained):
            raise ModelError(f"the arms cannot be combined: {name} is not of one shape in all of them")
        differences = [weights[name].float() - parameter for weights, _ in trained]
        if any(bool(difference.any()) for difference in differences):
            parameter += combined(differences, [weight for _, weight in trained], how, _generator(seed, name))


def combined(
    differences: Sequence[Tensor], weights: Sequence[float], how: Combine, generator: torch.Generator
) -> Tensor:
    """One tensor's combination, of the shape of each difference."""
    stacked = torch.stack(list(differences))
    if how.how == "ties":
        stacked = torch.stack([_largest(difference, how.density) for difference in stacked])
    elif how.how != "linear" and how.density < 1:
        kept = [torch.bernoulli(torch.full_like(one, how.density), generator=generator) for one in stacked]
        stacked = stacked * torch.stack(kept) / how.density
    share = torch.tensor(weights, dtype=stacked.dtype).reshape(-1, *[1] * (stacked.dim() - 1))
    total = (share * stacked).sum(0)
    if how.how in ("ties", "dare_ties"):
        elected = torch.where(total >= 0, 1.0, -1.0)
        agreeing = share * (stacked.sign() == elected)
        total = (agreeing * stacked).sum(0) / agreeing.sum(0).clamp(min=torch.finfo(total.dtype).tiny)
    return how.scale * total


def _largest(difference: Tensor, density: float) -> Tensor:
    """The entries of the largest magnitude, the others 0."""
    kept = int(density * difference.numel())
    flat = difference.reshape(-1)
    places = flat.abs().topk(kept).indices
    return torch.zeros_like(flat).index_copy(0, places, flat[places]).view_as(difference)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
