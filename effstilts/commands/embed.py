"""`embed`: text files to vectors on the disk."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from effstilts.commands.places import Places, too_short
from effstilts.errors import DataError, RecipeError

# Of a manifest, and what is said of it.
_NOTED = {"blank": "blank", "truncated": "truncated", "zero": "with a vector of zeros, which has no direction"}


@dataclass(kw_only=True)
class Embed(Places):
    """Embed text files, a sentence a line: OUT/FILE/ gets the vectors as .npy and a manifest.

    The same command goes on after an interruption. Under torchrun or the deepspeed launcher the ranks share the work.
    """

    files: Annotated[list[Path], tyro.conf.Positional]
    """Text files, UTF-8; .gz and .bz2 are read through. Blank lines keep their place."""
    model: str
    """Model folder, hub id, package:NAME, or RUN:ARM of the store."""
    out: Path
    """Folder that gets a folder for each file."""
    layers: list[int] = field(default_factory=list)
    """Hidden states to pool, 0 being the embeddings; default: the run's own, a sentence-transformers model's last, else
    XTREME's, 8 of 12 or 14 of 24."""
    pooling: list[Literal["mean", "cls", "weighted"]] = field(default_factory=list)
    """How tokens become one vector; every layer is pooled in every way named. Default: the run's or the
    sentence-transformers model's, else mean."""
    special_tokens: bool = True
    """Whether <s> and </s> count in means; a run that left them out leaves them out here."""
    dtype: Literal["float32", "float16"] = "float32"
    """What the vectors are stored in."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What is computed in. auto: what the folder was begun in, else bf16 where a matrix product is at least 1.3 times
    as fast in it."""
    max_length: int = 0
    """Longest input in tokens; longer lines are cut, and counted. 0: a sentence-transformers model's own, else 512."""
    batch_tokens: int = 16384
    """Tokens of a batch, padding included."""
    shard_rows: int = 8192
    """Sentences of a shard: what an interruption loses at most."""
    revision: str = ""
    """Revision of a hub model."""
    offline: bool = False
    """Never touch the network."""
    quiet: bool = False
    """No progress."""
    local_rank: Annotated[int, tyro.conf.arg(name="local_rank")] = -1
    """Given by launchers; read from the environment as well."""

    def execute(self) -> int:
        import torch

        from effstilts.data.text_files import lines_of
        from effstilts.engine.ranks import launch_of
        from effstilts.log import Log
        from effstilts.retrieval.embed import Embedder
        from effstilts.retrieval.evaluate import poolings
        from effstilts.retrieval.vectors import MANIFEST, Rank, begun_precision, embed_to
        from effstilts.store import Store
        from effstilts.studies.trained import open_named

        self._check()
        launch = launch_of(os.environ, self.local_rank, connects=False)
        totals = [_count_lines(path) for path in self.files]
        named = open_named(self.model, Store(self.store), self.revision, self.offline)
        encoder = named.encoder
        if torch.cuda.is_available():
            encoder.to(torch.device("cuda", launch.local_rank))
        settings = named.asked(special_tokens=self.special_tokens)
        each = [[layer] for layer in dict.fromkeys(self.layers)] or [[]]
        wanted = [pooling for layer in each for pooling in poolings(encoder, settings, layer, self.pooling)]
        log = Log(quiet=self.quiet)
        begun = begun_precision(self.out / path.name for path in self.files) if self.precision == "auto" else None
        precision = begun or self.precision
        length = self.max_length or named.max_length
        with Embedder(encoder, wanted, length, self.batch_tokens, precision, log) as embedder:
            for path, total in zip(self.files, totals, strict=True):
                there = (self.out / path.name / MANIFEST).is_file()
                sentences = (line for line, _ in lines_of(path))
                made = embed_to(
                    self.out / path.name,
                    sentences,
                    embedder,
                    named.identity,
                    dtype=self.dtype,
                    shard_rows=self.shard_rows,
                    rank=Rank(launch.rank, launch.world),
                    log=log,
                    total=total,
                    name=functools.partial(_line, path),
                )
                if made is None:
                    log.say(f"{path}: this rank's share is done; the last rank to finish writes the arrays")
                    continue
                if not made.merged and (launch.rank or not there):
                    continue  # another rank says so: the one that merged, or of a finished folder rank 0
                facts = made.manifest
                size = f"{facts['sentences']} x {facts['dimensions']} {facts['dtype']}"
                notes = [f"{facts[key]} {what}" for key, what in _NOTED.items() if facts.get(key)]
                print(f"{made.folder}: {', '.join(made.names)}; {', '.join([size, embedder.precision, *notes])}")
        return 0

    def _check(self) -> None:
        if not self.files:
            raise RecipeError("name a text file or several: effstilts embed FILE... --model MODEL --out FOLDER")
        names = [path.name for path in self.files]
        if len(set(names)) < len(names):
            raise RecipeError("two files have one name: their vectors would share a folder; embed them separately")
        if too_short(self.max_length):
            raise RecipeError("--max-length must be at least 3")
        for name in ("batch_tokens", "shard_rows"):
            if getattr(self, name) < 1:
                raise RecipeError(f"--{name.replace('_', '-')} must be at least 1")


def _line(path: Path, row: int) -> str:
    return f"{path}:{row + 1}: the line"


def _count_lines(path: Path) -> int:
    from effstilts.data.text_files import blocks_of

    count, last = 0, b"\n"
    for block in blocks_of(path):
        count, last = count + block.count(b"\n"), block[-1:]
    if not count and last == b"\n":
        raise DataError(f"{path} holds no line")
    return count + (last != b"\n")
