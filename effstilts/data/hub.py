"""Rows of hub sets through `datasets`, at one commit, never with remote code.

A set whose declaration names no revision is read at the commit that is newest now, which goes into every key. Where
the repository holds a loading script, which datasets >= 4 refuses, the hub's own Parquet export of it is read (branch
refs/convert/parquet). Offline, what `datasets` prepared before is read from its cache and nothing is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effstilts.data.readers import Row
from effstilts.errors import DataError, MissingDependencyError
from effstilts.tasks.task import Hub, SplitName, Task

ENVIRONMENT = "EFFSTILTS_DATA"
EXPORT = "refs/convert/parquet"
# (id, offline) -> (commit, whether it is one of the Parquet export).
_REVISIONS: dict[str, tuple[str, bool]] = {}


def revision_of(task: Task, language: str, offline: bool) -> str:
    """The commit that is read: the declared one, the newest one, or offline the one in the cache.

    "" for a local folder. DataError if the hub does not answer.
    """
    hub = _hub(task)
    if hub.revision or Path(hub.id).is_dir():
        return hub.revision
    if offline:
        builder = cached(hub, language)
        return str(builder.hash) if builder is not None else ""
    return _newest(task)[0]


def rows(task: Task, split: SplitName, language: str, offline: bool) -> Iterator[Row]:
    """The rows of one split in one language.

    DataError if the set cannot be loaded, or has another number of rows than `Hub.counts` says.
    """
    hub = _hub(task)
    code, name, hub_split = _names(hub, split, language)
    table = _table(task, split, language, offline)
    numbers: Any = range(len(table))
    if hub.language_of_id:
        if "id" not in table.column_names:
            raise DataError(f"{task.name}: {hub.id} has no column 'id'; there are {', '.join(table.column_names)}")
        numbers = [number for number, own in enumerate(table["id"]) if str(own).startswith(f"{code}-")]
    expected = hub.counts.get(f"{split}/{language}", len(numbers))
    if len(numbers) != expected:
        raise DataError(
            f"{task.name}: {hub.id} {hub_split} has {len(numbers)} rows in {language!r}, not the {expected} of the "
            "official set: another revision, or rows of other languages"
        )
    names = _class_names(table) if task.kind == "tagging" else {}
    chosen = table if len(numbers) == len(table) else table.select(numbers)
    for number, row in zip(numbers, chosen, strict=True):
        for column, labels in names.items():
            row[column] = [labels[tag] if 0 <= tag < len(labels) else tag for tag in row[column]]
        yield dict(row), f"{hub.id} {name} {hub_split}, row {number}".replace("  ", " ")


def cached(hub: Hub, language: str) -> Any:
    """The `datasets` builder of a set that was prepared before (at the pinned revision, if there is one), or None."""
    from datasets.packaged_modules.cache.cache import Cache

    name = hub.config.replace("{lang}", hub.language_codes.get(language, language))
    try:
        builder = Cache(
            cache_dir=os.environ.get("HF_DATASETS_CACHE"),
            dataset_name=hub.id.split("/")[-1],
            repo_id=hub.id,
            config_name=name or None,
            version="auto",
            hash="auto",
        )
    except (ValueError, OSError):
        return None
    return None if hub.revision and builder.hash != hub.revision else builder


def _table(task: Task, split: SplitName, language: str, offline: bool) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{task.name} comes from the hub: pip install datasets") from error
    hub = _hub(task)
    _, name, hub_split = _names(hub, split, language)
    local = Path(hub.id).is_dir()
    options: dict[str, Any] = {}
    if os.environ.get("HF_DATASETS_CACHE"):
        options["cache_dir"] = os.environ["HF_DATASETS_CACHE"]
    datasets.disable_progress_bars()
    try:
        if offline and not local:
            builder = cached(hub, language)
            if builder is None:
                raise FileNotFoundError("it is not in the cache, and this run is offline")
            return builder.as_dataset(split=hub_split)
        if not local:
            options["revision"], exported = (hub.revision, hub.revision == EXPORT) if hub.revision else _newest(task)
            if exported:
                parts = hub_split.split("+")
                options["data_files"] = {part: f"{name or 'default'}/{part}/*.parquet" for part in parts}
                name = ""
        return datasets.load_dataset(hub.id, name or None, split=hub_split, **options)
    except DataError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{task.name}: the hub set {hub.id} ({name or 'default'}, {hub_split}) cannot be loaded: {first}; "
            f"or put its official files into the folder of {ENVIRONMENT}"
        ) from error


def _newest(task: Task) -> tuple[str, bool]:
    """The newest commit, or that of the Parquet export where main holds a loading script."""
    hub = _hub(task)
    if hub.id not in _REVISIONS:
        try:
            from huggingface_hub import HfApi

            info = HfApi().dataset_info(hub.id)
            script = f"{hub.id.split('/')[-1]}.py"
            exported = any(file.rfilename == script for file in getattr(info, "siblings", None) or ())
            if exported:
                info = HfApi().dataset_info(hub.id, revision=EXPORT)
            _REVISIONS[hub.id] = str(info.sha), exported
        except Exception as error:
            raise DataError(
                f"{task.name}: cannot ask the hub for the revision of {hub.id} ({type(error).__name__}); declare one "
                f"(tasks: {{{task.name}: {{extends: {task.name}, hub: {{..., revision: COMMIT}}}}}}), or put the "
                f"official files into the folder of {ENVIRONMENT}"
            ) from error
    return _REVISIONS[hub.id]


def _class_names(table: Any) -> dict[str, list[str]]:
    """Columns of lists of numbered classes -> the classes' names: the numbers' order is the hub's, not the task's."""
    found = {}
    for column, feature in table.features.items():
        inner = getattr(feature, "feature", None)
        if inner is not None and hasattr(inner, "int2str"):
            found[column] = list(inner.names)
    return found


def _hub(task: Task) -> Hub:
    assert task.hub is not None
    return task.hub


def _names(hub: Hub, split: SplitName, language: str) -> tuple[str, str, str]:
    """(the hub's code for the language, config, split)."""
    code = hub.language_codes.get(language, language)
    return code, hub.config.replace("{lang}", code), hub.splits[split].replace("{lang}", code)
