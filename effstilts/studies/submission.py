"""A run's predictions in XTREME's official layout.

The evaluate steps of the store keep every prediction; here they are written in the form that the official script reads,
with its label strings and its order of rows, and read back by the same reader that scores a submission.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effstilts.data import sources
from effstilts.data.text_files import lines_of, parse_json
from effstilts.data.xtreme_files import read_predictions, write_gold, write_predictions
from effstilts.data.xtreme_folders import check_submission
from effstilts.errors import DataError, RecipeError, StoreError
from effstilts.evaluation.xtreme import Benchmark, Target
from effstilts.store import Store, disk_errors
from effstilts.synthetic import World
from effstilts.tasks import registry
from effstilts.tasks.task import Task

Record = Mapping[str, Any]
Example = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """Which cells of a run: those of one arm and one seed (None: the first) that a benchmark knows."""

    run: str
    arm: str
    seed: int | None
    benchmark: Benchmark


@dataclass
class Written:
    """What was written of a task: languages, by split, and whether rows were left out."""

    languages: list[str] = field(default_factory=list)
    splits: set[str] = field(default_factory=set)
    rows: int = 0
    limited: bool = False


def write_submission(
    store: Store, choice: Choice, data: Path | None, offline: bool, out: Path, labels: Path | None
) -> str:
    """Writes the folder `out`, whole or not at all, and with `labels` a folder of the same rows' gold; returns what a
    person should know: what was written, of which split, and what a full submission lacks.

    data: the folder of official files, read where the official order of rows or the gold is wanted. RecipeError for a
    choice that the run does not have, StoreError for damaged artefacts, DataError where the rows have changed since.
    """
    record = store.read_run(choice.run) if choice.run else _no_run(store)
    cells, seed = _chosen(record, choice)
    opened = _Rows(record["recipe"], data, offline)
    written: dict[str, Written] = {}
    folders = [folder.resolve() for folder in (out, labels) if folder is not None]
    if len(folders) > 1 and (folders[0] in (folders[1], *folders[1].parents) or folders[1] in folders[0].parents):
        raise RecipeError(f"{out} and {labels} lie in each other: give --out and --labels two folders side by side")
    place, *gold = folders
    asides = {folder: _aside(folder) for folder in folders}
    try:
        for cell in cells:
            target = choice.benchmark.targets[_official(cell["task"], choice.benchmark)]
            with disk_errors(out):
                _write_cell(store, cell, target, opened, asides[place], asides[gold[0]] if gold else None, written)
        missing = check_submission(choice.benchmark, asides[place])
        for folder, aside in asides.items():
            with disk_errors(folder):
                if folder.is_dir():
                    folder.rmdir()
                aside.replace(folder)
    finally:
        for aside in asides.values():
            shutil.rmtree(aside, ignore_errors=True)
    others = _others(record["cells"], choice.benchmark)
    head = f"{out}: {choice.run}, arm {cells[0]['arm']}, seed {seed}, as {choice.benchmark.version}"
    return "\n".join([head, "", *_summary(choice.benchmark, written, missing, others)])


def _no_run(store: Store) -> dict[str, Any]:
    raise RecipeError(f"name a run: effstilts xtreme submit RUN; the store {store.root} has {store.run_names()}")


def _chosen(record: Record, choice: Choice) -> tuple[list[Record], int]:
    """The cells that are done, of the arm and the seed, that the benchmark knows; and the seed."""
    cells = record["cells"]
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    seeds = list(dict.fromkeys(cell["seed"] for cell in cells))
    if not cells:
        raise RecipeError(f"the run {choice.run!r} has no targets and no retrieval: there is nothing to submit")
    if choice.arm not in arms and (choice.arm or len(arms) > 1):
        wrong = f"no arm {choice.arm!r}" if choice.arm else "several arms"
        raise RecipeError(f"the run {choice.run!r} has {wrong}: choose one with --arm out of {', '.join(arms)}")
    if choice.seed is not None and choice.seed not in seeds:
        raise RecipeError(f"the run {choice.run!r} has no seed {choice.seed}; it has {', '.join(map(str, seeds))}")
    arm, seed = choice.arm or arms[0], seeds[0] if choice.seed is None else choice.seed
    own = [cell for cell in cells if (cell["arm"], cell["seed"]) == (arm, seed)]
    known = [cell for cell in own if _belongs(cell, choice.benchmark)]
    if not known:
        tasks = ", ".join(dict.fromkeys(cell["task"] for cell in own))
        raise RecipeError(f"the run {choice.run!r} has no task of {choice.benchmark.version}: its tasks are {tasks}")
    done = [cell for cell in known if "score" in cell]
    if not done:
        raise RecipeError(f"the run {choice.run!r} has no results yet for {arm}, seed {seed}: run it first")
    found: dict[tuple[str, str], Record] = {}
    for cell in done:
        place = (_official(cell["task"], choice.benchmark), cell["language"])
        if found.setdefault(place, cell)["step"] != cell["step"]:
            raise RecipeError(f"the run {choice.run!r} evaluates {place[0]} ({place[1]}) in two ways: submit needs one")
    return list(found.values()), seed


def _official(task: str, benchmark: Benchmark) -> str:
    """The benchmark's name of a task: XTREME-R's variant of a task may be declared as "xtreme-r/panx"."""
    return task.removeprefix(f"{benchmark.version}/")


def _belongs(cell: Record, benchmark: Benchmark) -> bool:
    target = benchmark.targets.get(_official(cell["task"], benchmark))
    return target is not None and cell["language"] in target.languages


def _aside(folder: Path) -> Path:
    if folder.is_dir() and any(folder.iterdir()):
        raise RecipeError(f"{folder} is not empty: choose another folder, or remove it first")
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file: choose another folder")
    aside = folder.with_name(f".{folder.name}.tmp")
    with disk_errors(folder):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    return aside


def _others(cells: Sequence[Record], benchmark: Benchmark) -> list[str]:
    """The run's tasks that the benchmark does not know; of those that it knows, the languages that it does not."""
    left: dict[str, list[str]] = {}
    for cell in cells:
        if not _belongs(cell, benchmark) and cell["language"] not in left.setdefault(cell["task"], []):
            left[cell["task"]].append(cell["language"])
    known = {task for task in left if _official(task, benchmark) in benchmark.targets}
    return [f"{task} ({', '.join(left[task])})" if task in known else task for task in sorted(left)]


class _Rows:
    """The run's rows again, from where the run had them."""

    def __init__(self, recipe: Record, data: Path | None, offline: bool) -> None:
        self._declared = registry.declare_all(recipe["tasks"])
        world = World.declared(**recipe["synthetic"])
        self._where = sources.DataConfig(data, recipe["data"]["source"], offline, world)

    def task(self, name: str) -> Task:
        return registry.get(name, self._declared)

    def read(self, cell: Record, identity: Record) -> Sequence[Example]:
        """The rows that the cell's step evaluated. DataError where they have changed since."""
        task, split, language = self.task(cell["task"]), cell["split"], cell["language"]
        loaded = sources.load(task, split, language, self._where, identity["rows"] or None)
        if sources.fingerprint(task, split, language, self._where) != identity["data"]:
            raise DataError(f"{loaded.source}: the files have changed since the run; run it again")
        return loaded.examples


def _write_cell(
    store: Store,
    cell: Record,
    target: Target,
    rows: _Rows,
    out: Path,
    labels: Path | None,
    written: dict[str, Written],
) -> None:
    kind, _, key = str(cell["step"]).rpartition("-")
    if not store.has(kind, key):
        raise StoreError(f"{cell['task']} ({cell['language']}): {cell['step']} is no longer in {store.root}; run again")
    artefact = store.open(kind, key)
    identity = artefact.facts["spec"]["task"]
    task, language = rows.task(cell["task"]), cell["language"]
    aligned = cell["section"] == "retrieval" and target.form == "labels"
    examples = rows.read(cell, identity) if aligned or labels is not None else []
    if cell["section"] == "retrieval":
        content = read_predictions(target, _kept_file(artefact.folder, target, language), language).content
        if aligned:
            content = [content[row] for row in official_order(examples)]
    else:
        content = official_predictions(target, task, _kept(artefact.folder / "predictions.jsonl"))
    write_predictions(target, out / target.file(language), content)
    if labels is not None:
        write_gold(target, labels / target.file(language), official_gold(target, task, examples))
    found = written.setdefault(target.name, Written())
    found.languages.append(language)
    found.splits.add(cell["split"])
    found.rows += artefact.facts["examples"]
    found.limited |= bool(identity["rows"])


def _kept_file(folder: Path, target: Target, language: str) -> Path:
    """The file that a retrieve step keeps, SPLIT-LANGUAGE: already in the official form."""
    found = sorted(folder.glob(f"*-{language}.{target.suffix}"))
    if len(found) != 1:
        raise StoreError(f"{folder} has {len(found)} files of predictions for {language}, expected one; run again")
    return found[0]


def _kept(path: Path) -> list[tuple[str, Any]]:
    lines = [parse_json(line, place) for line, place in lines_of(path)]
    return [(str(line["id"]), line["prediction"]) for line in lines]


def official_order(examples: Sequence[Example]) -> list[int]:
    """Tatoeba's rows in the benchmark's order: XTREME sorts the English sentences, so that their order gives no answer
    away, and asks for the line of each one's translation (`tatoeba_preprocess` of its utils_preprocess.py)."""
    return sorted(range(len(examples)), key=lambda row: examples[row]["target"].strip())


def official_label(target: Target, task: Task, label: str) -> str:
    """The official spelling of a label: the task's own name for it, or the value that stands for it in the files."""
    if not target.labels or label in target.labels:
        return label
    found = [raw for raw, name in task.label_values.items() if name == label and raw in target.labels]
    if len(found) != 1:
        raise DataError(
            f"{task.name}: the label {label!r} has no official spelling ({', '.join(sorted(target.labels))})"
        )
    return found[0]


def official_predictions(target: Target, task: Task, kept: Sequence[tuple[str, Any]]) -> Any:
    """Kept predictions (id, prediction) in the shape of `Rows.content`.

    Of an id that stands several times in the data the further rows are ID#2, ID#3 (`readers.squad_json`), here and in
    `official_gold`: XTREME's TyDiQA train files, evaluated where the test answers are stripped, have 94 ids for 1,625
    Korean rows, and one answer could not do for all. The ids of its test files do not repeat.
    """
    if target.form == "answers":
        return dict(kept)
    if target.form == "labels":
        return [official_label(target, task, prediction) for _, prediction in kept]
    return [prediction for _, prediction in kept]


def official_gold(target: Target, task: Task, examples: Sequence[Example]) -> Any:
    """The gold of rows in the shape of `read_gold`'s content."""
    if target.form == "answers":
        return [(str(example["id"]), [answer["text"] for answer in example["answers"]]) for example in examples]
    if target.form == "tags":
        return [example["tags"] for example in examples]
    if target.form == "rankings":
        return {e["id"]: list(e["gold"]) for e in examples if e["side"] == "query"}
    if target.form == "pairs":
        return [(e["id"], other) for e in examples if e["side"] == "source" for other in e["gold"]]
    if target.form == "choices":
        return [example["label"] for example in examples]
    if "label" not in task.columns:
        return [str(row) for row in official_order(examples)]
    return [official_label(target, task, example["label"]) for example in examples]


def _summary(
    benchmark: Benchmark, written: Mapping[str, Written], missing: Mapping[str, Sequence[str]], others: Sequence[str]
) -> list[str]:
    lines = [f"{'task':<12}{'languages':>10}{'rows':>8}   notes"]
    for name, target in benchmark.targets.items():
        found = written.get(name, Written())
        count = f"{len(found.languages)}/{len(target.languages)}"
        notes = []
        if found.splits - {"test"}:
            notes.append(f"split {', '.join(sorted(found.splits))}: no official submission, that is of the test split")
        if found.limited:
            notes.append("the first rows alone (data.evaluation_rows, retrieval.rows)")
        if name in missing:
            absent = missing[name]
            notes.append("missing" if not found.languages else f"missing {', '.join(absent)}")
        lines.append(f"{name:<12}{count:>10}{found.rows:>8}   {'; '.join(notes)}".rstrip())
    lines.append("")
    if others:
        lines.append(f"not of {benchmark.version}: {', '.join(others)}")
    if missing:
        files = sum(map(len, missing.values()))
        lines.append(f"read back and well-formed; a full submission lacks {files} files of {len(missing)} tasks")
    else:
        lines.append("read back and well-formed; every file of a full submission is there")
    return lines
