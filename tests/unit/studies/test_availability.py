"""`effstilts tasks --check` and `effstilts data fetch`, on tiny files and a local hub-shaped repository."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from effstilts.cli import main
from effstilts.data.sources import DataConfig
from effstilts.studies.availability import COLUMNS, check
from effstilts.tasks import registry
from effstilts.tasks.registry import get
from effstilts.tasks.task import Hub


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """XNLI in two languages, SNLI with rows to drop, and an empty cache of the hub."""
    monkeypatch.delenv("EFFSTILTS_DATA", raising=False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    (root / "xtreme" / "xnli").mkdir(parents=True)
    (root / "snli").mkdir()
    for code in ("en", "de"):
        (root / "xtreme" / "xnli" / f"dev-{code}.tsv").write_text("one two\tthree\tneutral\na\tb c\tentailment\n")
    rows = [{"sentence1": "p", "sentence2": "h", "gold_label": label} for label in ("neutral", "-")]
    (root / "snli" / "snli_1.0_dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def table(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    """The printed table by task and column."""
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    starts = [lines[0].index(name) for name in COLUMNS]
    found = {}
    for line in lines[1:]:
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        found[cells[0]] = dict(zip(COLUMNS, cells, strict=True))
    return found


def run_check(folder: Path, *words: str) -> int:
    return main(["tasks", "--check", *words, "--data", str(folder), "--offline"])


def test_a_row_a_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check(folder, "xnli", "snli", "mnli", "anli+", "synthetic/tatoeba") == 0
    rows = table(capsys)
    xnli = rows["xnli"]
    assert [xnli[c] for c in ("source", "rows", "languages", "labels", "tokens", "status")] == [
        "files", "4", "2", "2", "12", "ok: dev; no test",
    ]  # fmt: skip
    assert rows["snli"]["rows"] == "1" and rows["snli"]["status"] == "dev: 1 rows without a usable label dropped"
    assert rows["mnli"]["status"].startswith("not reachable") and "multinli_1.0_train.jsonl" in rows["mnli"]["status"]
    assert rows["anli+"]["status"].startswith("not reachable: mnli")
    assert rows["synthetic/tatoeba"]["rows"] == "2,000" and rows["synthetic/tatoeba"]["source"] == "synthetic"


def test_a_broken_source_that_is_reached_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "xtreme" / "xnli" / "dev-de.tsv").write_text("only one\n")
    assert run_check(folder, "xnli", "mnli") == 3
    rows = table(capsys)
    assert "broken" in rows["xnli"]["status"] and "dev-de.tsv:1" in rows["xnli"]["status"]
    assert "not reachable" in rows["mnli"]["status"]


def test_the_time_is_bounded(folder: Path) -> None:
    began = time.monotonic()
    text, sound = check(["synthetic/text", "synthetic/mnli"], DataConfig(folder), seconds=0.2)
    assert time.monotonic() - began < 5 and sound
    first = text.split("\n")[1]
    assert "+" in first and "the rest is not read in this time" in first


def test_tokens_are_those_of_a_tokenizer_if_one_is_given(folder: Path) -> None:
    text, _ = check(["xnli"], DataConfig(folder, offline=True), seconds=9, count=len)
    assert text.split("\n")[1].split()[6] == str(2 * len("one twothreeab c"))


def test_offline_asks_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **options: asked.append(args))
    monkeypatch.setattr("socket.socket.connect", lambda *args: asked.append(args))
    text, sound = check([], DataConfig(folder, offline=True), seconds=0.05)
    assert sound and not asked and len(text.split("\n")) == len(registry.known_tasks()) + 1


def test_without_a_network_the_hub_is_asked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []

    def refuse(self: Any, name: str, **options: Any) -> Any:
        asked.append(name)
        raise ConnectionError("no route")

    monkeypatch.setattr("effstilts.data.hub._REVISIONS", {})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    text, sound = check(["mnli", "qqp", "squad"], DataConfig(), seconds=1)
    assert sound and len(asked) == 1 and text.count("the hub does not answer (ConnectionError)") == 3


@pytest.fixture
def hubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Social IQa whose hub set is a local repository."""
    import datasets

    repository = tmp_path / "siqa"
    row = {"context": "c.", "question": "q?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}
    for split, count in (("train", 5), ("validation", 2)):
        repository.mkdir(exist_ok=True)
        datasets.Dataset.from_list([row] * count).to_parquet(repository / f"{split}-00000-of-00001.parquet")
    siqa = dataclasses.replace(get("siqa"), hub=Hub(str(repository), {"train": "train", "dev": "validation"}))
    known = dict(registry.known_tasks()) | {"siqa": siqa}
    monkeypatch.setattr(registry, "known_tasks", lambda: known)


def test_fetch_downloads_and_says_what(hubbed: None, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "siqa"]) == 0
    said = capsys.readouterr().err
    assert "siqa train en: 5 rows" in said and "siqa dev en: 2 rows" in said
    assert (folder.parent / "cache").is_dir()
    # What cannot be had is said, and the exit code with it; what the target trains on comes along.
    assert main(["data", "fetch", "ccg"]) == 3
    assert "ccg: nothing to fetch: its rows have no hub set" in capsys.readouterr().err
    assert main(["data", "fetch", "xnli", "--data", str(folder)]) == 3
    said = capsys.readouterr().err
    assert "xnli dev de: in the data folder" in said and "mnli: " in said
    for words, message in (
        (["data", "fetch"], "name one or more tasks"),
        (["data", "fetch", "siqa", "--offline"], "--offline"),
        (["data", "fetch", "siqua"], "did you mean 'siqa'"),
        (["data", "fetch", "siqa", "--languages", "de"], "no language 'de'"),
        (["tasks", "mnli"], "--check"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
