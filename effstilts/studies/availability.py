"""`effstilts tasks --check` and `effstilts data fetch`: what of each task is within reach, and getting it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effstilts.data import hub, layouts, sources
from effstilts.data.roles import rows_hash
from effstilts.data.sources import DataConfig
from effstilts.errors import DataError, EffstiltsError, RecipeError
from effstilts.log import Log
from effstilts.studies.listing import columns
from effstilts.tasks.registry import get, known_tasks
from effstilts.tasks.task import SPLITS, SplitName, Task

COLUMNS = ("task", "source", "revision", "rows", "languages", "labels", "tokens", "status")
# Roles whose texts are counted in tokens.
_TEXTS = ("text", "text_pair", "prompt", "question", "context", "source", "target")
Counter = Callable[[str], int]


@dataclass
class Found:
    """What was read of one task."""

    task: str
    source: str = "-"
    revision: str = "-"
    rows: int = 0
    tokens: int = 0
    languages: list[str] = field(default_factory=list)
    splits: list[SplitName] = field(default_factory=list)
    absent: list[SplitName] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    whole: bool = True
    broken: bool = False

    def cells(self) -> tuple[str, ...]:
        """The row of the table; "+" after a number says that the time ran out before the end."""
        more = "" if self.whole else "+"
        return (
            self.task,
            self.source,
            self.revision[:10] or "-",
            f"{self.rows:,}{more}" if self.rows else "-",
            f"{len(self.languages)}{more}" if self.languages else "-",
            f"{len(self.labels)}" if self.labels else "-",
            f"{self.tokens:,}{more}" if self.rows else "-",
            "; ".join(self.notes) or self._ok(),
        )

    def _ok(self) -> str:
        absent = [split for split in self.absent if split not in self.splits]
        notes = [f"ok: {', '.join(self.splits)}", *([f"no {', '.join(absent)}"] if absent else [])]
        return "; ".join([*notes, *([] if self.whole else ["the rest is not read in this time (--seconds)"])])


def check(names: Sequence[str], where: DataConfig, seconds: float, count: Counter | None = None) -> tuple[str, bool]:
    """A table with a row a task, and whether no source that was reached is broken.

    Every split and language that the data folder, the hub's cache or the generator has is read, `seconds` a task at
    most; a hub set that is not in the cache is asked for and not downloaded. `count`: tokens of a text, else its words.
    """
    tasks = [get(name) for name in names] or list(known_tasks().values())
    network = _Network(where.offline)
    found = [_check(task, where, seconds, count or _words, network) for task in tasks]
    table = [COLUMNS, *(one.cells() for one in found)]
    return columns(table), not any(one.broken for one in found)


class _Network:
    """Whether the hub answers: after one refusal for want of a network it is not asked again."""

    def __init__(self, offline: bool) -> None:
        self.reason = "this check is offline" if offline else ""

    def reach(self, task: Task) -> str:
        """ "" where the hub has the task's set, else why not."""
        if self.reason:
            return self.reason
        try:
            for one in task.parts or (task,):
                hub.ask(one)
        except DataError as error:
            cause = error.__cause__
            if cause is not None and "404" not in str(cause) and "401" not in str(cause):
                self.reason = f"the hub does not answer ({type(cause).__name__})"
            return self.reason or str(error)
        return ""


def _check(task: Task, where: DataConfig, seconds: float, count: Counter, network: _Network) -> Found:
    found = Found(task.name)
    until = time.monotonic() + seconds
    reasons: list[str] = []
    for split, language in _splits(task):
        try:
            chosen = sources.source_of(task, split, language, where)
        except EffstiltsError as error:
            reasons.append(str(error).removeprefix(f"{task.name}: "))
            if split not in found.absent:
                found.absent.append(split)
            continue
        absent = _not_here(task, split, language, chosen, where)
        if absent:
            reason = network.reach(task)
            reasons.append(f"{absent}: {reason or 'on the hub, not fetched (effstilts data fetch)'}")
            break
        if time.monotonic() >= until:
            found.whole = False
            break
        try:
            _read(found, task, split, language, where, until, count)
        except EffstiltsError as error:
            found.broken = True
            found.notes.append(f"broken: {error}")
            break
        found.source = chosen
        found.revision = _revision(task, split, language, chosen, where)
    if not found.rows and not found.broken:
        found.notes.append(f"not reachable: {reasons[0] if reasons else 'no source'}")
    return found


def _splits(task: Task) -> Iterator[tuple[SplitName, str]]:
    """The splits that a source declares, in order of use: what is trained on, then what is evaluated."""
    if task.parts:
        yield from _splits(task.parts[0])
        return
    declared = set(task.hub.splits if task.hub else ()) | set(task.synthetic.counts if task.synthetic else ())
    for files in (task.files, *task.files.alternatives) if task.files else ():
        declared |= set(files.paths)
    trained = (*task.languages,) if task.kind == "masked_lm" else task.train_languages or (task.training_language,)
    for language in trained if "train" in declared else ():
        yield "train", language
    for split in SPLITS[1:]:
        for language in task.languages if layouts.read_split(task, split) in declared else ():
            yield split, language


def _not_here(task: Task, split: SplitName, language: str, chosen: str, where: DataConfig) -> str:
    """The id of the hub set that would have to be downloaded, or nothing."""
    if chosen == "parts":
        for part in task.parts:
            own = sources.source_of(part, split, language, where)
            if absent := _not_here(part, split, language, own, where):
                return absent
        return ""
    if chosen != "hub" or Path(hub.declared(task).id).is_dir():
        return ""
    own = layouts.read_split(task, split)
    declared = hub.declared(task)
    sets = [declared, *([declared.mirror] if declared.mirror else [])]
    return "" if any(hub.cached(one, language, own) is not None for one in sets) else declared.id


def _read(
    found: Found, task: Task, split: SplitName, language: str, where: DataConfig, until: float, count: Counter
) -> None:
    """Adds the rows of a split to what was found, until the time is over. What is broken raises DataError."""
    reading = DataConfig(where.root, where.source, True, where.world)
    kept: list[Mapping[str, Any]] = []
    stream = sources.stream(task, split, language, reading)
    recorded = task.hub.hashes.get(f"{split}/{language}", "") if task.hub else ""
    for row in stream.rows:
        found.rows += 1
        found.tokens += sum(count(text) for text in _texts(row))
        found.labels.update(_labels(row))
        if recorded:
            kept.append(row)
        if time.monotonic() >= until:
            found.whole = False
            break
    else:
        if recorded:
            found.notes.append(
                f"{split}: the {'recorded' if rows_hash(kept) == recorded else 'rows DIFFER from recorded'} rows"
            )
        if stream.dropped:
            found.notes.append(f"{split}: {sum(stream.dropped.values()):,} rows without a usable label dropped")
    if language not in found.languages:
        found.languages.append(language)
    if split not in found.splits:
        found.splits.append(split)


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (row[role] for role in _TEXTS if isinstance(row.get(role), str))
    yield from row.get("choices", ())
    yield from row.get("tokens", ())


def _labels(row: Mapping[str, Any]) -> Iterator[str]:
    if "label" in row:
        yield str(row["label"])
    yield from row.get("tags", ())


def _words(text: str) -> int:
    return len(text.split())


def _revision(task: Task, split: SplitName, language: str, chosen: str, where: DataConfig) -> str:
    """The hub's commit, else the hash of what decides the rows."""
    if chosen == "hub" and not Path(hub.declared(task).id).is_dir():
        return hub.revision_of(task, language, offline=True)
    return sources.fingerprint(task, split, language, where)


def fetch(names: Sequence[str], languages: Sequence[str], where: DataConfig, log: Log) -> bool:
    """Downloads the hub sets of tasks, of their parts and of what they are trained on, into the hub's cache.

    Returns whether all that was asked for is there. What the data folder has already is not downloaded.
    """
    if not names:
        raise RecipeError("data fetch: name one or more tasks; `effstilts tasks` lists them")
    if where.offline:
        raise RecipeError("data fetch: cannot fetch with --offline")
    complete = True
    for task in _with_those_it_needs([get(name) for name in names]):
        if task.parts or task.synthetic:
            continue
        unknown = [language for language in languages if language not in task.languages]
        wanted = [language for language in task.languages if not languages or language in languages]
        if task.name in names and unknown:
            raise RecipeError(f"{task.name} has no language {unknown[0]!r}; it has {', '.join(task.languages)}")
        complete &= _fetch(task, wanted or [task.training_language], where, log)
    return complete


def _with_those_it_needs(tasks: Sequence[Task]) -> list[Task]:
    needed: dict[str, Task] = {}
    queue = list(tasks)
    while queue:
        task = queue.pop(0)
        if task.name not in needed:
            needed[task.name] = task
            queue += [*task.parts, *(get(name) for name in (task.train_first, task.train_on) if name)]
    return list(needed.values())


def _fetch(task: Task, languages: Sequence[str], where: DataConfig, log: Log) -> bool:
    wanted: list[tuple[SplitName, str]] = []
    done: set[tuple[SplitName, str]] = set()
    for split, language in _splits(task):
        own = layouts.read_split(task, split)
        trained = split == "train" and language == task.training_language
        if (language in languages or trained) and (own, language) not in done:
            done.add((own, language))
            if sources.has_split_source(task, split, language, where):
                wanted.append((own, language))
    if not wanted:
        why = "its rows have no hub set" if task.hub is None else "the hub set has none of these languages"
        log.say(f"{task.name}: nothing to fetch: {why}; its official files go into the folder of {hub.ENVIRONMENT}")
        return False
    for split, language in wanted:
        if sources.source_of(task, split, language, where) != "hub":
            log.say(f"{task.name} {split} {language}: in the data folder")
            continue
        try:
            log.say(f"{task.name} {split} {language}: {hub.fetch(task, split, language):,} rows")
        except DataError as error:
            log.say(str(error))
            return False
    return True
