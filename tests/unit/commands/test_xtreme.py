"""`effstilts xtreme score` on folders in all official forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effstilts.cli import main
from tests.official_folders import make_folders


def test_score_prints_the_numbers_and_writes_the_official_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_folders(tmp_path, "xtreme", seed=2)
    out = tmp_path / "scores.json"
    folders = [str(tmp_path / "predictions"), str(tmp_path / "labels")]
    assert main(["xtreme", "score", *folders, "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    report = json.loads(out.read_text(encoding="utf-8"))
    predicted, gold = made["pawsx", "ko"]
    expected = 100 * sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold)
    assert report["pawsx"]["accuracy"]["ko"] == pytest.approx(expected)
    tasks = [task for task in report if isinstance(report[task], dict)]
    assert report["all_task"] == pytest.approx(sum(report[task]["avg_metric"] for task in tasks) / 9)
    assert f"{report['all_task']:.2f}   mean over the 9 tasks" in printed
    for task in tasks:
        assert f"{report[task]['avg_metric']:.2f}" in printed
    assert "beside it: accuracy" in printed and "f1 by seqeval 0.x" in printed


def test_xtreme_r_and_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folders(tmp_path, "xtreme-r")
    folders = [str(tmp_path / "predictions"), str(tmp_path / "labels")]
    assert main(["xtreme", "score", *folders, "--version", "xtreme-r"]) == 0
    assert "mean over the 10 tasks" in capsys.readouterr().out
    (tmp_path / "predictions/xcopa/test-qu.jsonl").unlink()
    assert main(["xtreme", "score", *folders, "--version", "xtreme-r"]) == 3
    error = capsys.readouterr().err
    assert error.startswith("effstilts: xcopa: 1 of 11 languages are missing") and error.count("\n") == 1
    assert main(["xtreme", "score", *folders, "--version", "xtreme-r", "--partial"]) == 0
    printed = capsys.readouterr().out
    assert "* xcopa lacks qu: no official number" in printed and "all_task                  -" in printed


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xtreme", "score", str(tmp_path / "none"), str(tmp_path)]) == 3
    assert "none does not exist" in capsys.readouterr().err
    assert main(["xtreme", "score", str(tmp_path), str(tmp_path), "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err and not (tmp_path / "no").exists()
    (tmp_path / "p").mkdir()
    assert main(["xtreme", "score", str(tmp_path / "p"), str(tmp_path), "--json", str(tmp_path / "p" / "x.json")]) == 2
    assert "in the folder of predictions it would be taken for one of them" in capsys.readouterr().err
    assert main(["xtreme", "submit", "--store", str(tmp_path)]) == 2
    assert "name a run" in capsys.readouterr().err
    assert main(["xtreme", "submit", "none", "--store", str(tmp_path)]) == 5
    assert "no run named 'none'" in capsys.readouterr().err
    assert main(["xtreme"]) == 2
