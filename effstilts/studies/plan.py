"""`effstilts plan`: the graph of a recipe, what is done, what was begun, what will run."""

from __future__ import annotations

from effstilts.log import format_bytes, format_seconds
from effstilts.procedure import Graph
from effstilts.recipe import Recipe
from effstilts.workbench import Step, Workbench


def describe(recipe: Recipe, bench: Workbench, graph: Graph) -> str:
    """A line for each step that trains, a line for each group of evaluations, and the sums."""
    rows: list[tuple[str, str, str, str]] = []
    groups: dict[str, list[Step]] = {}
    for step in graph.steps:
        if step.kind in ("evaluate", "retrieve"):
            groups.setdefault(_group(step), []).append(step)
        else:
            rows.append((*_state(bench, step), step.label, step.name))
    for label, steps in groups.items():
        done = sum(bench.store.has(step.kind, step.key) for step in steps)
        examples = sum(_rows(bench, step) for step in steps)
        state = "done" if done == len(steps) else f"{done}/{len(steps)}" if done else "to run"
        of = len(steps[0].parts[0].task.languages)
        languages = f"{len(steps)} of {of} languages" if len(steps) < of else f"{len(steps)} languages"
        rows.append((state, f"{languages}, {examples:,} rows", label, ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
    lines = [f"{recipe.name}: {len(graph.steps)} steps, store {bench.store.root}"]
    lines += ["  ".join(row[i].ljust(widths[i]) for i in range(3)) + f"  {row[3]}".rstrip() for row in rows]
    finished = sum(bench.store.has(step.kind, step.key) for step in graph.steps)
    lines.append(f"{finished} of {len(graph.steps)} done")
    return "\n".join(lines)


def _group(step: Step) -> str:
    return step.label.replace(f" {step.parts[0].language} ", " ", 1)


def _state(bench: Workbench, step: Step) -> tuple[str, str]:
    if bench.store.has(step.kind, step.key):
        facts = bench.store.facts(step.kind, step.key)
        size = format_bytes(bench.store.size(step.kind, step.key))
        if "cost" not in facts:
            return "done", size
        return "done", f"{facts['steps']} steps, {format_seconds(facts['cost']['seconds'])}, {size}"
    work = bench.store.work_folder(step.kind, step.key)
    begun = sorted(work.glob("checkpoint-*/progress.json"))
    if begun:
        return "begun", f"{int(begun[-1].parent.name.rpartition('-')[2])} steps so far, {_size(bench, step)}"
    return "to run", _size(bench, step)


def _size(bench: Workbench, step: Step) -> str:
    if step.arms:
        return f"{len(step.arms)} arms, {step.phase.combine.how}"
    rows = _rows(bench, step)
    if step.kind in ("tokenizer", "alignment"):
        return f"{rows:,} rows"
    training = step.training
    epochs = f"{training.epochs:g} epoch" + ("s" if training.epochs != 1 else "")
    length = f"{training.steps:,} steps" if training.steps else epochs
    # What a target has of its own, a `--set` of the recipe's training does not reach: it must be seen here.
    return f"{rows:,} rows, {length} of {training.batch_size}, {step.method.name} at {training.learning_rate:g}"


def _rows(bench: Workbench, step: Step) -> int:
    return sum(bench.count(part, step.split) for part in step.parts)
