"""The results of a run as a table: arms against each other, a column for each language."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from effstilts.errors import StoreError
from effstilts.evaluation.significance import sign_flip_test
from effstilts.procedure import Graph
from effstilts.store import Store
from effstilts.studies.listing import columns
from effstilts.studies.overlap import of_evaluation
from effstilts.workbench import Source, Step, root_of

Record = Mapping[str, Any]

# With fewer seeds no paired test over seeds can give p < 0.05: the least is 2 / 2^seeds.
_SEEDS_FOR_A_TEST = 6
_WIDE = 60  # characters of the arms' names


def run_record(name: str, graph: Graph, store: Store, recipe: Record) -> dict[str, Any]:
    """What `effstilts show` and further studies read: every cell with its step and, once made, its numbers."""
    cells = []
    for cell in graph.cells:
        base = cell.step.base
        trained = base.parts if cell.section == "target" and isinstance(base, Step) else ()
        entry: dict[str, Any] = {
            "section": cell.section,
            "arm": cell.arm,
            "seed": cell.seed,
            "task": cell.task,
            "language": cell.language,
            "of_languages": len(cell.step.parts[0].task.languages),
            "split": cell.split,
            "step": cell.step.name,
            "training_language": trained[0].language if trained else "",
            # The set that weights were chosen on is no test for them.
            "selected_on": cell.split == "dev"
            and any(
                ((part.selected_on or part.task).name, part.language) == (cell.task, cell.language) for part in trained
            ),
        }
        if store.has(cell.step.kind, cell.step.key):
            facts = store.facts(cell.step.kind, cell.step.key)
            for key in ("score", "metric", "metrics", "examples", "collapsed"):
                entry[key] = facts[key]
            if failed := _failures(cell.step.base, store):
                entry["failed"] = failed
        cells.append(entry)
    steps = []
    for step in graph.steps:
        line: dict[str, Any] = {"name": step.name, "label": step.label, "kind": step.kind}
        line["inputs"] = [before.name for before in step.inputs]
        if store.has(step.kind, step.key):
            facts = store.facts(step.kind, step.key)
            if "cost" in facts:
                line |= {"done_steps": facts["steps"], "best_step": facts["best_step"]}
                line |= {"cost": facts["cost"], "machine": facts["machine"], "bytes": store.size(step.kind, step.key)}
            elif "scoring_cost" in facts:
                line |= {"scoring_cost": facts["scoring_cost"], "machine": facts["machine"]}
        steps.append(line)
    # By arm and seed: equal arms share a step, whose label names the first.
    encoders = {f"{arm}:{seed}": at.name if isinstance(at, Step) else "" for (arm, seed), at in graph.encoders.items()}
    roots = {root_of(at).key for at in graph.encoders.values()}
    return {
        "name": name,
        "recipe": dict(recipe),
        "steps": steps,
        "encoders": encoders,
        # What a checkpoint was, so that another of its name is not taken for it.
        **({"checkpoint": roots.pop()} if len(roots) == 1 else {}),
        "cells": cells,
    }


def _failures(step: Source | Step | None, store: Store) -> list[str]:
    """What went wrong with the trainings that a number rests on."""
    if not isinstance(step, Step):
        return []
    own = store.facts(step.kind, step.key).get("failed", ()) if store.has(step.kind, step.key) else ()
    found = [f"{step.label}: {problem}" for problem in own]
    return unique(found + [problem for before in step.inputs for problem in _failures(before, store)])


def list_runs(store: Store) -> str:
    """A line for each run of the store: name, numbers done, arms, model, when it was last written; one whose record is
    damaged says so."""
    rows = [("run", "numbers", "arms", "model", "written")]
    for name in store.run_names():
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.run_path(name).stat().st_mtime))
        try:
            record = store.read_run(name)
            cells = record["cells"]
            done = f"{sum('score' in cell for cell in cells)} of {len(cells)}"
            arms = ", ".join(unique(cell["arm"] for cell in cells))
            arms = arms if len(arms) <= _WIDE else f"{arms[:_WIDE]}…"
            rows.append((name, done, arms, str(record["recipe"]["model"]["name"]), written))
        except (StoreError, KeyError, TypeError):
            rows.append((name, "damaged", "", "", written))
    return columns(rows) if len(rows) > 1 else ""


def table(record: Record, width: int = 0) -> str:
    """The results so far. A cell is the median over seeds; `±` is half the range from lowest to highest; `p` is that
    of a paired sign-flip test over seeds of the last column's difference, where there are seeds enough for one."""
    cells = record["cells"]
    if not cells:
        return "this recipe has no targets and no retrieval: nothing to show"
    lines = [f"{text}\n" for _, text in task_tables(record, width or shutil.get_terminal_size((120, 40)).columns)]
    return "\n".join([*lines, *notes(cells), *of_evaluation(record.get("overlaps", ()))])


def task_tables(record: Record, width: int) -> list[tuple[tuple[str, str], str]]:
    """((section, task), its table) for each task, lines of at most `width` characters where a column allows it."""
    cells = record["cells"]
    arms = unique(cell["arm"] for cell in cells)
    tables = []
    for place in unique((cell["section"], cell["task"]) for cell in cells):
        own = [cell for cell in cells if (cell["section"], cell["task"]) == place]
        tables.append((place, "\n".join(_block(own, arms, width))))
    return tables


def _block(cells: Sequence[Record], arms: Sequence[str], width: int) -> list[str]:
    first = cells[0]
    done = [cell for cell in cells if "score" in cell]
    metric = done[0]["metric"] if done else "not run yet"
    languages = unique(cell["language"] for cell in cells)
    selected = {cell["language"] for cell in cells if cell["selected_on"]}
    foreign = [language for language in languages if language != first["training_language"]]
    heads = [language + ("*" if language in selected else "") for language in languages]
    summary = "zero-shot" if first["section"] == "target" else "mean"
    shown = [*heads, summary] if len(foreign) > 1 else heads
    tested = len(unique(cell["seed"] for cell in done)) >= _SEEDS_FOR_A_TEST and len(arms) > 1
    if tested:
        shown = [*shown, "p"]
    rows: list[tuple[str, list[str]]] = []
    by_arm: dict[str, dict[str, list[float]]] = {}
    for arm in arms:
        values = {language: _scores(done, arm, language) for language in languages}
        by_arm[arm] = values
        texts = [_cell(values[language]) + mark(done, [arm], [language]) for language in languages]
        if len(foreign) > 1:
            texts.append(_cell(_means(done, arm, foreign)) + mark(done, [arm], foreign))
        rows.append((arm, texts + [""] * tested))
    for arm in arms[1:]:
        both = [arms[0], arm]
        texts = [_difference(done, arms[0], arm, [language]) + mark(done, both, [language]) for language in languages]
        if len(foreign) > 1:
            texts.append(_difference(done, arms[0], arm, foreign) + mark(done, both, foreign))
        if tested:
            texts.append(_p_value(differences(done, arms[0], arm, foreign or languages)))
        rows.append((f"  {arm} - {arms[0]}", texts))
    label_width = max(len(label) for label, _ in rows) + 2
    widths = [max([len(head), *(len(texts[i]) for _, texts in rows)]) + 2 for i, head in enumerate(shown)]
    splits = " / ".join(unique(cell["split"] for cell in cells))
    lines = [f"{first['task']}: {metric}, {splits} set"]
    start = 0
    while start < len(shown):
        end, used = start, label_width
        while end < len(shown) and (end == start or used + widths[end] <= width):
            used += widths[end]
            end += 1
        lines.append(" " * label_width + "".join(shown[i].rjust(widths[i]) for i in range(start, end)))
        for label, texts in rows:
            lines.append(label.ljust(label_width) + "".join(texts[i].rjust(widths[i]) for i in range(start, end)))
        start = end
    return lines


def notes(cells: Sequence[Record]) -> list[str]:
    """What a reader of the numbers must know: seeds, optimistic columns, what is missing, collapsed runs."""
    found = []
    seeds = _seeds(cells)
    if len(seeds) > 1:
        found.append(f"median over seeds {', '.join(map(str, seeds))}; ± half the range; differences seed by seed")
        if len(seeds) < _SEEDS_FOR_A_TEST and len(unique(cell["arm"] for cell in cells)) > 1:
            found.append(
                f"no p-values: {len(seeds)} seeds cannot give one below {2 / 2 ** len(seeds):.3g}; "
                f"a paired test at 5 % needs {_SEEDS_FOR_A_TEST}"
            )
        elif len(unique(cell["arm"] for cell in cells)) > 1:
            found.append(
                "p: sign-flip test over seeds, of one comparison alone: of 20 without any effect one is below 0.05"
            )
    if any(cell["selected_on"] for cell in cells):
        found.append("* the dev set that the weights were chosen on: optimistic")
    for task in unique(cell["task"] for cell in cells):
        own = [cell for cell in cells if cell["task"] == task]
        there, of = len(unique(cell["language"] for cell in own)), own[0].get("of_languages", 0)
        if there < of:
            found.append(f"{task}: {there} of its {of} languages; a mean over these is no mean over all")
    waiting = sum("score" not in cell for cell in cells)
    if waiting:
        found.append(f"{waiting} of {len(cells)} numbers are not there yet (-)")
    problems = [
        f"! {cell['task']} {cell['language']}, {cell['arm']}, seed {cell['seed']}: {cell['collapsed']}"
        for cell in cells
        if cell.get("collapsed")
    ]
    problems += unique(f"! {problem}" for cell in cells for problem in cell.get("failed", ()))
    if problems:
        found.append("! a number with a run that failed in it:")
    return found + problems


def _seeds(cells: Sequence[Record]) -> list[int]:
    """Those with a number of their own: the retrieval of an untrained baseline is one step for all."""
    known: set[Any] = set()
    found = []
    for seed in unique(cell["seed"] for cell in cells):
        made = {_made_by(cell) for cell in cells if cell["seed"] == seed and "score" in cell}
        found += [seed] if made - known else []
        known |= made
    return found


def mark(cells: Sequence[Record], arms: Sequence[str], languages: Sequence[str]) -> str:
    """ "!" where a number is made of one that a failed run gave."""
    own = [cell for cell in cells if cell["arm"] in arms and cell["language"] in languages]
    return "!" if any(cell.get("collapsed") or cell.get("failed") for cell in own) else ""


def _scores(cells: Sequence[Record], arm: str, language: str) -> list[float]:
    """Of each step one: what seeds share has no spread."""
    own = [cell for cell in cells if (cell["arm"], cell["language"]) == (arm, language)]
    return list({_made_by(cell): cell["score"] for cell in own}.values())


def _made_by(cell: Record) -> Any:
    return cell.get("step", cell["seed"])


def _means(cells: Sequence[Record], arm: str, languages: Sequence[str]) -> list[float]:
    """For each seed the mean over languages, where all of them are there; of seeds that share their steps one."""
    means: dict[Any, float] = {}
    for seed in unique(cell["seed"] for cell in cells):
        own = [c for c in cells if (c["arm"], c["seed"]) == (arm, seed) and c["language"] in languages]
        if len(own) == len(languages):
            means[tuple(map(_made_by, own))] = statistics.fmean(cell["score"] for cell in own)
    return list(means.values())


def differences(cells: Sequence[Record], base: str, arm: str, languages: Sequence[str]) -> list[float]:
    """arm - base for each seed that both have, of the mean over languages."""
    found = []
    for seed in unique(cell["seed"] for cell in cells):
        of_seed = [cell for cell in cells if cell["seed"] == seed]
        pair = [_means(of_seed, name, languages) for name in (base, arm)]
        if pair[0] and pair[1]:
            found.append(pair[1][0] - pair[0][0])
    return found


def _difference(cells: Sequence[Record], base: str, arm: str, languages: Sequence[str]) -> str:
    return _cell(differences(cells, base, arm, languages), signed=True)


def _p_value(values: Sequence[float]) -> str:
    return f"{sign_flip_test(values).p_value:.3f}" if values else "-"


def _cell(values: Sequence[float], signed: bool = False) -> str:
    if not values:
        return "-"
    middle = statistics.median(values)
    text = f"{middle:+.1f}" if signed else f"{middle:.1f}"
    return text if len(values) == 1 else f"{text} ±{(max(values) - min(values)) / 2:.1f}"


def unique(items: Any) -> list[Any]:
    """The items without repetition, in their order."""
    return list(dict.fromkeys(items))
