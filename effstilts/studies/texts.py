"""`mine` and `search`: two text files -> vectors -> neighbours -> a TSV, interrupted and gone on with at any point.

Beside OUT stands OUT.work while it is made: the distinct lines, their vectors in chunks, the neighbours found so far
and all of them in the end. Every part names what it was made from and is made anew where that has changed. OUT itself
is written aside and renamed, so that it is whole or not there; then OUT.work goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from effstilts.errors import DataError, RecipeError, StoreError
from effstilts.log import Log
from effstilts.model.packed import Precision
from effstilts.retrieval import blocks, corpus
from effstilts.retrieval.approximate import IndexSpec, nearest, recall_of
from effstilts.retrieval.blocks import Keep
from effstilts.retrieval.corpus import Lines, Vectors
from effstilts.retrieval.embed import Embedder, Pooling
from effstilts.retrieval.mining import Neighbourhoods, mine
from effstilts.retrieval.neighbours import Neighbours
from effstilts.store import (
    content_key,
    disk_errors,
    file_hash,
    read_signed,
    replaceable,
    sync_folder,
    verify_folder,
    whole,
    write_folder,
)
from effstilts.studies.trained import Named

# Of the work folder, made first: a folder without it is somebody else's.
_LOCK = "lock"


@dataclass(frozen=True)
class Job:
    """What both commands share: the model, how a line becomes a vector, and where the result goes. precision: resolved,
    not "auto"."""

    named: Named
    pooling: Pooling
    precision: Precision
    max_length: int
    batch_tokens: int
    out: Path
    log: Log

    @property
    def work(self) -> Path:
        return _work_of(self.out)


def _work_of(out: Path) -> Path:
    return out.with_name(out.name + ".work")


def begun_precision(out: Path) -> Precision | None:
    """What the vectors beside an unfinished OUT are in; None where there are none."""
    precision: Precision | None = next((of["precision"] for of in _begun(_work_of(out)) if "precision" in of), None)
    return precision


def _begun(work: Path) -> list[dict[str, Any]]:
    """What the vectors in a work folder were made from and by."""
    found = []
    for state in sorted(work.glob("*/vectors.json")):
        with contextlib.suppress(StoreError, OSError, KeyError):
            found.append(read_signed(state, "")["identity"])
    return found


@dataclass(frozen=True)
class Side:
    """A file's lines and their vectors; key names what they were made from."""

    lines: Lines
    vectors: Vectors
    key: str


def mine_files(
    job: Job,
    source: Path,
    target: Path,
    margin: str,
    k: int,
    mode: str,
    threshold: float | None,
    spec: IndexSpec | None = None,
) -> str:
    """Writes the mined pairs; returns a line that says how many and where. spec: of an approximate index, whose recall
    is told; the scores of what it finds are exact in any case."""
    with _working(job, k, (source, target)):
        x, y = _sides(job, {"source": (source, True), "target": (target, True)}, spec)
        _say_k(job, k, x.lines, y.lines)

        n, m = len(x.lines), len(y.lines)
        if spec is None:
            shapes = [(n, min(k, m)), (m, min(k, n))]

            def find(keep: Keep) -> Sequence[Neighbours]:
                return blocks.both_ways(x.vectors.rows, y.vectors.rows, k, job.log, keep)

            forward, backward = _kept(job, "both", x, y, k, shapes, find)
        else:
            forward = _roughly(job, x, y, k, spec, " targets", "source sentences")
            backward = _roughly(job, y, x, k, spec, " sources", "target sentences")
        near = Neighbourhoods(*forward, *backward)
        pairs = mine(near, margin, mode)
        if threshold is not None:
            pairs = pairs.above(threshold)

        def write(file: IO[str]) -> None:
            texts = zip(x.lines.at(pairs.source), y.lines.at(pairs.target), strict=True)
            numbers = zip(x.lines.numbers[pairs.source], y.lines.numbers[pairs.target], strict=True)
            for score, (i, j), (left, right) in zip(pairs.score, numbers, texts, strict=True):
                file.write(f"{score:.6f}\t{i}\t{j}\t{left}\t{right}\n")

        _write(job, write)
    return f"{len(pairs):,} pairs in {job.out} ({job.precision} vectors)"


def search_files(job: Job, queries: Path, database: Path, k: int, spec: IndexSpec | None = None) -> str:
    """Writes the k nearest corpus sentences of each query; returns a line that says how many and where. spec: of an
    approximate index, whose recall is told; the cosines are exact in any case."""
    with _working(job, k, (queries, database)):
        asked, there = _sides(job, {"queries": (queries, False), "corpus": (database, True)}, spec)
        _say_k(job, k, there.lines)
        if spec is None:
            shape = len(asked.lines), min(k, len(there.lines))

            def find(keep: Keep) -> Sequence[Neighbours]:
                return [blocks.nearest(asked.vectors.rows, there.vectors.rows, k, job.log, keep)]

            (near,) = _kept(job, "nearest", asked, there, k, [shape], find)
        else:
            near = _roughly(job, asked, there, k, spec, "", "queries")

        def write(file: IO[str]) -> None:
            texts = there.lines.at(near.indices.ravel())
            for number, row, where in zip(asked.lines.numbers, near.scores, near.indices, strict=True):
                for rank, (score, at) in enumerate(zip(row, where, strict=True), 1):
                    file.write(f"{number}\t{rank}\t{score:.6f}\t{there.lines.numbers[at]}\t{next(texts)}\n")

        _write(job, write)
    said = f"{len(asked.lines):,} queries with {near.scores.shape[1]} sentences each in {job.out}"
    return f"{said} ({job.precision} vectors)"


def _roughly(job: Job, asked: Side, there: Side, k: int, spec: IndexSpec, what: str, of: str) -> Neighbours:
    """The k nearest by an approximate index, whose recall is told: of the exact nearest `what`, for whom (`of`)."""
    count = min(k, len(there.lines))
    queries, database = asked.vectors.rows, there.vectors.rows

    def find(_: Keep) -> Sequence[Neighbours]:
        return [nearest(queries, database, count, spec, job.log)]

    name = f"nearest-by-{content_key(asdict(spec))}"
    (near,) = _kept(job, name, asked, there, k, [(len(asked.lines), count)], find)
    told = recall_of(near.indices.__getitem__, queries, database, count)
    job.log.say(
        f"{spec.kind} finds {100 * told['recall']:.1f} % of the exact {count} nearest{what}, and the nearest of "
        f"{100 * told['first']:.1f} % of {told['queries']:,} {of}"
    )
    return near


def _say_k(job: Job, k: int, *sides: Lines) -> None:
    for side in sides:
        if k > len(side):
            job.log.warn(f"--k {k}: {side.path} has {len(side):,} different sentences, all of them are neighbours")


def _sides(job: Job, inputs: Mapping[str, tuple[Path, bool]], spec: IndexSpec | None) -> list[Side]:
    """Each file's lines and vectors; whether it is searched in, where equal lines count once. All files are read, and
    held to what an index needs, before any is embedded."""
    read = {name: corpus.read_lines(path, job.work / name, searched) for name, (path, searched) in inputs.items()}
    for name, (path, searched) in inputs.items():
        try:
            if spec is not None and searched:
                spec.factory(len(read[name]), job.named.encoder.hidden_size)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return [_side(job, job.work / name, lines) for name, lines in read.items()]


def _side(job: Job, folder: Path, lines: Lines) -> Side:
    """The lines' vectors, made or gone on with; says what was blank, repeated or too long."""
    job.log.say(lines.told())
    identity = {"text": file_hash(lines.text), **_settings_of(job)}
    encoder = job.named.encoder
    with Embedder(encoder, [job.pooling], job.max_length, job.batch_tokens, job.precision, job.log) as embedder:
        vectors = corpus.embed_lines(embedder, lines, folder, identity, job.log)
    if vectors.over_length:
        limit = min(job.max_length, encoder.max_length)
        job.log.warn(f"{lines.path}: {vectors.over_length:,} lines are longer than {limit} tokens and were cut")
    return Side(lines, vectors, content_key(identity))


def _kept(
    job: Job,
    what: str,
    x: Side,
    y: Side,
    k: int,
    sides: Sequence[tuple[int, int]],
    find: Callable[[Keep], Sequence[Neighbours]],
) -> Sequence[Neighbours]:
    """What `find` gives, from the work folder where an earlier call got so far. sides: [rows, width] of each."""
    folder = job.work / f"{what}-{content_key([x.key, y.key, k])}"
    keep = Keep(folder.with_name(f"{folder.name}-so-far"), job.log)
    if folder.is_dir():
        try:
            verify_folder(folder)
            return blocks.read_arrays(folder, sides)
        except (StoreError, OSError, ValueError) as error:
            job.log.warn(f"made again: {error}")
            shutil.rmtree(folder)
    found = find(keep)
    write_folder(folder, job.work / "tmp", lambda into: blocks.write_arrays(into, found), {})
    shutil.rmtree(keep.folder, ignore_errors=True)
    return found


def check_texts(inputs: Sequence[Path], out: Path) -> None:
    """DataError for a text file that is not there, RecipeError for a result that would lie over one of them."""
    for path in inputs:
        if not path.is_file():
            raise DataError(f"{path} is a folder: a text file is needed" if path.is_dir() else f"no file {path}")
        if out.exists() and out.samefile(path):
            raise RecipeError(f"--out {out} is the file {path} that is read: give another name")
    replaceable(out)


@contextmanager
def _working(job: Job, k: int, inputs: Sequence[Path]) -> Iterator[None]:
    """The work folder, held by this process; it goes once the result is whole, and stays after an interruption."""
    check_texts(inputs, job.out)
    if k < 1:
        raise RecipeError(f"--k {k}: at least one neighbour is needed")
    if job.out.is_dir() or not job.out.resolve().parent.is_dir():
        raise RecipeError(f"--out {job.out}: " + ("a folder" if job.out.is_dir() else "its folder does not exist"))
    if job.work.exists() and not (job.work.is_dir() and ((job.work / _LOCK).is_file() or not any(job.work.iterdir()))):
        raise RecipeError(f"--out {job.out}: {job.work} is in the way; remove it, or give another --out")
    with _hold(job):
        _check_begun(job)
        try:
            yield
        except BaseException:
            if not any(job.work.glob("*/vectors.json")):
                _clear(job.work)  # nothing was made that is worth going on from
            raise
        _clear(job.work)


def _check_begun(job: Job) -> None:
    """RecipeError where the work folder holds vectors that this command would not go on from but write over."""
    own = _settings_of(job)
    for begun in _begun(job.work):
        if differ := [name for name in own if begun.get(name) != own[name]]:
            raise RecipeError(
                f"--out {job.out}: {job.work} holds vectors of another {' and '.join(differ)}: go on with the "
                "command that made them, give another --out, or delete that folder"
            )


def _settings_of(job: Job) -> dict[str, Any]:
    """What vectors depend on beside their text."""
    return {
        "model": dict(job.named.identity),
        "pooling": [job.pooling.layer, job.pooling.how, job.pooling.special_tokens],
        "precision": job.precision,
        "max_length": job.max_length,
    }


def _hold(job: Job) -> IO[str]:
    """The lock of the work folder, which is made: held while the file is open."""
    path = job.work / _LOCK
    while True:
        with disk_errors(job.work):
            job.work.mkdir(exist_ok=True)
            # Whoever had it may end just now, and takes the file along.
            with contextlib.suppress(FileNotFoundError):
                lock = path.open("a")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise StoreError(
                        f"another process is making {job.out}: wait for it, or give another --out"
                    ) from error
                if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    return lock


def _clear(work: Path) -> None:
    """The lock goes last: by it the next command knows the folder for its own, should this one be killed here."""
    with contextlib.suppress(OSError):
        for entry in work.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != _LOCK:
                entry.unlink()
        (work / _LOCK).unlink()
        work.rmdir()


def _write(job: Job, write: Callable[[IO[str]], None]) -> None:
    final = replaceable(job.out)
    # Beside what a link leads to, which may be on another disk; by one name, which a killed run's is written over.
    aside = final.with_name(f".{final.name}.tmp")
    with disk_errors(job.out):
        with whole(final, aside), aside.open("w", encoding="utf-8", newline="\n") as file:
            write(file)
        sync_folder(final.parent)
