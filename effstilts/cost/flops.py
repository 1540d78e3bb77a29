"""Floating-point operations of training: counted in a step, or estimated from an encoder's shape.

A multiply-add counts as two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from effstilts.model.quantised import block_linears


def counted(step: Callable[[], object]) -> int:
    """Operations of all matrix products that `step` runs, backward and recomputation included, those of bitsandbytes'
    kernels too. Elementwise work is not counted."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=_more_products()) as counter:
        step()
    return int(counter.get_total_flops())


def encoder_flops_per_token(backbone: nn.Module) -> int:
    """Operations of the blocks' linear layers for a token, forward and backward, as the parameters stand: a layer
    costs 2 x inputs x outputs forward, as much for its input's gradient from the lowest trained block upwards, as much
    for its weight's gradient where that is trained; once more forward where activations are computed twice.

    Without the products of attention (4 x tokens of the row x dim for each block and pass: 3 % at 128 tokens of XLM-R
    base), embeddings and heads.
    """
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    lowest = min((_block(name) for name in trained), default=None)
    if lowest is None:
        return forward_flops_per_token(backbone)
    twice = any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())
    total = 0
    for name, layer in block_linears(backbone).items():
        above = _block(name) >= lowest
        passes = 1 + above + bool(layer.weight.requires_grad) + (twice and above)
        total += passes * 2 * layer.in_features * layer.out_features
    return total


def forward_flops_per_token(backbone: nn.Module, layer: int = -1) -> int:
    """As `encoder_flops_per_token`, forward alone; of the blocks up to hidden state `layer`, -1: all."""
    linears = block_linears(backbone).items()
    return sum(2 * m.in_features * m.out_features for name, m in linears if layer < 0 or _block(name) < layer)


def _block(name: str) -> int:
    """The block that a parameter or module belongs to; -1 for the embeddings, below all."""
    found = re.search(r"(?:^|\.)layers?\.(\d+)\.", name)
    return int(found.group(1)) if found else -1


def _more_products() -> dict[Any, Any]:
    """Products that torch's counter does not know: fused attention on a CPU, bitsandbytes' quantised products."""

    def attention(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
        rows, heads, queries, size = query
        return 2 * int(rows * heads * queries * key[2] * (size + value[3]))

    def attention_backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
        # Scores again, then the gradients of value, probabilities, query and key.
        rows, heads, queries, size = query
        return 2 * int(rows * heads * queries * key[2] * (3 * size + 2 * value[3]))

    def product(left: Any, right: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
        *rows, inner = left
        return 2 * int(torch.Size(rows).numel() * inner * right[0])

    def packed(left: Any, right: Any, shape: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
        return 2 * int(torch.Size(left).numel() * shape[0])

    found: dict[Any, Any] = {}
    for library, name, formula in (
        ("aten", "_scaled_dot_product_flash_attention_for_cpu", attention),
        ("aten", "_scaled_dot_product_flash_attention_for_cpu_backward", attention_backward),
        ("bitsandbytes", "int8_linear_matmul", product),
        ("bitsandbytes", "int8_scaled_mm", product),
        ("bitsandbytes", "int8_mixed_scaled_mm", product),
        ("bitsandbytes", "gemm_4bit", packed),
    ):
        operator = getattr(getattr(torch.ops, library), name, None)
        if operator is not None:
            found[operator] = formula
    return found
