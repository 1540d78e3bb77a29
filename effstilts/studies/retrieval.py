"""`effstilts retrieve`: several encoders on retrieval tasks, side by side, with the layer sweep, as table and picture.

A layer is never chosen on what is scored. For tasks that have a test set alone the table shows the run's layer, a
sentence-transformers model's last, or the protocol's; for tasks with a threshold the layer that dev (or the other
folds, where dev is all there is) prefers.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from effstilts.errors import DataError, RecipeError, did_you_mean
from effstilts.log import Log
from effstilts.model.packed import Precision
from effstilts.procedure import retrieval_splits
from effstilts.recipe import How, Retrieval
from effstilts.retrieval.embed import Pooling
from effstilts.retrieval.evaluate import Outcome, Trial, evaluator_of, passed_over, poolings
from effstilts.studies.trained import Named
from effstilts.tasks.task import Task
from effstilts.workbench import TaskPart, Workbench

# Settings beside layer and pooling that numbers depend on, and what is usual.
_SETTINGS = {"margin": "", "neighbours": 4, "mode": "max", "space": "none", "rows": 0, "special_tokens": True}
_SHOWN = _SETTINGS | {"precision": "fp32"}


@dataclass(frozen=True)
class Wanted:
    """What is measured. layers: hidden states, or "all"; none: the run's own or the protocol's. hows: ways of pooling,
    the first for the table; none: each model's own. asked: fields of `Retrieval` that stand for every model; the others
    are its run's, or the defaults. precision: what the vectors are computed in."""

    tasks: tuple[str, ...]
    languages: tuple[str, ...]
    layers: tuple[int, ...] | Literal["all"]
    hows: tuple[How, ...]
    asked: Mapping[str, Any]
    precision: Precision = "fp32"


def measure(named: Named, wanted: Wanted, bench: Workbench, log: Log) -> Iterator[dict[str, Any]]:
    """A cell for each task and language of one model. RecipeError, DataError or ModelError before anything is
    computed where a task, a language or a layer does not exist."""
    opened = named.encoder.to(bench.device).eval()
    tasks = [bench.task(name) for name in wanted.tasks]
    known = list(dict.fromkeys(language for task in tasks for language in task.languages))
    for language in wanted.languages:
        if language not in known:
            hint = did_you_mean(language, known)
            raise RecipeError(f"--languages: no language {language!r} in the tasks named{hint}")
    plan = []
    for task in tasks:
        evaluator_of(task, "--tasks")
        settings = _settings(named, wanted, task)
        (own,) = poolings(opened, settings)
        layers = range(opened.depth + 1) if wanted.layers == "all" else wanted.layers
        over = poolings(opened, settings, list(layers), wanted.hows)
        some = tuple(language for language in wanted.languages if language in task.languages)
        if wanted.languages and not some:
            some = wanted.languages
        for language, (split, tune) in retrieval_splits(bench, task, some).items():
            plan.append((task, language, split, tune, own, over, settings))
    with log.progress(len(plan), named.name) as progress:
        for work in plan:
            task, language = work[:2]
            try:
                cell = _cell(opened, *work, wanted.precision, bench)
            except DataError as error:
                raise DataError(f"{named.name}, {task.name} {language}: {error}") from error
            yield {"model": named.name, **cell}
            progress.advance(note=f"{task.name} {language}")


def _settings(named: Named, wanted: Wanted, task: Task) -> Retrieval:
    """A task's settings as the model's run has them, with what is asked for instead."""
    asked = dict(wanted.asked)
    of_task = replace(named, retrieval=named.retrieval.of(task.name))
    own = of_task.asked(asked.pop("layer", -1), next(iter(wanted.hows), ""), asked.pop("special_tokens", True))
    return replace(own, **asked)


def _cell(
    opened: Any,
    task: Task,
    language: str,
    split: Any,
    tune: bool,
    own: Pooling,
    over: list[Pooling],
    settings: Retrieval,
    precision: Precision,
    bench: Workbench,
) -> dict[str, Any]:
    evaluator = evaluator_of(task, "--tasks")
    part = TaskPart(task, language, rows=0 if evaluator.limits_rows else settings.rows)
    every = over if own in over else [own, *over]
    examples = functools.partial(bench.retrieval_examples, part)
    sweep = evaluator.evaluate(Trial(opened, examples, split, settings, task.max_length, every, tune, precision))
    shown: Outcome = sweep.chosen if sweep.chosen is not None else sweep.outcomes[own]
    if odd := passed_over(shown, min(task.max_length, opened.max_length), settings):
        bench.log.warn(f"{task.name} {language}: {odd}")
    return {
        "task": task.name,
        "language": language,
        "of_languages": len(task.languages),
        "split": split,
        "metric": shown.metric,
        "score": shown.score,
        "metrics": shown.metrics,
        "facts": shown.facts,
        "settings": {name: getattr(settings, name) for name in _SETTINGS} | {"precision": precision},
        "sweep": [
            {"layer": p.layer, "pooling": p.how, "score": outcome.score, "metrics": outcome.metrics}
            for p, outcome in sweep.outcomes.items()
            if p in over
        ],
    }


def tables(cells: Sequence[Mapping[str, Any]]) -> str:
    """For each task a table of models and languages, and of models and layers where a sweep was made."""
    blocks = []
    for task in dict.fromkeys(cell["task"] for cell in cells):
        own = [cell for cell in cells if cell["task"] == task]
        blocks.append(_languages(task, own))
        if any(len(cell["sweep"]) > 1 for cell in own):
            blocks.append(_sweep(own))
    return "\n\n".join(blocks)


def _languages(task: str, cells: Sequence[Mapping[str, Any]]) -> str:
    models, languages = _unique(cells, "model"), _unique(cells, "language")
    score = {(cell["model"], cell["language"]): cell["score"] for cell in cells}
    rows = [(model, [score.get((model, language)) for language in languages]) for model in models]
    settings = {cell["model"]: cell["settings"] for cell in cells}
    # A difference is one of models, not of settings.
    for model in [model for model in models[1:] if settings[model] == settings[models[0]]]:
        pairs = [(score.get((model, language)), score.get((models[0], language))) for language in languages]
        rows.append((f"  {model} - {models[0]}", [None if a is None or b is None else a - b for a, b in pairs]))
    heads = list(languages)
    if len(languages) > 1:
        heads.append("mean")
        for _, values in rows:
            known = [value for value in values if value is not None]
            values.append(statistics.fmean(known) if len(known) == len(values) else None)
    title = f"{task}: {' / '.join(_unique(cells, 'metric'))}, {' / '.join(_unique(cells, 'split'))} set"
    if len(languages) < (of := cells[0].get("of_languages", 0)):
        title += f", {len(languages)} of its {of} languages"
    layers = {model: _layer_of(next(c for c in cells if c["model"] == model)) for model in models}
    note = "; ".join(f"{model}: {text}" for model, text in layers.items())
    return "\n".join([title, _grid(heads, rows), note, *_found(cells)])


def _found(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of mining: precision, recall and threshold of each number."""
    lines = []
    for cell in cells:
        metrics, suffix = cell["metrics"], cell["metric"].removeprefix("f1")
        if f"precision{suffix}" not in metrics:
            continue
        cuts = ", ".join("none" if value is None else f"{value:.4f}" for value in cell["facts"]["threshold"])
        lines.append(
            f"{cell['model']} {cell['language']}: precision {metrics[f'precision{suffix}']:.1f}, recall "
            f"{metrics[f'recall{suffix}']:.1f}, threshold {cuts} ({cell['facts']['threshold_from']})"
        )
    return lines


def _layer_of(cell: Mapping[str, Any]) -> str:
    facts, settings = cell["facts"], cell["settings"]
    odd = {name: settings[name] for name, usual in _SHOWN.items() if settings[name] != usual}
    said = {"rows": f"the first {settings['rows']:,} rows alone: no benchmark's number"}
    more = "".join(f", {said.get(name, f'{name} {value}')}" for name, value in odd.items())
    if "chosen" in facts:
        picked = list(dict.fromkeys(f"{layer} {how}" for layer, how in facts["chosen"]))
        return f"layer {', '.join(picked)} ({'dev' if cell['metric'] == 'f1' else 'other folds'} chose){more}"
    return f"layer {facts['layer']} {facts['pooling']}{more}"


def _sweep(cells: Sequence[Mapping[str, Any]]) -> str:
    heads, found = sweep_of(cells)
    one = len({how for _, how, _ in found}) == 1
    rows = [(model if one else f"{model}, {how}", values) for model, how, values in found]
    chosen = any("chosen" in cell["facts"] for cell in cells)
    why = "each layer at its own threshold" if chosen else "there is a test set alone: nothing is chosen by it"
    title = (
        f"  by layer, {'mean over languages' if len(_unique(cells, 'language')) > 1 else cells[0]['language']} ({why})"
    )
    return f"{title}\n{_grid([str(head) for head in heads], rows)}"


def sweep_of(cells: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[tuple[str, str, list[float | None]]]]:
    """Layers, and (model, pooling, mean over languages at each layer) of every model and each of its poolings."""
    layers = sorted({point["layer"] for cell in cells for point in cell["sweep"]})
    rows: list[tuple[str, str, list[float | None]]] = []
    for model in _unique(cells, "model"):
        own = [cell for cell in cells if cell["model"] == model]
        for how in dict.fromkeys(point["pooling"] for cell in own for point in cell["sweep"]):
            values: list[float | None] = []
            for layer in layers:
                found = [
                    point["score"]
                    for cell in own
                    for point in cell["sweep"]
                    if (point["layer"], point["pooling"]) == (layer, how)
                ]
                values.append(statistics.fmean(found) if found else None)
            rows.append((model, how, values))
    return layers, rows


def _grid(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    signed = [label.startswith("  ") for label, _ in rows]
    texts = [
        ["-" if value is None else f"{value:+.1f}" if sign else f"{value:.1f}" for value in values]
        for sign, (_, values) in zip(signed, rows, strict=True)
    ]
    label_width = max(len(label) for label, _ in rows) + 2
    widths = [max(len(head), *(len(line[i]) for line in texts)) + 2 for i, head in enumerate(heads)]
    lines = [" " * label_width + "".join(head.rjust(width) for head, width in zip(heads, widths, strict=True))]
    for (label, _), line in zip(rows, texts, strict=True):
        lines.append(label.ljust(label_width) + "".join(t.rjust(w) for t, w in zip(line, widths, strict=True)))
    return "\n".join(lines)


def _unique(cells: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(cell[key] for cell in cells))
