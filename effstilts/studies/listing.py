"""`effstilts tasks`, and the runs of a store."""

from __future__ import annotations

import time

from effstilts.errors import RecipeError, StoreError, did_you_mean
from effstilts.store import Store
from effstilts.tasks.registry import known_tasks
from effstilts.tasks.task import ROLES, Task

_WIDE = 60  # characters of the arms' names


def list_tasks(kind: str = "") -> str:
    """A line for each task: name, kind, sources, languages, what it is."""
    tasks = tasks_of_kind(kind)
    rows = [("task", "kind", "sources", "languages", "")]
    rows += [(t.name, t.kind, _sources(t), _languages(t), t.description) for t in tasks]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4]]).rstrip() for row in rows)


def list_runs(store: Store) -> str:
    """A line for each run of the store: name, numbers done, arms, model, when it was last written; one whose record is
    damaged says so."""
    rows = [("run", "numbers", "arms", "model", "written")]
    for name in store.run_names():
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.run_path(name).stat().st_mtime))
        try:
            record = store.read_run(name)
            cells = record["cells"]
            done = f"{sum('score' in cell for cell in cells)} of {len(cells)}"
            arms = ", ".join(dict.fromkeys(cell["arm"] for cell in cells))
            rows.append(
                (
                    name,
                    done,
                    arms if len(arms) <= _WIDE else f"{arms[:_WIDE]}…",
                    str(record["recipe"]["model"]["name"]),
                    written,
                )
            )
        except (StoreError, KeyError, TypeError):
            rows.append((name, "damaged", "", "", written))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) if len(rows) > 1 else ""


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
