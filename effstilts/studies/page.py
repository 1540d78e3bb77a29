"""The results of a run as one self-contained HTML page: inline SVG, no script, nothing fetched."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from effstilts.studies.costs import cost_table
from effstilts.studies.overlap import of_evaluation
from effstilts.studies.report import mark, notes, task_tables, unique

Record = Mapping[str, Any]

# Okabe and Ito's colours, told apart by most colour-blind readers.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
pre { overflow-x: auto; background: #f6f6f6; padding: .8rem; font-size: 12.5px; line-height: 1.35 }
svg { width: 100%; height: auto } h2 { margin: 2rem 0 .3rem } .small { color: #666 }
"""
_HEIGHT, _TOP, _BOTTOM, _LEFT = 260, 14, 34, 40
# Corners around a point: a square, a triangle, a diamond.
_SHAPES = (((-4, -4), (4, -4), (4, 4), (-4, 4)), ((0, -5), (5, 4), (-5, 4)), ((0, -5), (5, 0), (0, 5), (-5, 0)))


def page(record: Record) -> str:
    """The whole page: for each task a picture and its table, then the costs. Every name is escaped."""
    cells = record["cells"]
    arms = unique(cell["arm"] for cell in cells)
    body = [f"<h1>{escape(record['name'])}</h1>", f"<p>{escape(record['recipe'].get('description', ''))}</p>"]
    for (section, task), text in task_tables(record, width=150):
        own = [cell for cell in cells if (cell["section"], cell["task"]) == (section, task) and "score" in cell]
        body.append(f"<h2>{escape(task)}</h2>")
        if own:
            body.append(_picture(own, arms))
        body.append(f"<pre>{escape(text)}</pre>")
    body += [f"<p class='small'>{escape(note)}</p>" for note in notes(cells)]
    body += [f"<p class='small'>{escape(text)}</p>" for text in of_evaluation(record.get("overlaps", ()))]
    body += ["<h2>What it cost</h2>", f"<pre>{escape(cost_table(record))}</pre>"]
    for machine in unique(_sentence(step["machine"]) for step in record["steps"] if "machine" in step):
        body.append(f"<p class='small'>{escape(machine)}</p>")
    head = f"<meta charset='utf-8'><title>{escape(record['name'])}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _picture(cells: Sequence[Record], arms: Sequence[str]) -> str:
    """Points: medians over seeds, one column for each language, one colour for each arm; lines: lowest to highest."""
    languages = unique(cell["language"] for cell in cells)
    width = _LEFT + max(len(languages), 4) * max(26 * len(arms), 60)
    column = (width - _LEFT) / len(languages)
    highest: float = max(10.0, 10.0 * -(-max(cell["score"] for cell in cells) // 10))

    def y(score: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - score / highest)

    parts = []
    for fifth in range(6):
        score = highest * fifth / 5
        parts.append(f"<line x1='{_LEFT}' x2='{width}' y1='{y(score):.1f}' y2='{y(score):.1f}' stroke='#ddd'/>")
        parts.append(f"<text x='{_LEFT - 6}' y='{y(score) + 4:.1f}' text-anchor='end'>{score:g}</text>")
    for i, language in enumerate(languages):
        middle = _LEFT + column * (i + 0.5)
        parts.append(f"<text x='{middle:.1f}' y='{_HEIGHT - 14}' text-anchor='middle'>{escape(language)}</text>")
        for j, arm in enumerate(arms):
            scores = [c["score"] for c in cells if (c["arm"], c["language"]) == (arm, language)]
            if not scores:
                continue
            failed = bool(mark(cells, [arm], [language]))
            x, colour = middle + 14 * (j - (len(arms) - 1) / 2), _COLOURS[j % len(_COLOURS)]
            low, high, point = y(min(scores)), y(max(scores)), y(statistics.median(scores))
            title = f"{arm}, {language}: {statistics.median(scores):.1f} ({min(scores):.1f} to {max(scores):.1f})"
            title += ", a run failed" * failed
            parts.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{low:.1f}' y2='{high:.1f}' stroke='{colour}'/>")
            parts.append(_point(j, x, point, failed, f"<title>{escape(title)}</title>"))
    legend, x = [], float(_LEFT)
    for j, arm in enumerate(arms):
        legend.append(_point(j, x + 5, _HEIGHT + 2))
        legend.append(f"<text x='{x + 14:.0f}' y='{_HEIGHT + 6}'>{escape(arm)}</text>")
        x += 30 + 7.5 * len(arm)
    box = f"0 0 {max(width, int(x))} {_HEIGHT + 14}"
    style = f"font-size:12px;max-width:{max(width, int(x))}px"
    return f"<svg viewBox='{box}' style='{style}' role='img'>{''.join(parts + legend)}</svg>"


def _point(arm: int, x: float, y: float, hollow: bool = False, inside: str = "") -> str:
    """The mark of the arm of that number: seven colours, and beyond them other shapes. hollow: of a run that failed."""
    colour, beyond = _COLOURS[arm % len(_COLOURS)], arm // len(_COLOURS)
    if beyond:
        corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in _SHAPES[(beyond - 1) % len(_SHAPES)])
        name, shape = "polygon", f"points='{corners}'"
    else:
        name, shape = "circle", f"cx='{x:.1f}' cy='{y:.1f}' r='4'"
    fill = f"fill='white' stroke='{colour}' stroke-width='2'" if hollow else f"fill='{colour}'"
    return f"<{name} {shape} {fill}>{inside}</{name}>"


def _sentence(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())
