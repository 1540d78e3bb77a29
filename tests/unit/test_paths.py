"""Paths that a user gives: what lies there stays, and what cannot be written is one line."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from effstilts.cli import main
from effstilts.errors import StoreError
from effstilts.retrieval import blocks
from effstilts.store import write_atomic


@pytest.fixture
def model(encoder: object, tmp_path: Path) -> str:
    from effstilts.model.opening import save

    save(encoder, tmp_path / "model")  # type: ignore[arg-type]
    (tmp_path / "a.txt").write_text("one two\nthree\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("one\ntwo three\n", encoding="utf-8")
    return str(tmp_path / "model")


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str, said: str) -> None:
    capsys.readouterr()
    assert main(list(words)) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error


def test_a_result_never_lies_over_what_is_read(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ("--model", model, "--offline")
    refused(capsys, 2, "search", "a.txt", "b.txt", *common, "--out", "./b.txt", said="is the file b.txt that is read")
    (tmp_path / "link").symlink_to("a.txt")
    refused(capsys, 2, "mine", "a.txt", "b.txt", *common, "--out", "link", said="is the file a.txt that is read")
    assert (tmp_path / "a.txt").read_text() == "one two\nthree\n"
    with gzip.open(tmp_path / "c.gz", "wt") as file:
        file.write("one\n")
    refused(capsys, 2, "mine", "c.gz", "b.txt", *common, "--out", "c.gz", said="c.gz that is read")


def test_a_folder_of_somebody_else_is_no_work_folder(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.work").mkdir()
    (tmp_path / "thesis.work" / "chapter.txt").write_text("precious")
    words = ("mine", "a.txt", "b.txt", "--model", model, "--offline")
    refused(capsys, 2, *words, "--out", "thesis", said="thesis.work is in the way")
    assert (tmp_path / "thesis.work" / "chapter.txt").read_text() == "precious"
    (tmp_path / "p.work").write_text("")
    refused(capsys, 2, *words, "--out", "p", said="p.work is in the way")


def test_another_models_unfinished_work_is_not_written_over(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("mine", "a.txt", "b.txt", "--offline", "--out", "out")
    with monkeypatch.context() as killed:
        killed.setattr(blocks, "both_ways", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*words, "--model", model]) == 130
    begun = {path: path.read_bytes() for path in Path("out.work").rglob("vectors.*")}
    assert len(begun) == 4
    refused(capsys, 2, *words, "--model", "effstilts/mini", said="out.work holds vectors of another model")
    refused(capsys, 2, *words, "--model", model, "--pooling", "cls", said="holds vectors of another pooling")
    assert {path: path.read_bytes() for path in Path("out.work").rglob("vectors.*")} == begun
    assert main([*words, "--model", model, "--quiet"]) == 0
    assert Path("out").is_file() and not Path("out.work").exists()


def test_links_stay_links_and_devices_devices(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="no file"):
        write_atomic(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()


def test_what_is_missing_or_odd_is_said_before_a_model_opens(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, 2, "mine", "--model", "nothing", said="name the text file SOURCE")
    refused(capsys, 2, "search", "a.txt", "--model", "nothing", said="name the text file CORPUS")
    refused(capsys, 3, "mine", "model", "b.txt", "--model", "nothing", said="is a folder: a text file is needed")
    refused(capsys, 3, "search", "a.txt", "none.txt", "--model", "nothing", said="no file none.txt")
    odd = ("mine", "a.txt", "b.txt", "--model", "nothing", "--threshold", "nan")
    refused(capsys, 2, *odd, said="--threshold nan")
    refused(capsys, 2, "embed", "--model", model, "--out", "v", said="name a text file")
    refused(capsys, 2, "embed", "a.txt", "--model", model, "--out", "v", "--max-length", "1", said="at least 3")
    refused(capsys, 2, "retrieve", model, "--tasks", "", said="name a task")
    words = ("retrieve", model, "--tasks", "synthetic/tatoeba", "--languages", "qaa,zz", "--picture", "none")
    refused(capsys, 2, *words, "--offline", said="no language 'zz' in the tasks named")
    refused(capsys, 2, "tasks", "--check", "xnli", "--seconds", "0", said="--seconds 0")


def test_a_path_that_cannot_be_is_one_line(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, 5, "run", "quickstart", "--store", "a.txt", said="a part of the path is a file")
    refused(capsys, 5, "embed", "a.txt", "--model", model, "--out", "a.txt", "--offline", said="a part of the path")
    refused(capsys, 5, "export", model, "a.txt/x", "--offline", said="a part of the path is a file")
    refused(capsys, 5, "show", "--store", "a.txt", said="the store a.txt is no folder")
    refused(capsys, 3, "xtreme", "score", "a.txt", "a.txt", said="a.txt is no folder")
    refused(capsys, 5, "show", "x", "--store", "none", said="no run named 'x' in none; it holds no runs")
    refused(capsys, 5, "export", model, "out", "--seed", "3", said="--arm and --seed are for a run")


def test_a_layer_that_is_not_there_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "quickstart", "--store", str(tmp_path / "s"), "--offline", "--quiet")
    refused(capsys, 4, *words, "--set", "retrieval.layer=99", said="hidden states 0 to 3")
    refused(capsys, 2, *words, "--set", "retrieval.layer=-5", said="counted from 0")
