"""What the steps of a run cost, beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effstilts.log import format_bytes, format_seconds

_HEADS = ("step", "steps", "time", "tokens", "tokens/s", "padding", "peak memory", "trained", "of", "on disk")


def cost_table(record: Mapping[str, Any]) -> str:
    """A line for each step that trained: optimizer steps, their seconds over all resumptions, tokens without padding,
    the share of padding, peak memory, trained parameters of all, bytes of the artefact. The last line is the sum."""
    costly = [step for step in record["steps"] if "cost" in step]
    if not costly:
        return "no step of this run has trained anything yet"
    rows = [_row(step) for step in costly]
    total = ["all", "", format_seconds(sum(s["cost"]["seconds"] for s in costly))]
    total += [f"{sum(s['cost']['tokens'] for s in costly):,}", "", "", "", "", ""]
    total.append(format_bytes(sum(s["bytes"] for s in costly)))
    table = [list(_HEADS), *rows, total]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEADS))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))]) for row in table
    )


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
