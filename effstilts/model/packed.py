"""The forward pass of BERT-like encoders without padding, for inference.

Sentences of one length form a group [B, T]; a batch is a list of groups. The linear layers run over the tokens of all
groups at once [N, D], attention within each group: no padding, no mask, no dropout. The weights are laid out once for
oneDNN's matrix product, which on some processors is twice as fast in float32 as the default library, and GELU is
computed as the product leaves it. The residual stream, the layer norms and whatever is pooled stay in float32.

Shapes: N tokens of a batch, B sentences of a group, T their length, H heads, D hidden size.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from effstilts.errors import ModelError
from effstilts.model.encoder import Encoder

Precision = Literal["auto", "fp32", "bf16"]

_MODEL_TYPES = {"bert", "roberta", "xlm-roberta", "camembert"}
# Up to this length the scores of all heads are made whole; the fused kernel is slower there and saves memory above.
_EAGER_TOKENS = 512
# bf16 must be faster by this much, or its rounding buys nothing.
_WORTHWHILE = 1.3


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What "auto" means here: bf16 if the GPU has it, or if a matrix product on this CPU is 1.3 times as fast in it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_gain() >= _WORTHWHILE else "fp32"


@functools.cache
def bf16_gain() -> float:
    """Processor seconds of a product [512, 768] x [768, 768] in float32 over those in bf16: about 10 ms to
    find. Other jobs on the machine decide nothing."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        linear = PackedLinear(torch.full((768, 768), 0.01), torch.zeros(768), dtype, 512)
        rows = torch.full((512, 768), 0.01, dtype=dtype)
        times = []
        with torch.inference_mode():
            for _ in range(4):
                began = time.process_time()
                linear(rows)
                times.append(time.process_time() - began)
        seconds[dtype] = min(times)
    return seconds[torch.float32] / seconds[torch.bfloat16]


class PackedLinear:
    """x [N, in] -> x W^T + b [N, out], with GELU if asked; the weight in oneDNN's own layout where that works."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, tokens: int) -> None:
        self._weight = weight.detach().to(dtype)
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._packed = _packing_works(dtype) and weight.device.type == "cpu"
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight.contiguous(), tokens)

    def __call__(self, rows: Tensor, gelu: bool = False) -> Tensor:
        if self._packed:
            after: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
            product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, *after)
            return product
        product = functional.linear(rows, self._weight, self._bias)
        return functional.gelu(product) if gelu else product


@functools.cache
def _packing_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's packed product is in this build of torch and agrees with the plain one."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        weight, bias, rows = (torch.randn(*shape).to(dtype) for shape in ((32, 32), (32,), (8, 32)))
        expected = functional.gelu(functional.linear(rows, weight, bias))
        try:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
            found = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "gelu", [], "none")
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        return torch.allclose(found.float(), expected.float(), rtol=2**-6, atol=2**-6)


class _Block:
    """One post-norm transformer block: attention, then two linear layers with GELU between."""

    def __init__(self, layer: Any, heads: int, dtype: torch.dtype, tokens: int) -> None:
        own = layer.attention.self
        self.heads, self.dtype = heads, dtype
        size = own.query.weight.shape[0]
        self.head_size = size // heads
        scale = 1 / math.sqrt(self.head_size)
        weight = torch.cat([own.query.weight * scale, own.key.weight, own.value.weight])
        bias = torch.cat([own.query.bias * scale, own.key.bias, own.value.bias])
        self.query_key_value = PackedLinear(weight, bias, dtype, tokens)
        self.attended, self.attended_norm = layer.attention.output.dense, layer.attention.output.LayerNorm
        self.out, self.out_norm = layer.output.dense, layer.output.LayerNorm
        self.attended_linear, self.up, self.down = (
            PackedLinear(part.weight, part.bias, dtype, tokens)
            for part in (self.attended, layer.intermediate.dense, self.out)
        )

    def __call__(self, hidden_ND: Tensor, groups: Sequence[Tensor]) -> Tensor:
        mixed = self.query_key_value(hidden_ND.to(self.dtype))
        parts, start = [], 0
        for group in groups:
            stop = start + group.numel()
            parts.append(self._attend(mixed[start:stop], *group.shape))
            start = stop
        attended = self.attended_linear(torch.cat(parts) if len(parts) > 1 else parts[0])
        hidden_ND = self.attended_norm(hidden_ND + attended)
        inner = self.up(hidden_ND.to(self.dtype), gelu=True)
        normed: Tensor = self.out_norm(hidden_ND + self.down(inner))
        return normed

    def _attend(self, mixed: Tensor, rows: int, length: int) -> Tensor:
        query, key, value = mixed.view(rows, length, 3, self.heads, self.head_size).permute(2, 0, 3, 1, 4)
        if length <= _EAGER_TOKENS:
            scores_BHTT = torch.matmul(query, key.transpose(-1, -2))
            mean_BHTd = torch.matmul(torch.softmax(scores_BHTT, -1), value)
        else:
            mean_BHTd = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return mean_BHTd.transpose(1, 2).reshape(rows * length, self.heads * self.head_size)


class PackedEncoder:
    """The embeddings and the first `layers` blocks of an encoder; a copy of the weights in the dtype of `precision`.

    tokens: the batch size that the weights are laid out for; other sizes work. ModelError for an encoder that
    `refusal` names a reason against.
    """

    def __init__(self, encoder: Encoder, layers: int, precision: Literal["fp32", "bf16"], tokens: int = 2048) -> None:
        if why := refusal(encoder):
            raise ModelError(f"this encoder has no unpadded form here: {why}")
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        heads = int(encoder.config.num_attention_heads)
        self.embeddings = encoder.backbone.embeddings
        with torch.no_grad():
            self.blocks = [_Block(layer, heads, dtype, tokens) for layer in encoder.backbone.encoder.layer[:layers]]

    def hidden_states(self, groups: Sequence[Tensor]) -> Iterator[Tensor]:
        """Hidden states 0 (embeddings) to `layers`, each [N, D] in float32. groups: token ids [B, T] each; tokens are
        counted group by group, sentence by sentence. The encoder must be in evaluation mode."""
        hidden_ND = torch.cat([self.embeddings(input_ids=group).flatten(0, 1) for group in groups])
        yield hidden_ND
        for block in self.blocks:
            hidden_ND = block(hidden_ND, groups)
            yield hidden_ND


def refusal(encoder: Encoder) -> str:
    """Why this encoder cannot be run without padding here; "" if it can."""
    config, backbone = encoder.config, encoder.backbone
    if config.model_type not in _MODEL_TYPES:
        return f"{config.model_type} is not among {', '.join(sorted(_MODEL_TYPES))}"
    if config.hidden_act != "gelu":
        return f"its activation is {config.hidden_act}, not gelu"
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        return "its positions are relative"
    blocks = getattr(getattr(backbone, "encoder", None), "layer", None)
    if blocks is None or not hasattr(backbone, "embeddings"):
        return "its blocks are wrapped"
    for block in blocks:
        own = block.attention.self
        linear = (own.query, own.key, own.value, block.attention.output.dense, block.intermediate.dense)
        # Adapters and quantised weights are subclasses or wrappers, whose own forward must run.
        if any(type(part) is not nn.Linear for part in (*linear, block.output.dense)):
            return "its linear layers are adapted or quantised"
        if any(part.weight.dtype != torch.float32 or part.bias is None for part in linear):
            return "its weights are not float32"
    return ""
