"""Tasks by name: those that come with the package, those of installed plug-ins, those that a recipe declares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from effstilts.errors import RecipeError, did_you_mean
from effstilts.tasks.intermediate import INTERMEDIATE
from effstilts.tasks.synthetic import SYNTHETIC
from effstilts.tasks.task import FORMAT_OF_ENDING, FORMATS, ROLES, SPLITS, Files, Holdout, Hub, Task
from effstilts.tasks.xtreme import XTREME

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

    tasks = {task.name: task for task in (*INTERMEDIATE, *XTREME, *SYNTHETIC)}
    for entry in entry_points(group=ENTRY_POINTS):
        loaded = entry.load()
        for task in [loaded] if isinstance(loaded, Task) else list(loaded):
            if task.name in tasks:
                raise RecipeError(f"the plug-in {entry.name} declares the task {task.name!r}, which exists already")
            tasks[task.name] = task
    return tasks


def get(name: str, declared: Mapping[str, Task] | None = None) -> Task:
    """The task of that name; RecipeError with the nearest name if there is none."""
    tasks = {**known_tasks(), **(declared or {})}
    if name not in tasks:
        raise RecipeError(f"no task {name!r}{did_you_mean(name, tasks)}; `effstilts tasks` lists them")
    return tasks[name]


def declare(name: str, spec: Mapping[str, Any]) -> Task:
    """A task out of a recipe's mapping.

    Keys are the fields of Task, and: `extends`, a known task whose other fields are kept; `files`, split -> path, list
    of paths or {path, format}; `format`, for files whose ending does not say it; `hub`, {id, splits, config,
    revision}. RecipeError names an unknown key, a missing role, a format that does not exist.
    """
    at = f"tasks.{name}"
    fields = {f.name for f in dataclasses.fields(Task)} - {"synthetic"}
    allowed = fields | {"extends", "format", "language_codes"}
    if not isinstance(spec, Mapping):
        raise RecipeError(f"{at}: expected a mapping, got {spec!r}")
    for key in spec:
        if key not in allowed:
            raise RecipeError(f"{at}: unknown key {key!r}{did_you_mean(key, allowed)}")
    values: dict[str, Any] = {k: v for k, v in spec.items() if k not in ("extends", "format", "language_codes")}
    base: Task | None = None
    if "extends" in spec:
        base = get(str(spec["extends"]))
    elif "kind" not in spec:
        raise RecipeError(f"{at}: needs a `kind` ({', '.join(ROLES)}), or `extends` with a known task")
    kind = str(values.get("kind", base.kind if base else ""))
    if kind not in ROLES:
        raise RecipeError(f"{at}: no kind {kind!r}{did_you_mean(kind, ROLES)}; there are {', '.join(ROLES)}")
    if "files" in values:
        values["files"] = _files(at, values["files"], spec.get("format"), spec.get("language_codes"))
    if "hub" in values:
        values["hub"] = _dataclass(at + ".hub", Hub, values["hub"])
    if "holdout" in values:
        values["holdout"] = _dataclass(at + ".holdout", Holdout, values["holdout"])
    for key in ("labels", "languages", "drop_labels", "train_languages"):
        if key in values:
            items = values[key] if isinstance(values[key], list) else [values[key]]
            if not all(isinstance(item, str) for item in items):
                raise RecipeError(f"{at}.{key}: expected texts, got {items!r}; put numbers and yes/no in quotes")
            values[key] = tuple(items)
    for key in ("label_values", "values", "columns"):
        if key in values and not isinstance(values[key], Mapping):
            raise RecipeError(f"{at}.{key}: expected a mapping, got {values[key]!r}")
    if "label_values" in values:
        values["label_values"] = {str(k): str(v) for k, v in values["label_values"].items()}
    if base is None:
        values.setdefault("columns", _DEFAULT_COLUMNS.get(kind, {}))
        values.setdefault("score", _SCORES.get(kind, "accuracy"))
    if "columns" in values:
        values["columns"] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["columns"].items()}
    _check_types(at, values)
    task = dataclasses.replace(base, name=name, **values) if base else Task(name=name, **values)
    _check(at, task)
    return task


def _files(at: str, spec: Any, default_format: Any, codes: Any) -> Files:
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
        if formats[split] not in FORMATS:
            hint = did_you_mean(formats[split], FORMATS)
            raise RecipeError(f"{at}: no format {formats[split]!r}{hint}; there are {', '.join(FORMATS)}")
    if not paths:
        raise RecipeError(f"{at}.files: names no file")
    return Files(paths, next(iter(formats.values())), formats, dict(codes or {}))


def _format_of(at: str, path: str) -> str:
    plain = PurePath(path)
    if plain.suffix in (".gz", ".bz2"):
        plain = plain.with_suffix("")
    if plain.suffix not in FORMAT_OF_ENDING:
        raise RecipeError(f"{at}: the ending of {path} tells no format; give one with `format`")
    return FORMAT_OF_ENDING[plain.suffix]


def _dataclass(at: str, kind: Any, spec: Any) -> Any:
    names = {f.name for f in dataclasses.fields(kind)}
    if not isinstance(spec, Mapping):
        raise RecipeError(f"{at}: expected a mapping with {', '.join(sorted(names))}")
    for key in spec:
        if key not in names:
            raise RecipeError(f"{at}: unknown key {key!r}{did_you_mean(str(key), names)}")
    try:
        return kind(**spec)
    except TypeError as error:
        raise RecipeError(f"{at}: {error}") from error


def _check_types(at: str, values: Mapping[str, Any]) -> None:
    for key, kinds in {"max_length": int, "stride": int, "no_answer": bool, "train_on": str, "score": str}.items():
        if key in values and (not isinstance(values[key], kinds) or (kinds is int and isinstance(values[key], bool))):
            raise RecipeError(f"{at}.{key}: expected {kinds.__name__}, got {values[key]!r}")
    if values.get("evaluate_on", "test") not in SPLITS:
        raise RecipeError(f"{at}.evaluate_on: {values['evaluate_on']!r} is not one of {', '.join(SPLITS)}")
    if values.get("max_length", 16) < 16:
        raise RecipeError(f"{at}.max_length: at least 16 tokens are needed, got {values['max_length']}")
    if values.get("stride", 0) < 0:
        raise RecipeError(f"{at}.stride: 0 or more, got {values['stride']}")


def _check(at: str, task: Task) -> None:
    known = {role.rstrip("?") for role in ROLES[task.kind]}
    needed = {role for role in ROLES[task.kind] if not role.endswith("?")}
    for role in task.columns:
        if role not in known:
            raise RecipeError(f"{at}.columns: {task.kind} has no role {role!r}; it has {', '.join(sorted(known))}")
    missing = sorted(needed - set(task.columns))
    if missing:
        raise RecipeError(f"{at}.columns: no column is given for {', '.join(missing)}")
    if task.kind in ("classification", "tagging") and len(task.labels) < 2:
        raise RecipeError(f"{at}.labels: {task.kind} needs at least two labels")
    if len(set(task.labels)) != len(task.labels):
        raise RecipeError(f"{at}.labels: a label stands twice")
    if task.files is None and task.hub is None and task.synthetic is None:
        raise RecipeError(f"{at}: needs `files` or `hub`")
    if task.holdout is not None and not 0 < task.holdout.share < 1:
        raise RecipeError(f"{at}.holdout.share: a share between 0 and 1, got {task.holdout.share}")
    if task.holdout is not None and task.holdout.by not in task.columns:
        raise RecipeError(f"{at}.holdout.by: {task.holdout.by!r} is not a role with a column")
    if not task.languages:
        raise RecipeError(f"{at}.languages: needs at least one")
