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
    assert read("conll_tsv", write(w, "c", "New\tB-LOC\nYork\tI-LOC\n\n\na\tO\n")) == [
        {"tokens": ["New", "York"], "tags": ["B-LOC", "I-LOC"]},
        {"tokens": ["a"], "tags": ["O"]},
    ]
    fields = "\t_" * 6
    text = f"# id\n1-2\tdel\t_\t_{fields}\n1\tde\t_\tADP{fields}\n2\tel\t_\tDET{fields}\n2.1\tx\t_\tX{fields}\n\n"
    (sentence,) = read("conllu", write(w, "d", text))
    assert (sentence["tokens"], sentence["tags"]) == (["de", "el"], ["ADP", "DET"])
    assert sentence["deprel"] == ["_", "_"] and sentence["xpos"] == ["_", "_"]
    (row,) = read("squad_json", write(w, "e", squad("Anna ran.", 0, "Anna")))
    assert row["answers"] == {"text": ["Anna"], "answer_start": [0]} and row["title"] == "t"
    assert read("jsonl", write(w, "f", '{"a": 1}\n\n{"a": 2}\n')) == [{"a": 1}, {"a": 2}]
    assert read("json_list", write(w, "g", '[{"a": 1}]')) == [{"a": 1}]
    assert read("csv", write(w, "h", 'a,b\n"x, y",2\n')) == [{"a": "x, y", "b": "2"}]
    # A newline of its own makes a sentence of two lines, which stays one text.
    stsb = 'One, two.,"a\nb",3.4\n\n"x ""y""",z,0\n'.replace("One, two.", '"One, two."')
    texts = [row["text"] for row in read("stsb_csv", write(w, "s", stsb))]
    assert texts == ["One, two.", "a\nb", 'x "y"', "z"]
    assert read("tsv", write(w, "i", 'a\tb\n"x\t2\n')) == [{"a": '"x', "b": "2"}]
    assert read("lines", write(w, "j", "x\n\ny\u2028z\n")) == [{"text": "x"}, {"text": "y\u2028z"}]
    assert len(read("aligned_lines", write(w, "k", "x\n\ny\n"))) == 3
    assert read("hellaswag_blocks", write(w, "l", "ctx\n3\na\nb\nc\nd\nctx\n0\na\nb\nc\nd\n"))[0] == {
        "ctx": "ctx", "endings": list("abcd"), "label": "3",
    }  # fmt: skip
    assert read("bucc", write(w, "o", "zh-1\ta\nzh-2\tb\n"))[1] == {"id": "zh-2", "text": "b"}
    assert read("bucc_gold", write(w, "p", "zh-1\ten-2\n")) == [{"source_id": "zh-1", "target_id": "en-2"}]
    broken = "id\tquestion1\tquestion2\tis_duplicate\n1\ta\tb\t0\n2\tc\n\td\t1\n"
    assert [r["question1"] for r in read("qqp_tsv", write(w, "q", broken))] == ["a", "c "]
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
        ("conll_tsv", "a\tO\n\nb\t\n", ["x:3", "a word, a tab"]),
        ("conll_tsv", "a\tO\tO\n", ["x:1", "a word, a tab"]),
        ("conll_tsv", "a\nb\n", ["x:1", "the tags are stripped"]),
        ("conll_tsv", "a NN\n", ["x:1", "`format: conll`"]),
        ("conll", "-DOCSTART- -X- O\n\na NN O\nb O\n", ["x:4", "2 columns, the lines before have 3"]),
        ("conll", "a\n", ["x:1", "a word, other columns and its tag"]),
        ("conllu", "1" + "\t" * 9, ["x:1", "UPOS is empty"]),
        ("squad_json", squad("Anna ran.", -4, "ran"), ["is not at -4"]),
        ("squad_json", squad("Anna ran.", 0, ""), ["question q", "stripped"]),
        ("squad_json", squad("Anna ran.", True, "nna"), ["offset"]),
        ("squad_json", squad("Anna", 0, "Anna").replace('"answers"', '"is_impossible": false, "no"'), ["stripped"]),
        ("jsonl", '{"a": "\\ud83d"}', ["x:1", "surrogate"]),
        ("csv", 'a,b\n1,"2\n', ["x:2", "not valid CSV"]),
        ("csv", 'a,b\n1,"x\ny"\n3\n', ["x:4", "1 columns"]),
        ("tsv", "a\ta\n1\t2\n", ["x:1", "stands twice"]),
        ("tsv", "a\tb\n1\t2\t3\n", ["x:2", "3 columns, the header has 2 (a, b)"]),
        ("bucc", "a\tx\na\ty\n", ["x:2", "'a'", "stands twice"]),
        ("bucc", "only text\n", ["x:1", "id, text"]),
        ("qqp_tsv", "a\tb\n1\n2\t3\t4\n", ["x:2", "columns, the header has 2"]),
        ("conllu", "1\tde\n", ["x:1", "CoNLL-U has 10"]),
        ("squad_json", squad("Anna ran.", 1, "Anna"), ["question q", "'Anna' is not at 1", "'nna '"]),
        ("squad_json", '{"data": [{}]}', ["SQuAD's form"]),
        ("squad_json", '{"data"', ["not valid JSON"]),
        ("jsonl", '{"a": 1}\n{"a"\n', ["x:2", "not valid JSON"]),
        ("jsonl", "[1]\n", ["x:1", "expected an object"]),
        ("json_list", '{"a": 1}', ["JSON array"]),
        ("json_list", "[1]", ["item 1"]),
        ("csv", "a,b\n1\n", ["x:2", "1 columns, the header has 2"]),
        ("stsb_csv", "a,b,1\na,b\n", ["x:2", "2 columns, expected 3"]),
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
    # The line is named though it stands in the middle of a block that is read at once.
    (tmp_path / "latin.txt").write_bytes("gut\nschön\ngut\n".encode("latin-1"))
    for name in ("lines", "csv", "json_list"):
        with pytest.raises(DataError, match=r"latin\.txt:2: not UTF-8"):
            read(name, tmp_path / "latin.txt")
    (tmp_path / "cut.txt.gz").write_bytes((tmp_path / "a.txt.gz").read_bytes()[:-6])
    with pytest.raises(DataError, match="cannot be read"):
        read("lines", tmp_path / "cut.txt.gz")
    with pytest.raises(DataError, match="cannot open"):
        read("lines", tmp_path / "nothing.txt")


def test_repeated_ids_are_told_apart(tmp_path: Path) -> None:
    rows = read("squad_json", write(tmp_path, "x", squad("Anna ran.", 0, "Anna", ("1", "1", "2"))))
    assert [row["id"] for row in rows] == ["1", "1#2", "2"]


def test_a_language_prefix_is_one_only_if_all_words_have_it(tmp_path: Path) -> None:
    assert read("conll_tsv", write(tmp_path, "a", "en:New\tB-LOC\nen:York\tI-LOC\n\nen::\tO\nen:\tO\n")) == [
        {"tokens": ["New", "York"], "tags": ["B-LOC", "I-LOC"]},
        {"tokens": [":", "en:"], "tags": ["O", "O"]},
    ]
    text = "en:a\tO\nen:b\tO\n\nc\tO\n"
    assert read("conll_tsv", write(tmp_path, "b", text))[0]["tokens"] == ["en:a", "en:b"]
    text = "en:a\tO\n\n" * 20
    with pytest.raises(DataError, match=r"c:41: expected the prefix 'en:'"):
        read("conll_tsv", write(tmp_path, "c", text + "b\tO\n"))
    assert len(read("conll_tsv", tmp_path / "b")) == 2


def test_lines_end_at_newlines_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes("\ufeffa\rb\r\n\u2028c\x0b\x85\n\r".encode())
    assert read("aligned_lines", path) == [{"text": "a\rb"}, {"text": "\u2028c\x0b\x85"}, {"text": ""}]
    path.write_bytes(b"\xef\xbb\xbf[1]")
    with pytest.raises(DataError, match="item 1"):
        read("json_list", path)
    rows = list(READERS["csv"](write(tmp_path, "y", 'a,b\n"x\ny",1\n2,3\n')))
    assert [place[-2:] for _, place in rows] == [":2", ":4"]


@pytest.mark.parametrize("name", sorted(READERS))
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    empty = {
        "squad_json": '{"data": []}',
        "xquad_r_json": '{"data": []}',
        "json_list": "[]",
        "csv": "a,b\n",
        "tsv": "a\tb\n",
    }.get(name, "")
    with pytest.raises(DataError, match="x holds no rows"):
        read(name, write(tmp_path, "x", empty))


def test_a_question_without_an_answer(tmp_path: Path) -> None:
    text = squad("Anna ran.", 5, "ran").replace('"answers"', '"is_impossible": true, "plausible_answers"')
    assert read("squad_json", write(tmp_path, "x", text))[0]["answers"] == {"text": [], "answer_start": []}


# A byte order mark at a file's beginning is none of its text.
word = st.text(
    st.characters(blacklist_categories=("Zs", "Cc", "Cs", "Zl", "Zp"), blacklist_characters="\ufeff"),
    min_size=1,
    max_size=6,
)


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


field = st.text(
    st.characters(blacklist_characters="\t\n\r\ufeff", blacklist_categories=("Cs",)), min_size=1, max_size=8
)


@given(st.lists(st.tuples(field, field, field), min_size=1, max_size=5))
def test_tsv_round_trip(rows: list[tuple[str, str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "x", "a\tb\tc\n" + "".join("\t".join(row) + "\n" for row in rows))
        assert [tuple(row.values()) for row in read("tsv", path)] == rows
        path = write(Path(folder), "y", "\ufeff" + "".join("\t".join(row) + "\n" for row in rows))
        assert [tuple(row.values()) for row in read("xnli_tsv", path)] == rows


@given(st.lists(st.tuples(field, field), min_size=1, max_size=5))
def test_csv_round_trip(rows: list[tuple[str, str]]) -> None:
    import csv
    import io
    import tempfile

    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(text.getvalue().encode())
        assert [tuple(row.values()) for row in read("csv", path)] == rows


@pytest.mark.parametrize(
    ("question", "odd"),
    [
        ({"id": "q", "question": "b", "answers": [{"text": "a"}]}, "KeyError: 'answer_start'"),
        ({"id": "q", "answers": []}, "KeyError: 'question'"),
        ({"question": "b", "answers": []}, "KeyError: 'id'"),
        ("b", "TypeError"),
    ],
)
def test_a_broken_question_is_named_by_its_place(tmp_path: Path, question: Any, odd: str) -> None:
    good = {"id": "p", "question": "b", "answers": [{"text": "a", "answer_start": 0}]}
    articles = [{"paragraphs": []}, {"paragraphs": [{"context": "a", "qas": [good, question]}]}]
    (tmp_path / "a.json").write_text(json.dumps({"data": articles}))
    place = r"a\.json, article 2, paragraph 1, question 2: not in SQuAD's form"
    with pytest.raises(DataError, match=f"{place} .*{odd}"):
        read("squad_json", tmp_path / "a.json")


def test_conll_has_the_word_first_and_its_tag_last(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- -X- O\n\nNew NNP B-NP B-LOC\nYork NNP I-NP I-LOC\n\n-DOCSTART- -X- -X- O\n\n# NN B-NP O\n"
    assert read("conll", write(tmp_path, "a", text)) == [
        {"tokens": ["New", "York"], "tags": ["B-LOC", "I-LOC"]},
        {"tokens": ["#"], "tags": ["O"]},
    ]
    tabbed = read("conll", write(tmp_path, "b", "a\tX\n1\u00a0000 \tY\n \t\n"))
    assert tabbed == [{"tokens": ["a", "1\u00a0000"], "tags": ["X", "Y"]}]
