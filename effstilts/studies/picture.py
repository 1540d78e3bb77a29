"""The picture of `effstilts retrieve`: languages on the left, the layer sweep on the right, a row for each task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effstilts.errors import MissingDependencyError, RecipeError
from effstilts.store import disk_errors
from effstilts.studies.retrieval import sweep_of

# Okabe and Ito's colours, told apart by the colour-blind too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
_ENDINGS = (".png", ".svg", ".pdf")


def check(path: Path) -> None:
    """MissingDependencyError without matplotlib, RecipeError for a path that no picture can have."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "a picture needs matplotlib: pip install 'effstilts[report]', or --picture none"
        ) from error
    if path.suffix not in _ENDINGS:
        raise RecipeError(f"--picture {path}: write a file that ends in {', '.join(_ENDINGS)}, or none")
    if not path.resolve().parent.is_dir():
        raise RecipeError(f"--picture {path}: its folder does not exist")


def draw(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the picture aside and renames it."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    swept = any(len(cell["sweep"]) > 1 for cell in cells)
    most = max(len({cell["language"] for cell in cells if cell["task"] == task}) for task in tasks)
    width = min(30.0, 3.5 + 0.5 * most) + (5.0 if swept else 0.0)
    figure = Figure(figsize=(max(width, 6.0), 3.6 * len(tasks)), layout="constrained")
    ratios = [max(1.0, (width - 5) / 5), 1.0] if swept else [1.0]
    axes = figure.subplots(len(tasks), len(ratios), squeeze=False, width_ratios=ratios)
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    colours = {model: _COLOURS[i % len(_COLOURS)] for i, model in enumerate(models)}
    for line, task in zip(axes, tasks, strict=True):
        own = [cell for cell in cells if cell["task"] == task]
        _bars(line[0], own, models, colours, task)
        if swept:
            _lines(line[1], own, colours)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(models), 3), frameon=False)
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    with disk_errors(path):
        try:
            figure.savefig(aside, dpi=150)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def _bars(
    axis: Any, cells: Sequence[Mapping[str, Any]], models: list[str], colours: Mapping[str, str], task: str
) -> None:
    languages = list(dict.fromkeys(cell["language"] for cell in cells))
    score = {(cell["model"], cell["language"]): cell["score"] for cell in cells}
    each = 0.8 / len(models)
    for i, model in enumerate(models):
        places = [place + (i - (len(models) - 1) / 2) * each for place in range(len(languages))]
        values = [score.get((model, language), float("nan")) for language in languages]
        bars = axis.bar(places, values, each * 0.95, label=model, color=colours[model])
        if len(languages) * len(models) <= 16:
            axis.bar_label(bars, fmt="%.1f", fontsize=8, padding=1)
    axis.set_xticks(range(len(languages)), languages)
    axis.set_ylabel(f"{cells[0]['metric']} (%)")
    axis.set_title(f"{task}, {cells[0]['split']} set", fontsize=10)
    axis.margins(x=0.02, y=0.12)
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)


def _lines(axis: Any, cells: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    layers, rows = sweep_of(cells)
    hows = list(dict.fromkeys(how for _, how, _ in rows))
    for model, how, values in rows:
        known = [(layer, value) for layer, value in zip(layers, values, strict=True) if value is not None]
        style = ("-", "--", ":")[hows.index(how) % 3]
        label = f"{model}, {how}"
        axis.plot(*zip(*known, strict=True), marker="o", ms=4, ls=style, color=colours[model], label=label)
    axis.set_xlabel("hidden state (0: embedding output)")
    axis.set_title("by layer, mean over languages", fontsize=10)
    axis.set_xticks(layers if len(layers) <= 13 else layers[::2])
    axis.set_ylim(bottom=0)
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    if len(hows) > 1:
        axis.legend(fontsize=7, frameon=False, handlelength=3.5)
