"""How phase 1 learns: held-out masked-LM loss by language and Tatoeba accuracy by layer, against tokens seen.

    python benchmarks/phase1_curve.py watch RUN --store STORE --snapshots FOLDER      # while `effstilts run RUN` trains
    python benchmarks/phase1_curve.py measure RUN --store STORE --snapshots FOLDER --data FILES --out OUT
    python benchmarks/phase1_curve.py draw --out OUT

`watch` links the weights of each checkpoint before the run drops it, and ends when the phase is done. `measure` scores
each snapshot, and the weights that phase 1 begins with, on the same rows; what OUT.json holds is not measured again.
Tatoeba's reverse direction stands beside the protocol's. `draw` makes OUT.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

# Rows of each text's dev split, and sentence pairs of each language: enough for a curve.
_DEV_ROWS = 100
_PAIRS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("watch", watch), ("measure", measure), ("draw", draw)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        if name != "draw":
            command.add_argument("run")
            command.add_argument("--store", type=Path, required=True)
            command.add_argument("--snapshots", type=Path, required=True)
            command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        if name == "measure":
            command.add_argument("--every", type=int, default=1, help="of the snapshots one in so many")
        if name != "watch":
            command.add_argument("--out", type=Path, required=True)
        if name != "draw":
            command.add_argument("--data", type=Path)
    options = parser.parse_args()
    options.function(options)


def opened(options: argparse.Namespace) -> Any:
    from effstilts.commands.places import RecipeChoice

    choice = RecipeChoice(recipe=options.run, store=options.store, data=options.data, offline=True, set=options.set)
    return choice.opened(quiet=True, events=False)


def watch(options: argparse.Namespace) -> None:
    with opened(options) as (_, bench, graph):
        step = next(step for step in graph.steps if step.kind == "mlm")
        options.snapshots.mkdir(parents=True, exist_ok=True)
        while not bench.store.has(step.kind, step.key):
            for manifest in bench.store.work_folder(step.kind, step.key).glob("checkpoint-*/manifest.json"):
                link = options.snapshots / f"{manifest.parent.name}.safetensors"
                if not link.exists():
                    os.link(manifest.parent / "weights.safetensors", link)
            time.sleep(5)


def measure(options: argparse.Namespace) -> None:
    from safetensors.torch import load_file

    from effstilts.cost.meter import machine
    from effstilts.engine.plain import Model

    path = options.out.with_suffix(".json")
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"points": {}}
    with opened(options) as (recipe, bench, graph):
        step = next(step for step in graph.steps if step.kind == "mlm")
        facts = bench.store.facts(step.kind, step.key) if bench.store.has(step.kind, step.key) else None
        opening = bench.open_encoder(step.base)
        model = Model(opening, bench.heads(step, opening, fresh=True)).eval()
        names = {0: None} | {int(p.stem.split("-")[1]): p for p in sorted(options.snapshots.glob("*.safetensors"))}
        chosen = sorted(names)[:: options.every]
        for at in dict.fromkeys([*chosen, max(names)]):
            if str(at) in results["points"]:
                continue
            if (weights := names[at]) is not None:
                tensors = load_file(str(weights))
                for name, parameter in model.named_parameters():
                    parameter.data.copy_(tensors[name])
            results["points"][str(at)] = {"loss": losses(bench, step, model), "tatoeba": tatoeba(bench, recipe, model)}
            print(at, {k: round(v, 2) for k, v in results["points"][str(at)]["loss"].items()}, flush=True)
            if facts is not None:
                results["tokens_a_step"] = facts["cost"]["tokens"] / facts["steps"]
                results["machine"] = facts["machine"]
            else:
                results["machine"] = machine(bench.device)
            results["run"], results["step"], results["rows"], results["pairs"] = (
                recipe.name,
                step.name,
                _DEV_ROWS,
                _PAIRS,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def losses(bench: Any, step: Any, model: Any) -> dict[str, float]:
    """Held-out loss in nats a predicted token, of each language's text."""
    from effstilts.engine.predict import predict
    from effstilts.kinds import kind_of

    found = {}
    for part in step.parts:
        if not bench.has_split(part.selection(), "dev"):
            continue
        own = part.selection(_DEV_ROWS)
        kind = kind_of(own.task.kind)
        rows, examples = bench.rows(own, "dev", model.encoder), bench.examples(own, "dev")
        training = step.training
        predictions = predict(
            kind,
            own.task,
            model,
            part.head,
            examples,
            rows,
            training.precision,
            training.micro_tokens,
            training.mask_share,
        )
        found[part.language] = kind.score(own.task, predictions, examples, part.language)["loss"]
    return found


def tatoeba(bench: Any, recipe: Any, model: Any) -> dict[str, dict[str, list[float]]]:
    """Language -> accuracy and reverse accuracy by layer, 0 the embedding output."""
    from effstilts.procedure import retrieval_splits
    from effstilts.retrieval.evaluate import EVALUATORS, Trial, poolings
    from effstilts.workbench import TaskPart

    settings = replace(recipe.retrieval, rows=_PAIRS)
    found = {}
    for name in recipe.retrieval.tasks:
        task = bench.task(name)
        for language, (split, _) in retrieval_splits(bench, task, ()).items():
            over = poolings(model.encoder, settings, list(range(model.encoder.depth + 1)))
            part = TaskPart(task, language, rows=_PAIRS)
            trial = Trial(
                model.encoder, lambda s, part=part: bench.examples(part, s), split, settings, task.max_length, over
            )
            sweep = EVALUATORS[task.kind].evaluate(trial)
            metrics = [sweep.outcomes[pooling].metrics for pooling in over]
            found[language] = {key: [m[key] for m in metrics] for key in ("accuracy", "accuracy_reverse")}
    return found


def draw(options: argparse.Namespace) -> None:
    from matplotlib.figure import Figure

    results = json.loads(options.out.with_suffix(".json").read_text(encoding="utf-8"))
    points = {int(at): point for at, point in results["points"].items()}
    steps = sorted(points)
    tokens = [at * results.get("tokens_a_step", 0) / 1e6 for at in steps]
    unit = "million tokens seen, without padding" if any(tokens) else "steps"
    x = tokens if any(tokens) else steps
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    languages = list(points[steps[0]]["loss"])
    shades = {language: f"C{i % 10}" for i, language in enumerate(languages)}
    for i, language in enumerate(languages):
        values = [points[at]["loss"][language] for at in steps]
        left.plot(x, values, label=language, color=shades[language], ls="-" if i < 10 else "--", lw=1.3)
    left.set_ylabel("held-out masked-LM loss, nats a token")
    left.legend(ncols=3, fontsize=8, frameon=False)
    depth = len(next(iter(points[steps[0]]["tatoeba"].values()))["accuracy"])
    for layer in range(depth):
        means = [fmean(own["accuracy"][layer] for own in points[at]["tatoeba"].values()) for at in steps]
        right.plot(x, means, label=f"hidden state {layer}", marker="o", ms=3, color=f"C{layer}")
    count = len(points[steps[0]]["tatoeba"])
    right.axhline(100 / results["pairs"], color="#999", ls=":", lw=1, label="chance")
    right.set_ylabel(f"Tatoeba accuracy among {results['pairs']}, mean of {count} languages (%)")
    right.set_ylim(bottom=0)
    right.legend(fontsize=8, ncols=2, loc=(0.3, 0.08), frameon=False)
    for axis in (left, right):
        axis.set_xlabel(unit)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
