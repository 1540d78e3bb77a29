"""Content-addressed artefacts: written aside, manifest last, verified on reading, locked.

    STORE/
      artefacts/<kind>-<key>/   files, and manifest.json with the SHA-256 of each of them
      work/<kind>-<key>/        what a step under way keeps: checkpoints, its event log
      locks/<kind>-<key>.lock   held (flock) by the process that makes the artefact
      damaged/                  artefacts that were found damaged and made again; may be deleted
      runs/<name>.json          what `effstilts show` reads, with its own hash

`key` is the hash of everything the artefact depends on. A directory below artefacts/ that has a manifest is
complete: it was written below tmp/, its manifest last, synced, and renamed into place in one act. The kernel drops
a lock when its holder dies, however it dies, so no lock is ever stale.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effstilts.errors import EffstiltsError, StoreError, did_you_mean

MANIFEST = "manifest.json"
KEY_LENGTH = 24
# How run records began before they carried a hash; one that does begins with it, whichever bit of it is damaged.
_UNSIGNED = '{\n "name"'


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8; tuples are lists. Refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_key(value: Any) -> str:
    """The key of whatever `value` (plain JSON data) describes."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:KEY_LENGTH]


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str) -> None:
    """Replaces a file whole: a reader sees the old text or the new, never a part. A link stays one, and its target is
    replaced; StoreError for a device or a pipe."""
    path = replaceable(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path, aside):
            aside.write_text(text, encoding="utf-8")
        sync_folder(path.parent)


@contextmanager
def whole(final: Path, aside: Path) -> Iterator[None]:
    """Within this block `aside` is written; then it is on the disk and becomes `final`. After an error it is gone."""
    try:
        yield
        sync_file(aside)
        aside.replace(final)
    finally:
        aside.unlink(missing_ok=True)


def replaceable(path: Path) -> Path:
    """Where a file by this name lies, links followed. StoreError if something else than a file is there."""
    with disk_errors(path):
        # Asked before links are followed: what /dev/stdout leads to has no path.
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is there already and no file: choose another path")
        return path.resolve() if path.is_symlink() else path


_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk reports an input/output error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
}
# What is wrong with a path that was given.
_PATH = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file and no folder",
    errno.EEXIST: "a part of the path is a file and no folder",
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long",
}


def disk_error(error: BaseException, path: Path | None = None) -> StoreError | None:
    """The one line for an exception that says that a disk is full or fails, or a path leads nowhere; None for any
    other."""
    number = error.errno if isinstance(error, OSError) else None
    place = path or getattr(error, "filename", None) or "a file"
    if number in _PATH:
        return StoreError(f"cannot read or write {place}: {_PATH[number]}; choose another path")
    if number is None:
        # safetensors, tokenizers and Arrow report it through exceptions of their own.
        said = str(error)
        number = next((n for n in _DISK if os.strerror(n) in said or f"(os error {n})" in said), None)
    if number not in _DISK:
        return None
    if number in (errno.EROFS, errno.EACCES):
        return StoreError(f"cannot read or write {place}: {_DISK[number]}; allow it, or choose another path")
    full = "free some space and " if number in (errno.ENOSPC, errno.EDQUOT) else ""
    advice = f"{full}run the same command again; finished steps and checkpoints are kept"
    return StoreError(f"cannot read or write {place}: {_DISK[number]}; {advice}")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or failing disk, or a path that leads nowhere, into one StoreError that names the path."""
    try:
        yield
    except Exception as error:
        known = None if isinstance(error, EffstiltsError) else disk_error(error, path)
        if known is None:
            raise
        raise known from error


def write_folder(final: Path, aside_root: Path, fill: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the folder `final` whole or not at all.

    `fill(folder)` writes the files; then the manifest with their hashes and `facts`; then everything is synced and
    renamed to `final`. The manifest's existence means that every file before it is on the disk.
    """
    aside = aside_root / f"{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    with disk_errors(final):
        try:
            aside.mkdir(parents=True)
            fill(aside)
            files: dict[str, dict[str, Any]] = {}
            for path in sorted(p for p in aside.rglob("*") if p.is_file()):
                files[path.relative_to(aside).as_posix()] = {
                    "sha256": file_hash(path),
                    "bytes": path.stat().st_size,
                }
                sync_file(path)
            manifest = {"facts": dict(facts), "files": files}
            (aside / MANIFEST).write_text(signed(manifest), encoding="utf-8")
            sync_file(aside / MANIFEST)
            for folder in {p.parent for p in aside.rglob("*")} | {aside}:
                sync_folder(folder)
            if final.exists():
                shutil.rmtree(final)
            final.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(final)
            sync_folder(final.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return manifest


# What reading a damaged document raises.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Damaged(StoreError):
    """A folder that does not hold what its manifest says."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(f"{what}; delete {folder} and run again")
        self.folder, self.what = folder, what


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that `write_folder` made; StoreError if it is absent or damaged."""
    path = folder / MANIFEST
    try:
        manifest = _signed(path, ("facts", "files"))
        if not isinstance(manifest["facts"], dict):
            raise ValueError("its facts are no mapping")
        for name, entry in manifest["files"].items():
            if ".." in Path(name).parts or Path(name).is_absolute() or set(entry) != {"sha256", "bytes"}:
                raise ValueError(f"its entry {name[:100]!r} is none of a file in this folder")
            if type(entry["bytes"]) is not int or entry["bytes"] < 0:
                raise ValueError(f"its entry {name[:100]!r} has no number of bytes")
    except FileNotFoundError as error:
        raise StoreError(f"{folder} has no manifest: it was never completed") from error
    except DAMAGE as error:
        raise Damaged(folder, f"{path} is damaged ({_said(error)})") from error
    return manifest


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def signed(content: Mapping[str, Any]) -> str:
    """A JSON document that carries the hash of its content; `unsigned` reads it back."""
    content = json.loads(json.dumps(content))  # a number as a key is text from here on
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return json.dumps({"sha256": digest, **content}, indent=1, ensure_ascii=False)


def _signed(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a file that holds `signed`'s text, to the letter. ValueError and its like for any other."""
    document = unsigned(path.read_bytes().decode("utf-8"))
    if keys and set(document) != set(keys):
        raise ValueError(f"expected {' and '.join(keys)}")
    return document


def unsigned(text: str) -> dict[str, Any]:
    """The content of a text of `signed`, letter by letter. One of DAMAGE for any other text."""
    document = json.loads(text)
    digest = document.pop("sha256", None)
    if digest is None:
        raise ValueError("it has no hash")
    if signed(document) != text or f'"sha256": "{digest}"' not in text[:100]:
        raise ValueError("its hash does not match")
    found: dict[str, Any] = document
    return found


def read_signed(path: Path, remedy: str) -> dict[str, Any]:
    """What `signed` wrote into a file. StoreError, with what to do, for a damaged one; FileNotFoundError."""
    try:
        return _signed(path)
    except DAMAGE as error:
        raise StoreError(f"{path} is damaged ({_said(error)}); {remedy}") from error


def verify_folder(folder: Path) -> dict[str, Any]:
    """Reads the manifest and checks every file against it; StoreError names the file that differs."""
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise Damaged(folder, f"{path} is missing or a link")
        if path.stat().st_size != entry["bytes"] or file_hash(path) != entry["sha256"]:
            raise Damaged(folder, f"{path} is damaged: its hash differs from the manifest")
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in manifest["files"] and name != MANIFEST and path.name[0] != ".":
            raise Damaged(folder, f"{path} is not in the manifest")
    return manifest


@dataclass(frozen=True)
class Artefact:
    """A complete, verified artefact: its folder and the facts of its manifest."""

    folder: Path
    facts: dict[str, Any]
    bytes: int


class Store:
    """The store below one folder."""

    def __init__(self, root: Path) -> None:
        """A folder, made when something is kept; StoreError where a file is in its place."""
        if root.exists() and not root.is_dir():
            raise StoreError(f"the store {root} is no folder (--store or EFFSTILTS_STORE)")
        self.root = root
        self._verified: dict[Path, Artefact] = {}

    def artefact_folder(self, kind: str, key: str) -> Path:
        return self.root / "artefacts" / f"{kind}-{key}"

    def work_folder(self, kind: str, key: str) -> Path:
        return self.root / "work" / f"{kind}-{key}"

    def has(self, kind: str, key: str) -> bool:
        """Whether the artefact is complete. Cheap: looks for the manifest, which is written last."""
        return (self.artefact_folder(kind, key) / MANIFEST).is_file()

    def facts(self, kind: str, key: str) -> dict[str, Any]:
        """The facts alone, without reading the artefact's files."""
        facts: dict[str, Any] = read_manifest(self.artefact_folder(kind, key))["facts"]
        return facts

    def size(self, kind: str, key: str) -> int:
        """Bytes of the artefact's files, by its manifest."""
        files = read_manifest(self.artefact_folder(kind, key))["files"]
        return sum(int(entry["bytes"]) for entry in files.values())

    def open(self, kind: str, key: str) -> Artefact:
        """The artefact, every file checked against its hash (once in a process)."""
        folder = self.artefact_folder(kind, key)
        if folder not in self._verified:
            manifest = verify_folder(folder)
            size = sum(entry["bytes"] for entry in manifest["files"].values())
            self._verified[folder] = Artefact(folder, manifest["facts"], size)
        return self._verified[folder]

    def put(self, kind: str, key: str, fill: Any, facts: Mapping[str, Any]) -> Artefact:
        """Writes the artefact through `fill(folder)`, then drops the step's work folder. Call it under the lock: what a
        killed process left half written is cleared away."""
        folder = self.artefact_folder(kind, key)
        self._verified.pop(folder, None)
        for left in (self.root / "tmp").glob(f"{folder.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        write_folder(folder, self.root / "tmp", fill, facts)
        shutil.rmtree(self.work_folder(kind, key), ignore_errors=True)
        return self.open(kind, key)

    def clear_work(self, kind: str, key: str) -> None:
        """Drops what the making of a finished step left where its process died; not what a live one uses."""
        left = self.work_folder(kind, key)
        if self.has(kind, key) and left.exists():
            with suppress(StoreError), self.lock(kind, key):
                shutil.rmtree(left, ignore_errors=True)

    def drop_if_damaged(self, kind: str, key: str) -> str:
        """Sets aside an artefact whose manifest does not hold, so that it is made again; says what was wrong with it.
        Cheap: the files themselves are checked when they are opened."""
        try:
            if self.has(kind, key):
                read_manifest(self.artefact_folder(kind, key))
        except Damaged as error:
            self.set_aside(error)
            return error.what
        return ""

    def set_aside(self, damaged: Damaged) -> None:
        """Moves a damaged artefact to STORE/damaged; StoreError, again, where it is none of this store's."""
        if damaged.folder.parent != self.root / "artefacts":
            raise damaged
        self._verified.pop(damaged.folder, None)
        place = self.root / "damaged" / f"{damaged.folder.name}.{time.time_ns()}"
        with disk_errors(place):
            place.parent.mkdir(exist_ok=True)
            damaged.folder.replace(place)

    @contextmanager
    def lock(self, kind: str, key: str, wait: bool = False) -> Iterator[None]:
        """Holds the step for this process. If another process has it: StoreError names that one, or this one waits."""
        import fcntl

        path = self.root / "locks" / f"{kind}-{key}.lock"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                holder = os.pread(handle, 64, 0).decode(errors="replace").strip() or "unknown"
                raise StoreError(
                    f"another process (pid {holder}) is making {kind}-{key} in {self.root}; "
                    "wait for it to end, or give this run another --store"
                ) from error
            with disk_errors(path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)

    def write_run(self, name: str, record: Mapping[str, Any]) -> Path:
        path = self.run_path(name)
        write_atomic(path, signed(record))
        return path

    def read_run(self, name: str) -> dict[str, Any]:
        path = self.run_path(name)
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            if text.startswith(_UNSIGNED):
                return dict(json.loads(text))
            return read_signed(path, "run the recipe again, which writes it anew; finished steps are kept")
        except FileNotFoundError as error:
            raise self.no_run(name) from error
        except ValueError as error:
            raise StoreError(f"{path} is damaged: {error}; run the recipe again, which writes it anew") from error

    def no_run(self, name: str) -> StoreError:
        """What to say of a name that no run has."""
        known = self.run_names()
        there = f"; there are {', '.join(known)}" if known else "; it holds no runs"
        return StoreError(f"no run named {name!r} in {self.root}{did_you_mean(name, known)}{there}")

    def run_path(self, name: str) -> Path:
        return self.root / "runs" / f"{name}.json"

    def run_names(self) -> list[str]:
        return sorted(path.stem for path in (self.root / "runs").glob("*.json"))
