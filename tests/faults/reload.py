"""Logits of what a run left, for a fresh process: `python -m tests.faults.reload STORE RECIPE OUT METHOD...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TEXTS = ["Anna waited.", "The old sailor sold a red boat to the baker.", "ki"]


def logits(encoder: Any, heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Each head's scores of three sentences of several lengths, without dropout."""
    batch = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    encoder.eval()
    with torch.inference_mode():
        hidden_BTD = encoder(batch["input_ids"], batch["attention_mask"])
        return {"hidden": hidden_BTD.clone()} | {n: head.eval()(hidden_BTD).clone() for n, head in heads.items()}


def steps(store: Path, recipe: Path, method: str) -> Iterator[tuple[Any, Any]]:
    """(workbench, target step) for each target of the recipe under a method."""
    from effstilts.commands.runs import Plan

    command = Plan(recipe=str(recipe), set=[f"method={{name: {method}, rank: 2}}"], store=store, offline=True)
    with command.opened(quiet=True, events=False) as (_, bench, graph):
        for step in graph.steps:
            if step.kind == "target":
                yield bench, step


def as_trained(bench: Any, step: Any) -> dict[str, Tensor]:
    """As training left it: an adapter beside its base, which is quantised again where it was."""
    from effstilts.model import adapters, quantised

    folder = bench.store.open(step.kind, step.key).folder
    if step.leaves_adapter:
        opened = bench.open_encoder(step.adapter_base)
        if step.method.name in quantised.FORMS:
            quantised.quantise(opened, quantised.FORMS[step.method.name])
        adapters.attach(opened, step.method, folder / adapters.FOLDER)
    else:
        opened = bench.open_encoder(step)
    return logits(opened, bench.heads(step, opened, fresh=False))


def as_evaluated(bench: Any, step: Any) -> dict[str, Tensor]:
    """As predictions are made: the adapter merged into full precision."""
    model = bench.open_model(step)
    return logits(model.encoder, {part.head: model.head(part.head) for part in step.parts})


def all_of(store: Path, recipe: Path, methods: list[str]) -> dict[str, Tensor]:
    found = {}
    for method in methods:
        for bench, step in steps(store, recipe, method):
            for form in (as_trained, as_evaluated):
                for name, tensor in form(bench, step).items():
                    found[f"{method}|{step.parts[0].task.name}|{form.__name__}|{name}"] = tensor.contiguous()
    return found


if __name__ == "__main__":
    from safetensors.torch import save_file

    save_file(all_of(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4:]), sys.argv[3])
