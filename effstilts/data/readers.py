"""Official file formats -> rows, each with the place it came from.

A reader takes a path and yields (row, place): a mapping of column to value, and "file:line" for messages. Nothing is
ever evaluated or unpickled. A broken row is a DataError that names file and line; a file without rows is one, too.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from effstilts.data.candidate_files import mewslix_jsonl, xquad_r_json
from effstilts.data.ccg_files import ccg_tsv, ccgbank_auto
from effstilts.data.text_files import json_of, lines_of, misplaced, parse_json, raw_lines
from effstilts.errors import DataError

Row = tuple[dict[str, Any], str]
Reader = Callable[[Path], Iterator[Row]]


# Sentences by which conll_tsv judges whether a file's words carry a language prefix.
_PREFIX_SENTENCES = 20
# Other spaces of Unicode may stand in a word.
_COLUMN = re.compile(r"[^ \t]+")


def _checked(reader: Reader) -> Reader:
    """The reader, with a DataError at the end of a file that gave no row."""

    @functools.wraps(reader)
    def rows(path: Path) -> Iterator[Row]:
        row: Row | None = None
        for row in reader(path):
            yield row
        if row is None:
            raise DataError(f"{path} holds no rows")

    return rows


def _columns(line: str, place: str, names: tuple[str, ...], may_lack_last: bool = False) -> dict[str, Any]:
    parts: list[str | None] = list(line.split("\t"))
    if may_lack_last and len(parts) == len(names) - 1:
        parts.append(None)
    if len(parts) != len(names):
        raise DataError(f"{place}: {len(parts)} columns, expected {len(names)} ({', '.join(names)})")
    return dict(zip(names, parts, strict=True))


def xnli_tsv(path: Path) -> Iterator[Row]:
    """XTREME's XNLI: premise, hypothesis and, where not stripped, label."""
    for line, place in lines_of(path):
        yield _columns(line, place, ("premise", "hypothesis", "label"), may_lack_last=True), place


def pawsx_tsv(path: Path) -> Iterator[Row]:
    """XTREME's PAWS-X: two sentences and, where not stripped, 0 or 1."""
    for line, place in lines_of(path):
        yield _columns(line, place, ("sentence1", "sentence2", "label"), may_lack_last=True), place


def conll_tsv(path: Path) -> Iterator[Row]:
    """XTREME's PAN-X and UDPOS: a word, a tab, its tag; an empty line after each sentence.

    A language prefix ("en:word", as raw WikiANN has) is dropped from a file whose first 20 sentences have the same one
    on every word; a later word without it is then a DataError.
    """
    sentences = _conll_sentences(path)
    first = list(islice(sentences, _PREFIX_SENTENCES))
    prefix = _language_prefix(token for tokens, _, _ in first for token, _ in tokens)
    for tokens, tags, place in chain(first, sentences):
        for token, where in tokens:
            if not token.startswith(prefix):
                raise DataError(f"{where}: expected the prefix {prefix!r} of the file's first sentences, got {token!r}")
        # A word that is nothing but the prefix keeps it: an empty word has no sub-words.
        yield {"tokens": [token[len(prefix) :] or token for token, _ in tokens], "tags": tags}, place


def _conll_sentences(path: Path) -> Iterator[tuple[list[tuple[str, str]], list[str], str]]:
    """([(word, place)], tags, place of the first word) of each sentence."""
    for lines in _paragraphs(path):
        tokens: list[tuple[str, str]] = []
        tags: list[str] = []
        for line, place in lines:
            word, tab, tag = line.partition("\t")
            if not word or not tab or not tag or "\t" in tag:
                spaced = "; columns parted by spaces are read by `format: conll`" if " " in line.strip() else ""
                stripped = spaced or ("; the tags are stripped" if not tab else "")
                raise DataError(f"{place}: expected a word, a tab and its tag, got {line[:60]!r}{stripped}")
            tokens.append((word, place))
            tags.append(tag)
        yield tokens, tags, tokens[0][1]


def _paragraphs(path: Path, white: str | None = None) -> Iterator[list[tuple[str, str]]]:
    """The lines between empty ones, each with its place. white: what an empty line may hold; None: any white space."""
    found: list[tuple[str, str]] = []
    for line, place in lines_of(path):
        if line.strip(white):
            found.append((line, place))
        elif found:
            yield found
            found = []
    if found:
        yield found


def conll(path: Path) -> Iterator[Row]:
    """The form of CoNLL 2000 to 2003: columns parted by spaces or tabs, the word first and its tag last; an empty line
    after each sentence. Lines that begin with "-DOCSTART-" part documents and are left out."""
    width = 0
    for lines in _paragraphs(path, " \t"):
        words = [(_COLUMN.findall(line), place) for line, place in lines]
        words = [(columns, place) for columns, place in words if columns[0] != "-DOCSTART-"]
        for columns, place in words:
            if len(columns) != (width := width or len(columns)):
                raise DataError(f"{place}: {len(columns)} columns, the lines before have {width}")
            if width == 1:
                raise DataError(f"{place}: expected a word, other columns and its tag, got {columns[0][:60]!r}")
        if words:
            tokens, tags = [columns[0] for columns, _ in words], [columns[-1] for columns, _ in words]
            yield {"tokens": tokens, "tags": tags}, words[0][1]


def _language_prefix(tokens: Iterable[str]) -> str:
    """The prefix ("en:", "zh-yue:") that all tokens share, or nothing."""
    found = re.compile(r"([a-z]{2,3}(?:-[a-z]+)*:)")
    prefixes = {match[1] if (match := found.match(token)) else "" for token in tokens}
    return prefixes.pop() if len(prefixes) == 1 else ""


def conllu(path: Path) -> Iterator[Row]:
    """Universal Dependencies: FORM, UPOS (`tags`), XPOS and DEPREL. A multiword token stands before its words and is
    left out."""
    for lines in _paragraphs(path):
        words: list[tuple[list[str], str]] = []
        for line, place in lines:
            if line.startswith("#"):
                continue
            parts = line.split("\t")
            if len(parts) != 10:
                raise DataError(f"{place}: {len(parts)} columns, CoNLL-U has 10")
            if "-" in parts[0] or "." in parts[0]:
                continue
            if not parts[1] or not parts[3]:
                raise DataError(f"{place}: FORM or UPOS is empty")
            words.append((parts, place))
        if words:
            yield _conllu_sentence([parts for parts, _ in words]), words[0][1]


def _conllu_sentence(words: list[list[str]]) -> dict[str, list[str]]:
    columns = {"tokens": 1, "tags": 3, "xpos": 4, "deprel": 7}
    return {name: [word[place] for word in words] for name, place in columns.items()}


def squad_json(path: Path) -> Iterator[Row]:
    """SQuAD v1.1, v2.0, XQuAD, MLQA, TyDiQA-GoldP. Each answer must stand in the context where it says.

    Ids that repeat in a file (TyDiQA's 3,696 English training rows have 89 of them) get "#2", "#3" and so on. A
    question that is not marked `is_impossible` in a file with such marks must have an answer.
    """
    document = json_of(path)
    seen: set[str] = set()
    repeats: dict[str, int] = {}
    at = str(path)
    try:
        for a, article in enumerate(document["data"], 1):
            at = f"{path}, article {a}"
            for p, paragraph in enumerate(article["paragraphs"], 1):
                at = f"{path}, article {a}, paragraph {p}"
                context = paragraph["context"]
                for q, question in enumerate(paragraph["qas"], 1):
                    at = f"{path}, article {a}, paragraph {p}, question {q}"
                    name = base = str(question["id"])
                    while name in seen:
                        repeats[base] = repeats.get(base, 1) + 1
                        name = f"{base}#{repeats[base]}"
                    seen.add(name)
                    place = f"{path}, question {base}"
                    yield (
                        {
                            "id": name,
                            "title": article.get("title", ""),
                            "context": context,
                            "question": question["question"],
                            "answers": _squad_answers(question, context, place),
                        },
                        place,
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{at}: not in SQuAD's form ({type(error).__name__}: {error})") from error


def _squad_answers(question: Mapping[str, Any], context: str, place: str) -> dict[str, list[Any]]:
    answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
    if question.get("is_impossible"):
        return answers
    for answer in question.get("answers", []):
        text, start = answer["text"], answer["answer_start"]
        if problem := misplaced(context, text, start):
            raise DataError(f"{place}: {problem}")
        answers["text"].append(text)
        answers["answer_start"].append(start)
    if not answers["text"] and "is_impossible" in question:
        raise DataError(f"{place}: no answer, though it is not marked impossible: the gold answers are stripped")
    return answers


def json_list(path: Path) -> Iterator[Row]:
    """One JSON array of objects."""
    document = json_of(path)
    if not isinstance(document, list):
        raise DataError(f"{path}: expected a JSON array of rows")
    for number, row in enumerate(document, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, item {number}: expected an object, got {type(row).__name__}")
        yield row, f"{path}, item {number}"


def jsonl(path: Path) -> Iterator[Row]:
    """One JSON object a line."""
    for line, place in lines_of(path):
        if not line.strip():
            continue
        row = parse_json(line, place)
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected an object, got {type(row).__name__}")
        yield row, place


def commonsenseqa_jsonl(path: Path) -> Iterator[Row]:
    """CommonsenseQA's release: the stem and the choices stand inside `question`."""
    for row, place in jsonl(path):
        try:
            inner = row["question"]
            choices = {
                "label": [choice["label"] for choice in inner["choices"]],
                "text": [choice["text"] for choice in inner["choices"]],
            }
            yield (
                {
                    "id": row["id"],
                    "question": inner["stem"],
                    "question_concept": inner.get("question_concept", ""),
                    "choices": choices,
                    "answerKey": row.get("answerKey", ""),
                },
                place,
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"{place}: not in CommonsenseQA's form ({type(error).__name__}: {error})") from error


def csv_rows(path: Path) -> Iterator[Row]:
    """Comma-separated with a header line; a quoted field may hold newlines."""
    header: list[str] = []
    for values, place in _csv_values(path):
        if not header:
            header = _header(values, place)
        else:
            yield _cells(values, header, place), place


def _csv_values(path: Path) -> Iterator[tuple[list[str], str]]:
    reader = csv.reader((line for line, _ in raw_lines(path)), strict=True)
    start = 1
    try:
        for values in reader:
            place = f"{path}:{start}"
            start = reader.line_num + 1
            if values:
                yield values, place
    except csv.Error as error:
        raise DataError(f"{path}:{start}: not valid CSV ({error})") from error


def tsv_rows(path: Path) -> Iterator[Row]:
    """Tab-separated with a header line; a quotation mark is a character like any other."""
    header: list[str] = []
    for line, place in lines_of(path):
        if not header:
            header = _header(line.split("\t"), place)
        elif line:
            yield _cells(line.split("\t"), header, place), place


def _header(values: list[str], place: str) -> list[str]:
    names = [name.strip() for name in values]
    if len(set(names)) != len(names):
        raise DataError(f"{place}: a column's name stands twice in the header")
    return names


def _cells(values: list[str], header: list[str], place: str) -> dict[str, Any]:
    if len(values) != len(header):
        raise DataError(f"{place}: {len(values)} columns, the header has {len(header)} ({', '.join(header)})")
    return dict(zip(header, values, strict=True))


def lines(path: Path) -> Iterator[Row]:
    """One text a line; empty lines are left out."""
    return (({"text": line}, place) for line, place in lines_of(path) if line.strip())


def aligned_lines(path: Path) -> Iterator[Row]:
    """One text a line, empty ones too: line i belongs to line i of another file."""
    return (({"text": line}, place) for line, place in lines_of(path))


def stsb_csv(path: Path) -> Iterator[Row]:
    """STSb's multilingual release (no header): the two sentences of a row as two texts, so that row i of one language
    is row i of another's translation. The similarity is not read."""
    for values, place in _csv_values(path):
        if len(values) != 3:
            raise DataError(f"{place}: {len(values)} columns, expected 3 (two sentences and their similarity)")
        for text in values[:2]:
            yield {"text": text}, place


def qqp_tsv(path: Path) -> Iterator[Row]:
    """GLUE's QQP: tab-separated with a header; a question may hold a newline, which breaks its row over lines.

    (https://github.com/nyu-mll/GLUE-baselines/issues/5 quotes the second half of such a row.)
    """
    header: list[str] = []
    pending, start = "", ""
    for line, place in lines_of(path):
        if not header:
            header = _header(line.split("\t"), place)
            continue
        pending, start = (f"{pending} {line}", start) if pending else (line, place)
        if pending.count("\t") + 1 >= len(header):
            yield _cells(pending.split("\t"), header, start), start
            pending = ""
    if pending:
        yield _cells(pending.split("\t"), header, start), start


def bucc(path: Path) -> Iterator[Row]:
    """BUCC 2018's sentences: an id, a tab, the sentence. Ids do not repeat."""
    seen: set[str] = set()
    for line, place in lines_of(path):
        row = _columns(line, place, ("id", "text"))
        if not row["id"] or row["id"] in seen:
            raise DataError(f"{place}: the id {row['id']!r} is empty or stands twice")
        seen.add(row["id"])
        yield row, place


def bucc_gold(path: Path) -> Iterator[Row]:
    """BUCC 2018's gold pairs: an id, a tab, the id of its translation."""
    return ((_columns(line, place, ("source_id", "target_id")), place) for line, place in lines_of(path))


def hellaswag_blocks(path: Path) -> Iterator[Row]:
    """Text blocks of six lines: context, index of the true ending, four endings."""
    block: list[str] = []
    first = ""
    for line, place in lines_of(path):
        if not block:
            if not line.strip():
                continue
            first = place
        block.append(line)
        if len(block) == 6:
            if block[1].strip() not in ("0", "1", "2", "3"):
                raise DataError(f"{first}: expected the index of the true ending after the context, got {block[1]!r}")
            yield {"ctx": block[0], "endings": block[2:], "label": block[1].strip()}, first
            block = []
    if block:
        raise DataError(f"{first}: the last block has {len(block)} lines, expected 6")


_READERS: Mapping[str, Reader] = {
    "xnli_tsv": xnli_tsv,
    "pawsx_tsv": pawsx_tsv,
    "conll_tsv": conll_tsv,
    "conll": conll,
    "conllu": conllu,
    "squad_json": squad_json,
    "json_list": json_list,
    "jsonl": jsonl,
    "commonsenseqa_jsonl": commonsenseqa_jsonl,
    "csv": csv_rows,
    "tsv": tsv_rows,
    "lines": lines,
    "aligned_lines": aligned_lines,
    "stsb_csv": stsb_csv,
    "qqp_tsv": qqp_tsv,
    "bucc": bucc,
    "bucc_gold": bucc_gold,
    "hellaswag_blocks": hellaswag_blocks,
    "ccg_tsv": ccg_tsv,
    "ccgbank_auto": ccgbank_auto,
    "xquad_r_json": xquad_r_json,
    "mewslix_jsonl": mewslix_jsonl,
}
READERS: Mapping[str, Reader] = {name: _checked(reader) for name, reader in _READERS.items()}
