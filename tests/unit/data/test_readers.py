from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effstilts.data.readers import READERS
from effstilts.errors import DataError
from effstilts.tasks.task import FORMAT_OF_ENDING, FORMATS


def read(name: str, path: Path) -> list[dict[str, Any]]:
    return [row for row, _ in READERS[name](path)]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def squad(context: str, start: int, text: str, ids: tuple[str, ...] = ("q",)) -> str:
    questions = [{"id": i, "question": "who?", "answers": [{"text": text, "answer_start": start}]} for i in ids]
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]})


def test_each_format(tmp_path: Path) -> None:
    w = tmp_path
    assert read("xnli_tsv", write(w, "a", 'a "b\tc\tneutral\nd\te\n')) == [
        {"premise": 'a "b', "hypothesis": "c", "label": "neutral"},
        {"premise": "d", "hypothesis": "e", "label": None},
    ]
    assert read("pawsx_tsv", write(w, "b", "a\tb\t1\n"))[0]["label"] == "1"
    assert read("conll_tsv", write(w, "c", "en:New\tB-LOC\nen:York\tI-LOC\n\n\na\tO\n")) == [
        {"tokens": ["New", "York"], "tags": ["B-LOC", "I-LOC"]},
        {"tokens": ["a"], "tags": ["O"]},
    ]
    fields = "\t_" * 6
    text = f"# id\n1-2\tdel\t_\t_{fields}\n1\tde\t_\tADP{fields}\n2\tel\t_\tDET{fields}\n2.1\tx\t_\tX{fields}\n\n"
    assert read("conllu", write(w, "d", text)) == [{"tokens": ["de", "el"], "tags": ["ADP", "DET"]}]
    (row,) = read("squad_json", write(w, "e", squad("Anna ran.", 0, "Anna")))
    assert row["answers"] == {"text": ["Anna"], "answer_start": [0]} and row["title"] == "t"
    assert read("jsonl", write(w, "f", '{"a": 1}\n\n{"a": 2}\n')) == [{"a": 1}, {"a": 2}]
    assert read("json_list", write(w, "g", '[{"a": 1}]')) == [{"a": 1}]
    assert read("csv", write(w, "h", 'a,b\n"x, y",2\n')) == [{"a": "x, y", "b": "2"}]
    assert read("tsv", write(w, "i", 'a\tb\n"x\t2\n')) == [{"a": '"x', "b": "2"}]
    assert read("lines", write(w, "j", "x\n\ny\u2028z\n")) == [{"text": "x"}, {"text": "y\u2028z"}]
    assert len(read("aligned_lines", write(w, "k", "x\n\ny\n"))) == 3
    assert read("hellaswag_blocks", write(w, "l", "ctx\n3\na\nb\nc\nd\nctx\n0\na\nb\nc\nd\n"))[0] == {
        "ctx": "ctx", "endings": list("abcd"), "label": "3",
    }  # fmt: skip
    for text in ("a b\tN N/N\n", "a|||N b|||N/N\n"):
        assert read("ccg_tsv", write(w, "m", text)) == [{"tokens": ["a", "b"], "tags": ["N", "N/N"]}]
    choices = [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]
    line = json.dumps({"id": "1", "answerKey": "B", "question": {"stem": "s", "choices": choices}})
    assert read("commonsenseqa_jsonl", write(w, "n", line))[0]["choices"] == {"label": ["A", "B"], "text": ["x", "y"]}


@pytest.mark.parametrize(
    ("reader", "text", "words"),
    [
        ("xnli_tsv", "a\tb\tneutral\nonly one\n", ["x:2", "1 columns, expected 3", "premise"]),
        ("conll_tsv", "a\tO\nb\n", ["x:2", "a word, a tab"]),
        ("conllu", "1\tde\n", ["x:1", "CoNLL-U has 10"]),
        ("squad_json", squad("Anna ran.", 1, "Anna"), ["question q", "'Anna' is not at 1", "'nna '"]),
        ("squad_json", '{"data": [{}]}', ["SQuAD's form"]),
        ("squad_json", '{"data"', ["not valid JSON"]),
        ("jsonl", '{"a": 1}\n{"a"\n', ["x:2", "not valid JSON"]),
        ("jsonl", "[1]\n", ["x:1", "expected an object"]),
        ("json_list", '{"a": 1}', ["JSON array"]),
        ("json_list", "[1]", ["item 1"]),
        ("csv", "a,b\n1\n", ["x:2", "1 columns, the header has 2"]),
        ("hellaswag_blocks", "ctx\n9\na\nb\nc\nd\n", ["x:1", "'9'"]),
        ("hellaswag_blocks", "ctx\n1\na\n", ["3 lines, expected 6"]),
        ("ccg_tsv", "a b\tN\n", ["x:1", "2 words but 1 tags"]),
        ("commonsenseqa_jsonl", '{"id": 1}', ["x:1", "CommonsenseQA's form"]),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, reader: str, text: str, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(reader, write(tmp_path, "x", text))
    for word in words:
        assert word in str(caught.value)


def test_every_reader_can_be_declared() -> None:
    assert set(FORMATS) == set(READERS) and set(FORMAT_OF_ENDING.values()) <= set(READERS)


def test_compressed_files_and_broken_encodings(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("ä\n")
    with bz2.open(tmp_path / "a.txt.bz2", "wt", encoding="utf-8") as file:
        file.write("ä\n")
    for name in ("a.txt.gz", "a.txt.bz2"):
        assert read("lines", tmp_path / name) == [{"text": "ä"}]
    (tmp_path / "latin.txt").write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read("lines", tmp_path / "latin.txt")
    (tmp_path / "cut.txt.gz").write_bytes((tmp_path / "a.txt.gz").read_bytes()[:-6])
    with pytest.raises(DataError, match="cannot be read"):
        read("lines", tmp_path / "cut.txt.gz")
    with pytest.raises(DataError, match="cannot open"):
        read("lines", tmp_path / "nothing.txt")


def test_repeated_ids_are_told_apart(tmp_path: Path) -> None:
    rows = read("squad_json", write(tmp_path, "x", squad("Anna ran.", 0, "Anna", ("1", "1", "2"))))
    assert [row["id"] for row in rows] == ["1", "1#2", "2"]


word = st.text(st.characters(blacklist_categories=("Zs", "Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=6)


@given(st.lists(st.lists(st.tuples(word, st.sampled_from(["O", "B-PER"])), min_size=2, max_size=5), min_size=1))
def test_conll_round_trip(sentences: list[list[tuple[str, str]]]) -> None:
    import tempfile

    sentences = [[(token.replace(":", ";"), tag) for token, tag in s] for s in sentences]
    text = "\n".join("".join(f"{token}\t{tag}\n" for token, tag in s) for s in sentences)
    with tempfile.TemporaryDirectory() as folder:
        rows = read("conll_tsv", write(Path(folder), "x", text))
    assert [list(zip(r["tokens"], r["tags"], strict=True)) for r in rows] == sentences


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200))
def test_random_bytes_give_rows_or_our_error(reader: str, content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        try:
            read(reader, path)
        except DataError as error:
            assert "x" in str(error)
