"""Rows of a task from the hub, from a folder of official files, or from the generator.

Which source gives a split, what identifies its rows without reading them, and the rows in the roles of the task's
kind (`effstilts.data.roles`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from effstilts.data import hub, layouts
from effstilts.data.hub import ENVIRONMENT
from effstilts.data.readers import READERS, Row
from effstilts.data.roles import examples, rows_hash
from effstilts.data.sides import joined
from effstilts.data.text_files import check_regular
from effstilts.errors import DataError, RecipeError
from effstilts.store import content_key, file_hash
from effstilts.tasks.task import SplitName, Task

# The fields of a hub declaration that decide its rows.
_HUB_IDENTITY = ("id", "splits", "config", "revision", "language_codes", "language_of_id", "rename", "counts")


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
    """Rows in the roles of the task's kind, a description of their source, and how many rows with which raw label
    were dropped because the declaration says so (`drop_labels`)."""

    examples: list[dict[str, Any]]
    source: str
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Rows as they are read, and the count of what has been dropped so far, as in LoadedRows."""

    rows: Iterator[dict[str, Any]]
    dropped: Counter[str]


def stream(task: Task, split: SplitName, language: str, where: DataConfig) -> Stream:
    """The rows of a split in one language, one after another. Errors as in `load`, when they are met."""
    dropped: Counter[str] = Counter()
    return Stream(_examples(task, split, language, where, dropped), dropped)


def load(task: Task, split: SplitName, language: str, where: DataConfig, limit: int | None = None) -> LoadedRows:
    """The first `limit` rows of a split in one language.

    DataError if the source, the file, a column or a label is missing or broken, or if a whole split of a hub set is
    not the rows whose hash was recorded; a train split is given in the task's training languages alone, so that a
    zero-shot target never trains on another language's labels.
    """
    chosen = source_of(task, split, language, where)
    reading = stream(task, split, language, where)
    rows = list(islice(reading.rows, limit))
    recorded = task.hub.hashes.get(f"{split}/{language}", "") if task.hub and chosen == "hub" else ""
    if recorded and limit is None and rows_hash(rows) != recorded:
        raise DataError(
            f"{task.name}: the {len(rows)} {split} rows in {language!r} of the hub set "
            f"{hub.settled(task, language, where.offline).id} are not those of the official release (hash "
            f"{rows_hash(rows)}, recorded {recorded}); put the official files into the folder of {ENVIRONMENT}"
        )
    return LoadedRows(rows, f"{task.name} ({language}, {split}) from {chosen}", dict(reading.dropped))


def _examples(
    task: Task, split: SplitName, language: str, where: DataConfig, dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The rows of a split; of a task of parts one of each part in turn, so that the first rows hold all parts."""
    if task.parts:
        yield from _in_turn([_part_of(part, split, language, where, dropped) for part in task.parts])
        return
    raw = _raw_rows(task, source_of(task, split, language, where), split, language, where)
    if task.holdout is not None and split in ("train", "dev"):
        raw = _held_out(task, raw, split)
    yield from examples(task, raw, dropped)


def _part_of(
    part: Task, split: SplitName, language: str, where: DataConfig, dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    for row in _examples(part, split, language, where, dropped):
        yield {**row, "id": f"{part.name}/{row['id']}"}


def _in_turn(streams: list[Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    while streams:
        for stream in list(streams):
            row = next(stream, None)
            if row is None:
                streams.remove(stream)
            else:
                yield row


def fingerprint(task: Task, split: SplitName, language: str, where: DataConfig) -> str:
    """What decides the rows, without reading them: the files' hashes, the hub revision or the generator's version,
    and the declaration's part in it. Train and dev of a holdout share it: whoever keys rows by it adds the split."""
    chosen = source_of(task, split, language, where)
    if task.parts:
        return content_key({"parts": [[p.name, fingerprint(p, split, language, where)] for p in task.parts]})
    identity: dict[str, Any] = {
        "columns": asdict(task)["columns"],
        "values": asdict(task)["values"],
        "label_values": dict(task.label_values),
        "drop_labels": list(task.drop_labels),
        "holdout": asdict(task.holdout) if task.holdout else None,
        "labels": list(task.labels),
        # Once a number was a place in the tag set even where it is a tag's name.
        **({"numbers": "names"} if task.kind == "tagging" and _named_by_numbers(task.labels) else {}),
    }
    if chosen == "synthetic" and task.synthetic:
        from effstilts.synthetic import GENERATOR_VERSION, World

        identity["synthetic"] = [task.synthetic.dataset, split, language, task.synthetic.counts.get(split, 0)]
        identity["generator"] = GENERATOR_VERSION
        identity["world"] = asdict(where.world if where.world is not None else World())
    elif chosen == "files":
        files = layouts.layout(task, split, language, where.root)
        own = layouts.read_split(task, split)
        identity["files"] = [_hash_once(path) for path in layouts.paths(files, own, language, where.root)]
        identity["format"] = files.formats.get(own, files.format)
        if files.rename:
            identity["rename"] = dict(files.rename)
    elif task.hub:
        settled = hub.settled(task, language, where.offline)
        kept = {key: value for key, value in asdict(settled).items() if key in _HUB_IDENTITY}
        revision = hub.revision_of(task, language, where.offline)
        identity["hub"] = kept | {"split": split, "language": language, "revision": revision}
        if Path(settled.id).is_dir():
            identity["files"] = [_hash_once(path) for path in sorted(Path(settled.id).rglob("*")) if path.is_file()]
    return content_key(identity)


def _named_by_numbers(labels: Sequence[str]) -> bool:
    """Whether a label is a number that is not its own place."""
    return any(label.isdecimal() and label != str(place) for place, label in enumerate(labels))


def evaluation_splits(task: Task, where: DataConfig) -> dict[str, SplitName]:
    """Language -> the split that it is evaluated on, for the languages that the source has.

    Where rows come from the hub, that is the hub declaration's own. The training language falls back on its dev split
    where the labelled test set is not there. DataError if there is no language at all.
    """
    in_folder = layouts.in_folder(task, layouts.read_split(task, task.evaluate_on), where.root)
    on_hub = where.source == "hub" or (where.source == "auto" and not in_folder)
    wanted: SplitName = (task.hub.evaluate_on if task.hub and on_hub else "") or task.evaluate_on
    found: dict[str, SplitName] = {}
    for language in task.languages:
        if has_split(task, wanted, language, where):
            found[language] = wanted
        elif language == task.training_language and has_split(task, "dev", language, where):
            found[language] = "dev"
    if not found:
        trained_on = task.files is not None and layouts.is_trained_on(task.files)
        shown = task.languages[1 if trained_on and len(task.languages) > 1 else 0]
        for split in (task.evaluate_on, wanted):
            _choose(task, split, shown, where)
    return found


def has_split(task: Task, split: SplitName, language: str, where: DataConfig) -> bool:
    """Whether the task has this split at all (dev may come out of train)."""
    return has_split_source(task, layouts.read_split(task, split), language, where)


def has_split_source(task: Task, split: SplitName, language: str, where: DataConfig) -> bool:
    try:
        _choose(task, split, language, where)
    except DataError:
        return False
    return True


def source_of(task: Task, split: SplitName, language: str, where: DataConfig) -> str:
    """Which source gives this split: "synthetic", "files", "hub" or "parts".

    RecipeError for a language that the task does not have, DataError for one that it does not train on or for a split
    that no source has.
    """
    if language not in task.languages:
        raise RecipeError(f"{task.name} has no language {language!r}; it has {', '.join(task.languages)}")
    trainable = task.train_languages or (task.training_language,)
    if split == "train" and task.kind != "masked_lm" and language not in trainable:
        raise DataError(
            f"{task.name}: training rows are {', '.join(trainable)} only; {language!r} is for zero-shot evaluation"
        )
    return _choose(task, split, language, where)


def _choose(task: Task, split: SplitName, language: str, where: DataConfig) -> str:
    if task.parts:
        for part in task.parts:
            _choose(part, split, language, where)
        return "parts"
    own = layouts.read_split(task, split)
    reasons = []
    if task.synthetic and where.source in ("auto", "synthetic"):
        if own in task.synthetic.counts:
            return "synthetic"
        reasons.append(f"the generator has no {split} split")
    if task.files and where.source in ("auto", "files"):
        files = layouts.layout(task, split, language, where.root)
        if own not in files.paths:
            reasons.append(f"its files declare no {split} split (there are {', '.join(files.paths)})")
        elif split == "test" and language == task.training_language and layouts.is_trained_on(files):
            reasons.append("its test file is the one that is trained on")
        elif where.root is None and not layouts.is_absolute(files, own):
            reasons.append(f"no data folder is given (set {ENVIRONMENT} or --data)")
        else:
            missing = [p for p in layouts.paths(files, own, language, where.root) if not p.is_file()]
            if not missing:
                return "files"
            reasons.append(
                f"{missing[0]} does not exist or is no file (the data folder is that of {ENVIRONMENT} or --data)"
            )
    # One source for all languages of a task: a folder that has some of them is not patched up from the hub.
    if task.hub and (
        where.source == "hub" or (where.source == "auto" and not layouts.in_folder(task, own, where.root))
    ):
        reason = _why_not_hub(task, own, split, language, where)
        if not reason:
            return "hub"
        reasons.append(reason)
    if not reasons:
        reasons.append(f"the source {where.source!r} does not have it")
    raise DataError(f"{task.name}: no {split} rows in {language!r}: " + "; ".join(reasons))


def _why_not_hub(task: Task, own: SplitName, split: SplitName, language: str, where: DataConfig) -> str:
    """Why the hub does not give a split; empty where it does, as far as can be known without asking it."""
    declared = hub.declared(task)
    if own not in declared.splits:
        return f"the hub set {declared.id} has no {split} split (there are {', '.join(declared.splits)})"
    if language in declared.absent.get(own, ()):
        return f"the hub set {declared.id} has no {split} split in {language!r}"
    if where.offline and not Path(declared.id).is_dir():
        settled = hub.settled(task, language, offline=True)
        if hub.cached(settled, language, own) is None:
            return f"the hub set {declared.id} is not in the cache; run once without --offline to fetch it"
    return ""


_HASHES: dict[tuple[str, int, int], str] = {}


def _hash_once(path: Path) -> str:
    check_regular(path)
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _HASHES:
        _HASHES[key] = file_hash(path)
    return _HASHES[key]


def _raw_rows(task: Task, chosen: str, split: SplitName, language: str, where: DataConfig) -> Iterator[Row]:
    own = layouts.read_split(task, split)
    if chosen == "synthetic" and task.synthetic:
        from effstilts.synthetic import rows

        made = rows(task.synthetic.dataset, own, language, task.synthetic.counts[own], where.world)
        return ((row, f"{task.name} {own} {language}, row {i}") for i, row in enumerate(made))
    if chosen == "hub":
        names = hub.settled(task, language, where.offline).rename
        return _renamed(hub.rows(task, own, language, where.offline), names)
    files = layouts.layout(task, split, language, where.root)
    paths = layouts.paths(files, own, language, where.root)
    form = files.formats.get(own, files.format)
    reader = READERS[form]
    together = joined(task.kind, form, len(paths))
    if together is not None:
        return together(reader, paths, language)
    raw = _renamed(chain.from_iterable(reader(path) for path in paths), files.rename)
    return _of_language(task, raw, own, language)


def _of_language(task: Task, raw: Iterator[Row], split: SplitName, language: str) -> Iterator[Row]:
    """The rows of a file, each held to its language where the hub declaration says how an id tells it and how many
    rows there are: jiant writes the rows of nine languages into `tydiqa.en.train.json` and trains on them all.

    An id without any language's prefix (XTREME's own files have numbers) tells nothing. DataError at the first row of
    another language, or beyond the official number of rows.
    """
    if task.hub is None or not task.hub.language_of_id:
        yield from raw
        return
    names = task.hub.language_codes
    most = task.hub.counts.get(f"{split}/{language}")
    for number, (row, place) in enumerate(raw):
        prefix = str(row.get(str(task.columns["id"]), "")).partition("-")[0]
        if prefix != names.get(language, language) and prefix in names.values():
            raise DataError(
                f"{place}: this row is {prefix} by its id, but the file is read as {language!r}; a zero-shot target "
                "must not train on it: part the file by language"
            )
        if most is not None and number >= most:
            raise DataError(
                f"{place}: more rows than the {most} that {task.name} has in {language!r} ({split}): rows of other "
                "languages, or rows that stand twice"
            )
        yield row, place


def _renamed(rows: Iterator[Row], names: Mapping[str, str]) -> Iterator[Row]:
    """Rows with the source's columns under the task's names; a column that has such a name already gives way."""
    for row, place in rows:
        found = {source: name for source, name in names.items() if source in row}
        if found:
            kept = {column: value for column, value in row.items() if column not in found.values()}
            row = kept | {name: row[source] for source, name in found.items()}
        yield row, place


def _held_out(task: Task, raw: Iterator[Row], split: SplitName) -> Iterator[Row]:
    """The part of the train rows that is this split, by the hash of the columns of `holdout.by`, or of the row's
    number. DataError for a row without such a column."""
    assert task.holdout is not None
    by = task.holdout.by
    column = task.columns.get(by, by)
    names = (column,) if isinstance(column, str) else column
    for number_in_file, (row, place) in enumerate(raw):
        if by == "row":
            text = str(number_in_file)
        elif any(name in row for name in names):
            text = "\0".join(str(row.get(name, "")) for name in names)
        else:
            raise DataError(f"{place}: {task.name}.holdout.by: the row has no column {' or '.join(map(repr, names))}")
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        if (number < task.holdout.share) == (split == "dev"):
            yield row, place
