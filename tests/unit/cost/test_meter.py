"""The cost of a step is its own, not that of the process so far."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from effstilts.cost.flops import counted
from effstilts.cost.meter import Meter
from effstilts.engine.checkpoint import Progress
from effstilts.engine.plain import Model

MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident peaks are reset through /proc")


def use(mebibytes: int) -> None:
    np.ones(mebibytes * MIB, np.uint8).sum()


def test_a_small_step_after_a_large_one_has_a_small_peak(encoder: Any) -> None:
    model = Model(encoder, {})
    peaks = []
    for size in (300, 20):
        meter = Meter(torch.device("cpu"))
        meter.training_begins()
        use(size)
        cost = meter.facts(model, Progress())["cost"]
        peaks.append((cost["peak_memory_bytes"] - cost["memory_before_bytes"]) / MIB)
    assert 290 < peaks[0] < 340 and peaks[1] < 60


def test_making_the_model_and_training_it_are_told_apart(encoder: Any) -> None:
    meter = Meter(torch.device("cpu"))
    use(250)
    meter.training_begins()
    use(40)
    cost = meter.facts(Model(encoder, {}), Progress(tokens=7, padded_tokens=10))["cost"]
    before = cost["memory_before_bytes"]
    assert 240 < (cost["peak_memory_bytes"] - before) / MIB < 290
    assert 30 < (cost["training_peak_memory_bytes"] - before) / MIB < 90
    assert cost["flops"] > 0 and cost["tokens"] == 7


def test_a_number_costs_the_products_of_the_blocks_below_its_layer(encoder: Any) -> None:
    costs = {layer: Meter(torch.device("cpu")).of_scoring(encoder, 10, layer)["scoring_cost"] for layer in (-1, 0, 1)}
    assert costs[0]["flops"] == 0 < costs[1]["flops"] == costs[-1]["flops"] / encoder.depth
    assert all(cost["seconds"] >= 0 and cost["tokens"] == 10 and cost["parameters"] > 0 for cost in costs.values())
    ids = torch.randint(5, 20, (1, 10))
    with torch.no_grad():
        run = counted(lambda: encoder(ids, torch.ones_like(ids)))
    # Beside the linear layers there are the products of attention: 4 x tokens x dim for each token and block.
    attention = 4 * 10 * encoder.hidden_size * 10 * encoder.depth
    assert costs[-1]["flops"] == run - attention
