"""What training may read, and what it may not: rows of the test split, rows of another language, labels of tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from effstilts.data import sources
from effstilts.log import Log
from effstilts.procedure import build
from effstilts.recipe_reader import load_recipe
from effstilts.store import Store, file_hash
from effstilts.workbench import Workbench

pytestmark = pytest.mark.slow

WORDS = {"good": ["warm", "bright", "kind"], "bad": ["cold", "dark", "cruel"]}
RECIPE = """
name: guarded
model: {name: MODEL}
training: {steps: 40, batch_size: 16, learning_rate: 3e-3, evaluate_every: 10, patience: 2}
intermediate: {none: {}, moods: {tasks: [moods]}}
targets: [{task: reviews, languages: [en, xx]}]
tasks:
  moods: {kind: classification, labels: [good, bad], columns: {text: x, label: y},
          files: {train: moods.jsonl, dev: moods.dev.jsonl}}
  reviews: {kind: classification, labels: [good, bad], columns: {text: x, label: y}, languages: [en, xx],
            files: {train: "train.{lang}.jsonl", dev: "dev.{lang}.jsonl", test: "test.{lang}.jsonl"}}
"""


def write(path: Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        label = ("good", "bad")[i % 2]
        rows.append({"x": f"The {draw.choice(WORDS[label])} day {draw.randrange(100)}", "y": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def guarded(tmp_path: Path, encoder: Any) -> Path:
    from effstilts.model.opening import save

    save(encoder, tmp_path / "model")
    write(tmp_path / "moods.jsonl", 64, 1)
    write(tmp_path / "moods.dev.jsonl", 32, 2)
    for seed, name in enumerate(("train.en", "dev.en", "test.en", "train.xx", "dev.xx", "test.xx"), 3):
        write(tmp_path / f"{name}.jsonl", 64, seed)
    path = tmp_path / "guarded.yaml"
    path.write_text(RECIPE.replace("MODEL", str(tmp_path / "model")), encoding="utf-8")
    return path


def test_training_reads_train_and_dev_of_the_training_language_alone(
    guarded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each phase trains and selects; rows of a test split or of the other language would be seen here."""
    read: set[tuple[str, str, str]] = set()
    real = sources.load

    def load(task: Any, split: Any, language: str, *rest: Any) -> Any:
        read.add((task.name, split, language))
        return real(task, split, language, *rest)

    monkeypatch.setattr(sources, "load", load)
    where = sources.DataConfig(tmp_path, offline=True)
    recipe = load_recipe(str(guarded))
    bench = Workbench(Store(tmp_path / "store"), where, Log(quiet=True), recipe.tasks)
    graph = build(recipe, bench)
    trained = [step for step in graph.steps if step.kind in ("intermediate", "target")]
    for step in trained:
        step.make(bench, step)
        facts = bench.store.facts(step.kind, step.key)
        assert facts["history"] and max(scores["score"] for scores in facts["history"]) > 90
    assert [step.kind for step in trained] == ["target", "intermediate", "target"]
    assert read == {(task, split, "en") for task in ("moods", "reviews") for split in ("train", "dev")}


def trained_files(store: Path) -> dict[str, str]:
    """Artefact and file -> hash, of all that is trained; the names hold the keys. Clocks are in other files."""
    return {
        str(path.relative_to(store)): file_hash(path)
        for kind in ("intermediate", "target")
        for path in store.glob(f"artefacts/{kind}-*/**/*.safetensors")
    }


def test_with_the_labels_of_the_test_sets_turned_round_every_weight_is_the_same(
    guarded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two stores, two trainings from the beginning: keys, weights and predictions agree, the scores mirror."""
    from effstilts.cli import main

    def run(store: Path) -> dict[tuple[str, str], float]:
        arguments = ["run", str(guarded), "--store", str(store), "--offline", "--quiet", "--data", str(tmp_path)]
        assert main(arguments) == 0
        capsys.readouterr()
        return {(cell["arm"], cell["language"]): cell["score"] for cell in Store(store).read_run("guarded")["cells"]}

    first = run(tmp_path / "one")
    other = {"good": "bad", "bad": "good"}
    for language in ("en", "xx"):
        path = tmp_path / f"test.{language}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps({**row, "y": other[row["y"]]}) + "\n" for row in rows), encoding="utf-8")
    second = run(tmp_path / "two")
    assert min(first.values()) > 90 and second == {cell: pytest.approx(100 - score) for cell, score in first.items()}
    weights = [trained_files(tmp_path / name) for name in ("one", "two")]
    assert len(weights[0]) == 6 and weights[0] == weights[1]
