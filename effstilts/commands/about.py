"""`tasks` and `doctor`: what there is, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from effstilts.commands.places import DataPlaces
from effstilts.errors import DataError, RecipeError


@dataclass
class Tasks(DataPlaces):
    """List the tasks, or check what of them is within reach."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """With --check: only these tasks."""
    kind: str = ""
    """Only tasks of this kind."""
    check: bool = False
    """Read what the data folder, the hub's cache and the generator have, and print a row a task."""
    seconds: float = 5.0
    """With --check: read at most so long a task; "+" marks counts that go on."""
    tokenizer: str = ""
    """With --check: folder or hub id of a tokenizer to count tokens with; left out, words are counted."""

    def execute(self) -> int:
        if not self.check:
            from effstilts.studies.listing import list_tasks

            if self.names:
                raise RecipeError("tasks: names go with --check")
            print(list_tasks(self.kind))
            return 0
        return self._check()

    def _check(self) -> int:
        from effstilts.data.sources import DataConfig
        from effstilts.studies.availability import check
        from effstilts.studies.listing import tasks_of_kind

        if not self.seconds > 0:
            raise RecipeError(f"--seconds {self.seconds:g}: some time above 0 is needed to read in")
        names = self.names or tuple(task.name for task in tasks_of_kind(self.kind))
        count = None
        if self.tokenizer:
            from effstilts.model.opening import load_tokenizer

            tokenizer = load_tokenizer(self.tokenizer, offline=self.offline)

            def count(text: str) -> int:
                return len(tokenizer(text, add_special_tokens=False)["input_ids"])

        table, sound = check(names, DataConfig(self.root(), "auto", self.offline), self.seconds, count)
        print(table)
        return 0 if sound else DataError.exit_code


@dataclass
class Doctor:
    """Show versions and accelerators, and what is missing."""

    def execute(self) -> int:
        from effstilts.studies.doctor import examine

        text, healthy = examine()
        print(text)
        return 0 if healthy else 7
