"""A recipe of every phase, small enough to be run hundreds of times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from effstilts.store import verify_folder
from effstilts.synthetic import bucc, rows
from effstilts.tasks.xtreme import UPOS
from tests.faults.driver import Driver

RECIPE = """
name: crash
model:
  name: new
  vocab_size: 300
  config: {model_type: xlm-roberta, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
           intermediate_size: 32, max_position_embeddings: 130}
training: {batch_size: 4, learning_rate: 1e-3, evaluate_every: 3, evaluate_examples: 8, checkpoint_every: 1}
mlm: {tasks: [text], training: {steps: 5}}
intermediate:
  nli: {tasks: [nli], training: {steps: 5}, METHOD}
targets:
  - {task: tags, languages: [qaa], training: {steps: 5}, METHOD}
retrieval: {tasks: [corpora], languages: [qaa], layer: 1}
tasks:
  text: {kind: masked_lm, files: {train: "FOLDER/text.txt"}, languages: [en], max_length: 32}
  nli: {kind: classification, labels: ["0", "1", "2"], max_length: 32,
        columns: {text: premise, text_pair: hypothesis, label: label},
        files: {train: "FOLDER/nli.jsonl", dev: "FOLDER/nli.jsonl"}}
  tags: {kind: tagging, labels: [LABELS], columns: {tokens: tokens, tags: pos_tags}, languages: [en, qaa],
         score: f1, max_length: 32,
         files: {train: "FOLDER/tags.jsonl", dev: "FOLDER/tags.jsonl", test: "FOLDER/tags.{lang}.jsonl"}}
  corpora: {kind: mining, columns: {id: id, text: text}, languages: [qaa], format: bucc, score: f1,
            files: {dev: ["FOLDER/qaa.source", "FOLDER/qaa.target", "FOLDER/qaa.gold"]}}
"""
METHODS = {"full": "method: {name: full}", "lora": "method: {name: lora, rank: 2}"}


def write_recipe(folder: Path, method: str = "full") -> Path:
    """The recipe and its data below `folder`."""

    def lines(name: str, texts: list[str]) -> None:
        (folder / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    def jsonl(name: str, *synthetic: Any) -> None:
        lines(name, [json.dumps(row, ensure_ascii=False) for row in rows(*synthetic)])

    folder.mkdir(exist_ok=True)
    lines("text.txt", [row["text"] for row in rows("text", "train", "en", 120)])
    jsonl("nli.jsonl", "mnli", "train", "en", 16)
    jsonl("tags.jsonl", "udpos", "train", "en", 16)
    jsonl("tags.qaa.jsonl", "udpos", "test", "qaa", 16)
    for name, pairs in bucc("qaa", split="dev", sentences=24, pairs=12).items():
        lines(f"qaa.{name}", [f"{a}\t{b}" for a, b in pairs])
    path = folder / "crash.yaml"
    text = RECIPE.replace("METHOD", METHODS[method]).replace("LABELS", ", ".join(UPOS))
    path.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    return path


def words(recipe: Path, store: Path, *sets: str) -> list[str]:
    """The command line that runs it."""
    found = ["run", str(recipe), "--store", str(store), "--offline", "--quiet"]
    for text in sets:
        found += ["--set", text]
    return found


# Logs differ between runs; what peft writes beside an adapter's weights names the store's folder.
_DIFFER = ("events.jsonl", "README.md", "adapter_config.json")


def hashes(store: Path) -> dict[str, object]:
    """Artefact -> the hashes of its weights, predictions and rows."""
    found = {}
    for folder in (store / "artefacts").iterdir():
        files = verify_folder(folder)["files"]
        found[folder.name] = {name: file["sha256"] for name, file in files.items() if not name.endswith(_DIFFER)}
    return found


def numbers(store: Path) -> list[dict[str, Any]]:
    """The cells of the run's record."""
    record: dict[str, Any] = json.loads((store / "runs" / "crash.json").read_text(encoding="utf-8"))
    return [{key: cell[key] for key in ("task", "language", "score", "step")} for cell in record["cells"]]


class Quiet:
    """An undisturbed run: its recipe, its store, its seconds, how often it passed each point."""

    def __init__(self, driver: Driver, folder: Path, method: str = "full", ranks: int = 1, *sets: str) -> None:
        self.recipe, self.store = write_recipe(folder / "data", method), folder / "quiet"
        counts = folder / "counts.json"
        fault = {"point": "", "count": 0, "counts": str(counts)}
        assert driver.run(*words(self.recipe, self.store, *sets), ranks=ranks, **fault) == 0, driver.errors
        self.seconds = driver.seconds
        self.passed: dict[str, int] = json.loads(counts.read_text(encoding="utf-8"))
        self.hashes, self.numbers = hashes(self.store), numbers(self.store)

    def assert_same(self, store: Path) -> None:
        assert hashes(store) == self.hashes and numbers(store) == self.numbers


def clear(store: Path) -> None:
    shutil.rmtree(store, ignore_errors=True)
