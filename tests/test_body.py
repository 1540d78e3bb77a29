"""Phase 1 on another encoder's blocks or none: pieces that its parallel text aligns begin among known ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from effstilts.cli import main
from effstilts.model.opening import load, save
from tests.parity.test_launch import start, torchrun

pytestmark = pytest.mark.slow

RECIPE = """
name: bodied
model:
  name: new
  body: BODY
  aligned_by: [ALIGNED]
  vocab_size: 300
  config: {model_type: xlm-roberta, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
           intermediate_size: 64, max_position_embeddings: 130}
training: {batch_size: 8, learning_rate: 1e-3}
mlm:
  tasks: [{task: synthetic/text, rows: 200}, {task: synthetic/parallel, rows: 400}]
  training: {steps: 2}
"""


@pytest.fixture
def body(encoder: Any, tmp_path: Path) -> Path:
    save(encoder, tmp_path / "body")
    return tmp_path / "body"


def run(tmp_path: Path, body: Path | None, aligned: str) -> int:
    recipe = tmp_path / "bodied.yaml"
    text = RECIPE.replace("BODY", str(body)) if body else RECIPE.replace("  body: BODY\n", "")
    recipe.write_text(text.replace("ALIGNED", aligned), encoding="utf-8")
    return main(["run", str(recipe), "--store", str(tmp_path / "store"), "--offline"])


def test_aligned_pieces_begin_among_the_bodys(body: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, body, "synthetic/parallel") == 0
    made = {folder.name.split("-")[0]: folder for folder in (tmp_path / "store" / "artefacts").iterdir()}
    assert {"tokenizer", "alignment", "mlm"} <= made.keys()
    events = map(json.loads, (tmp_path / "store" / "runs" / "bodied.events.jsonl").read_text().splitlines())
    taken = [event for event in events if event["event"] == "transplanted"]
    assert taken[-1]["pieces"] > 20 and taken[-1]["translated"] > 0
    trained = load(str(made["mlm"] / "encoder"))
    assert trained.depth == 2
    capsys.readouterr()
    assert run(tmp_path, body, "synthetic/parallel") == 0
    assert "alignment of pieces" not in capsys.readouterr().out


def test_without_a_body_pieces_begin_aligned_among_random_ones(tmp_path: Path) -> None:
    """English and another alphabet: nearly all pieces of the other language are placed."""
    assert run(tmp_path, None, "synthetic/parallel") == 0
    events = map(json.loads, (tmp_path / "store" / "runs" / "bodied.events.jsonl").read_text().splitlines())
    (placed,) = {event["translated"] for event in events if event["event"] == "aligned"}
    assert 50 < placed < 300


def test_text_that_is_not_parallel_is_refused(body: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, body, "synthetic/text") == 3
    assert "synthetic/text (en): its rows are one text each" in capsys.readouterr().err
    assert run(tmp_path, body, "synthetic/paralell") == 2
    assert "did you mean 'synthetic/parallel'" in capsys.readouterr().err


def test_two_ranks_align_and_train(body: Path, tmp_path: Path) -> None:
    """Rank 0 alone aligns; all ranks read the rows. One translation is blank and is passed over."""
    recipe = tmp_path / "bodied.yaml"
    text = RECIPE.replace("BODY", str(body)).replace("ALIGNED", "par").replace("synthetic/parallel, rows: 400", "par")
    declared = f"""
tasks:
  par:
    kind: masked_lm
    languages: [de]
    columns: {{text: source, text_pair: target}}
    files:
      train: {{path: [{tmp_path}/a.txt, "{tmp_path}/b.{{lang}}.txt"], format: aligned_lines}}
"""
    recipe.write_text(text + declared, encoding="utf-8")
    (tmp_path / "a.txt").write_text("one two three\nfour five six\nseven\n" * 20, encoding="utf-8")
    (tmp_path / "b.de.txt").write_text("eins zwei drei\n\nsieben\n" * 20, encoding="utf-8")
    command = torchrun("-m", "effstilts", "run", str(recipe), "--store", str(tmp_path / "store"), "--offline")
    process = start([*command, "--set", "engine.timeout_seconds=60"])
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error[:2000]
    assert {"alignment", "mlm"} <= {
        folder.name.split("-")[0] for folder in (tmp_path / "store" / "artefacts").iterdir()
    }
