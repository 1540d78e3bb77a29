"""`data fetch`: rows downloaded ahead, for runs without a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from effstilts.commands.places import DataPlaces
from effstilts.errors import DataError


@dataclass
class Data(DataPlaces):
    """Download tasks' rows ahead into the hub's cache: `effstilts data fetch mnli xnli`; runs then need no network."""

    action: Annotated[Literal["fetch"], tyro.conf.Positional] = "fetch"
    """What to do."""
    tasks: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of tasks; what they are trained on and made of comes with them."""
    languages: tuple[str, ...] = field(default_factory=tuple)
    """Only these languages (and the training language)."""

    def execute(self) -> int:
        from effstilts.data.sources import DataConfig
        from effstilts.log import Log
        from effstilts.studies.availability import fetch

        if not fetch(self.tasks, self.languages, DataConfig(self.root(), "auto", self.offline), Log()):
            return DataError.exit_code
        return 0
