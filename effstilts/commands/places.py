"""The options that commands share, and how a recipe is opened with them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from effstilts.errors import RecipeError

if TYPE_CHECKING:
    from effstilts.engine.ranks import Ranks
    from effstilts.procedure import Graph
    from effstilts.recipe import Recipe
    from effstilts.workbench import Workbench

DEFAULT_STORE = "effstilts-store"


def world_size() -> int:
    """Processes of the launch. RecipeError where WORLD_SIZE is no whole number."""
    text = os.environ.get("WORLD_SIZE") or "1"
    try:
        return int(text)
    except ValueError as error:
        raise RecipeError(f"WORLD_SIZE of the launcher is no whole number: {text!r}") from error


def too_short(max_length: int) -> bool:
    """Whether a length that a command asks for leaves no token beside <s> and </s>; 0 asks for the model's own."""
    return max_length != 0 and max_length < 3


@dataclass
class Places:
    """Where things are."""

    store: Path = field(default_factory=lambda: Path(os.environ.get("EFFSTILTS_STORE") or DEFAULT_STORE))
    """Folder of artefacts and checkpoints (EFFSTILTS_STORE)."""


@dataclass
class DataPlaces:
    """Where rows come from."""

    data: Path | None = None
    """Folder of official files; default: the environment variable EFFSTILTS_DATA."""
    offline: bool = False
    """Never touch the network."""

    def root(self) -> Path | None:
        """The folder of official files. RecipeError if one is named that does not exist."""
        root = self.data or (Path(os.environ["EFFSTILTS_DATA"]) if os.environ.get("EFFSTILTS_DATA") else None)
        if root is not None and not root.is_dir():
            raise RecipeError(f"the data folder {root} does not exist (--data or EFFSTILTS_DATA)")
        return root


@dataclass
class RecipeChoice(DataPlaces, Places):
    """A recipe, and where it runs."""

    recipe: Annotated[str, tyro.conf.Positional] = "quickstart"
    """Name of a shipped recipe, or path of a YAML file."""
    set: Annotated[list[str], tyro.conf.arg(metavar="KEY=VALUE"), tyro.conf.UseAppendAction] = field(
        default_factory=list
    )
    """Override one key of the recipe, for example --set training.steps=100. May be given several times."""

    @contextlib.contextmanager
    def opened(
        self, quiet: bool, events: bool = True, local_rank: int | None = None
    ) -> Iterator[tuple[Recipe, Workbench, Graph]]:
        """The recipe, the workbench and the graph. `local_rank`: the command works with the other processes of a
        launch; None: it is for one process."""
        from effstilts.recipe_reader import load_recipe

        if local_rank is None:
            if world_size() > 1:
                raise RecipeError("this command runs in one process: start it without a launcher")
            with self._opened(load_recipe(self.recipe, self.set), quiet, events, None) as opened:
                yield opened
            return
        if world_size() == 1:
            # A mistake in the recipe is said before torch is imported.
            load_recipe(self.recipe, self.set)
        from effstilts.engine.ranks import joined

        with joined(local_rank) as ranks:
            recipe = load_recipe(self.recipe, self.set)
            ranks.connect(recipe.engine.timeout_seconds)
            with self._opened(recipe, quiet or not ranks.leads, events and ranks.leads, ranks) as opened:
                yield opened

    @contextlib.contextmanager
    def _opened(
        self, recipe: Recipe, quiet: bool, events: bool, ranks: Ranks | None
    ) -> Iterator[tuple[Recipe, Workbench, Graph]]:
        root = self.root()
        from effstilts.data.sources import DataConfig
        from effstilts.engine.ranks import ALONE
        from effstilts.log import JsonLines, Log
        from effstilts.model.names import pinned
        from effstilts.procedure import build
        from effstilts.store import Store, disk_errors
        from effstilts.synthetic import World
        from effstilts.workbench import Workbench

        def commits() -> dict[str, str]:
            model = pinned(recipe.model, self.offline)
            return {"revision": model.revision, "body_revision": model.body_revision}

        # One rank asks the hub for all: between two answers a branch could move.
        at = (ranks or ALONE).tell(commits)
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **at))
        sinks = []
        if events:
            with disk_errors(self.store):
                sinks.append(JsonLines(self.store / "runs" / f"{recipe.name}.events.jsonl"))
        log = Log(*sinks, quiet=quiet)
        try:
            world = World.declared(**dataclasses.asdict(recipe.synthetic))
            where = DataConfig(root, recipe.data.source, self.offline, world)
            bench = Workbench(Store(self.store), where, log, recipe.tasks, ranks or ALONE, recipe.engine)
            yield recipe, bench, build(recipe, bench)
        finally:
            for sink in sinks:
                sink.close()
