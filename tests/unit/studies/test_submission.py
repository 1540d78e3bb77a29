"""Cells of a run that no training is needed for: which are chosen, and what becomes of their kept predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from effstilts.errors import DataError, RecipeError, StoreError
from effstilts.evaluation.xtreme import BENCHMARKS, Version
from effstilts.store import Store
from effstilts.studies.submission import Choice, official_gold, official_label, official_order, write_submission
from effstilts.tasks.registry import get

RECIPE = {
    "tasks": {"xtreme-r/panx": {"extends": "panx"}},
    "synthetic": {"seed": 0, "cognates": -1, "word_order": "own"},
    "data": {"source": "auto"},
}


class Run:
    """A run's record and artefacts, made by hand."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "store")
        self.cells: list[dict[str, Any]] = []
        self.out = root / "out"

    def add(
        self, task: str, language: str, kept: Any, section: str = "target", split: str = "dev", **more: Any
    ) -> None:
        key = f"{len(self.cells):024}"
        kind = "evaluate" if section == "target" else "retrieve"

        def fill(folder: Path) -> None:
            if section == "target":
                lines = [json.dumps({"id": str(i), "prediction": row}) for i, row in enumerate(kept)]
                (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            else:
                (folder / f"{split}-{language}.tsv").write_text(kept, encoding="utf-8")

        identity = {"task": task, "language": language, "split": split, "rows": more.pop("rows", 0), "data": "?"}
        self.store.put(kind, key, fill, {"examples": len(kept), "spec": {"task": identity}})
        cell = {"section": section, "arm": "baseline", "seed": 0, "task": task, "language": language, "split": split}
        self.cells.append({**cell, "step": f"{kind}-{key}", "score": 1.0, **more})

    def submit(self, version: Version = "xtreme") -> str:
        self.store.write_run("mine", {"recipe": RECIPE, "cells": self.cells})
        choice = Choice("mine", "", None, BENCHMARKS[version])
        return write_submission(self.store, choice, None, True, self.out, None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_each_form_of_kept_predictions(run: Run) -> None:
    run.add("pawsx", "de", ["paraphrase", "different"], rows=2)
    run.add("panx", "sw", [["O", "B-PER"], ["O"]])
    run.add("xquad", "el", ["a", ""], split="test")
    run.add("bucc2018", "zh", "zh-1\ten-2\nzh-3\ten-4\n", section="retrieval")
    said = run.submit()
    texts = {p.relative_to(run.out).as_posix(): p.read_text() for p in run.out.rglob("*") if p.is_file()}
    assert json.loads(texts.pop("xquad/test-el.json")) == {"0": "a", "1": ""}
    assert texts == {
        "pawsx/test-de.tsv": "1\n0\n",
        "panx/test-sw.tsv": "O\nB-PER\n\nO\n",
        "bucc2018/test-zh.tsv": "zh-1\ten-2\nzh-3\ten-4\n",
    }
    (pawsx,) = [line for line in said.splitlines() if line.startswith("pawsx")]
    assert "1/7" in pawsx and "split dev: no official submission" in pawsx and "the first rows alone" in pawsx
    (xquad,) = [line for line in said.splitlines() if line.startswith("xquad")]
    assert "split" not in xquad and "missing en, es" in xquad
    assert f"lacks {15 + 6 + 39 + 33 + 3 + 36 + 10 + 7 + 9} files of 9 tasks" in said


def test_a_variant_of_xtreme_r_is_that_task(run: Run) -> None:
    run.add("xtreme-r/panx", "sw", [["O"]])
    run.add("xcopa", "et", [1, 0])
    said = run.submit("xtreme-r")
    assert (run.out / "panx/test-sw.tsv").is_file()
    assert (run.out / "xcopa/test-et.jsonl").read_text() == '{"label": 1}\n{"label": 0}\n'
    assert "not of" not in said
    with pytest.raises(RecipeError, match="no task of xtreme: its tasks are xtreme-r/panx, xcopa"):
        run.submit("xtreme")


def test_what_is_not_the_benchmarks_is_named_and_left_out(run: Run) -> None:
    run.add("panx", "sw", [["O"]])
    run.add("panx", "lt", [["O"]])
    run.add("copa", "en", [1])
    run.add("udpos", "de", [["X"]], arm="baseline")
    del run.cells[-1]["score"]
    assert "not of xtreme: copa, panx (lt)" in run.submit()
    assert [p.name for p in run.out.iterdir()] == ["panx"]


def test_two_results_for_one_file_are_refused(run: Run) -> None:
    run.add("panx", "sw", [["O"]])
    run.add("panx", "sw", [["B-PER"]])
    with pytest.raises(RecipeError, match=r"panx \(sw\) in two ways"):
        run.submit()


def test_nothing_to_submit(run: Run) -> None:
    with pytest.raises(RecipeError, match="nothing to submit"):
        run.submit()
    run.add("panx", "sw", [["O"]])
    step = run.cells[0]["step"]
    del run.cells[0]["score"]
    with pytest.raises(RecipeError, match="no results yet for baseline, seed 0"):
        run.submit()
    run.cells[0] |= {"score": 1.0, "step": step + "x"}
    with pytest.raises(StoreError, match="is no longer in"):
        run.submit()
    assert not run.out.exists()


@pytest.mark.parametrize(
    ("task", "language", "kept", "message"),
    [
        ("pawsx", "de", ["maybe"], "the label 'maybe' has no official spelling"),
        ("panx", "sw", [[], []], "test-sw.tsv holds no rows"),
    ],
)
def test_predictions_that_make_no_file_leave_no_folder(
    run: Run, task: str, language: str, kept: Any, message: str
) -> None:
    run.add(task, language, kept)
    with pytest.raises(DataError, match=message):
        run.submit()
    assert sorted(p.name for p in run.out.parent.iterdir()) == ["store"]


def test_labels_have_the_spelling_of_the_files() -> None:
    targets = BENCHMARKS["xtreme"].targets
    assert [official_label(targets["pawsx"], get("pawsx"), x) for x in ("different", "paraphrase")] == ["0", "1"]
    assert [official_label(targets["xnli"], get("xnli"), x) for x in ("neutral", "entailment")] == [
        "neutral",
        "entailment",
    ]


def test_tatoebas_rows_are_sorted_by_their_english_side() -> None:
    rows = [{"source": s, "target": t} for s, t in zip("abcde", ["  the b", "A", "the a", "É", "A"], strict=True)]
    assert official_order(rows) == [1, 4, 2, 0, 3]
    assert official_gold(BENCHMARKS["xtreme"].targets["tatoeba"], get("tatoeba"), rows) == ["1", "4", "2", "0", "3"]


def test_gold_pairs_are_those_of_the_foreign_side() -> None:
    rows = [
        {"id": "de-1", "side": "source", "gold": ["en-1", "en-2"]},
        {"id": "de-2", "side": "source", "gold": []},
        {"id": "en-1", "side": "target", "gold": ["de-1"]},
    ]
    assert official_gold(BENCHMARKS["xtreme"].targets["bucc2018"], get("bucc2018"), rows) == [
        ("de-1", "en-1"),
        ("de-1", "en-2"),
    ]
