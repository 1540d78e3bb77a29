"""Masked LM beside labelled tasks in the intermediate phase: whose head, whose steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.test_procedure import run

pytestmark = pytest.mark.slow

MIXED = (
    "intermediate={mixed: {tasks: [{task: synthetic/mnli, rows: 64}, {task: synthetic/squad, rows: 64}, tiny/text], "
    "mixing: fixed, training: {TRAINING}}}"
)


def mixed(recipe: Path, store: Path, training: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The heads that phase 1 and the mixed phase 2 left, by name and parameter."""
    from safetensors.torch import load_file

    run(recipe, store, MIXED.replace("TRAINING", training), "targets=[]", "retrieval.tasks=[]")
    phases = (next((store / "artefacts").glob(f"{kind}-*")) for kind in ("mlm", "intermediate"))
    before, after = (load_file(str(phase / "heads.safetensors")) for phase in phases)
    return before, after


def test_masked_lm_goes_on_with_the_head_of_phase_1(tiny_recipe: Path, tmp_path: Path) -> None:
    """At a rate of nearly 0 its head comes out as it went in, beside a fresh head for each other task."""
    import torch

    before, after = mixed(tiny_recipe, tmp_path / "store", "learning_rate: 1e-30, weight_decay: 0, steps: 4")
    assert {name.partition("|")[0] for name in before} == {"masked_lm"}
    assert {name.partition("|")[0] for name in after} == {"masked_lm", "synthetic-nli", "synthetic/squad"}
    assert all(torch.allclose(after[name], tensor, rtol=0, atol=1e-20) for name, tensor in before.items())


def test_every_task_of_a_mixture_trains_its_own_head(tiny_recipe: Path, tmp_path: Path) -> None:
    """With a rate that moves, each of the three heads has moved; the losses are those of steps of all tasks."""
    import torch

    still, moved = (
        mixed(tiny_recipe, tmp_path / name, f"learning_rate: {rate}, weight_decay: 0, steps: 24, evaluate_every: 0")[1]
        for name, rate in (("still", "1e-30"), ("moved", "1e-3"))
    )
    for head in ("masked_lm", "synthetic-nli", "synthetic/squad"):
        names = [name for name in still if name.startswith(f"{head}|")]
        assert names and any((still[name] - moved[name]).abs().max() > 1e-4 for name in names), head
    folder = next((tmp_path / "moved" / "artefacts").glob("intermediate-*"))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    # ln 3 for NLI, ln of some 40 places for questions, ln 400 for a vocabulary: steps of each stand apart.
    assert len(losses) == 24 and min(losses) < 2 and max(losses) > 5
    assert torch.isfinite(torch.tensor(losses)).all()
