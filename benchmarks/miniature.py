"""The paper's table in miniature: runs the recipe by several methods, then writes the table, its cost and pictures.

    python benchmarks/miniature.py run --store STORE --data FILES --hours 8       # resumable: the same command goes on
    python benchmarks/miniature.py report --store STORE --out benchmarks/results/miniature

Full fine-tuning takes six tenths of the hours, LoRA three, QLoRA one; each spends its own by `--budget`: the baseline
and retrieval first. `report` writes what is there, and says what is not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from effstilts.cli import main as effstilts
from effstilts.evaluation.significance import holm, sign_flip_test
from effstilts.log import format_bytes, format_seconds
from effstilts.store import Store, content_key
from effstilts.studies.costs import of_scoring, scoring_label, sharing
from effstilts.studies.report import notes, unique

Record = Mapping[str, Any]

# Adapters begin at nothing and want a higher rate than whole weights: five times as high, also of an arm or a target
# that has its own.
_ADAPTERS = (
    "method.rank=16",
    "method.alpha=32",
    "training.learning_rate=5e-4",
    "intermediate.dependencies.training.learning_rate=1e-3",
    "targets.0.training.learning_rate=1e-3",
    "targets.1.training.learning_rate=1e-3",
)
# Method -> (share of the hours, settings).
METHODS: Mapping[str, tuple[float, Sequence[str]]] = {
    "full": (0.6, ()),
    "lora": (0.3, ("method.name=lora", *_ADAPTERS)),
    "qlora": (0.1, ("method.name=qlora", *_ADAPTERS)),
}
# What the picture of cost against quality compares: the same cells for every method.
_PARETO_ARM = "baseline"
# With fewer no sign-flip test can give p < 0.05: the least is 2 / 2^languages.
_LANGUAGES_FOR_A_TEST = 6


def name_of(method: str) -> str:
    return "miniature" if method == "full" else f"miniature-{method}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--hours", type=float, required=True)
    running.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    running.set_defaults(function=run)
    reporting = commands.add_parser("report")
    reporting.add_argument("--out", type=Path, required=True)
    reporting.set_defaults(function=report)
    for command in (running, reporting):
        command.add_argument("--store", type=Path, required=True)
    options = parser.parse_args()
    options.function(options)


def run(options: argparse.Namespace) -> None:
    whole = sum(METHODS[method][0] for method in options.methods)
    for method in options.methods:
        share, settings = METHODS[method]
        words = ["run", "miniature", "--store", str(options.store), "--data", str(options.data)]
        words += ["--budget", str(options.hours * share / whole)]
        for setting in (f"name={name_of(method)}", *settings):
            words += ["--set", setting]
        if (code := effstilts(words)) != 0:
            raise SystemExit(code)


def report(options: argparse.Namespace) -> None:
    store = Store(options.store)
    records = {m: store.read_run(name_of(m)) for m in METHODS if name_of(m) in store.run_names()}
    if not records:
        raise SystemExit(f"no run of miniature in {options.store}")
    options.out.mkdir(parents=True, exist_ok=True)
    text = ["# The paper's table in miniature\n", *summary(records)]
    for method, record in records.items():
        text += [f"\n## {method}\n", *table(record), "", *cost(record)]
    (options.out / "table.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    kept = {
        method: {
            "name": record["name"],
            "recipe": record["recipe"],
            "cells": [cell for cell in record["cells"] if "score" in cell],
            "steps": [step for step in record["steps"] if "cost" in step or "scoring_cost" in step],
        }
        for method, record in records.items()
    }
    (options.out / "table.json").write_text(json.dumps(kept, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_differences(records, options.out / "differences.png")
    draw_cost(records, options.out / "cost.png")


def summary(records: Mapping[str, Record]) -> list[str]:
    """Recipe hashes, machine, time of training, how much of the table is there."""
    lines = []
    for method, record in records.items():
        done = sum("score" in cell for cell in record["cells"])
        machines = unique(json.dumps(s["machine"], sort_keys=True) for s in record["steps"] if "machine" in s)
        seconds = sum(s["cost"]["seconds"] for s in record["steps"] if "cost" in s)
        whole = sum(max(s["cost"]["seconds"], s["cost"]["wall_seconds"]) for s in record["steps"] if "cost" in s)
        scored = [cost for costs in of_scoring(record).values() for cost in costs]
        part = "" if done == len(record["cells"]) else " **A part of the table.**"
        lines.append(
            f"- {method}: recipe {content_key(dict(record['recipe']))}, {done} of {len(record['cells'])} numbers, "
            f"{format_seconds(seconds)} of optimizer steps, {format_seconds(whole)} with all else of the trainings; "
            f"{format_seconds(sum(cost['seconds'] for cost in scored))} for those {len(scored)} numbers whose cost was "
            f"measured.{part}"
        )
        lines += [f"- machine: {', '.join(f'{k} {v}' for k, v in json.loads(m).items())}" for m in machines]
    return list(dict.fromkeys(lines))


def table(record: Record) -> list[str]:
    """Arms x tasks: the median over seeds of the mean over the languages that are not trained on (± half the range),
    and the difference from the first arm with the p-value of a sign-flip test over languages."""
    cells = record["cells"]
    arms, places = unique(c["arm"] for c in cells), unique((c["section"], c["task"]) for c in cells)
    lines = ["| | " + " | ".join(task for _, task in places) + " |", "|---" * (len(places) + 1) + "|"]
    for arm in arms:
        row = [_cell(cells, place, arm, arms[0]) for place in places]
        if any(text != "-" for text in row):
            lines.append(f"| {arm} | " + " | ".join(row) + " |")
    lines.append(
        "\nIn brackets the difference from the first arm, and the p-value of a sign-flip test over languages: whether "
        "they agree, not whether another seed would."
    )
    kept = [note for note in notes(cells) if not note.startswith(("no p-values", "!"))]
    return [*lines, "", *(f"- {note}" for note in [*kept, *corrected(cells), *collapsed(cells)])]


def corrected(cells: Sequence[Record]) -> list[str]:
    """A line for each section: p-values below 0.05, each with its difference seed by seed, and what Holm over all
    p-values of the section leaves of them."""
    found = []
    base, *arms = unique(c["arm"] for c in cells)
    for section in unique(c["section"] for c in cells):
        tests: dict[str, float] = {}
        for task in unique(c["task"] for c in cells if c["section"] == section):
            theirs = means(cells, (section, task), base)
            for arm in arms:
                ours = means(cells, (section, task), arm)
                if (p_value := _p_value(_paired(ours, theirs))) is not None:
                    by_seed = [f"{fmean(_paired({seed: scores}, theirs)):+.1f}" for seed, scores in ours.items()]
                    tests[f"{task} {arm} ({', '.join(by_seed)})"] = p_value
        low = [
            f"{name} {p_value:.2g} -> {adjusted:.2g}"
            for (name, p_value), adjusted in zip(tests.items(), holm(list(tests.values())), strict=True)
            if p_value < 0.05
        ]
        if tests:
            what = f"{section}, p below 0.05 (each seed's difference) -> after Holm over {len(tests)} tests"
            found.append(f"{what}: {', '.join(low) or 'none'}")
    return found


def collapsed(cells: Sequence[Record]) -> list[str]:
    """A line for each target and arm whose predictions are nearly all one answer."""
    found: dict[tuple[str, str, int], list[str]] = {}
    for cell in cells:
        if cell.get("collapsed"):
            found.setdefault((cell["task"], cell["arm"], cell["seed"]), []).append(cell["language"])
    return [
        f"collapsed to one answer: {task} ({', '.join(languages)}), {arm}, seed {seed}"
        for (task, arm, seed), languages in found.items()
    ]


def means(cells: Sequence[Record], place: tuple[str, str], arm: str) -> dict[int, dict[str, float]]:
    """Seed -> language -> score, of the languages that the task was not trained in; of whole sets of languages."""
    own = [c for c in cells if (c["section"], c["task"]) == place and c["language"] != c["training_language"]]
    found: dict[int, dict[str, float]] = {}
    for cell in own:
        if cell["arm"] == arm and "score" in cell:
            found.setdefault(cell["seed"], {})[cell["language"]] = cell["score"]
    languages = len(unique(c["language"] for c in own))
    return {seed: scores for seed, scores in found.items() if len(scores) == languages}


def _cell(cells: Sequence[Record], place: tuple[str, str], arm: str, base: str) -> str:
    ours, theirs = means(cells, place, arm), means(cells, place, base)
    if not ours:
        return "-"
    values = [fmean(scores.values()) for scores in ours.values()]
    text = f"{median(values):.1f}"
    # A baseline without phase 2 on the encoder as it is has one retrieval for all seeds.
    if any(scores != next(iter(ours.values())) for scores in ours.values()):
        text += f" ± {(max(values) - min(values)) / 2:.1f}"
    differences = _paired(ours, theirs)
    if arm == base or not differences:
        return text
    text += f" ({fmean(differences):+.1f}"
    p_value = _p_value(differences)
    if p_value is None:
        return text + ")"
    return text + (f", p {p_value:.2f})" if p_value >= 0.01 else ", p < 0.01)")


def _paired(ours: Mapping[int, Mapping[str, float]], theirs: Mapping[int, Mapping[str, float]]) -> list[float]:
    """For each language the mean over our seeds of the difference to the same seed of theirs, or to their only one."""
    if not ours or not theirs:
        return []
    pairs = [(ours[seed], theirs.get(seed, next(iter(theirs.values())))) for seed in ours]
    return [fmean(a[language] - b[language] for a, b in pairs) for language in pairs[0][0]]


def _p_value(differences: Sequence[float]) -> float | None:
    """Of a sign-flip test over languages; None of too few."""
    return sign_flip_test(differences).p_value if len(differences) >= _LANGUAGES_FOR_A_TEST else None


def cost(record: Record) -> list[str]:
    """What each kind of training cost in this run, and all of it with and without sharing."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for step in record["steps"]:
        if "cost" in step:
            groups.setdefault(_kind_of_training(step), []).append(step)
    lines = ["| training | runs | seconds | TFLOP | peak memory | trained of all | on disk |", "|---" * 7 + "|"]
    for label, steps in groups.items():
        costs = [step["cost"] for step in steps]
        lines.append(
            f"| {label} | {len(steps)} | {median(c['seconds'] for c in costs):.0f} "
            f"| {median(c['flops'] for c in costs) / 1e12:.1f} "
            f"| {format_bytes(int(median(c['training_peak_memory_bytes'] for c in costs)))} "
            f"| {costs[0]['trained_parameters']:,} of {costs[0]['parameters']:,} "
            f"| {format_bytes(steps[0]['bytes'])} |"
        )
    for place, costs in of_scoring(record).items():
        lines.append(
            f"| {scoring_label(*place)}, a language | {len(costs)} | {median(c['seconds'] for c in costs):.1f} "
            f"| {median(c['flops'] for c in costs) / 1e12:.2f} "
            f"| {format_bytes(int(median(c['peak_memory_bytes'] for c in costs)))} "
            f"| 0 of {costs[0]['parameters']:,} | - |"
        )
    lines.append("\nTFLOP: of a training with its padding, of a language's evaluation or retrieval without.")
    shared, alone = sharing(record)
    if shared:
        lines += [
            "",
            f"Training took {format_seconds(shared)}; had every number trained its own phases: "
            f"{format_seconds(alone)}, "
            f"{alone / shared:.2f} times as much. Seconds are of a machine with other work and no benchmark.",
        ]
    return [*lines, *whole_matrix(record)]


def _kind_of_training(step: Mapping[str, Any]) -> str:
    return str(step["label"].split(" ←")[0].split(", seed")[0])


def whole_matrix(record: Record) -> list[str]:
    """What all arms, targets and seeds would cost, with and without sharing: a training that has not run takes the
    median of its kind. Nothing where a kind has not run at all."""
    measured: dict[str, list[float]] = {}
    for step in record["steps"]:
        if "cost" in step:
            measured.setdefault(_kind_of_training(step), []).append(step["cost"]["seconds"])
    steps = []
    for step in record["steps"]:
        if "cost" not in step and step["name"].startswith(("intermediate-", "target-")):
            if _kind_of_training(step) not in measured:
                return []
            step = {**step, "cost": {"seconds": median(measured[_kind_of_training(step)])}}
        steps.append(step)
    every = [{**cell, "score": 0.0} for cell in record["cells"]]
    shared, alone = sharing({"steps": steps, "cells": every})
    if not shared:
        return []
    arms, seeds = (len(unique(cell[name] for cell in every)) for name in ("arm", "seed"))
    targets = len(unique(cell["task"] for cell in every if cell["section"] == "target"))
    return [
        "",
        f"The whole matrix, {arms} arms x {targets} targets and retrieval x {seeds} seeds, by the median of each kind "
        f"of training: {shared / 3600:.1f} hours with sharing, {alone / 3600:.1f} without, {alone / shared:.1f} times "
        "as much; phase 1, which all share in `effstilts/mini`, not counted.",
    ]


def draw_differences(records: Mapping[str, Record], path: Path) -> None:
    """Arm - baseline in points, a panel for each method."""
    from matplotlib.figure import Figure

    panels = {method: _differences(record) for method, record in records.items()}
    panels = {method: grid for method, grid in panels.items() if grid[2]}
    if not panels:
        return
    figure = Figure(figsize=(9, 1.2 + sum(0.5 + 0.38 * len(grid[0]) for grid in panels.values())), layout="constrained")
    ratios = [len(grid[0]) + 1 for grid in panels.values()]
    for axis, (method, (arms, tasks, values)) in zip(
        figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0], panels.items(), strict=True
    ):
        grid = [[values.get((arm, task), float("nan")) for task in tasks] for arm in arms]
        axis.imshow(grid, cmap="RdBu", vmin=-10, vmax=10, aspect="auto")
        for y, row in enumerate(grid):
            for x, value in enumerate(row):
                if value == value:
                    axis.text(x, y, f"{value:+.1f}", ha="center", va="center", color="w" if abs(value) > 6 else "k")
        axis.set_xticks(range(len(tasks)), tasks, rotation=25, ha="right", fontsize=8)
        axis.set_yticks(range(len(arms)), arms, fontsize=8)
        axis.set_title(f"{method}: difference from no intermediate task, points (blue: better)", fontsize=9, loc="left")
    figure.savefig(path, dpi=150)


def _differences(record: Record) -> tuple[list[str], list[str], dict[tuple[str, str], float]]:
    cells = record["cells"]
    base, *arms = unique(c["arm"] for c in cells)
    values: dict[tuple[str, str], float] = {}
    for place in unique((c["section"], c["task"]) for c in cells):
        theirs = means(cells, place, base)
        for arm in arms:
            if differences := _paired(means(cells, place, arm), theirs):
                values[arm, place[1]] = fmean(differences)
    shown = [arm for arm in arms if any(a == arm for a, _ in values)]
    return shown, [t for t in unique(c["task"] for c in cells) if any(task == t for _, task in values)], values


def _mean(scores: Mapping[str, float]) -> float:
    return fmean(scores.values())


def draw_cost(records: Mapping[str, Record], path: Path) -> None:
    """Quality against seconds and memory of the targets' trainings without an intermediate task, by method."""
    from matplotlib.figure import Figure

    points = {method: _targets(record) for method, record in records.items()}
    common = set.intersection(*(set(found) for found in points.values()))
    if not common or len(points) < 2:
        return
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, key, label, scale in (
        (axes[0], "seconds", "seconds of training", 1.0),
        (axes[1], "training_peak_memory_bytes", "peak memory of training, GiB", 2.0**30),
    ):
        for number, task in enumerate(sorted(common)):
            x = [points[method][task][1][key] / scale for method in points]
            y = [points[method][task][0] for method in points]
            axis.plot(x, y, color=f"C{number}", lw=0.8, alpha=0.6, label=task)
            for method, a, b in zip(points, x, y, strict=True):
                axis.plot([a], [b], marker={"full": "o", "lora": "^", "qlora": "s"}[method], color=f"C{number}")
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean score of the languages not trained on")
    axes[1].legend(fontsize=8, frameon=False, title="○ full  △ LoRA  □ QLoRA", title_fontsize=8)
    figure.savefig(path, dpi=150)


def _targets(record: Record) -> dict[str, tuple[float, Mapping[str, float]]]:
    """Target -> its mean score of the first seed and the cost of its training, of one arm."""
    steps = {step["name"]: step for step in record["steps"]}
    found = {}
    for place in unique((c["section"], c["task"]) for c in record["cells"] if c["section"] == "target"):
        scores = means(record["cells"], place, _PARETO_ARM)
        for cell in record["cells"]:
            fits = (cell["section"], cell["task"]) == place and cell["arm"] == _PARETO_ARM and cell["seed"] in scores
            trained = steps[cell["step"]]["inputs"]
            if fits and trained and "cost" in steps[trained[0]]:
                found[place[1]] = (_mean(scores[cell["seed"]]), steps[trained[0]]["cost"])
                break
    return found


if __name__ == "__main__":
    main()
