"""`embed`, `mine` and `search` on texts so small that each is run hundreds of times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from effstilts.model.opening import save
from effstilts.retrieval.vectors import Vectors
from effstilts.store import file_hash
from effstilts.synthetic import bucc
from tests.faults.driver import Driver

COMMANDS = ("embed", "mine", "search")


class TextCommand:
    """One of them, its undisturbed result, its seconds, and how often it passes each point."""

    def __init__(self, driver: Driver, name: str, encoder: Any, folder: Path, ranks: int = 1) -> None:
        self.driver, self.name, self.folder, self.ranks = driver, name, folder, ranks
        save(encoder, folder / "model")
        for side, pairs in bucc("qaa", sentences=90, pairs=40).items():
            (folder / side).write_text("".join(f"{text}\n" for _, text in pairs), encoding="utf-8")
        counts = folder / "counts.json"
        self.expected: dict[str, str] = {}
        assert self.run(folder / "quiet", point="", count=0, counts=str(counts)) == 0, driver.errors
        self.seconds = driver.seconds
        self.passed: dict[str, int] = json.loads(counts.read_text(encoding="utf-8"))
        self.expected = self._result(folder / "quiet")

    def run(self, place: Path, signals: Any = (), driver: Driver | None = None, **fault: Any) -> int:
        """The exit code of the command that writes below `place`."""
        place.mkdir(exist_ok=True)
        words = [self.name, *(str(self.folder / side) for side in ("source", "target"))]
        words += ["--model", str(self.folder / "model"), "--offline", "--quiet", "--store", str(self.folder / "store")]
        if self.name == "embed":
            words += ["--out", str(place / "out"), "--shard-rows", "24", "--precision", "fp32", "--layers", "1", "2"]
        else:
            words += ["--out", str(place / "out")]
        found = (driver or self.driver).run(*words, signals=signals, ranks=self.ranks, small_pieces=True, **fault)
        if self.name != "embed":
            made = self._result(place)
            assert not made or not self.expected or made == self.expected, "the result is whole or not there"
        else:
            for manifest in place.glob("out/*/manifest.json"):
                Vectors.open(manifest.parent).verify()
        return found

    def finish(self, place: Path) -> None:
        """The same command, undisturbed: the undisturbed result, and nothing else left."""
        assert self.run(place) == 0, self.driver.errors
        self.assert_same(place)

    def assert_same(self, place: Path) -> None:
        assert self._result(place) == self.expected
        left = [path for path in place.rglob("*") if path.suffix == ".tmp" or path.name in ("out.work", "shards")]
        assert not left, left
        shutil.rmtree(place)

    def _result(self, place: Path) -> dict[str, str]:
        """Every file that is no lock, by its hash."""
        files = (path for path in place.rglob("*") if path.is_file())
        return {
            str(path.relative_to(place)): file_hash(path)
            for path in files
            if path.parent.name != "out.work" and "out.work" not in path.parts and path.name[0] != "."
        }
