"""Rows of a task from the hub, from a folder of official files, or from the generator.

Which source gives a split, what identifies its rows without reading them, and the rows in the roles of the task's
kind (`effstilts.data.roles`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from effstilts.data.readers import READERS, Row
from effstilts.data.roles import examples
from effstilts.errors import DataError, MissingDependencyError, RecipeError
from effstilts.store import content_key, file_hash
from effstilts.tasks.task import SplitName, Task

ENVIRONMENT = "EFFSTILTS_DATA"


@dataclass(frozen=True)
class DataConfig:
    """Where rows come from. root: folder of official files; world: the artificial world of synthetic tasks."""

    root: Path | None = None
    source: Literal["auto", "files", "hub", "synthetic"] = "auto"
    offline: bool = False
    world: Any = None


@dataclass(frozen=True)
class LoadedRows:
    """Rows in the roles of the task's kind, and a description of their source."""

    examples: list[dict[str, Any]]
    source: str


def load(task: Task, split: SplitName, language: str, where: DataConfig, limit: int | None = None) -> LoadedRows:
    """The first `limit` rows of a split in one language.

    DataError if the source, the file, a column or a label is missing or broken; a train split is given in the
    task's training languages alone, so that a zero-shot target never trains on another language's labels.
    """
    _check_language(task, split, language)
    chosen = _choose(task, split, language, where)
    raw = _raw_rows(task, chosen, split, language, where)
    if task.holdout is not None and split in ("train", "dev"):
        raw = _held_out(task, raw, split)
    rows = list(islice(examples(task, raw), limit))
    return LoadedRows(rows, f"{task.name} ({language}, {split}) from {chosen}")


def fingerprint(task: Task, split: SplitName, language: str, where: DataConfig) -> str:
    """What decides the rows, without reading them: the files' hashes, the hub revision or the generator's version,
    and the declaration's part in it."""
    _check_language(task, split, language)
    chosen = _choose(task, split, language, where)
    identity: dict[str, Any] = {
        "columns": asdict(task)["columns"],
        "values": asdict(task)["values"],
        "label_values": dict(task.label_values),
        "drop_labels": list(task.drop_labels),
        "holdout": asdict(task.holdout) if task.holdout else None,
        "labels": list(task.labels),
    }
    if chosen == "synthetic" and task.synthetic:
        from effstilts.synthetic import GENERATOR_VERSION

        identity["synthetic"] = [task.synthetic.dataset, split, language, task.synthetic.counts.get(split, 0)]
        identity["generator"] = GENERATOR_VERSION
        identity["world"] = asdict(where.world)
    elif chosen == "files" and task.files:
        paths = _paths(task, split, language, where)
        identity["files"] = [_hash_once(path) for path in paths]
        identity["format"] = _format(task, split)
    elif task.hub:
        identity["hub"] = asdict(task.hub) | {"split": split, "language": language, "revision": _revision(task)}
        if Path(task.hub.id).is_dir():
            identity["files"] = [_hash_once(path) for path in sorted(Path(task.hub.id).rglob("*")) if path.is_file()]
    return content_key(identity)


def evaluation_splits(task: Task, where: DataConfig) -> dict[str, SplitName]:
    """Language -> the split that it is evaluated on, for the languages that the source has.

    The training language falls back on its dev split where the labelled test set is not there. DataError if there is
    no language at all.
    """
    found: dict[str, SplitName] = {}
    for language in task.languages:
        if has_split_source(task, task.evaluate_on, language, where):
            found[language] = task.evaluate_on
        elif language == task.training_language and has_split(task, "dev", language, where):
            found[language] = "dev"
    if not found:
        shown = task.languages[1] if task.files and _is_trained_on(task) else task.languages[0]
        _choose(task, task.evaluate_on, shown, where)
    return found


def has_split(task: Task, split: SplitName, language: str, where: DataConfig) -> bool:
    """Whether the task has this split at all (dev may come out of train)."""
    if split == "dev" and task.holdout is not None:
        split = "train"
    return has_split_source(task, split, language, where)


def has_split_source(task: Task, split: SplitName, language: str, where: DataConfig) -> bool:
    try:
        _choose(task, split, language, where)
    except DataError:
        return False
    return True


def _check_language(task: Task, split: SplitName, language: str) -> None:
    if language not in task.languages:
        raise RecipeError(f"{task.name} has no language {language!r}; it has {', '.join(task.languages)}")
    trainable = task.train_languages or (task.training_language,)
    if split == "train" and task.kind != "masked_lm" and language not in trainable:
        raise DataError(
            f"{task.name}: training rows are {', '.join(trainable)} only; {language!r} is for zero-shot evaluation"
        )


def _choose(task: Task, split: SplitName, language: str, where: DataConfig) -> str:
    """Which source gives this split: "synthetic", "files" or "hub"."""
    file_split = "train" if split == "dev" and task.holdout else split
    reasons = []
    if task.synthetic and where.source in ("auto", "synthetic"):
        if file_split in task.synthetic.counts:
            return "synthetic"
        reasons.append(f"the generator has no {split} split")
    if task.files and where.source in ("auto", "files"):
        if file_split not in task.files.paths:
            reasons.append(f"its files declare no {split} split")
        elif split == "test" and language == task.training_language and _is_trained_on(task):
            reasons.append("its test file is the one that is trained on")
        elif where.root is None and not _absolute(task, file_split):
            reasons.append(f"no data folder is given (set {ENVIRONMENT} or --data)")
        else:
            missing = [p for p in _paths(task, split, language, where) if not p.is_file()]
            if not missing:
                return "files"
            reasons.append(f"the file {missing[0]} does not exist")
    # One source for all languages of a task: a folder that has some of them is not patched up from the hub.
    if task.hub and (where.source == "hub" or (where.source == "auto" and not _in_folder(task, file_split, where))):
        if file_split not in task.hub.splits:
            reasons.append(f"the hub set {task.hub.id} has no {split} split")
        elif where.offline and not Path(task.hub.id).is_dir():
            reasons.append(f"the hub set {task.hub.id} is not read offline")
        else:
            return "hub"
    if not reasons:
        reasons.append(f"the source {where.source!r} does not have it")
    raise DataError(f"{task.name}: no {split} rows in {language!r}: " + "; ".join(reasons))


def _in_folder(task: Task, split: SplitName, where: DataConfig) -> bool:
    """Whether the data folder holds this split in any language."""
    if task.files is None or split not in task.files.paths or where.root is None:
        return False
    return any(p.is_file() for language in task.languages for p in _paths(task, split, language, where))


def _is_trained_on(task: Task) -> bool:
    """Whether the "test" files of other languages are, for the training language, its training file."""
    assert task.files is not None
    return "test" in task.files.paths and task.files.paths["test"] == task.files.paths.get("train")


def _absolute(task: Task, split: str) -> bool:
    assert task.files is not None
    paths = task.files.paths[split]
    return all(Path(p).is_absolute() for p in ((paths,) if isinstance(paths, str) else paths))


def _paths(task: Task, split: SplitName, language: str, where: DataConfig) -> list[Path]:
    assert task.files is not None
    file_split = "train" if split == "dev" and task.holdout else split
    patterns = task.files.paths[file_split]
    code = task.files.language_codes.get(language, language)
    root = where.root or Path()
    return [
        root / pattern.format(lang=language, file_lang=code)
        for pattern in ((patterns,) if isinstance(patterns, str) else patterns)
    ]


def _format(task: Task, split: str) -> str:
    assert task.files is not None
    return task.files.formats.get(split, task.files.format)


_HASHES: dict[tuple[str, int, int], str] = {}


def _hash_once(path: Path) -> str:
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _HASHES:
        _HASHES[key] = file_hash(path)
    return _HASHES[key]


def _raw_rows(task: Task, chosen: str, split: SplitName, language: str, where: DataConfig) -> Iterator[Row]:
    file_split: SplitName = "train" if split == "dev" and task.holdout else split
    if chosen == "synthetic" and task.synthetic:
        from effstilts.synthetic import rows

        made = rows(task.synthetic.dataset, file_split, language, task.synthetic.counts[file_split], where.world)
        return ((row, f"{task.name} {file_split} {language}, row {i}") for i, row in enumerate(made))
    if chosen == "hub":
        return _hub_rows(task, file_split, language, where)
    paths = _paths(task, split, language, where)
    reader = READERS[_format(task, file_split)]
    if task.kind == "bitext" and len(paths) == 2:
        return _aligned(reader(paths[0]), reader(paths[1]), paths)
    return _chained([reader(path) for path in paths], paths)


def _chained(parts: Sequence[Iterator[Row]], paths: Sequence[Path]) -> Iterator[Row]:
    for rows, path in zip(parts, paths, strict=True):
        empty = True
        for row in rows:
            empty = False
            yield row
        if empty:
            raise DataError(f"{path} holds no rows")


def _aligned(sources: Iterator[Row], targets: Iterator[Row], paths: Sequence[Path]) -> Iterator[Row]:
    left, right = list(sources), list(targets)
    if len(left) != len(right):
        raise DataError(f"{paths[0]} has {len(left)} lines, {paths[1]} has {len(right)}: they are not aligned")
    if not left:
        raise DataError(f"{paths[0]} holds no rows")
    for (source, place), (target, _) in zip(left, right, strict=True):
        yield {"source": source["text"], "target": target["text"]}, place


_REVISIONS: dict[str, str] = {}


def _revision(task: Task) -> str:
    """The hub commit that is read: the declared one, else the one that is newest now, which goes into every key."""
    hub = task.hub
    assert hub is not None
    if hub.revision or Path(hub.id).is_dir():
        return hub.revision
    if hub.id not in _REVISIONS:
        try:
            from huggingface_hub import HfApi

            _REVISIONS[hub.id] = str(HfApi().dataset_info(hub.id).sha)
        except Exception as error:
            raise DataError(
                f"{task.name}: cannot ask the hub for the revision of {hub.id} ({type(error).__name__}); declare one "
                f"(tasks: {{{task.name}: {{extends: {task.name}, hub: {{..., revision: COMMIT}}}}}}), or put the "
                f"official files into the folder of {ENVIRONMENT}"
            ) from error
    return _REVISIONS[hub.id]


def _hub_rows(task: Task, split: SplitName, language: str, where: DataConfig) -> Iterator[Row]:
    hub = task.hub
    assert hub is not None
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{task.name} comes from the hub: pip install datasets") from error
    code = hub.language_codes.get(language, language)
    name = hub.config.format(lang=code) or None
    hub_split = hub.splits[split].format(lang=code)
    options: dict[str, Any] = {"revision": revision} if (revision := _revision(task)) else {}
    if os.environ.get("HF_DATASETS_CACHE"):
        options["cache_dir"] = os.environ["HF_DATASETS_CACHE"]
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(hub.id, name, split=hub_split, **options)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{task.name}: the hub set {hub.id} ({name or 'default'}, {hub_split}) cannot be loaded: {first}; "
            f"or put its official files into the folder of {ENVIRONMENT}"
        ) from error
    for number, row in enumerate(table):
        if hub.language_of_id and not str(row["id"]).startswith(f"{code}-"):
            continue
        yield dict(row), f"{hub.id} {name or ''} {hub_split}, row {number}"


def _held_out(task: Task, raw: Iterator[Row], split: SplitName) -> Iterator[Row]:
    """The part of the train rows that is this split, by the hash of the column behind the role `holdout.by`."""
    assert task.holdout is not None
    column = task.columns[task.holdout.by]
    names = (column,) if isinstance(column, str) else column
    for row, place in raw:
        text = "\0".join(str(row.get(name, "")) for name in names)
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        if (number < task.holdout.share) == (split == "dev"):
            yield row, place
