"""What the steps of a run cost, beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effstilts.log import format_bytes, format_seconds

_HEADS = ("step", "steps", "time", "tokens", "tokens/s", "padding", "peak memory", "trained", "of", "on disk")


def cost_table(record: Mapping[str, Any]) -> str:
    """A line for each step that trained: optimizer steps, their seconds over all resumptions, tokens without padding,
    the share of padding, peak memory, trained parameters of all, bytes of the artefact. The last line is the sum; below
    it, what the same numbers would have cost if every one had trained its own phases."""
    costly = [step for step in record["steps"] if "cost" in step]
    if not costly:
        return "no step of this run has trained anything yet"
    rows = [_row(step) for step in costly]
    total = ["all", "", format_seconds(sum(s["cost"]["seconds"] for s in costly))]
    total += [f"{sum(s['cost']['tokens'] for s in costly):,}", "", "", "", "", ""]
    total.append(format_bytes(sum(s["bytes"] for s in costly)))
    table = [list(_HEADS), *rows, total]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEADS))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))]) for row in table
    ]
    shared, alone = sharing(record)
    if alone > shared:
        lines.append(
            f"without sharing: {format_seconds(alone)} of training, {alone / shared:.1f} times as much "
            "(each task of each arm and seed with its own phases)"
        )
    return "\n".join(lines)


def sharing(record: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of training behind the numbers that are there: of the steps as they are shared, and of all the steps on
    the path of each (arm, seed, task) together."""
    steps = {step["name"]: step for step in record["steps"]}
    ends = {
        (cell["arm"], cell["seed"], cell["section"], cell["task"], end)
        for cell in record.get("cells", ())
        if "score" in cell
        # A target's training serves all its languages at once, with sharing or without; a retrieval has none.
        for end in (steps.get(cell.get("step"), {}).get("inputs") or ["the checkpoint as it is"])[:1]
    }
    paths = [_path(end, steps) for *_, end in sorted(ends)]
    seconds = {name: step["cost"]["seconds"] for name, step in steps.items() if "cost" in step}
    alone = sum(seconds.get(name, 0.0) for path in paths for name in path)
    return sum(seconds.get(name, 0.0) for name in set().union(*paths)), alone


def _path(end: str, steps: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """A step and all that it comes from."""
    found = {end}
    for before in steps.get(end, {}).get("inputs", ()):
        found |= _path(before, steps)
    return found


def _row(step: Mapping[str, Any]) -> list[str]:
    cost = step["cost"]
    padding = 1 - cost["tokens"] / max(cost["padded_tokens"], 1)
    return [
        step["label"],
        f"{step['done_steps']:,}",
        format_seconds(cost["seconds"]),
        f"{cost['tokens']:,}",
        f"{cost['tokens'] / max(cost['seconds'], 1e-9):,.0f}",
        f"{padding:.0%}",
        format_bytes(cost["peak_memory_bytes"]),
        f"{cost['trained_parameters']:,}",
        f"{cost['parameters']:,}",
        format_bytes(step["bytes"]),
    ]
