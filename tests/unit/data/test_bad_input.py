"""What real files hold and should not: each is counted, named or refused, and none is dropped without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from effstilts.data.sources import DataConfig, load
from effstilts.errors import DataError, RecipeError
from effstilts.kinds import kind_of
from effstilts.kinds.kind import lost_answers
from effstilts.tasks.registry import declare, get
from effstilts.tasks.task import SplitName

LONG = "word " * 20_000


def put(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def squad(context: str, *questions: dict[str, Any]) -> str:
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]})


def question(name: str, text: str, start: int) -> dict[str, Any]:
    return {"id": name, "question": "who?", "answers": [{"text": text, "answer_start": start}]}


# What stands in which official file, how it is asked for, and the words of the refusal.
REFUSED: dict[str, tuple[str, str | bytes, str, SplitName, str, list[str]]] = {
    "a column too few": (
        "xtreme/xnli/dev-de.tsv", "a\tb\tneutral\nonly\n", "xnli", "dev", "de",
        ["dev-de.tsv:2", "1 columns, expected 3"],
    ),
    "another header": (
        "qqp/dev.tsv", "id\tq1\tq2\tlabel\n1\ta\tb\t0\n", "qqp", "dev", "en", ["dev.tsv:2", "'question2'", "q1, q2"],
    ),
    "two encodings in a file": (
        "xtreme/panx/dev-de.tsv", b"gut\tO\n\n" + "schön\tO\n".encode("latin-1"), "panx", "dev", "de",
        ["dev-de.tsv:3", "not UTF-8", "0xf6"],
    ),
    "utf-16": (
        "xcopa/val.it.jsonl", '{"premise": "a"}\n'.encode("utf-16"), "xcopa", "dev", "it", ["val.it.jsonl:1", "UTF-8"],
    ),
    "an empty context": (
        "xquad/xquad.de.json", squad("", question("q7", "Anna", 0)), "xquad", "test", "de",
        ["q7", "'Anna' is not at 0"],
    ),
    "an answer elsewhere": (
        "xquad/xquad.de.json", squad("Anna ran.", question("q7", "Anna", 3)), "xquad", "test", "de", ["q7", "not at 3"],
    ),
    "stripped answers": (
        "xquad/xquad.de.json", squad("Anna.", {"id": "q7", "question": "?", "answers": []}), "xquad", "test", "de",
        ["q7", "stripped"],
    ),
    "stripped labels": (
        "xtreme/pawsx/dev-ja.tsv", "a\tb\n", "pawsx", "dev", "ja", ["dev-ja.tsv:1", "label is stripped"],
    ),
    "stripped tags": (
        "xtreme/udpos/dev-ar.tsv", "kalb\n", "udpos", "dev", "ar", ["dev-ar.tsv:1", "tags are stripped"],
    ),
    "a choice without its label": (
        "xcopa/test.et.jsonl",
        '{"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "idx": 0}\n', "xcopa", "test", "et",
        ["test.et.jsonl:1", "needs a column 'label'"],
    ),
    "a tag outside the set": (
        "xtreme/udpos/dev-ar.tsv", "kalb\tNN\n", "udpos", "dev", "ar", ["dev-ar.tsv:1", "'NN' is not one of ADJ"],
    ),
    "tags that do not match the words": (
        "ccg/dev.tsv", "a b\tN\n", "ccg", "dev", "en", ["dev.tsv:1", "2 words but 1 tags"],
    ),
    "an id that stands twice": (
        "xtreme/bucc2018/zh-en.dev.zh", "zh-1\ta\nzh-1\tb\n", "bucc2018", "dev", "zh",
        ["zh-en.dev.zh:2", "stands twice"],
    ),
    "lines that are not aligned": (
        "tatoeba/tatoeba.deu-eng.deu", "eins\nzwei\n", "tatoeba", "test", "de", ["2 lines", "1: they are not aligned"],
    ),
    "half of a sign": (
        "xcopa/val.it.jsonl", '{"premise": "\\ud83d"}\n', "xcopa", "dev", "it", ["val.it.jsonl:1", "surrogate"],
    ),
    "a derivation cut short": (
        "ccg/AUTO/00/wsj_0001.auto", "ID=wsj_0001.1 PARSER=GOLD\n(<T S 0 1> (<L N NN NN x", "ccg", "dev", "en",
        ["wsj_0001.auto:2", "derivation"],
    ),
    "an answer outside every sentence": (
        "lareqa/de.json",
        json.dumps({"data": [{"paragraphs": [
            {"context": "xAnna ran.", "sentences": ["Anna ran."], "sentence_breaks": [[1, 10]],
             "qas": [question("q7", "x", 0)]}]}]}),
        "lareqa", "test", "de", ["q7", "before the first sentence"],
    ),
    "an article without its text": (
        "mewslix/wikinews_mentions-dev.jsonl",
        json.dumps({"context": {"text": "", "language": "de"}, "mentions": [
            {"example_id": "e", "entity_id": "Q1", "mention_span": {"start": 0, "end": 1, "text": "a"}}]}),
        "mewslix", "dev", "de", ["mentions-dev.jsonl:1", "get-mewsli-x.sh"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_it_is_refused_by_name(case: str, tmp_path: Path) -> None:
    name, content, task, split, language, words = REFUSED[case]
    put(tmp_path, "xtreme/bucc2018/zh-en.dev.en", "en-1\tx\n")
    put(tmp_path, "xtreme/bucc2018/zh-en.dev.gold", "zh-1\ten-1\n")
    put(tmp_path, "tatoeba/tatoeba.deu-eng.eng", "one\n")
    put(tmp_path, "mewslix/candidate_set_entities.jsonl", '{"entity_id": "Q1", "title": "t", "description": "d"}\n')
    put(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        load(get(task), split, language, DataConfig(tmp_path, source="files"))
    for word in words:
        assert word in str(caught.value)


def test_a_mark_at_the_beginning_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    config = DataConfig(tmp_path, source="files")
    put(tmp_path, "xtreme/xnli/dev-fr.tsv", b"\xef\xbb\xbfun\tdeux\tneutral\r\ntrois\tquatre\tentailment\r\n")
    rows = load(get("xnli"), "dev", "fr", config).examples
    assert [(r["text"], r["label"]) for r in rows] == [("un", "neutral"), ("trois", "entailment")]
    put(tmp_path, "xtreme/panx/dev-fr.tsv", b"\xef\xbb\xbfParis\tB-LOC\r\n\r\nici\tO\r\n")
    assert [r["tokens"] for r in load(get("panx"), "dev", "fr", config).examples] == [["Paris"], ["ici"]]
    put(tmp_path, "xquad/xquad.de.json", b"\xef\xbb\xbf" + squad("Anna ran.", question("1", "Anna", 0)).encode())
    assert len(load(get("xquad"), "test", "de", config).examples) == 1


def test_rows_that_go_by_declaration_are_counted(tmp_path: Path) -> None:
    rows = [{"sentence1": "p", "sentence2": "h", "gold_label": label} for label in ("neutral", "-", "entailment", "-")]
    put(tmp_path, "snli/snli_1.0_dev.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    loaded = load(get("snli"), "dev", "en", DataConfig(tmp_path, source="files"))
    assert len(loaded.examples) == 2 and loaded.dropped == {"-": 2}


def test_right_to_left_and_zero_width_characters_stay(tmp_path: Path, tokenizer: Any) -> None:
    """Offsets count characters, those without width too; the answer decoded is the exact text of the context."""
    context = "\u200fقال \u200cمحمد\u200d إن \u2067آنا\u2069 ركضت."
    start = context.index("آنا")
    put(tmp_path, "xquad/xquad.ar.json", squad(context, question("1", "آنا", start)))
    (row,) = load(get("xquad"), "test", "ar", DataConfig(tmp_path)).examples
    assert row["context"] == context and row["answers"] == [{"text": "آنا", "start": start}]
    columns = kind_of("span").encode([row], get("xquad"), tokenizer, 64)
    begin, end = columns["starts"][0][columns["start"][0]], columns["ends"][0][columns["end"][0]]
    assert "آنا" in context[begin:end] and columns["start"][0] > 0
    put(tmp_path, "xtreme/udpos/dev-fa.tsv", "می\u200cروم\tVERB\n\u200b\tX\n")
    (row,) = load(get("udpos"), "dev", "fa", DataConfig(tmp_path)).examples
    assert row["tokens"] == ["می\u200cروم", "\u200b"]
    columns = kind_of("tagging").encode([row], get("udpos"), tokenizer, 32)
    assert [len(places) for places in columns["places"]] == [2]


def test_rows_of_100_000_characters(tmp_path: Path, tokenizer: Any) -> None:
    """Cut where a task is cut, windowed where it is windowed, split where it is split: no word is lost unseen."""
    config = DataConfig(tmp_path, source="files")
    put(tmp_path, "xtreme/xnli/dev-de.tsv", f"{LONG}\tb\tneutral\n")
    (row,) = load(get("xnli"), "dev", "de", config).examples
    assert len(row["text"]) == len(LONG)
    columns = kind_of("classification").encode([row], get("xnli"), tokenizer, 128)
    assert [len(ids) for ids in columns["input_ids"]] == [128]
    context = LONG + "Anna ran."
    put(tmp_path, "xquad/xquad.de.json", squad(context, question("1", "Anna", len(LONG))))
    (row,) = load(get("xquad"), "test", "de", config).examples
    columns = kind_of("span").encode([row], get("xquad"), tokenizer, 384)
    assert sum(start > 0 for start in columns["start"]) >= 1 and max(map(len, columns["input_ids"])) <= 384
    put(tmp_path, "xtreme/udpos/dev-de.tsv", "".join("word\tNOUN\n" for _ in range(20_000)))
    (row,) = load(get("udpos"), "dev", "de", config).examples
    columns = kind_of("tagging").encode([row], get("udpos"), tokenizer, 128)
    assert sum(map(len, columns["places"])) == 20_000 and max(map(len, columns["input_ids"])) <= 128


def test_answers_that_no_window_holds_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    """An answer longer than the window is lost to training; one in the last window of a long context is not."""
    context = "Anna " * 200 + "Boris ran."
    questions = [question("whole", context.strip(), 0), question("end", "Boris", 1000), question("begin", "Anna", 0)]
    put(tmp_path, "xquad/xquad.de.json", squad(context, *questions))
    rows = load(get("xquad"), "test", "de", DataConfig(tmp_path)).examples
    columns = kind_of("span").encode(rows, get("xquad"), tokenizer, 48)
    assert (
        lost_answers(rows, columns) == 1
        and lost_answers(rows[1:], kind_of("span").encode(rows[1:], get("xquad"), tokenizer, 48)) == 0
    )
    assert lost_answers([{"text": "a"}], {"input_ids": [[1]], "example": [0]}) == 0


def test_tasks_of_a_set_that_nothing_is_known_of_yet(tmp_path: Path) -> None:
    put(tmp_path, "ccg/dev.tsv", "a b\tN N/N\n")
    with pytest.raises(RecipeError, match=r"ccg has no tag set yet: declare .*labels: \{file: PATH\}"):
        load(get("ccg"), "dev", "en", DataConfig(tmp_path))
    task = declare("ccg", {"extends": "ccg", "labels": ["N", "N/N"]})
    assert load(task, "dev", "en", DataConfig(tmp_path)).examples[0]["tags"] == ["N", "N/N"]


@pytest.mark.parametrize("name", ["mewslix", "lareqa", "bucc2018", "tatoeba"])
def test_nothing_trains_on_a_retrieval_benchmark(name: str) -> None:
    with pytest.raises(RecipeError, match="retrieval benchmarks: nothing trains on them"):
        kind_of(get(name).kind)
