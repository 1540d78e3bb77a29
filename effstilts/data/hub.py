"""Rows of hub sets through `datasets`, at one commit, never with remote code.

A set whose declaration names no revision is read at the commit that is newest now, which goes into every key. Where
the repository holds a loading script, which datasets >= 4 refuses, the hub's own Parquet export of it is read (branch
refs/convert/parquet); where the repository cannot be had at all, the declared mirror. Offline, what `datasets`
prepared before is read from its cache and nothing is asked.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from effstilts.data.readers import Row
from effstilts.errors import DataError, MissingDependencyError, said_by
from effstilts.tasks.task import Hub, SplitName, Task

ENVIRONMENT = "EFFSTILTS_DATA"
EXPORT = "refs/convert/parquet"
TIMEOUT = 20.0
_MARK = "effstilts-export.json"
# The builders of `datasets` whose files are plain data; others unpack archives or decode what they find in them.
_BUILDERS = ("parquet", "json", "csv", "arrow", "text", "cache")
# (id, pinned revision) -> (commit, whether it is one of the Parquet export).
_REVISIONS: dict[tuple[str, str], tuple[str, bool]] = {}


def settled(task: Task, language: str, offline: bool) -> Hub:
    """The declared set, or its mirror where the set cannot be had and the mirror can.

    Offline: the one of the two that is in the cache. DataError if the hub answers for neither.
    """
    hub = declared(task)
    if hub.mirror is None or Path(hub.id).is_dir() or cached(hub, language) is not None:
        return hub
    if offline:
        return hub.mirror if cached(hub.mirror, language) is not None else hub
    try:
        _commit(task.name, hub)
    except DataError as refused:
        try:
            _commit(task.name, hub.mirror)
        except DataError:
            raise refused from None
        return hub.mirror
    return hub


def revision_of(task: Task, language: str, offline: bool) -> str:
    """The commit that is read: the declared one, the newest one, or offline the one in the cache.

    "" for a local folder. DataError if the hub does not answer.
    """
    hub = settled(task, language, offline)
    if hub.revision or Path(hub.id).is_dir():
        return hub.revision
    if offline:
        builder = cached(hub, language)
        return str(builder.hash) if builder is not None else ""
    return _commit(task.name, hub)[0]


def rows(task: Task, split: SplitName, language: str, offline: bool) -> Iterator[Row]:
    """The rows of one split in one language.

    DataError if the set cannot be loaded, or has another number of rows than `Hub.counts` says.
    """
    hub = settled(task, language, offline)
    code, name, hub_split = names(hub, split, language)
    table = _table(task, hub, split, language, offline)
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
    classes = _class_names(table) if task.kind == "tagging" else {}
    chosen = table if len(numbers) == len(table) else table.select(numbers)
    for number, row in zip(numbers, chosen, strict=True):
        for column, labels in classes.items():
            row[column] = [labels[tag] if 0 <= tag < len(labels) else tag for tag in row[column]]
        place = f"{hub.id} {name} {hub_split}, row {number}".replace("  ", " ")
        if hub.unfold:
            yield from _UNFOLD[hub.unfold](row, place, language)
        else:
            yield dict(row), place


def ask(task: Task) -> None:
    """Asks the hub for the task's set, or its mirror. DataError if it has neither, or does not answer."""
    declaration = declared(task)
    if Path(declaration.id).is_dir():
        return
    try:
        _commit(task.name, declaration)
    except DataError:
        if declaration.mirror is None:
            raise
        _commit(task.name, declaration.mirror)


def fetch(task: Task, split: SplitName, language: str) -> int:
    """Downloads a split into the hub's cache with a progress bar; returns its rows. DataError as in `rows`."""
    ask(task)
    return len(_table(task, settled(task, language, False), split, language, offline=False, progress=True))


def cached(hub: Hub, language: str, split: SplitName | None = None) -> Any:
    """The `datasets` builder of a set that was prepared before (at the pinned revision, if there is one), or None.

    A Parquet export is prepared split by split: `split` asks for that one.
    """
    from datasets.packaged_modules.cache.cache import Cache

    code = hub.language_codes.get(language, language)
    name = hub.config.replace("{lang}", code)
    places = {"cache_dir": os.environ.get("HF_DATASETS_CACHE"), "dataset_name": hub.id.split("/")[-1]}
    try:
        builder = Cache(**places, repo_id=hub.id, config_name=name or None, version="auto", hash="auto")
    except (ValueError, OSError):
        builder = _cached_export(hub, code, split)
        if builder is None:
            return None
    return None if hub.revision and builder.hash != hub.revision else builder


def _cached_export(hub: Hub, code: str, split: SplitName | None) -> Any:
    """The newest prepared table that was made of the export's files of this config (and split)."""
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    root = os.environ.get("HF_DATASETS_CACHE") or str(datasets.config.HF_DATASETS_CACHE)
    folder = glob.escape(os.path.join(os.path.expanduser(root), hub.id.replace("/", "___")))
    name = hub.config.replace("{lang}", code) or "default"
    hub_split = hub.splits[split].replace("{lang}", code) if split is not None else ""
    found = []
    for path in glob.glob(os.path.join(folder, "default-*", "*", "*", _MARK)):
        try:
            held = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if held["config"] == name and (split is None or held["split"] == hub_split):
            found.append(Path(path).parent)
    if not found:
        return None
    config, version, commit = max(found, key=lambda place: place.stat().st_mtime).parts[-3:]
    return Cache(
        cache_dir=root,
        dataset_name=hub.id.split("/")[-1],
        repo_id=hub.id,
        config_name=config,
        version=version,
        hash=commit,
    )


def _mark(table: Any, config: str, hub_split: str) -> None:
    """Writes beside a table made of export files what it holds: its folder's name is a hash of the files' addresses."""
    held = json.dumps({"config": config, "split": hub_split})
    for file in table.cache_files[:1]:
        Path(file["filename"]).with_name(_MARK).write_text(held, encoding="utf-8")


def _table(task: Task, hub: Hub, split: SplitName, language: str, offline: bool, progress: bool = False) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{task.name} comes from the hub: pip install datasets") from error
    _, name, hub_split = names(hub, split, language)
    local = Path(hub.id).is_dir()
    options: dict[str, Any] = {}
    if os.environ.get("HF_DATASETS_CACHE"):
        options["cache_dir"] = os.environ["HF_DATASETS_CACHE"]
    (datasets.enable_progress_bars if progress else datasets.disable_progress_bars)()
    try:
        if offline and not local:
            builder = cached(hub, language, split)
            if builder is None:
                raise FileNotFoundError("it is not in the cache, and this run is offline")
            return builder.as_dataset(split=hub_split)
        if not local:
            exported = hub.revision == EXPORT
            options["revision"] = hub.revision
            if not hub.revision:
                options["revision"], exported = _commit(task.name, hub)
            if exported:
                parts = hub_split.split("+")
                options["data_files"] = {part: f"{name or 'default'}/{part}/*.parquet" for part in parts}
                table = datasets.load_dataset(hub.id, split=hub_split, **options)
                _mark(table, name or "default", hub_split)
                return table
        builder = datasets.load_dataset_builder(hub.id, name or None, **options)
        form = type(builder).__module__.rpartition(".")[2]
        if form not in _BUILDERS:
            raise DataError(
                f"{task.name}: the hub set {hub.id} is one of {form!r} files; read are {', '.join(_BUILDERS[:-1])}"
            )
        builder.download_and_prepare()
        return builder.as_dataset(split=hub_split)
    except DataError:
        raise
    except Exception as error:
        first = said_by(error)[0]
        raise DataError(
            f"{task.name}: the hub set {hub.id} ({name or 'default'}, {hub_split}) cannot be loaded: {first}; "
            f"or put its official files into the folder of {ENVIRONMENT}"
        ) from error


def _commit(name: str, hub: Hub) -> tuple[str, bool]:
    """The pinned commit if the hub has it, else the newest, or that of the export where main holds a script."""
    key = (hub.id, hub.revision)
    if key not in _REVISIONS:
        try:
            from huggingface_hub import HfApi

            info = HfApi().dataset_info(hub.id, revision=hub.revision or None, timeout=TIMEOUT)
            script = f"{hub.id.split('/')[-1]}.py"
            exported = any(file.rfilename == script for file in getattr(info, "siblings", None) or ())
            if exported and not hub.revision:
                info = HfApi().dataset_info(hub.id, revision=EXPORT, timeout=TIMEOUT)
            _REVISIONS[key] = str(info.sha), exported and not hub.revision
        except Exception as error:
            if hub.revision:
                raise DataError(
                    f"{name}: the hub does not answer for {hub.id} at {hub.revision} ({type(error).__name__}); put the "
                    f"official files into the folder of {ENVIRONMENT}"
                ) from error
            raise DataError(
                f"{name}: cannot ask the hub for the revision of {hub.id} ({type(error).__name__}); declare one "
                f"(tasks: {{{name}: {{extends: {name}, hub: {{..., revision: COMMIT}}}}}}), or put the "
                f"official files into the folder of {ENVIRONMENT}"
            ) from error
    return _REVISIONS[key]


def _class_names(table: Any) -> dict[str, list[str]]:
    """Columns of lists of numbered classes -> the classes' names: the numbers' order is the hub's, not the task's."""
    found = {}
    for column, feature in table.features.items():
        inner = getattr(feature, "feature", None)
        if inner is not None and hasattr(inner, "int2str"):
            found[column] = list(inner.names)
    return found


def declared(task: Task) -> Hub:
    """The declared set of a task that has one."""
    assert task.hub is not None
    return task.hub


def names(hub: Hub, split: SplitName, language: str) -> tuple[str, str, str]:
    """(the hub's code for the language, config, split)."""
    code = hub.language_codes.get(language, language)
    return code, hub.config.replace("{lang}", code), hub.splits[split].replace("{lang}", code)


def _comparable_corpora(row: Mapping[str, Any], place: str, language: str) -> Iterator[Row]:
    """mteb/BUCC: one row with all sentences of both sides and the gold pairs, numbered from 1."""
    sides = {"source": (language, row["sentence1"]), "target": ("en", row["sentence2"])}
    partners: dict[str, dict[int, list[str]]] = {"source": {}, "target": {}}
    for left, right in row["gold"]:
        if not (1 <= left <= len(row["sentence1"]) and 1 <= right <= len(row["sentence2"])):
            raise DataError(f"{place}: the gold pair {left}, {right} names a sentence that is not there")
        partners["source"].setdefault(left, []).append(f"en-{right}")
        partners["target"].setdefault(right, []).append(f"{language}-{left}")
    for side, (code, texts) in sides.items():
        for number, text in enumerate(texts, 1):
            gold = partners[side].get(number, [])
            yield {"id": f"{code}-{number}", "text": text, "side": side, "gold": gold}, f"{place}, {side} {number}"


_UNFOLD: Mapping[str, Callable[[Mapping[str, Any], str, str], Iterator[Row]]] = {
    "comparable_corpora": _comparable_corpora
}
