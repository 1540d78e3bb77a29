"""R9: hostile files are refused by name, and nothing in them runs: an audit hook sees no code, process or socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from effstilts.studies.page import page
from tests.conftest import TINY_CONFIG
from tests.faults.hostile import CASES
from tests.unit.studies.test_page import STEP
from tests.unit.studies.test_report import three_seeds

ROOT = Path(__file__).parents[2]


def performed(folder: Path, tokenizer: Any, names: list[str]) -> dict[str, Any]:
    from effstilts.model.opening import create, save

    save(create(TINY_CONFIG, tokenizer, seed=0), folder / "good")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "tests.faults.hostile", str(folder), *names]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Any]:
    return performed(tmp_path_factory.mktemp("hostile"), tokenizer, list(CASES))


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name_and_nothing_runs(name: str, results: dict[str, Any]) -> None:
    found, words = results[name], CASES[name][1]
    assert not found["findings"] and not found["escaped"]
    if words is None:
        assert isinstance(found["code"], int), found
    else:
        assert isinstance(found["code"], int) and found["code"] > 0, found
        assert all(word in found["said"] for word in words), found["said"]
    assert "Traceback" not in found["said"]
    assert len([line for line in found["said"].splitlines() if line.strip()]) <= 1 or words is None, found["said"]
    assert found["seconds"] < 60


TEXTS = (
    "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "</title></style></pre><svg/onload=alert(1)>",
    "javascript:alert(1)", "&lt;script&gt;", "]]><script>",
)  # fmt: skip


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(f"{tag}.{name}" for name, _ in attributes)}


def test_names_in_a_page_are_text(figures: dict[str, Any]) -> None:
    """Every text of a record, names of its machine included, is hostile: the page has the tags and attributes of the
    harmless one, and none of the texts as it is."""
    seeds = three_seeds()
    for cell in seeds["cells"]:
        cell.update(collapsed="collapsed", selected_on="dev")
    overlap = {"trained": "a", "evaluated": "b", "split": "test", "role": "text", "rows": 2, "of": 9}
    plain = {"name": "n", "recipe": {"description": "d"}, "steps": [STEP], "overlaps": [overlap], **seeds}

    def hostile(node: Any, text: str, key: str = "") -> Any:
        if isinstance(node, dict):
            return {(f"{text}{k}" if key == "machine" else k): hostile(v, text, k) for k, v in node.items()}
        if isinstance(node, list):
            return [hostile(item, text) for item in node]
        return f"{text}{node}" if isinstance(node, str) and key not in ("section", "split") else node

    def tags(text: str) -> set[str]:
        made = page(hostile(plain, text))
        assert not text or text == TEXTS[3] or text not in made
        parser = Tags()
        parser.feed(made)
        return parser.seen

    harmless = tags("")
    assert {"svg", "pre", "h2", "title"} <= harmless and "script" not in harmless
    for text in TEXTS:
        assert tags(text) == harmless, text
    figures["texts"] = len(TEXTS)


def test_figures(results: dict[str, Any], figures: dict[str, Any]) -> None:
    figures.update(
        cases=len(results),
        refused=sum(found["code"] != 0 for found in results.values()),
        events=sum(len(found["findings"]) for found in results.values()),
        slowest_seconds=round(max(found["seconds"] for found in results.values()), 2),
    )
    assert figures["events"] == 0
