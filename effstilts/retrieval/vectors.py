"""Vectors on the disk: made shard by shard, resumable, over any number of ranks, read as memory maps.

    FOLDER/
      job.json                what the vectors depend on; a run with other settings is refused
      shards/00000003.safetensors   sentences 3 x shard_rows onwards, one array for each pooling
      layer8-mean.npy         [sentences, D], once every shard is there
      manifest.json           written last: its existence means that everything before it is on the disk

Shard i is made by rank i mod world. A shard is written aside and renamed, and carries the hash of its sentences: a run
that was killed makes only the shards that are missing. The rank that finishes last merges; no rank waits for another.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from effstilts.errors import DataError, StoreError
from effstilts.log import Log, Progress
from effstilts.model.packed import Precision
from effstilts.retrieval.embed import Embedder, Pooling
from effstilts.store import (
    DAMAGE,
    disk_errors,
    file_hash,
    read_signed,
    signed,
    sync_folder,
    unsigned,
    whole,
    write_atomic,
)

MANIFEST, JOB = "manifest.json", "job.json"
# Locks: held alone to write what is no shard, and by all ranks that are at the shards.
WHOLE, SHARDS = ".lock", ".shards"
SHARD_ROWS = 8192
Dtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Rank:
    """This process among those that share the work."""

    index: int = 0
    world: int = 1


@dataclass(frozen=True)
class Vectors:
    """A finished folder. manifest: sentences, dimensions, dtype, arrays, truncated, blank, zero (those with a vector of
    zeros), tokens, text, job. merged: whether the call that gave this has put it together."""

    folder: Path
    manifest: Mapping[str, Any]
    merged: bool = field(default=False, compare=False)
    _whole: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def open(cls, folder: Path) -> Vectors:
        """StoreError if the folder was never finished or its manifest is damaged."""
        try:
            return cls(folder, read_signed(folder / MANIFEST, f"delete {folder} and embed again"))
        except FileNotFoundError as error:
            raise StoreError(
                f"{folder} has no {MANIFEST}: run the same `effstilts embed` again to finish it"
            ) from error

    @property
    def names(self) -> list[str]:
        return list(self.manifest["arrays"])

    def load(self, name: str = "") -> NDArray[Any]:
        """The array [sentences, D] of one pooling as a read-only memory map; without a name, the only one.
        StoreError if its hash does not match, which the first call for an array reads it for."""
        if not name and len(self.names) > 1:
            raise DataError(f"{self.folder} holds several arrays: {', '.join(self.names)}; name one")
        name = name or self.names[0]
        if name not in self.names:
            raise DataError(f"{self.folder} holds no array {name!r}, only {', '.join(self.names)}")
        self._verify(name)
        try:
            with np.errstate(over="ignore"):
                array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise StoreError(f"{self.folder / name}.npy is damaged: it holds no array of numbers ({error})") from error
        return array

    def verify(self) -> None:
        """Reads every array against its hash; StoreError for a damaged one."""
        for name in self.names:
            self._whole.discard(name)
            self._verify(name)

    def _verify(self, name: str) -> None:
        path = self.folder / f"{name}.npy"
        if name not in self._whole and (
            not path.is_file() or file_hash(path) != self.manifest["arrays"][name]["sha256"]
        ):
            raise StoreError(f"{path} is damaged: its hash does not match; delete {self.folder} and embed again")
        self._whole.add(name)


def embed_to(
    folder: Path,
    sentences: Iterable[str],
    embedder: Embedder,
    model: Mapping[str, Any],
    *,
    dtype: Dtype = "float32",
    shard_rows: int = SHARD_ROWS,
    rank: Rank = Rank(),
    log: Log | None = None,
    total: int = 0,
    name: Callable[[int], str] = "sentence {} (from 0)".format,
) -> Vectors | None:
    """Embeds a stream of sentences into `folder`, going on where an earlier run stopped.

    embedder: entered. model: what identifies the encoder (`model.encoder.fingerprint`). total: sentences, for the time
    left. name: of a sentence, for messages. None: this rank's share is done and other ranks' is not. StoreError if the
    folder holds vectors of other settings, DataError if there is no sentence.
    """
    log = log or Log(quiet=True)
    job = {
        "model": dict(model),
        "poolings": [asdict(pooling) for pooling in embedder.poolings],
        "precision": embedder.precision,
        "unpadded": embedder.packed,
        "max_length": embedder.max_length,
        "dtype": dtype,
        "shard_rows": shard_rows,
    }
    _claim(folder, job)
    texts: list[str] = []
    own = _own_rows(total, shard_rows, rank)
    with (
        disk_errors(folder),
        _locked(folder / SHARDS, fcntl.LOCK_SH),
        log.progress(own, f"embedding {folder.name}") as progress,
    ):
        done = _manifest_text(folder) is not None
        for number, part in enumerate(_chunks(sentences, shard_rows)):
            texts.append(_text_hash(part))
            if number % rank.world == rank.index and not done:
                path = _shard_path(folder, number)
                _make_shard(path, number * shard_rows, part, texts[number], embedder, dtype, progress, name)
    if not texts:
        raise DataError(f"there is no sentence to embed into {folder}")
    with disk_errors(folder), _locked(folder / WHOLE, fcntl.LOCK_EX):
        return _merge(folder, job, texts, embedder)


def begun_precision(folders: Iterable[Path]) -> Precision | None:
    """The precision of the first of these folders that was begun, None where none was."""
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            precision: Precision = read_signed(folder / JOB, f"delete {folder}")["precision"]
            return precision
    return None


def _make_shard(
    path: Path,
    first: int,
    part: list[str],
    text_hash: str,
    embedder: Embedder,
    dtype: Dtype,
    progress: Progress,
    name: Callable[[int], str],
) -> None:
    """Embeds the sentences from `first` on into a shard, unless it is there."""
    from safetensors.numpy import save_file

    if _shard_facts(path).get("text") == text_hash:
        progress.start += len(part)
        progress.advance(len(part))
        return
    embedded = embedder(part, progress.advance, lambda row: name(first + row))
    arrays, zero = {}, np.zeros(len(part), bool)
    for pooling, values in zip(embedder.poolings, embedded.vectors, strict=True):
        with np.errstate(over="ignore"):
            arrays[pooling.name] = np.ascontiguousarray(values.astype(dtype))
        zero |= ~arrays[pooling.name].any(1)
        if dtype == "float16" and not np.isfinite(arrays[pooling.name]).all():
            raise DataError(f"{pooling.name} has numbers beyond float16's 65504: use --dtype float32")
    facts = {
        "text": text_hash,
        "rows": len(part),
        "tokens": int(embedded.lengths.sum()),
        "truncated": embedded.truncated,
        "blank": sum(not sentence.strip() for sentence in part),
        "zero": int(zero.sum()),
        "arrays": {name: _array_hash(array) for name, array in arrays.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with whole(path, aside):
        save_file(arrays, str(aside), {"facts": signed(facts)})


def _merge(folder: Path, job: Mapping[str, Any], texts: list[str], embedder: Embedder) -> Vectors | None:
    from safetensors import safe_open

    text = hashlib.sha256("".join(texts).encode()).hexdigest()
    finished = _manifest_text(folder)
    if finished is not None:
        if finished != text:
            raise StoreError(f"{folder} holds the vectors of other sentences: choose another folder or delete it")
        vectors = Vectors.open(folder)
        vectors.verify()
        _clear(folder)
        return vectors
    shards = [_shard_facts(_shard_path(folder, number)) for number in range(len(texts))]
    if any(facts.get("text") != wanted for facts, wanted in zip(shards, texts, strict=True)):
        return None
    sentences = sum(facts["rows"] for facts in shards)
    arrays: dict[str, Any] = {}
    for pooling in embedder.poolings:
        final = folder / f"{pooling.name}.npy"
        aside = folder / f"{pooling.name}.tmp"
        shape = (sentences, embedder.encoder.hidden_size)
        form = {"descr": np.dtype(str(job["dtype"])).str, "fortran_order": False, "shape": shape}
        # Written and not mapped: on a full disk a page that is mapped ends the process by a signal.
        with whole(final, aside), aside.open("wb") as into:
            np.lib.format.write_array_header_1_0(into, form)
            for number in range(len(shards)):
                with safe_open(str(_shard_path(folder, number)), framework="numpy") as file:
                    into.write(np.ascontiguousarray(file.get_tensor(pooling.name)).data)
        arrays[pooling.name] = {**asdict(pooling), "sha256": file_hash(final)}
    sync_folder(folder)
    totals = {key: sum(facts.get(key, 0) for facts in shards) for key in ("tokens", "truncated", "blank", "zero")}
    manifest = {
        "sentences": sentences,
        "dimensions": embedder.encoder.hidden_size,
        "dtype": job["dtype"],
        "arrays": arrays,
        **totals,
        "text": text,
        "job": job,
    }
    write_atomic(folder / MANIFEST, signed(manifest))
    _clear(folder)
    return Vectors(folder, manifest, merged=True)


def _clear(folder: Path) -> None:
    """Takes away what is needed no more, and what killed processes had begun to write. The shards go once no other rank
    is at them: the last does it."""
    with contextlib.suppress(BlockingIOError), _locked(folder / SHARDS, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder / "shards", ignore_errors=True)
    for left in [*folder.glob(".*.tmp"), *folder.glob("*.tmp")]:
        if left.is_file():
            left.unlink(missing_ok=True)


def _claim(folder: Path, job: Mapping[str, Any]) -> None:
    path = folder / JOB
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if others and JOB not in others:
        raise StoreError(f"{folder} is not empty and holds no vectors: choose another folder")
    with disk_errors(folder), _locked(folder / WHOLE, fcntl.LOCK_EX):
        try:
            there = read_signed(path, f"delete {folder}")
        except FileNotFoundError:
            write_atomic(path, signed(job))
            return
    differ = [key for key in job if there.get(key) != job[key]]
    if differ:
        what = ", ".join(
            f"{key} {_shown(there.get(key))} there, {_shown(job[key])} asked" for key in differ if key != "model"
        )
        kept, asked = ({**dict(of.get("model", {})), "numerics": None} for of in (there, job))
        other = "a version of effstilts with other numbers" if kept == asked else "another model"
        # Another rank may be at the first shard: it is not for this one to begin anew.
        made = (folder / MANIFEST).exists() or any((folder / "shards").glob("*.safetensors"))
        begun = "holds vectors" if made else "was begun, without any vectors yet, as that"
        # What else differs may follow from the model.
        said = ", ".join(filter(None, [other if "model" in differ else "", what]))
        raise StoreError(f"{folder} {begun} of {said}: choose another folder or delete it")


def _shown(value: Any) -> str:
    """A setting for people: poolings by their names."""
    with contextlib.suppress(TypeError):
        if isinstance(value, list):
            return ", ".join(Pooling(**pooling).name for pooling in value)
    return repr(value)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, how)
        yield


def _shard_path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:08d}.safetensors"


def _shard_facts(path: Path) -> dict[str, Any]:
    """The facts of a shard; empty if it is not there or not whole."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return {}
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = unsigned(file.metadata()["facts"])
            names = set(file.keys())
            if names != set(facts["arrays"]) or any(
                _array_hash(file.get_tensor(name)) != facts["arrays"][name] for name in names
            ):
                return {}
    except (SafetensorError, OSError, *DAMAGE):
        return {}  # A damaged shard is made again.
    return facts


def _array_hash(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()


def _manifest_text(folder: Path) -> str | None:
    if not (folder / MANIFEST).is_file():
        return None
    return str(Vectors.open(folder).manifest["text"])


def _text_hash(sentences: list[str]) -> str:
    digest = hashlib.sha256()
    for sentence in sentences:
        raw = sentence.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def _chunks(sentences: Iterable[str], size: int) -> Iterator[list[str]]:
    stream = iter(sentences)
    while part := list(islice(stream, size)):
        yield part


def _own_rows(total: int, shard_rows: int, rank: Rank) -> int:
    starts = range(rank.index * shard_rows, total, rank.world * shard_rows)
    return sum(min(shard_rows, total - start) for start in starts)
