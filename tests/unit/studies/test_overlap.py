"""SQuAD's contexts in XQuAD, MNLI's pairs in XNLI: planted, found, counted, named, and in the record of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from effstilts.cli import main
from effstilts.data.overlap import Overlap, digests, known_texts, overlaps
from effstilts.model.opening import save
from effstilts.store import Store
from effstilts.synthetic import rows

RECIPE = """
name: leaky
model: MODEL
training: {steps: 1, batch_size: 4}
intermediate: {nli: {tasks: [mnli]}, qa: {tasks: [squad]}}
targets: [{task: xnli, languages: [en]}, {task: xquad, languages: [en]}]
tasks:
  mnli: {kind: classification, files: {train: mnli.jsonl}, labels: [a, b], columns: {text: p, text_pair: h, label: y},
    holdout: {share: 0.2, by: text}}
  xnli: {kind: classification, files: {test: xnli.jsonl}, labels: [a, b], columns: {text: p, text_pair: h, label: y},
    train_on: mnli}
  squad: {kind: span, files: {train: {path: squad.json, format: squad_json}}, holdout: {share: 0.2, by: context},
    columns: {id: id, question: question, context: context, answers: answers}}
  xquad: {kind: span, files: {test: {path: xquad.json, format: squad_json}}, train_on: squad,
    columns: {id: id, question: question, context: context, answers: answers}}
"""


def squad(texts: list[str]) -> dict[str, Any]:
    paragraphs = [
        {
            "context": text,
            "qas": [
                {"id": str(len(text)), "question": "what?", "answers": [{"text": text.split()[0], "answer_start": 0}]}
            ],
        }
        for text in texts
    ]
    return {"data": [{"title": "t", "paragraphs": paragraphs}]}


@pytest.fixture
def leaky(tmp_path: Path, encoder: Any) -> Path:
    save(encoder, tmp_path / "model")
    texts = list(dict.fromkeys(row["text"] for row in rows("text", "train", "en", 300) if len(row["text"]) > 30))
    pairs = [{"p": a, "h": b, "y": "ab"[i % 2]} for i, (a, b) in enumerate(zip(texts[:40], texts[40:80], strict=True))]
    (tmp_path / "mnli.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs), encoding="utf-8")
    own = [{"p": texts[80 + i], "h": texts[90 + i], "y": "a"} for i in range(7)]
    (tmp_path / "xnli.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs[:3] + own), encoding="utf-8")
    (tmp_path / "squad.json").write_text(json.dumps(squad(texts[100:120])), encoding="utf-8")
    (tmp_path / "xquad.json").write_text(json.dumps(squad(texts[110:122])), encoding="utf-8")
    (tmp_path / "leaky.yaml").write_text(RECIPE.replace("MODEL", str(tmp_path / "model")), encoding="utf-8")
    return tmp_path


def test_a_leak_is_counted_and_named_before_and_after(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(leaky / "leaky.yaml"), "--store", str(leaky / "store"), "--data", str(leaky), "--offline"]
    assert main(["plan", *arguments, "--overlap"]) == 0
    plan = capsys.readouterr().out
    assert "of 10 test rows of xnli (en)" in plan and "of 12 test rows of xquad (en)" in plan
    assert "an earlier phase trains on mnli (en), which the target is trained on as well" in plan
    assert main(["run", *arguments]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("overlap:")]
    assert lines and all(line in captured.err for line in lines) and not any("train rows" in line for line in lines)
    record = Store(leaky / "store").read_run("leaky")
    contexts = [o for o in record["overlaps"] if (o["trained"], o["evaluated"]) == ("squad (en)", "xquad (en)")]
    # Of the ten planted contexts, those that the holdout left in training.
    assert [(o["role"], o["of"]) for o in contexts] == [("whole", 12), ("context", 12)]
    assert 5 <= contexts[0]["rows"] == contexts[1]["rows"] <= 10
    own = {(o["trained"], o["role"]) for o in record["overlaps"] if o["evaluated"] == "xnli (en)"}
    assert {("mnli (en)", "whole"), ("mnli (en)", "text"), ("mnli (en)", "text_pair")} <= own


def test_where_nothing_meets_nothing_is_said(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(leaky / "leaky.yaml"), "--store", str(leaky / "store"), "--data", str(leaky), "--offline"]
    assert main(["plan", *arguments, "--overlap", "--set", "targets=[]"]) == 0
    assert capsys.readouterr().out.strip().endswith("no overlap")


def test_a_question_in_another_language_is_known_by_its_id(tmp_path: Path) -> None:
    """MLQA's questions are the same ones in every language."""
    ids = [f"{i:040x}" for i in range(3)]
    english, german = (
        [{"id": name, "question": f"{word} {name}", "context": f"{word} text {name}" * 3} for name in ids[start:]]
        for word, start in (("what", 0), ("was", 1))
    )
    short = [{"id": "17", "question": "anything at all, of whatever length"}]
    known = known_texts(digests([*english, *short]))
    assert overlaps(known, digests([*german, *short[:0]])) == [Overlap("id", 2, 2)]
    assert overlaps(known, digests([{"id": "17", "question": "something else of twenty letters"}])) == []
    assert overlaps(known, digests([{"id": 17, "text": "something else of twenty letters"}])) == []
