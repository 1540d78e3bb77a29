"""The command line: parse, call, show. Nothing else.

Heavy libraries are imported inside the commands, so that `effstilts --help` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from effstilts.errors import EffstiltsError, RecipeError

if TYPE_CHECKING:
    from effstilts.procedure import Graph
    from effstilts.recipe import Recipe
    from effstilts.workbench import Workbench

DEFAULT_STORE = "effstilts-store"


@dataclass
class _Places:
    """Where things are."""

    store: Path = field(default_factory=lambda: Path(os.environ.get("EFFSTILTS_STORE", DEFAULT_STORE)))
    """Folder of artefacts and checkpoints (EFFSTILTS_STORE)."""


@dataclass
class _RecipeChoice(_Places):
    recipe: Annotated[str, tyro.conf.Positional] = "quickstart"
    """Name of a shipped recipe, or path of a YAML file."""
    set: Annotated[list[str], tyro.conf.arg(metavar="KEY=VALUE"), tyro.conf.UseAppendAction] = field(
        default_factory=list
    )
    """Override one key of the recipe, for example --set training.steps=100. May be given several times."""
    data: Path | None = None
    """Folder of official files; default: the environment variable EFFSTILTS_DATA."""
    offline: bool = False
    """Never touch the network."""


@dataclass
class Run(_RecipeChoice):
    """Run a recipe: what the store holds is not made again, what was interrupted goes on."""

    quiet: bool = False
    """Print the table alone."""
    local_rank: Annotated[int, tyro.conf.arg(name="local_rank")] = -1
    """Given by launchers; read from the environment as well."""


@dataclass
class Plan(_RecipeChoice):
    """Show a recipe's steps: what is done, what was begun, what will run, with sizes."""


@dataclass
class Tasks:
    """List the tasks."""

    kind: str = ""
    """Only tasks of this kind."""


@dataclass
class Show(_Places):
    """Show a run's results so far."""

    run: Annotated[str, tyro.conf.Positional] = ""
    """Name of a run; without one, the runs of the store are listed."""
    format: Literal["table", "json"] = "table"
    """How to print."""


@dataclass
class Doctor:
    """Show versions and accelerators, and what is missing."""


Command = Run | Plan | Tasks | Show | Doctor


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. A user's mistake is one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = tyro.cli(
            Annotated[
                Annotated[Run, tyro.conf.subcommand("run")]
                | Annotated[Plan, tyro.conf.subcommand("plan")]
                | Annotated[Tasks, tyro.conf.subcommand("tasks")]
                | Annotated[Show, tyro.conf.subcommand("show")]
                | Annotated[Doctor, tyro.conf.subcommand("doctor")],
                tyro.conf.OmitArgPrefixes,
            ],
            prog="effstilts",
            description="Efficient cross-lingual transfer through English intermediate-task training.",
            args=words,
        )
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return int(_COMMANDS[type(command)](command))
    except EffstiltsError as error:
        print(f"effstilts: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("effstilts: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(command: Run) -> int:
    from effstilts.procedure import run
    from effstilts.studies.report import table

    with _opened(command, quiet=command.quiet) as (recipe, bench, graph):
        try:
            run(graph, bench)
        finally:
            record = _write_record(recipe, bench, graph)
    print(table(record))
    return 0


def _plan(command: Plan) -> int:
    from effstilts.studies.plan import describe

    with _opened(command, quiet=True, events=False) as (recipe, bench, graph):
        print(describe(recipe, bench, graph))
    return 0


@contextlib.contextmanager
def _opened(command: _RecipeChoice, quiet: bool, events: bool = True) -> Any:
    """The recipe, the workbench and the graph of a command."""
    from effstilts.recipe import load_recipe

    recipe = load_recipe(command.recipe, command.set)
    root = command.data or (Path(os.environ["EFFSTILTS_DATA"]) if os.environ.get("EFFSTILTS_DATA") else None)
    if root is not None and not root.is_dir():
        raise RecipeError(f"the data folder {root} does not exist (--data or EFFSTILTS_DATA)")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("several processes are not supported yet: start one, without a launcher")
    from effstilts.data.sources import DataConfig
    from effstilts.log import JsonLines, Log
    from effstilts.procedure import build
    from effstilts.store import Store, disk_errors
    from effstilts.synthetic import World
    from effstilts.workbench import Workbench

    world = World(
        recipe.synthetic.seed,
        None if recipe.synthetic.cognates < 0 else recipe.synthetic.cognates,
        recipe.synthetic.word_order,
    )
    sinks = []
    if events:
        with disk_errors(command.store):
            sinks.append(JsonLines(command.store / "runs" / f"{recipe.name}.events.jsonl"))
    log = Log(*sinks, quiet=quiet)
    try:
        where = DataConfig(root, recipe.data.source, command.offline, world)
        bench = Workbench(Store(command.store), where, log, recipe.tasks)
        yield recipe, bench, build(recipe, bench)
    finally:
        for sink in sinks:
            sink.close()


def _write_record(recipe: Recipe, bench: Workbench, graph: Graph) -> dict[str, Any]:
    import dataclasses

    from effstilts.studies.report import run_record

    record = run_record(recipe.name, graph, bench.store, dataclasses.asdict(recipe))
    bench.store.write_run(recipe.name, record)
    return record


def _tasks(command: Tasks) -> int:
    from effstilts.studies.listing import list_tasks

    print(list_tasks(command.kind))
    return 0


def _show(command: Show) -> int:
    import json

    from effstilts.store import Store
    from effstilts.studies.report import table

    store = Store(command.store)
    if not command.run:
        names = store.run_names()
        print("\n".join(names) if names else f"no runs in {command.store}; start one with: effstilts run")
        return 0
    record = store.read_run(command.run)
    print(json.dumps(record, indent=1, ensure_ascii=False) if command.format == "json" else table(record))
    return 0


def _doctor(command: Doctor) -> int:
    from effstilts.studies.doctor import examine

    text, healthy = examine()
    print(text)
    return 0 if healthy else 7


_COMMANDS: dict[type, Any] = {Run: _run, Plan: _plan, Tasks: _tasks, Show: _show, Doctor: _doctor}


if __name__ == "__main__":
    sys.exit(main())
