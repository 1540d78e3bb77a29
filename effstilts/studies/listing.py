"""`effstilts tasks`."""

from __future__ import annotations

from collections.abc import Sequence

from effstilts.errors import RecipeError, did_you_mean
from effstilts.tasks.registry import known_tasks
from effstilts.tasks.task import ROLES, Task


def list_tasks(kind: str = "") -> str:
    """A line for each task: name, kind, sources, languages, what it is."""
    tasks = tasks_of_kind(kind)
    rows = [("task", "kind", "sources", "languages", "")]
    rows += [(t.name, t.kind, _sources(t), _languages(t), t.description) for t in tasks]
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many texts, the columns as wide as their widest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def tasks_of_kind(kind: str) -> list[Task]:
    """The known tasks, all or of one kind. RecipeError if there is no such kind."""
    if kind and kind not in ROLES:
        raise RecipeError(f"no kind {kind!r}{did_you_mean(kind, ROLES)}; there are {', '.join(ROLES)}")
    return [task for task in known_tasks().values() if not kind or task.kind == kind]


def _sources(task: Task) -> str:
    named = {"files": task.files, "hub": task.hub, "synthetic": task.synthetic, "parts": task.parts or None}
    return ", ".join(name for name, source in named.items() if source is not None)


def _languages(task: Task) -> str:
    return " ".join(task.languages) if len(task.languages) <= 5 else f"{len(task.languages)}: {task.languages[0]}, …"
