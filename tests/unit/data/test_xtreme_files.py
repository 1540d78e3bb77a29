"""Files of XTREME's layout: what is written is read back, and what is broken is named with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effstilts.data.xtreme_files import read_gold, read_predictions, write_gold, write_predictions
from effstilts.errors import DataError
from effstilts.evaluation.xtreme import BENCHMARKS

TARGETS = {**BENCHMARKS["xtreme"].targets, **BENCHMARKS["xtreme-r"].targets}
ids = st.text("abc#-0", min_size=1, max_size=4)
texts = st.text(max_size=8).filter(lambda text: text.isprintable() or "\n" in text)
tags = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=6)
pair = st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda p: (f"de-{p[0]:09}", f"en-{p[1]:09}"))
CONTENT: dict[str, st.SearchStrategy[Any]] = {
    "xnli": st.lists(st.sampled_from(["neutral", "entailment"]), min_size=1),
    "tatoeba": st.lists(st.integers(0, 999).map(str), min_size=1),
    "udpos": st.lists(st.lists(tags, min_size=1), min_size=1),
    "bucc2018": st.lists(pair),
    "xcopa": st.lists(st.sampled_from([0, 1]), min_size=1),
    "mewslix": st.dictionaries(ids, st.lists(ids), min_size=1),
    "xquad": st.dictionaries(ids, texts, min_size=1).filter(lambda d: "data" not in d),
}


@pytest.mark.parametrize("name", CONTENT)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path: Path, name: str, data: st.DataObject) -> None:
    target, content = TARGETS[name], data.draw(CONTENT[name])
    path = tmp_path / target.file("de")
    write_predictions(target, path, content)
    assert read_predictions(target, path, "de").content == content


@given(gold=st.lists(st.tuples(ids, st.lists(texts)), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gold_answers_are_read_back_with_repeated_ids(tmp_path: Path, gold: list[tuple[str, list[str]]]) -> None:
    path = tmp_path / "test-de.json"
    write_gold(TARGETS["xquad"], path, gold)
    assert read_gold(TARGETS["xquad"], path, "de").content == gold


def test_the_official_spellings_of_a_file_are_read() -> None:
    assert {name: target.file("en") for name, target in TARGETS.items()} == {
        **{name: f"{name}/test-en.tsv" for name in ("xnli", "pawsx", "panx", "udpos", "bucc2018", "tatoeba")},
        **{name: f"{name}/test-en.json" for name in ("xquad", "mlqa", "tydiqa", "mewslix", "lareqa")},
        "xcopa": "xcopa/test-en.jsonl",
    }


@pytest.mark.parametrize(
    ("name", "text", "content"),
    [
        ("xnli", "\ufeffneutral\r\n entailment \n", ["neutral", "entailment"]),
        ("udpos", "\n\nDET\nNOUN\n\n \n\nX", [["DET", "NOUN"], ["X"]]),
        ("bucc2018", "", []),
        ("bucc2018", "de-1\ten-2\r\n", [("de-1", "en-2")]),
        ("xquad", '{"data": {"q": "text"}}', {"q": "text"}),
    ],
)
def test_what_the_official_script_takes(tmp_path: Path, name: str, text: str, content: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    assert read_predictions(TARGETS[name], path, "de").content == content


def test_gold_without_its_outer_object_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('[{"paragraphs": [{"qas": [{"id": 7, "answers": [{"text": "a"}]}]}]}]')
    assert read_gold(TARGETS["mlqa"], path, "de").content == [("7", ["a"])]


BROKEN: list[tuple[str, bytes, str]] = [
    ("xnli", b"neutral\n\nneutral\n", ":2: no label"),
    ("xnli", b"neutral\n2\n", ":2: the label '2' is not one of contradiction, entailment, neutral"),
    ("xnli", b"neutral\tA man sleeps.\n", ":1: several columns"),
    ("xnli", b"", "holds no rows"),
    ("xnli", b"neutral\n\xff\xfe\n", ":2: not UTF-8"),
    ("pawsx", b"1\nparaphrase\n", ":2: the label 'paraphrase' is not one of 0, 1"),
    ("udpos", b"DET\nthe\tDET\n", ":2: expected one tag a line"),
    ("panx", b"\n\n", "holds no rows"),
    ("bucc2018", b"de-1\ten-1\nen-1\tde-1\n", ":2: expected de-NUMBER, a tab and en-NUMBER"),
    ("bucc2018", b"de-1 en-1\n", ":1: expected de-NUMBER"),
    ("bucc2018", b"de-1\ten-1\n\n", ":2: expected de-NUMBER"),
    ("bucc2018", b"de-1\ten-1\t0.93\n", ":1: expected de-NUMBER"),
    ("xcopa", b'{"label": 1}\n{"label": "1"}\n', ":2: expected"),
    ("xcopa", b'{"label": 1}\n{"label": true}\n', ":2: expected"),
    ("xcopa", b'{"label": 1}\n{"labels": 1}\n', ":2: expected"),
    ("xcopa", b'{"label": 1}\n\n', ":2: expected"),
    ("xcopa", b'{"label": 1\n', ":1: not valid JSON"),
    ("xquad", b'{"q": null}', "question 'q': expected the answer's text"),
    ("xquad", b'["q"]', "expected a JSON object"),
    ("xquad", b'{"q": "a"', "not valid JSON"),
    ("xquad", b"{}", "holds no rows"),
    ("mewslix", b'{"m": "Q1"}', "'m': expected a list of candidates"),
    ("mewslix", b'{"m": [1]}', "'m': expected a list of candidates"),
]


@pytest.mark.parametrize(("name", "raw", "message"), BROKEN)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(raw)
    with pytest.raises(DataError) as error:
        read_predictions(TARGETS[name], path, "de")
    assert f"{path}" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("bucc2018", b"", "holds no rows"),
        ("xquad", b'{"data": []}', "holds no rows"),
        ("xquad", b'{"data": [{"paragraphs": [{"qas": [{"id": "q"}]}]}]}', "not in SQuAD's form"),
        ("xquad", b'{"q": "a"}', "not in SQuAD's form"),
        ("xquad", b'{"data": [{"paragraphs": [{"qas": [{"id": "q", "answers": [{"text": 3}]}]}]}]}', "is no text"),
        ("xquad", b"3", "not in SQuAD's form"),
    ],
)
def test_a_broken_label_file_is_named(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_gold(TARGETS[name], path, "de")
