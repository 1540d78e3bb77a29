"""Tiny prediction and label folders in XTREME's official layout, written without the package's writers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from effstilts.evaluation.xtreme import BENCHMARKS, Version

WORDS = ["the", "Cat", "sat", "der", "Hund", "电", "池", "البيت", "là", "мир", "a-b", "x.", "“y”", "1990"]
TAGS = {
    "udpos": ["NOUN", "VERB", "X", "SCONJ", "CCONJ", "SYM", "PRON", "_"],
    "panx": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-ORG"],
}
LABELS = {"xnli": ["contradiction", "entailment", "neutral"], "pawsx": ["0", "1"]}
Content = dict[tuple[str, str], tuple[Any, Any]]


def some_text(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))


def make_folders(root: Path, version: Version, seed: int = 0) -> Content:
    """Writes root/predictions and root/labels for every task and language; returns (predictions, gold) by task and
    language, in plain data."""
    draw = random.Random(seed)
    made: Content = {}
    for task, target in BENCHMARKS[version].targets.items():
        for side in ("predictions", "labels"):
            (root / side / task).mkdir(parents=True, exist_ok=True)
        for language in target.languages:
            texts, content = MAKERS[target.form](task, language, draw)
            made[task, language] = content
            for side, text in zip(("predictions", "labels"), texts, strict=True):
                path = root / side / task / f"test-{language}.{target.suffix}"
                path.write_text(text, encoding="utf-8")
    return made


def _labels(task: str, language: str, draw: random.Random) -> Any:
    known = LABELS.get(task) or [str(i) for i in range(12)]
    content = [draw.choices(known, k=9) for _ in range(2)]
    return ["".join(f"{label}\n" for label in labels) for labels in content], content


def _tags(task: str, language: str, draw: random.Random) -> Any:
    lengths = [draw.randint(1, 6) for _ in range(5)]
    gold = [draw.choices(TAGS[task], k=n) for n in lengths]
    predicted = [[tag if draw.random() < 0.7 else draw.choice(TAGS[task]) for tag in tags] for tags in gold]
    # One side ends with an empty line, the other without: both stand in released files.
    texts = ["\n\n".join("\n".join(tags) for tags in side) + end for side, end in ((predicted, "\n"), (gold, "\n\n"))]
    return texts, (predicted, gold)


def _pairs(task: str, language: str, draw: random.Random) -> Any:
    gold = [(f"{language}-{i:09}", f"en-{draw.randint(0, 9):09}") for i in range(8)]
    predicted = [pair if draw.random() < 0.6 else (pair[0], "en-000000099") for pair in gold[:6]]
    predicted.append(predicted[0])
    return ["".join(f"{a}\t{b}\n" for a, b in side) for side in (predicted, gold)], (predicted, gold)


def _answers(task: str, language: str, draw: random.Random) -> Any:
    gold = [(f"q{i}", [some_text(draw) for _ in range(draw.randint(1, 3))]) for i in range(6)]
    gold.append(("q0", [some_text(draw)]))
    predicted = {name: draw.choice(answers) if draw.random() < 0.5 else some_text(draw) for name, answers in gold[1:]}
    if draw.random() < 0.3:
        predicted.pop("q1")
    questions = [
        {"id": name, "question": "?", "answers": [{"text": a, "answer_start": 0} for a in answers]}
        for name, answers in gold
    ]
    document = {"version": "1.1", "data": [{"paragraphs": [{"context": "c", "qas": questions}]}]}
    return [json.dumps(predicted), json.dumps(document)], (predicted, gold)


def _choices(task: str, language: str, draw: random.Random) -> Any:
    content = [draw.choices([0, 1], k=9) for _ in range(2)]
    gold = "".join(json.dumps({"premise": "p", "label": label}) + "\n" for label in content[1])
    return ["".join(json.dumps({"label": label}) + "\n" for label in content[0]), gold], content


def _rankings(task: str, language: str, draw: random.Random) -> Any:
    known = [f"Q{i}" for i in range(40)]
    count = 1 if task == "mewslix" else 3
    gold = {f"m{i}": draw.sample(known, count) for i in range(6)}
    predicted = {name: draw.choices(known, k=30) for name in list(gold)[1:]}
    return [json.dumps(predicted), json.dumps(gold)], (predicted, gold)


MAKERS = {
    "labels": _labels, "tags": _tags, "pairs": _pairs, "answers": _answers, "choices": _choices, "rankings": _rankings,
}  # fmt: skip
