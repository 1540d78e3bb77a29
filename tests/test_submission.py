"""A run on official files becomes an official submission: spelling, order, and the same scores again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from effstilts.cli import main
from effstilts.store import Store
from effstilts.synthetic import rows

pytestmark = pytest.mark.slow

RECIPE = """
name: official
model:
  name: new
  vocab_size: 400
  config: {model_type: xlm-roberta, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
           intermediate_size: 64, max_position_embeddings: 130}
training: {batch_size: 8, learning_rate: 1e-3, evaluate_examples: 16, steps: 2}
seeds: [3, 5]
mlm: {tasks: [synthetic/text], training: {steps: 2}}
intermediate: {baseline: {}, nli: {tasks: [synthetic/mnli], training: {steps: 2}}}
targets:
  - {task: pawsx, languages: [en, de]}
  - {task: udpos, languages: [de]}
  - {task: tydiqa, languages: [en, ko]}
  - {task: xcopa, languages: [it]}
  - {task: synthetic/xnli, languages: [qaa]}
retrieval: {tasks: [tatoeba], languages: [de, fr]}
"""


def some(dataset: str, language: str, count: int, split: str = "test") -> Iterator[dict[str, Any]]:
    return islice(rows(dataset, split, language, count), count)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def squad(found: list[dict[str, Any]]) -> str:
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": row["id"],
                    "question": row["question"],
                    "answers": [{"text": row["answers"]["text"][0], "answer_start": row["answers"]["answer_start"][0]}],
                }
            ],
        }
        for row in found
    ]
    return json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with official files, data/, and the store of a run on them."""
    root = tmp_path_factory.mktemp("official")
    data = root / "data"
    for split, language in (("train", "en"), ("dev", "en"), ("dev", "de")):
        found = some("xnli", "qaa", 30)
        lines = "".join(f"{row['premise']}\t{row['hypothesis']}\t{int(row['label'] == 0)}\n" for row in found)
        write(data / f"xtreme/pawsx/{split}-{language}.tsv", lines)
        found = some("udpos", "qaa", 25)
        sentences = ("".join(f"{w}\t{t}\n" for w, t in zip(r["tokens"], r["pos_tags"], strict=True)) for r in found)
        write(data / f"xtreme/udpos/{split}-{language}.tsv", "\n".join(sentences))
    for language in ("en", "ko"):
        questions = list(some("tydiqa", "qaa", 40))
        write(data / f"xtreme/tydiqa/tydiqa.goldp.{language}.train.json", squad([*questions, questions[0]]))
    for name, count in (("copa/train-en", 20), ("copa/val-en", 12), ("xcopa/test.it", 15)):
        found = some("xcopa", "qaa", count)
        write(data / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in found))
    for code in ("deu", "fra"):
        pairs = list(some("tatoeba", "qaa", 20))
        write(data / f"tatoeba/tatoeba.{code}-eng.{code}", "".join(f"{row['source_sentence']}\n" for row in pairs))
        write(data / f"tatoeba/tatoeba.{code}-eng.eng", "".join(f"{row['target_sentence']}\n" for row in pairs))
    write(root / "official.yaml", RECIPE)
    arguments = ["--store", str(root / "store"), "--data", str(data), "--quiet", "--offline"]
    assert main(["run", str(root / "official.yaml"), *arguments]) == 0
    return root


def submit(run: Path, *more: str) -> int:
    return main(["xtreme", "submit", "official", "--store", str(run / "store"), "--data", str(run / "data"), *more])


@pytest.mark.parametrize(("version", "seed", "arm"), [("xtreme", 3, "baseline"), ("xtreme-r", 5, "nli")])
def test_a_submission_scores_as_the_run_did(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str, seed: int, arm: str
) -> None:
    out, gold, numbers = tmp_path / "out", tmp_path / "gold", tmp_path / "numbers.json"
    options = ["--seed", str(seed), "--arm", arm, "--version", version, "--out", str(out), "--labels", str(gold)]
    assert submit(run, *options) == 0
    printed = capsys.readouterr().out
    assert f"arm {arm}, seed {seed}" in printed and "not of " in printed and "a full submission lacks" in printed
    assert (
        main(["xtreme", "score", str(out), str(gold), "--partial", "--version", version, "--json", str(numbers)]) == 0
    )
    report = json.loads(numbers.read_text())
    cells = [c for c in Store(run / "store").read_run("official")["cells"] if (c["seed"], c["arm"]) == (seed, arm)]
    compared = 0
    for cell in cells:
        if cell["task"] in report:
            scored = report[cell["task"]]
            for metric in set(cell["metrics"]) & set(scored):
                assert scored[metric][cell["language"]] == pytest.approx(cell["metrics"][metric]), cell
                compared += 1
    assert compared == (11 if version == "xtreme" else 10)


def test_the_official_spelling_and_order(run: Path, tmp_path: Path) -> None:
    out, gold = tmp_path / "out", tmp_path / "gold"
    assert submit(run, "--arm", "baseline", "--out", str(out), "--labels", str(gold)) == 0
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "pawsx/test-en.tsv", "pawsx/test-de.tsv", "udpos/test-de.tsv", "tydiqa/test-en.json", "tydiqa/test-ko.json",
        "tatoeba/test-de.tsv", "tatoeba/test-fr.tsv",
    }  # fmt: skip
    assert set((out / "pawsx/test-de.tsv").read_text().split("\n")) <= {"0", "1", ""}
    labels = [line.split("\t")[2] for line in (run / "data/xtreme/pawsx/dev-de.tsv").read_text().splitlines()]
    assert (gold / "pawsx/test-de.tsv").read_text().splitlines() == labels
    tags = [line.partition("\t")[2] for line in (run / "data/xtreme/udpos/dev-de.tsv").read_text().splitlines()]
    assert (gold / "udpos/test-de.tsv").read_text().splitlines() == tags
    assert [not t for t in (out / "udpos/test-de.tsv").read_text().splitlines()] == [not t for t in tags]
    answers = json.loads((out / "tydiqa/test-ko.json").read_text())
    assert len(answers) == 41 and sum("#2" in name for name in answers) == 1
    english = (run / "data/tatoeba/tatoeba.deu-eng.eng").read_text().splitlines()
    order = [int(line) for line in (gold / "tatoeba/test-de.tsv").read_text().splitlines()]
    assert sorted(order) == list(range(20)) and [english[i] for i in order] == sorted(english)


def test_what_a_choice_cannot_be(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    for options, code, words in (
        ([], 2, "several arms: choose one with --arm out of baseline, nli"),
        (["--arm", "mlni"], 2, "no arm 'mlni'"),
        (["--arm", "nli", "--seed", "4"], 2, "no seed 4; it has 3, 5"),
        (["--arm", "nli", "--labels", str(tmp_path / "out/labels")], 2, "lie in each other"),
    ):
        assert submit(run, *options, *out) == code
        assert words in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    assert submit(run, "--arm", "nli", *out) == 0
    capsys.readouterr()
    assert submit(run, "--arm", "nli", *out) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_files_that_changed_since_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "data/tatoeba/tatoeba.fra-eng.eng"
    before = path.read_text()
    try:
        path.write_text(before.replace("the ", "a ", 1))
        assert submit(run, "--arm", "nli", "--out", str(tmp_path / "out")) == 3
    finally:
        path.write_text(before)
    assert "the files have changed since the run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_damaged_artefact_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = Store(run / "store").read_run("official")["cells"]
    step = next(c["step"] for c in cells if (c["task"], c["arm"], c["seed"]) == ("udpos", "nli", 3))
    path = run / "store/artefacts" / step / "predictions.jsonl"
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"NOUN", b"VERB", 1) if b"NOUN" in before else before + b"\n")
        assert submit(run, "--arm", "nli", "--out", str(tmp_path / "out")) == 5
    finally:
        path.write_bytes(before)
    assert "predictions.jsonl is damaged" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
