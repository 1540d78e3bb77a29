"""What the steps of a run cost, beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effstilts.log import format_bytes, format_seconds

_HEADS = ("step", "steps", "time", "tokens", "tokens/s", "padding", "peak memory", "trained", "of", "on disk")


def cost_table(record: Mapping[str, Any]) -> str:
    """A line for each step that trained: optimizer steps, their seconds over all resumptions, tokens without padding,
    the share of padding, peak memory, trained parameters of all, bytes of the artefact. Then one for the numbers of
    each task whose cost was measured. The last line is the sum; below it, what the same numbers would have cost if
    every one had trained its own phases."""
    costly = [step for step in record["steps"] if "cost" in step]
    scored = of_scoring(record)
    if not costly and not scored:
        return "no step of this run has cost anything yet"
    rows = [_row(step) for step in costly]
    rows += [_scoring_row(place, own, _numbers(record, place)) for place, own in scored.items()]
    costs = [step["cost"] for step in costly] + [cost for own in scored.values() for cost in own]
    total = ["all", "", format_seconds(sum(cost["seconds"] for cost in costs))]
    total += [f"{sum(cost['tokens'] for cost in costs):,}", "", "", "", "", ""]
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


def of_scoring(record: Mapping[str, Any]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(section, task) -> what each of its numbers cost; runs of an earlier version did not measure it."""
    measured = {step["name"]: step["scoring_cost"] for step in record["steps"] if "scoring_cost" in step}
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for cell in record.get("cells", ()):
        if cell.get("step") in measured:
            found.setdefault((cell["section"], cell["task"]), {})[cell["step"]] = measured[cell["step"]]
    return {place: list(own.values()) for place, own in found.items()}


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


def scoring_label(section: str, task: str) -> str:
    return f"{'evaluate' if section == 'target' else 'retrieve'} {task}"


def _numbers(record: Mapping[str, Any], place: tuple[str, str]) -> int:
    """How many different numbers there are of a (section, task)."""
    own = (cell for cell in record["cells"] if (cell["section"], cell["task"]) == place)
    return len({cell["step"] for cell in own if "score" in cell})


def _scoring_row(place: tuple[str, str], costs: Sequence[Mapping[str, Any]], numbers: int) -> list[str]:
    """numbers: that there are; fewer may have been measured."""
    seconds, tokens = (sum(cost[key] for cost in costs) for key in ("seconds", "tokens"))
    count = f"{numbers}" if len(costs) == numbers else f"{len(costs)} of {numbers}"
    return [
        f"{scoring_label(*place)}, numbers: {count}",
        "",
        format_seconds(seconds),
        f"{tokens:,}",
        f"{tokens / max(seconds, 1e-9):,.0f}",
        "",
        format_bytes(max(cost["peak_memory_bytes"] for cost in costs)),
        "0",
        f"{costs[0]['parameters']:,}",
        "",
    ]


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
