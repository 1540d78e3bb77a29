"""`tasks` and `doctor`: what there is, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tasks:
    """List the tasks."""

    kind: str = ""
    """Only tasks of this kind."""

    def execute(self) -> int:
        from effstilts.studies.listing import list_tasks

        print(list_tasks(self.kind))
        return 0


@dataclass
class Doctor:
    """Show versions and accelerators, and what is missing."""

    def execute(self) -> int:
        from effstilts.studies.doctor import examine

        text, healthy = examine()
        print(text)
        return 0 if healthy else 7
