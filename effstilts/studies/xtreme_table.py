"""XTREME's numbers as text: tasks, languages, groups, the average."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from effstilts.data.xtreme_folders import FolderScores
from effstilts.evaluation.xtreme import AVERAGED, Benchmark


def score_table(benchmark: Benchmark, scores: FolderScores, report: Mapping[str, Any], width: int = 0) -> str:
    """The report of `official_report` with what stands beside it. Numbers in percent; `*` marks a task of which
    languages are missing."""
    width = width or shutil.get_terminal_size((120, 40)).columns
    lines = [f"{benchmark.version} of {len(benchmark.targets)} tasks", ""]
    lines.append(f"{'task':<12}{'languages':>9}{'average':>9}   metrics, averaged over languages")
    for name, metrics in scores.detailed.items():
        count = len(next(iter(metrics.values())))
        mark = "*" if name in scores.partial else ""
        shown = ", ".join(f"{metric} {report[name][f'avg_{metric}']:.2f}" for metric in metrics)
        beside = [
            f"{metric} {sum(values.values()) / len(values):.2f}"
            for metric, values in scores.beside.get(name, {}).items()
        ]
        shown += f" (beside it: {', '.join(beside)})" if beside else ""
        lines.append(f"{name + mark:<12}{count:>9}{report[name]['avg_metric']:>9.2f}   {shown}")
    lines.append("")
    for name, metrics in scores.detailed.items():
        for metric in AVERAGED[benchmark.targets[name].form]:
            values = metrics[metric]
            text = f"{name} {metric}: " + "  ".join(
                f"{language}\u00a0{value:.1f}" for language, value in values.items()
            )
            lines += [line.replace("\u00a0", " ") for line in textwrap.wrap(text, width, subsequent_indent="    ")]
    lines.append("")
    for group, members in benchmark.groups.items():
        value = f"{report[group]:.2f}" if group in report else "-"
        lines.append(f"{group:<20}{value:>7}   {', '.join(members)}")
    overall = f"{report['all_task']:.2f}" if "all_task" in report else "-"
    lines.append(f"{'all_task':<20}{overall:>7}   mean over the {len(benchmark.targets)} tasks")
    notes = [f"{name}: not scored, {why}" for name, why in scores.skipped.items()]
    notes += [f"* {name} lacks {', '.join(codes)}: no official number" for name, codes in scores.partial.items()]
    notes += scores.notes
    return "\n".join([*lines, *([""] if notes else []), *notes])
