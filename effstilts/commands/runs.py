"""`run`, `plan` and `show`: recipes and their results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from effstilts.commands.places import Places, RecipeChoice

if TYPE_CHECKING:
    from effstilts.procedure import Graph
    from effstilts.recipe import Recipe
    from effstilts.workbench import Workbench


@dataclass
class Run(RecipeChoice):
    """Run a recipe: what the store holds is not made again, what was interrupted goes on."""

    quiet: bool = False
    """Print the table alone."""
    budget: Annotated[float, tyro.conf.arg(metavar="HOURS")] = 0.0
    """Stop after so many hours and print the part of the table that is there; the baseline and retrieval come first,
    then one target after the other, each in all seeds. The same command goes on where this one stopped."""
    local_rank: Annotated[int, tyro.conf.arg(name="local_rank")] = -1
    """Given by launchers; read from the environment as well."""

    def execute(self) -> int:
        from effstilts.errors import RecipeError, TimeUp
        from effstilts.procedure import run
        from effstilts.studies.budget import Hours, by_information
        from effstilts.studies.overlap import find_overlaps, sentence
        from effstilts.studies.report import table

        if not 0 <= self.budget <= 1e5:
            raise RecipeError("--budget is a number of hours from 0 (no end) to 100,000")
        with (
            Hours(self.budget) as hours,
            self.opened(quiet=self.quiet, local_rank=self.local_rank) as (recipe, bench, graph),
        ):
            bench.ranks.require_same(str(self.budget > 0), "values of --budget")
            overlaps = find_overlaps(graph, bench) if bench.ranks.leads else []
            if bench.ranks.leads and graph.cells and not overlaps:
                none = "no text of 20 letters or more and no question (by its id) is both trained on and evaluated"
                bench.log.say(f"overlap: none, {none}")
            for overlap in overlaps:
                bench.log.event("overlap", **overlap)
                bench.log.say(sentence(overlap))
            try:
                run(graph, bench, by_information(graph) if self.budget else (), hours.left)
            except TimeUp as stop:
                bench.log.say(str(stop))
            finally:
                if bench.ranks.leads:
                    record = _write_record(recipe, bench, graph, overlaps)
            if bench.ranks.leads:
                print(table(record))
        return 0


@dataclass
class Plan(RecipeChoice):
    """Show a recipe's steps: what is done, what was begun, what will run, with sizes."""

    overlap: bool = False
    """Also read all rows and say which training rows meet evaluated ones."""

    def execute(self) -> int:
        from effstilts.procedure import check
        from effstilts.studies.overlap import find_overlaps, sentence
        from effstilts.studies.plan import describe

        with self.opened(quiet=False, events=False) as (recipe, bench, graph):
            print(describe(recipe, bench, graph))
            if self.overlap:
                print("\n".join(map(sentence, find_overlaps(graph, bench))) or "no overlap")
            # Last: a plan is of use where its run could not be, too.
            check([step for step in graph.steps if not bench.store.has(step.kind, step.key)], bench)
        return 0


@dataclass
class Show(Places):
    """Show a run's results so far."""

    run: Annotated[str, tyro.conf.Positional] = ""
    """Name of a run; without one, the runs of the store are listed."""
    format: Literal["table", "json", "html"] = "table"
    """A table, everything as JSON, or a self-contained page with pictures."""
    costs: bool = False
    """What the steps cost instead of what they scored; a page and JSON hold both."""
    out: Path | None = None
    """File to write instead of printing."""

    def execute(self) -> int:
        from effstilts.store import Store, write_atomic

        store = Store(self.store)
        if not self.run:
            from effstilts.studies.report import list_runs

            print(list_runs(store) or f"no runs in {self.store}; start one with: effstilts run")
            return 0
        text = self._text(store.read_run(self.run))
        if self.out is None:
            print(text)
        else:
            write_atomic(self.out, text + "\n")
        return 0

    def _text(self, record: dict[str, Any]) -> str:
        import json

        from effstilts.studies.costs import cost_table
        from effstilts.studies.page import page
        from effstilts.studies.report import table

        if self.format == "json":
            return json.dumps(record, indent=1, ensure_ascii=False)
        if self.format == "html":
            return page(record)
        return cost_table(record) if self.costs else table(record)


def _write_record(recipe: Recipe, bench: Workbench, graph: Graph, overlaps: list[dict[str, Any]]) -> dict[str, Any]:
    import dataclasses

    from effstilts.model.names import PREFIXES
    from effstilts.studies.report import run_record

    record = run_record(recipe.name, graph, bench.store, dataclasses.asdict(recipe))
    record["overlaps"] = overlaps
    name = recipe.model.name
    if name != "new" and not name.startswith(PREFIXES) and Path(name).is_dir():
        # What the run has trained is opened from other folders, too.
        record["model_folder"] = str(Path(name).absolute())
    bench.store.write_run(recipe.name, record)
    return record
