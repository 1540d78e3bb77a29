"""`mine` and `search`: a user's own texts. `retrieve`: models on retrieval tasks, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from effstilts.commands.places import DataPlaces, Places, too_short
from effstilts.errors import RecipeError

if TYPE_CHECKING:
    from effstilts.retrieval.approximate import IndexSpec
    from effstilts.studies.texts import Job


_SHORT = {"bucc": "bucc2018"}
# Of --probe and --effort: what faiss takes without a thought, and beyond any use.
_MOST = (1 << 20) - 1


@dataclass
class TextOptions(Places):
    """How texts become vectors."""

    model: str = ""
    """A folder in Hugging Face format, a hub id, package:NAME, or RUN:ARM of the store. Needed."""
    revision: str = ""
    """Commit of a hub id."""
    layer: int = -1
    """Hidden state, 0 is the embedding output; -1: the run's own, a sentence-transformers model's last, else two
    thirds of the depth (8 of 12, 14 of 24)."""
    pooling: Literal["", "mean", "cls", "weighted"] = ""
    """Mean over the tokens, the first one (cls), or the mean weighted by the token's place; default: the run's or the
    sentence-transformers model's, else mean."""
    special_tokens: bool = True
    """Whether the mean counts <s> and </s>; a run that left them out leaves them out here."""
    max_length: int = 0
    """Tokens of a line that are read; longer lines are cut and counted. 0: a sentence-transformers model's own, else
    512."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What vectors are computed in. auto: what an interrupted run began in, else bf16 where a matrix product is at
    least 1.3 times as fast in it; the result's line names it."""
    batch_tokens: int = 16384
    """Tokens of a batch: memory against speed."""
    offline: bool = False
    """Never touch the network."""
    quiet: bool = False
    """No progress and no warnings: errors and the result's line alone."""

    def job(self, inputs: Mapping[str, Path], out: Path) -> Job:
        """RecipeError, DataError or ModelError before anything is read. inputs: what each text file is called."""
        from effstilts.engine.plain import default_device
        from effstilts.log import Log
        from effstilts.model.packed import resolve_precision
        from effstilts.retrieval.evaluate import poolings
        from effstilts.store import Store
        from effstilts.studies.texts import Job, begun_precision, check_texts
        from effstilts.studies.trained import open_named

        if not self.model:
            raise RecipeError("say which model makes the vectors: --model FOLDER, HUB_ID, package:NAME or RUN:ARM")
        if too_short(self.max_length) or self.batch_tokens < 1:
            raise RecipeError("--max-length must be 3 or more, --batch-tokens 1 or more")
        for name, path in inputs.items():
            if path == Path():
                raise RecipeError(f"name the text file {name}")
        check_texts(list(inputs.values()), out)
        named = open_named(self.model, Store(self.store), self.revision, self.offline)
        named.encoder.to(default_device())
        if self.layer < -1:
            raise RecipeError(f"--layer {self.layer}: layers are counted from 0, the embedding output")
        (pooling,) = poolings(named.encoder, named.asked(self.layer, self.pooling, self.special_tokens))
        begun = begun_precision(out) if self.precision == "auto" else None
        precision = begun or resolve_precision(self.precision, named.encoder.device)
        length = self.max_length or named.max_length
        return Job(named, pooling, precision, length, self.batch_tokens, out, Log(quiet=self.quiet))


@dataclass
class SearchOptions(TextOptions):
    """How neighbours are found."""

    index: Literal["exact", "ivf", "hnsw", "sq", "pq"] = "exact"
    """For texts that an exact search is too slow for: an inverted file (ivf), a graph (hnsw), or an inverted file of
    8-bit (sq) or product-quantised (pq) vectors. What share of the exact result it finds is measured and printed;
    neighbours that it misses raise a pair's margin. Of an interrupted command this search begins again."""
    probe: int = 16
    """Cells of an inverted file that are looked into: recall against speed."""
    effort: int = 64
    """The same of hnsw: candidates that are kept (efSearch)."""

    def spec(self) -> IndexSpec | None:
        """RecipeError for numbers out of range; None: an exact search."""
        from effstilts.retrieval.approximate import IndexSpec

        if not (1 <= self.probe <= _MOST and 1 <= self.effort <= _MOST):
            raise RecipeError(f"--probe and --effort are from 1 to {_MOST:,}")
        return None if self.index == "exact" else IndexSpec(self.index, probe=self.probe, effort=self.effort)


@dataclass
class Mine(SearchOptions):
    """Find translations in two text files of any size: TSV of score, source line, target line and both texts."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = Path()
    """Text file, a sentence a line (plain, .gz or .bz2)."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")] = Path()
    """Text file in the other language."""
    out: Path = Path("pairs.tsv")
    """Written aside and renamed at the end; an interrupted run goes on from OUT.work."""
    margin: Literal["ratio", "distance", "absolute", "csls"] = "ratio"
    """How a pair is scored against its neighbours (Artetxe and Schwenk 2019)."""
    k: int = 4
    """Neighbours of the margin."""
    mode: Literal["max", "forward", "backward", "intersection"] = "max"
    """max: greedily the best, each sentence once; or the best for each source (forward) or target sentence
    (backward), or pairs that are both (intersection)."""
    threshold: float | None = None
    """Lowest score that is written; default: every pair. For the ratio margin 1.05 to 1.2 is usual."""

    def execute(self) -> int:
        from effstilts.studies.texts import mine_files

        if self.threshold is not None and not math.isfinite(self.threshold):
            raise RecipeError(f"--threshold {self.threshold}: a number is needed")
        spec = self.spec()
        job = self.job({"SOURCE": self.source, "TARGET": self.target}, self.out)
        print(mine_files(job, self.source, self.target, self.margin, self.k, self.mode, self.threshold, spec))
        return 0


@dataclass
class Search(SearchOptions):
    """Find the nearest sentences: TSV of query line, rank, cosine, corpus line and the corpus' text."""

    queries: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="QUERIES")] = Path()
    """Text file, a query a line."""
    corpus: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS")] = Path()
    """Text file that is searched, a sentence a line; equal ones count once."""
    out: Path = Path("nearest.tsv")
    """Written aside and renamed at the end; an interrupted run goes on from OUT.work."""
    k: int = 5
    """Sentences found for each query."""

    def execute(self) -> int:
        from effstilts.studies.texts import search_files

        spec = self.spec()
        job = self.job({"QUERIES": self.queries, "CORPUS": self.corpus}, self.out)
        print(search_files(job, self.queries, self.corpus, self.k, spec))
        return 0


@dataclass
class Retrieve(DataPlaces, Places):
    """Measure encoders on retrieval tasks, side by side: a table, a picture, and all numbers as JSON beside it."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Folders in Hugging Face format, hub ids, package:NAME, or RUN:ARM of the store."""
    tasks: str = "tatoeba"
    """Task names, separated by commas: tatoeba,bucc2018; bucc is short for the latter."""
    languages: str = ""
    """Language codes, separated by commas; default: all that the data has."""
    layers: str = ""
    """A sweep: all, or hidden states (0 is the embedding output) separated by commas."""
    layer: int = -1
    """The layer of the table; -1: the run's own for the task, a sentence-transformers model's last, else the
    protocol's."""
    pooling: str = ""
    """mean, cls, weighted, or several separated by commas: then a sweep over them. Default: the run's or the
    sentence-transformers model's, else mean."""
    special_tokens: bool = True
    """Whether the mean counts <s> and </s>; a run that left them out leaves them out here."""
    margin: Literal["", "ratio", "distance", "absolute", "csls"] = ""
    """Default: the run's, else cosine for aligned sentences, ratio for mining."""
    k: int = 0
    """Neighbours of the margin; 0: the run's, else 4."""
    mode: Literal["", "max", "forward", "backward", "intersection"] = ""
    """Which pairs mining extracts: see `effstilts mine`. Default: the run's, else max."""
    space: Literal["", "none", "centre", "language_mean", "whiten"] = ""
    """What is taken from the vectors first, fitted on the compared sentences without labels; default: the run's, else
    none."""
    rows: int = -1
    """First rows used, 0: all; -1: the run's, else all. Fewer candidates are easier to find: no benchmark's number."""
    revision: str = ""
    """Commit of the hub ids."""
    picture: str = "retrieval.png"
    """File that ends in .png, .svg or .pdf, with the numbers in a .json beside it; none: neither."""
    batch_tokens: int = 16384
    """Tokens of a batch: memory against speed."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """What vectors are computed in; auto: bf16 where it is faster. Near-ties may fall otherwise in bf16."""
    quiet: bool = False
    """Print the table alone."""

    def execute(self) -> int:
        from effstilts.data.sources import DataConfig
        from effstilts.engine.plain import default_device
        from effstilts.log import Log
        from effstilts.model.packed import resolve_precision
        from effstilts.store import Store, write_atomic
        from effstilts.studies import picture, retrieval
        from effstilts.studies.trained import open_named
        from effstilts.workbench import Workbench

        if not self.models:
            raise RecipeError("name a model or several: effstilts retrieve FOLDER RUN:ARM package:NAME …")
        hows = _words(self.pooling)
        if set(hows) - {"mean", "cls", "weighted"}:
            raise RecipeError(f"--pooling {self.pooling}: mean, cls, weighted, or several with commas")
        if self.k < 0 or self.rows < -1 or self.layer < -1 or self.batch_tokens < 1:
            raise RecipeError(
                "--k and --batch-tokens are 1 or more, --rows 0 or more, --layer counted from 0, the embedding output"
            )
        if not _words(self.tasks):
            raise RecipeError("name a task or several: --tasks tatoeba,bucc2018")
        path = None if self.picture in ("none", "") else Path(self.picture)
        if path is not None:
            picture.check(path)
        asked: dict[str, Any] = {"batch_tokens": self.batch_tokens, "special_tokens": self.special_tokens}
        options: list[tuple[str, Any, Any]] = [
            ("layer", self.layer, -1),
            ("margin", self.margin, ""),
            ("neighbours", self.k, 0),
            ("mode", self.mode, ""),
            ("space", self.space, ""),
            ("rows", self.rows, -1),
        ]
        asked |= {name: value for name, value, unset in options if value != unset}
        precision = resolve_precision(self.precision, default_device())
        tasks = tuple(dict.fromkeys(_SHORT.get(name, name) for name in _words(self.tasks)))
        wanted = retrieval.Wanted(tasks, _words(self.languages), _layers(self.layers), hows, asked, precision)
        log = Log(quiet=self.quiet)
        store = Store(self.store)
        bench = Workbench(store, DataConfig(self.root(), "auto", self.offline), log, {})
        cells: list[dict[str, Any]] = []
        try:
            for name in dict.fromkeys(self.models):
                named = open_named(name, store, self.revision, self.offline)
                for cell in retrieval.measure(named, wanted, bench, log):
                    cells.append(cell)
        finally:
            # What was measured is not lost with a model or a language that cannot be read.
            if cells:
                print(retrieval.tables(cells))
            if cells and path is not None:
                write_atomic(path.with_suffix(".json"), json.dumps({"cells": cells}, indent=1, ensure_ascii=False))
        if path is not None:
            picture.draw(cells, path)
            log.say(f"wrote {path} and {path.with_suffix('.json')}")
        return 0


def _words(text: str) -> tuple[Any, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _layers(text: str) -> tuple[int, ...] | Literal["all"]:
    if text == "all":
        return "all"
    if any(not word.isdecimal() for word in _words(text)):
        raise RecipeError(f"--layers {text}: all, or numbers from 0 (the embedding output) separated by commas")
    return tuple(int(word) for word in _words(text))
