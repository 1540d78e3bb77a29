"""`xtreme score` and `xtreme submit`: prediction folders in XTREME's official layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from effstilts.commands.places import DataPlaces, Places
from effstilts.errors import RecipeError


@dataclass
class Score:
    """Score a folder of predictions against a folder of labels, as XTREME's evaluate.py does."""

    predictions: tyro.conf.Positional[Path]
    """Folder with TASK/test-LANGUAGE.tsv, .json or .jsonl."""
    labels: tyro.conf.Positional[Path]
    """Folder of the same layout with the gold."""
    version: Literal["xtreme", "xtreme-r"] = "xtreme"
    """Which benchmark's tasks, languages and groups."""
    json: Path | None = None
    """Write the numbers to this file in the official script's shape."""
    partial: bool = False
    """Score a task although languages of it are missing; it then enters no group and no overall average."""
    seqeval: Literal["1.x", "0.x"] = "1.x"
    """How POS and NER spans are read: today's seqeval, or that of 2020, in which XTREME's first figures stand."""

    def execute(self) -> int:
        import json

        from effstilts.data.xtreme_folders import score_folders
        from effstilts.evaluation.xtreme import BENCHMARKS, official_report
        from effstilts.store import write_atomic
        from effstilts.studies.xtreme_table import score_table

        if self.json is not None and not self.json.resolve().parent.is_dir():
            raise RecipeError(f"--json {self.json}: its folder does not exist")
        if self.json is not None and self.predictions.resolve() in self.json.resolve().parents:
            raise RecipeError(f"--json {self.json}: in the folder of predictions it would be taken for one of them")
        benchmark = BENCHMARKS[self.version]
        scores = score_folders(benchmark, self.predictions, self.labels, self.partial, self.seqeval)
        report = official_report(benchmark, scores)
        if self.json is not None:
            write_atomic(self.json, json.dumps(report, indent=2))
        print(score_table(benchmark, scores, report))
        return 0


@dataclass
class Submit(DataPlaces, Places):
    """Write a run's predictions in XTREME's official layout, check them, and say what a full submission lacks."""

    run: Annotated[str, tyro.conf.Positional] = ""
    """Name of a run of the store."""
    arm: str = ""
    """The arm whose predictions are written; needed where the run has several."""
    seed: int | None = None
    """The seed; default: the run's first."""
    version: Literal["xtreme", "xtreme-r"] = "xtreme"
    """Which benchmark's tasks and languages."""
    out: Path = field(default_factory=lambda: Path("submission"))
    """Folder to write; must not exist yet, or be empty."""
    labels: Path | None = None
    """Write the gold of the same rows to this folder too, for `effstilts xtreme score`."""

    def execute(self) -> int:
        from effstilts.evaluation.xtreme import BENCHMARKS
        from effstilts.store import Store
        from effstilts.studies.submission import Choice, write_submission

        choice = Choice(self.run, self.arm, self.seed, BENCHMARKS[self.version])
        print(write_submission(Store(self.store), choice, self.root(), self.offline, self.out, self.labels))
        return 0


@dataclass
class Xtreme:
    """Score and write folders in XTREME's official layout."""

    action: (
        Annotated[Score, tyro.conf.subcommand("score", prefix_name=False)]
        | Annotated[Submit, tyro.conf.subcommand("submit", prefix_name=False)]
    )

    def execute(self) -> int:
        return self.action.execute()
