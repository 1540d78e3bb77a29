"""Rows of a task from the hub, from a folder of official files, or from the generator.

Which source gives a split, what identifies its rows without reading them, and the rows in the roles of the task's
kind (`effstilts.data.roles`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from effstilts.data import hub
from effstilts.data.hub import ENVIRONMENT
from effstilts.data.readers import READERS, Row
from effstilts.data.roles import examples
from effstilts.errors import DataError, RecipeError
from effstilts.store import content_key, file_hash
from effstilts.tasks.task import Files, SplitName, Task


@dataclass(frozen=True)
class DataConfig:
    """Where rows come from.

    root: folder of official files; source: "auto" takes the generator for synthetic tasks, else the files where the
    folder has them, else the hub; offline: the hub is not asked, its cache is read; world: the artificial world of
    synthetic tasks, None: the default one.
    """

    root: Path | None = None
    source: Literal["auto", "files", "hub", "synthetic"] = "auto"
    offline: bool = False
    world: Any = None


@dataclass(frozen=True)
class LoadedRows:
    """Rows in the roles of the task's kind, a description of their source, and the fingerprint of all its rows."""

    examples: list[dict[str, Any]]
    source: str
    fingerprint: str = ""


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
    described = f"{task.name} ({language}, {split}) from {chosen}"
    return LoadedRows(rows, described, fingerprint(task, split, language, where))


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
        from effstilts.synthetic import GENERATOR_VERSION, World

        identity["synthetic"] = [task.synthetic.dataset, split, language, task.synthetic.counts.get(split, 0)]
        identity["generator"] = GENERATOR_VERSION
        identity["world"] = asdict(where.world if where.world is not None else World())
    elif chosen == "files" and task.files:
        files = _layout(task, split, language, where)
        identity["files"] = [_hash_once(path) for path in _paths(files, task, split, language, where)]
        identity["format"] = _format(files, split)
        if files.rename:
            identity["rename"] = dict(files.rename)
    elif task.hub:
        revision = hub.revision_of(task, language, where.offline)
        identity["hub"] = asdict(task.hub) | {"split": split, "language": language, "revision": revision}
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
        shown = task.languages[1] if task.files and _is_trained_on(task.files) else task.languages[0]
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
        files = _layout(task, split, language, where)
        if file_split not in files.paths:
            reasons.append(f"its files declare no {split} split (there are {', '.join(files.paths)})")
        elif split == "test" and language == task.training_language and _is_trained_on(files):
            reasons.append("its test file is the one that is trained on")
        elif where.root is None and not _absolute(files, file_split):
            reasons.append(f"no data folder is given (set {ENVIRONMENT} or --data)")
        else:
            missing = [p for p in _paths(files, task, split, language, where) if not p.is_file()]
            if not missing:
                return "files"
            reasons.append(f"the file {missing[0]} does not exist (the data folder is that of {ENVIRONMENT} or --data)")
    # One source for all languages of a task: a folder that has some of them is not patched up from the hub.
    if task.hub and (where.source == "hub" or (where.source == "auto" and not _in_folder(task, file_split, where))):
        if file_split not in task.hub.splits:
            reasons.append(f"the hub set {task.hub.id} has no {split} split (there are {', '.join(task.hub.splits)})")
        elif where.offline and not Path(task.hub.id).is_dir() and hub.cached(task.hub, language) is None:
            reasons.append(f"the hub set {task.hub.id} is not in the cache; run once without --offline to fetch it")
        else:
            return "hub"
    if not reasons:
        reasons.append(f"the source {where.source!r} does not have it")
    raise DataError(f"{task.name}: no {split} rows in {language!r}: " + "; ".join(reasons))


def _in_folder(task: Task, split: SplitName, where: DataConfig) -> bool:
    """Whether the data folder holds this split in any language."""
    if task.files is None or split not in task.files.paths or where.root is None:
        return False
    return any(
        p.is_file()
        for files in (task.files, *task.files.alternatives)
        if split in files.paths
        for language in task.languages
        for p in _paths(files, task, split, language, where)
    )


def _layout(task: Task, split: SplitName, language: str, where: DataConfig) -> Files:
    """The layout whose files of this split are there, else the first that declares the split, else the first."""
    assert task.files is not None
    file_split = "train" if split == "dev" and task.holdout else split
    declared = [files for files in (task.files, *task.files.alternatives) if file_split in files.paths]
    there = (f for f in declared if all(p.is_file() for p in _paths(f, task, split, language, where)))
    return next(there, declared[0] if declared else task.files)


def _is_trained_on(files: Files) -> bool:
    """Whether the "test" files of other languages are, for the training language, its training file."""
    return "test" in files.paths and files.paths["test"] == files.paths.get("train")


def _patterns(files: Files, split: str) -> tuple[str, ...]:
    paths = files.paths[split]
    return (paths,) if isinstance(paths, str) else paths


def _absolute(files: Files, split: str) -> bool:
    return all(Path(p).is_absolute() for p in _patterns(files, split))


def _paths(files: Files, task: Task, split: SplitName, language: str, where: DataConfig) -> list[Path]:
    code = files.language_codes.get(language, language)
    root = where.root or Path()
    patterns = _patterns(files, "train" if split == "dev" and task.holdout else split)
    return [root / pattern.replace("{lang}", language).replace("{file_lang}", code) for pattern in patterns]


def _format(files: Files, split: str) -> str:
    return files.formats.get(split, files.format)


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
        assert task.hub is not None
        return _renamed(hub.rows(task, file_split, language, where.offline), task.hub.rename)
    files = _layout(task, split, language, where)
    paths = _paths(files, task, split, language, where)
    reader = READERS[_format(files, file_split)]
    if task.kind == "bitext" and len(paths) == 2:
        return _aligned(reader(paths[0]), reader(paths[1]), paths)
    if task.kind == "mining" and len(paths) == 3:
        return _corpora(reader(paths[0]), reader(paths[1]), READERS["bucc_gold"](paths[2]))
    return _renamed(chain.from_iterable(reader(path) for path in paths), files.rename)


def _renamed(rows: Iterator[Row], names: Mapping[str, str]) -> Iterator[Row]:
    """Rows with the source's columns under the task's names; a column that has such a name already gives way."""
    for row, place in rows:
        found = {source: name for source, name in names.items() if source in row}
        if found:
            kept = {column: value for column, value in row.items() if column not in found.values()}
            row = kept | {name: row[source] for source, name in found.items()}
        yield row, place


def _aligned(sources: Iterator[Row], targets: Iterator[Row], paths: Sequence[Path]) -> Iterator[Row]:
    left, right = list(sources), list(targets)
    if len(left) != len(right):
        raise DataError(f"{paths[0]} has {len(left)} lines, {paths[1]} has {len(right)}: they are not aligned")
    for (source, place), (target, _) in zip(left, right, strict=True):
        yield {"source": source["text"], "target": target["text"]}, place


def _corpora(sources: Iterator[Row], targets: Iterator[Row], pairs: Iterator[Row]) -> Iterator[Row]:
    """The sentences of two comparable corpora, each with its gold partners. DataError for a pair of unknown ids."""
    sides = {"source": list(sources), "target": list(targets)}
    known = {side: {row["id"] for row, _ in rows} for side, rows in sides.items()}
    partners: dict[str, dict[str, list[str]]] = {"source": {}, "target": {}}
    for pair, place in pairs:
        for side, other in (("source", "target"), ("target", "source")):
            name = pair[f"{side}_id"]
            if name not in known[side]:
                raise DataError(f"{place}: no {side} sentence has the id {name!r}")
            partners[side].setdefault(name, []).append(pair[f"{other}_id"])
    for side, rows in sides.items():
        for row, place in rows:
            yield row | {"side": side, "gold": partners[side].get(row["id"], [])}, place


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
