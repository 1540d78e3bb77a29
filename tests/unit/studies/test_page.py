"""The page: well-formed, self-contained, every name escaped, every number there."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from effstilts.studies.costs import cost_table, sharing
from effstilts.studies.page import page
from tests.unit.studies.test_report import three_seeds

HOSTILE = "<script>alert('x')</script>&"
STEP = {
    "name": "target-1",
    "label": "target t ← arm",
    "kind": "target",
    "done_steps": 100,
    "best_step": 50,
    "bytes": 1024,
    "machine": {"device": "a machine"},
    "cost": {
        "seconds": 10.0,
        "wall_seconds": 11.0,
        "tokens": 750,
        "padded_tokens": 1000,
        "peak_memory_bytes": 1 << 30,
        "parameters": 1000,
        "trained_parameters": 10,
    },
}


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def whole(**changes: Any) -> dict[str, Any]:
    made = {"name": HOSTILE, "recipe": {"description": HOSTILE}, "steps": [STEP], **three_seeds()}
    for cell in made["cells"]:
        cell.update(changes)
    return made


def test_names_are_escaped_and_nothing_is_fetched() -> None:
    read = Reader(page(whole(task=HOSTILE, collapsed=HOSTILE)))
    names = [tag for tag, _ in read.tags]
    assert "script" not in names and HOSTILE in read.text
    assert not any(key in ("src", "href") or key.startswith("on") for _, attributes in read.tags for key in attributes)


def test_a_point_for_each_arm_and_language_at_its_height() -> None:
    read = Reader(page(whole()))
    points = [float(a["cy"]) for tag, a in read.tags if tag == "circle" and a["r"] == "4"]
    assert len(points) == 2 * 3 + 2  # and the legend's two
    assert points[0] < points[2] < points[4]  # 90, 42 and 20 in the baseline: higher is further up


def test_a_run_without_numbers_is_a_page_too() -> None:
    empty = {"name": "n", "recipe": {}, "steps": [], "cells": [dict(c) for c in three_seeds()["cells"]]}
    for cell in empty["cells"]:
        del cell["score"]
    assert "18 of 18 numbers are not there yet" in Reader(page(empty)).text


def test_costs_are_summed_and_divided() -> None:
    lines = cost_table({"steps": [STEP, STEP, {"name": "evaluate-1", "label": "e", "kind": "evaluate"}]}).splitlines()
    assert len(lines) == 4
    assert lines[1].split()[-11:] == ["100", "10s", "750", "75", "25%", "1.0", "GiB", "10", "1,000", "1.0", "KiB"]
    assert lines[3].split() == ["all", "20s", "1,500", "2.0", "KiB"]


def test_what_numbers_cost_is_summed_for_each_task() -> None:
    def scored(name: str, seconds: float) -> dict[str, Any]:
        cost = {"seconds": seconds, "tokens": 100, "peak_memory_bytes": 1 << 20, "parameters": 990}
        return {"name": name, "label": name, "inputs": [], "scoring_cost": cost}

    def cell(section: str, arm: str, step: str) -> dict[str, Any]:
        return {"section": section, "arm": arm, "seed": 1, "task": section[0], "step": step, "score": 1.0}

    cells = [
        cell("target", "a", "e1"),
        cell("target", "a", "e2"),
        cell("retrieval", "a", "r"),
        cell("target", "a", "e0"),
    ]
    # Two seeds of a baseline share a step; e0 is of a version that did not measure.
    cells.append(cell("retrieval", "b", "r"))
    steps = [STEP, scored("e1", 1.0), scored("e2", 3.0), scored("r", 2.0), {"name": "e0", "label": "e0", "inputs": []}]
    lines = [line.split() for line in cost_table({"steps": steps, "cells": cells}).splitlines()]
    assert lines[2] == ["evaluate", "t,", "numbers:", "2", "of", "3", "4s", "200", "50", "1.0", "MiB", "0", "990"]
    assert lines[3] == ["retrieve", "r,", "numbers:", "1", "2s", "100", "50", "1.0", "MiB", "0", "990"]
    assert lines[4][:3] == ["all", "16s", "1,050"]


def test_what_the_same_numbers_would_cost_without_sharing() -> None:
    def step(name: str, seconds: float, *inputs: str) -> dict[str, Any]:
        return {"name": name, "inputs": list(inputs), "cost": {"seconds": seconds}}

    def cell(arm: str, step: str) -> dict[str, Any]:
        return {"arm": arm, "seed": 1, "section": "target", "task": step.split("-")[0], "step": step, "score": 1.0}

    def scored(name: str, end: str) -> dict[str, Any]:
        return {"name": name, "inputs": [end]}

    steps = [step("mlm", 100), step("nli", 10, "mlm"), step("t0", 1, "mlm"), step("t1", 2, "nli"), step("t2", 4, "nli")]
    steps += [scored("e0", "t0"), scored("e1", "t1"), scored("e1-de", "t1"), scored("e2", "t2"), scored("r", "nli")]
    # Another task that is evaluated with the training of e1.
    steps.append(scored("e3", "t1"))
    cells = [cell("none", "e0"), *(cell("nli", name) for name in ("e1", "e1-de", "e2", "e3", "r"))]
    assert sharing({"steps": steps, "cells": cells}) == (117, 101 + 112 + 114 + 112 + 110)
    waiting = [{**cell("nli", "e2"), "score": None}]
    del waiting[0]["score"]
    assert sharing({"steps": steps, "cells": waiting}) == (0, 0)


def test_no_two_arms_look_alike_and_failed_runs_are_hollow() -> None:
    arms = [f"arm {i}" for i in range(17)]
    made = whole()
    first = dict(made["cells"][0], collapsed="", failed=[])
    made["cells"] = [dict(first, arm=arm) for arm in arms]
    made["cells"][3]["collapsed"] = "one answer"
    marks = [
        (tag, attributes.get("fill"), [part.count(",") for part in attributes.get("points", "").split()])
        for tag, attributes in Reader(page(made)).tags
        if tag in ("circle", "polygon")
    ]
    legend = marks[len(arms) :]
    assert len(legend) == len(arms) == len({str(mark) for mark in legend})
    assert [i for i, mark in enumerate(marks[: len(arms)]) if mark[1] == "white"] == [3]
