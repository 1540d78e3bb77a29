"""Tasks by name: those that come with the package, those of installed plug-ins, those that a recipe declares."""

from __future__ import annotations

import dataclasses
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from effstilts.errors import RecipeError, did_you_mean
from effstilts.tasks.intermediate import INTERMEDIATE
from effstilts.tasks.multilingual import MULTILINGUAL
from effstilts.tasks.reasoning import REASONING
from effstilts.tasks.synthetic import SYNTHETIC
from effstilts.tasks.task import FORMAT_OF_ENDING, FORMATS, ROLES, SPLITS, UNFOLDINGS, Files, Holdout, Hub, Task
from effstilts.tasks.xtreme import XTREME
from effstilts.tasks.xtreme_r import XTREME_R
from effstilts.yaml_tree import decode

ENTRY_POINTS = "effstilts.tasks"
_SCORES = {"classification": "accuracy", "choice": "accuracy", "span": "f1", "tagging": "f1"}
_DEFAULT_COLUMNS: dict[str, dict[str, str | tuple[str, ...]]] = {
    "masked_lm": {"text": "text"},
    "span": {"id": "id", "question": "question", "context": "context", "answers": "answers"},
    "tagging": {"tokens": "tokens", "tags": "tags"},
    "bitext": {"source": "source", "target": "target"},
}


@lru_cache(maxsize=1)
def known_tasks() -> dict[str, Task]:
    """The package's own tasks and those of the entry points in the group `effstilts.tasks`."""
    from importlib.metadata import entry_points

    tasks = {task.name: task for task in (*INTERMEDIATE, *MULTILINGUAL, *XTREME, *REASONING, *XTREME_R, *SYNTHETIC)}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
            found = [loaded] if isinstance(loaded, Task) else list(loaded)
        except Exception as error:
            raise RecipeError(
                f"the plug-in {entry.name} ({entry.value}) cannot be loaded ({type(error).__name__}: {error}); mend or "
                "uninstall it"
            ) from error
        for task in found:
            if not isinstance(task, Task):
                raise RecipeError(f"the plug-in {entry.name} gave {task!r}, expected a Task or a list of them")
            if task.name in tasks:
                raise RecipeError(f"the plug-in {entry.name} declares the task {task.name!r}, which exists already")
            tasks[task.name] = task
    return tasks


def all_tasks(declared: Mapping[str, Task] | None = None) -> dict[str, Task]:
    """Name -> task: the known ones, with those that a recipe declares in addition or in their place."""
    return {**known_tasks(), **(declared or {})}


def names(declared: Mapping[str, Task] | None = None) -> tuple[str, ...]:
    return tuple(all_tasks(declared))


def get(name: str, declared: Mapping[str, Task] | None = None) -> Task:
    """The task of that name; RecipeError with the nearest name if there is none."""
    tasks = all_tasks(declared)
    if name not in tasks:
        raise _no_task(name, tasks)
    task = tasks[name]
    if declared and any(part.name in declared for part in task.parts):
        task = dataclasses.replace(task, parts=tuple(declared.get(part.name, part) for part in task.parts))
    return task


def _no_task(name: str, known: Iterable[str], at: str = "") -> RecipeError:
    return RecipeError(f"{at}no task {name!r}{did_you_mean(name, known)}; `effstilts tasks` lists them")


def declare_all(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Task]:
    """The tasks of a recipe's mapping, which may extend each other or be parts of each other, in any order.

    `extends` means the known task where there is one of that name, also where the recipe declares its own; `parts` mean
    the recipe's own. RecipeError as in `declare`, and for tasks that need each other.
    """
    declared: dict[str, Task] = {}

    def need(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " needs ".join([*path[path.index(name) :], name])
            raise RecipeError(f"tasks: {circle}: no task can be made of itself")
        for other in _made_of(specs[name]):
            if other in specs:
                if other not in declared:
                    need(other, (*path, name))
            elif other not in known_tasks():
                raise _no_task(other, [*known_tasks(), *specs], f"tasks.{name}: ")
        declared[name] = declare(name, specs[name], declared)

    for name in specs:
        if name not in declared:
            need(name, ())
    return {name: declared[name] for name in specs}


def naming_dev(specs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The tasks of a recipe's mapping whose dev file the recipe itself names, in them or in what they are made of."""

    def names(name: str) -> bool:
        spec = specs.get(name, {})
        files = spec.get("files")
        return "dev" in files if files else any(names(other) for other in _made_of(spec))

    return {name for name in specs if names(name)}


def _made_of(spec: Any) -> list[str]:
    """The tasks that a declaration is made of, but for a known one that it extends; nothing of one that is no mapping,
    which is refused later."""
    if not isinstance(spec, Mapping):
        return []
    extends, parts = str(spec.get("extends", "")), spec.get("parts")
    base = [extends] if extends and extends not in known_tasks() else []
    return [*base, *(str(name) for name in (parts if isinstance(parts, list) else ()))]


def declare(name: str, spec: Mapping[str, Any], declared: Mapping[str, Task] | None = None) -> Task:
    """A task out of a recipe's mapping.

    Keys are the fields of Task, and: `extends`, a known task, or else a `declared` one, whose other fields are kept;
    `files`, split -> path, list of paths or {path, format}; `format`, for files whose ending does not say it; `hub`,
    {id, splits, config, revision, mirror}; `parts`, names of such tasks. `labels` may be {file: PATH} (absolute, or
    relative to the current folder): one label a line, or JSON, a list or a mapping of label to its number. RecipeError
    names an unknown key, a missing role, a format that does not exist.
    """
    at = f"tasks.{name}"
    fields = {f.name for f in dataclasses.fields(Task)} - {"synthetic", "name"}
    allowed = fields | {"extends", "format", "language_codes"}
    if not isinstance(spec, Mapping):
        raise RecipeError(f"{at}: expected a mapping, got {spec!r}")
    for key in spec:
        if key not in allowed:
            raise RecipeError(
                f"{at}: unknown key {key!r}{did_you_mean(key, allowed)}; there are {', '.join(sorted(allowed))}"
            )
    values: dict[str, Any] = {k: v for k, v in spec.items() if k not in ("extends", "format", "language_codes")}
    base: Task | None = None
    if "extends" in spec:
        extended = str(spec["extends"])
        base = get(extended, declared if extended not in known_tasks() else None)
    elif "kind" not in spec:
        raise RecipeError(f"{at}: needs a `kind` ({', '.join(ROLES)}), or `extends` with a known task")
    kind = str(values.get("kind", base.kind if base else ""))
    if kind not in ROLES:
        raise RecipeError(f"{at}: no kind {kind!r}{did_you_mean(kind, ROLES)}; there are {', '.join(ROLES)}")
    if "files" in values:
        values["files"] = _files(at, values["files"], spec.get("format"), spec.get("language_codes"), kind)
    if "hub" in values:
        values["hub"] = decode(Hub, values["hub"], f"{at}.hub")
    if "parts" in values:
        if own := [key for key in ("files", "hub", "holdout") if key in values]:
            raise RecipeError(f"{at}: its rows are those of its parts: `{own[0]}` belongs to them")
        values["parts"] = _parts(at, values["parts"], declared)
        values.setdefault("columns", values["parts"][0].columns)
        values.setdefault("labels", list(values["parts"][0].labels))
    if "holdout" in values:
        values["holdout"] = decode(Holdout, values["holdout"], f"{at}.holdout")
    if isinstance(values.get("labels"), Mapping):
        values["labels"] = _labels_of(f"{at}.labels", values["labels"])
    for key in ("labels", "languages", "drop_labels", "train_languages"):
        if key in values:
            items = values[key] if isinstance(values[key], list) else [values[key]]
            if not all(isinstance(item, str) for item in items):
                raise RecipeError(f"{at}.{key}: expected texts, got {items!r}; put numbers and yes/no in quotes")
            values[key] = tuple(items)
    for key in ("label_values", "values", "columns"):
        if key in values and not isinstance(values[key], Mapping):
            raise RecipeError(f"{at}.{key}: expected a mapping, got {values[key]!r}")
    if "values" in values:
        values["values"] = decode(Mapping[str, Mapping[str, str]], values["values"], f"{at}.values")
    if "label_values" in values:
        values["label_values"] = {str(k): str(v) for k, v in values["label_values"].items()}
    if base is None:
        values.setdefault("columns", _DEFAULT_COLUMNS.get(kind, {}))
        values.setdefault("score", _score_of(kind, values.get("labels", ())))
    if "columns" in values:
        values["columns"] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["columns"].items()}
    _check_types(at, values)
    task = dataclasses.replace(base, name=name, **values) if base else Task(name=name, **values)
    _check(at, task)
    if "languages" in values:
        _check_languages(at, task)
    return task


def _score_of(kind: str, labels: Sequence[str]) -> str:
    """The metric of a kind; of tags that mark no spans the accuracy."""
    spans = all(label == "O" or re.fullmatch("[BIES](-.*)?", label) for label in labels)
    return "accuracy" if kind == "tagging" and not spans else _SCORES.get(kind, "accuracy")


def _files(at: str, spec: Any, default_format: Any, codes: Any, kind: str) -> Files:
    if not isinstance(spec, Mapping):
        raise RecipeError(f"{at}.files: expected split -> path, got {spec!r}")
    paths: dict[str, str | tuple[str, ...]] = {}
    formats: dict[str, str] = {}
    for split, value in spec.items():
        if split not in SPLITS:
            raise RecipeError(f"{at}.files: no split {split!r}{did_you_mean(split, SPLITS)}; there are {list(SPLITS)}")
        own = default_format
        if isinstance(value, Mapping):
            if set(value) - {"path", "format"} or "path" not in value:
                raise RecipeError(f"{at}.files.{split}: expected a path, or a mapping with `path` and `format`")
            own, value = value.get("format", own), value["path"]
        items = tuple(value) if isinstance(value, list) else (value,)
        if not items or not all(isinstance(item, str) for item in items):
            raise RecipeError(f"{at}.files.{split}: expected a path or a list of paths, got {value!r}")
        paths[split] = items[0] if len(items) == 1 else items
        formats[split] = str(own) if own else _format_of(at, items[0])
        if formats[split] == "lines" and kind == "bitext":
            formats[split] = "aligned_lines"  # whose blank lines keep their places
        if formats[split] not in FORMATS:
            hint = did_you_mean(formats[split], FORMATS)
            raise RecipeError(f"{at}: no format {formats[split]!r}{hint}; there are {', '.join(FORMATS)}")
    if not paths:
        raise RecipeError(f"{at}.files: names no file")
    codes = decode(Mapping[str, str], codes or {}, f"{at}.language_codes")
    return Files(paths, next(iter(formats.values())), formats, codes)


def _parts(at: str, spec: Any, declared: Mapping[str, Task] | None) -> tuple[Task, ...]:
    if not isinstance(spec, list) or len(spec) < 2:
        raise RecipeError(f"{at}.parts: expected two or more names of tasks, got {spec!r}")
    return tuple(get(str(name), declared) for name in spec)


def _labels_of(at: str, spec: Mapping[str, Any]) -> list[str]:
    """The labels in a file: JSON (a list, or a mapping of label to number, as jiant's tags_to_id.json), or lines."""
    if set(spec) != {"file"} or not isinstance(spec["file"], str):
        raise RecipeError(f"{at}: expected a list of labels, or a mapping with `file` alone")
    path = Path(spec["file"])
    try:
        text = path.read_text(encoding="utf-8")
        found: Any = json.loads(text) if path.suffix == ".json" else [x for x in text.split("\n") if x.strip()]
        if isinstance(found, Mapping):
            found = sorted(found, key=found.__getitem__)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RecipeError(f"{at}: {path} cannot be read ({error})") from error
    if not isinstance(found, list):
        raise RecipeError(f"{at}: {path} holds neither a list nor a mapping of labels")
    return found


def _format_of(at: str, path: str) -> str:
    plain = PurePath(path)
    if plain.suffix in (".gz", ".bz2"):
        plain = plain.with_suffix("")
    if plain.suffix not in FORMAT_OF_ENDING:
        raise RecipeError(f"{at}: the ending of {path} tells no format: give {at}.format, one of {', '.join(FORMATS)}")
    return FORMAT_OF_ENDING[plain.suffix]


def _check_types(at: str, values: Mapping[str, Any]) -> None:
    for key, kinds in {
        "max_length": int,
        "stride": int,
        "no_answer": bool,
        "train_on": str,
        "train_first": str,
        "score": str,
        "head": str,
        "description": str,
        "pooled": bool,
    }.items():
        if key in values and (not isinstance(values[key], kinds) or (kinds is int and isinstance(values[key], bool))):
            raise RecipeError(f"{at}.{key}: expected {kinds.__name__}, got {values[key]!r}")
    if values.get("evaluate_on", "test") not in SPLITS:
        raise RecipeError(f"{at}.evaluate_on: {values['evaluate_on']!r} is not one of {', '.join(SPLITS)}")
    if values.get("max_length", 16) < 16:
        raise RecipeError(f"{at}.max_length: at least 16 tokens are needed, got {values['max_length']}")
    if values.get("stride", 0) < 0:
        raise RecipeError(f"{at}.stride: 0 or more, got {values['stride']}")
    if values.get("normaliser", "squad") not in ("squad", "mlqa"):
        raise RecipeError(f"{at}.normaliser: {values['normaliser']!r} is not one of squad, mlqa")


def _check(at: str, task: Task) -> None:
    known = {role.rstrip("?") for role in ROLES[task.kind]}
    needed = {role for role in ROLES[task.kind] if not role.endswith("?")}
    for role in task.columns:
        if role not in known:
            raise RecipeError(f"{at}.columns: {task.kind} has no role {role!r}; it has {', '.join(sorted(known))}")
    for role, column in task.columns.items():
        for item in column if isinstance(column, tuple) else (column,):
            if not _is_plain(item):
                raise RecipeError(f"{at}.columns.{role}: the template {item!r} may hold plain column names alone")
        if isinstance(column, tuple) and role != "choices":
            raise RecipeError(f"{at}.columns.{role}: takes one column or template, not {list(column)}")
    hub = task.hub
    if hub is not None and not (
        isinstance(hub.splits, Mapping)
        and all(isinstance(text, str) for text in (hub.id, hub.config, hub.revision, *hub.splits.values()))
    ):
        raise RecipeError(f"{at}.hub: id, config and revision are texts, splits a mapping of split to the hub's name")
    for split in hub.splits if hub else ():
        if split not in SPLITS:
            raise RecipeError(f"{at}.hub.splits: no split {split!r}{did_you_mean(split, SPLITS)}")
    missing = sorted(needed - set(task.columns))
    if missing:
        raise RecipeError(f"{at}.columns: no column is given for {', '.join(missing)}")
    if task.kind in ("classification", "tagging") and len(task.labels) < 2:
        raise RecipeError(f"{at}.labels: {task.kind} needs at least two labels (a list, or {{file: PATH}})")
    if len(set(task.labels)) != len(task.labels):
        raise RecipeError(f"{at}.labels: a label stands twice")
    if task.files is None and task.hub is None and task.synthetic is None and not task.parts:
        raise RecipeError(f"{at}: needs `files` or `hub`")
    for part in task.parts:
        if (part.kind, part.labels) != (task.kind, task.labels):
            raise RecipeError(f"{at}.parts: {part.name} has another kind or other labels")
        if set(task.languages) - set(part.languages):
            raise RecipeError(f"{at}.parts: {part.name} does not have all languages of {', '.join(task.languages)}")
    if hub is not None and hub.unfold not in ("", *UNFOLDINGS):
        raise RecipeError(f"{at}.hub.unfold: no form {hub.unfold!r}; there are {', '.join(UNFOLDINGS)}")
    if hub is not None and hub.evaluate_on not in ("", *SPLITS):
        raise RecipeError(f"{at}.hub.evaluate_on: {hub.evaluate_on!r} is not one of {', '.join(SPLITS)}")
    if task.holdout is not None and not 0 < task.holdout.share < 1:
        raise RecipeError(f"{at}.holdout.share: a share between 0 and 1, got {task.holdout.share}")
    if task.holdout is not None and "{" in str(task.columns.get(task.holdout.by, "")):
        raise RecipeError(f"{at}.holdout.by: {task.holdout.by!r} is made of several columns; name one of them")
    if task.pooled and task.kind != "candidates":
        raise RecipeError(f"{at}.pooled: is for candidates, not for {task.kind}")
    if task.normaliser == "mlqa" and task.no_answer:
        raise RecipeError(f"{at}: MLQA's normaliser is for questions that have an answer (no_answer: false)")
    if not task.languages:
        raise RecipeError(f"{at}.languages: needs at least one")


def _check_languages(at: str, task: Task) -> None:
    for language in task.languages:
        if not re.fullmatch(r"[\w.@-]+", language):
            raise RecipeError(f"{at}.languages: {language!r} is no language code (letters, numbers, - and _)")
    own = task.files.paths.get(task.evaluate_on, ()) if task.files and not task.parts else ()
    paths = (own,) if isinstance(own, str) else own
    # The one language beside that of training may have a file of its own name; those of candidates name each row's.
    foreign = task.languages if task.kind in ("bitext", "mining") else task.languages[1:]
    if len(foreign) > 1 and paths and task.kind != "candidates" and not any("lang}" in path for path in paths):
        raise RecipeError(
            f"{at}.files.{task.evaluate_on}: {paths[0]} would be the rows of {', '.join(foreign)} alike: put {{lang}} "
            "where the file's name has the language"
        )


def _is_plain(template: Any) -> bool:
    """A column's name, or a template over column names: no attribute, index, conversion or format."""
    if not isinstance(template, str):
        return False
    try:
        parts = list(string.Formatter().parse(template)) if "{" in template else []
    except ValueError:
        return False
    return all(name is None or (name.isidentifier() and not spec and not mark) for _, name, spec, mark in parts)
