"""Official file formats -> rows, each with the place it came from.

A reader takes a path and yields (row, place): a mapping of column to value, and "file:line" for messages. Files that
end in .gz or .bz2 are read through. Nothing is ever evaluated or unpickled. A broken row is a DataError that names
file and line; a file without rows is one, too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from effstilts.errors import DataError

Row = tuple[dict[str, Any], str]
Reader = Callable[[Path], Iterator[Row]]


def open_text(path: Path) -> IO[str]:
    """A text file, read through gzip or bzip2 by its ending. DataError if it cannot be opened."""
    try:
        if path.suffix == ".gz":
            import gzip

            return gzip.open(path, "rt", encoding="utf-8", newline="")
        if path.suffix == ".bz2":
            import bz2

            return bz2.open(path, "rt", encoding="utf-8", newline="")
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"cannot open {path}: {error.strerror or error}") from error


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """(line without its end, "file:line"), split at newlines alone: other separators may stand inside a text."""
    number = 0
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, 1):
                yield line.rstrip("\r\n"), f"{path}:{number}"
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, after line {number}: not UTF-8 ({error.reason})") from error
        except (OSError, EOFError) as error:
            raise DataError(f"{path}, after line {number}: cannot be read ({error})") from error


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

    A language prefix ("en:word", as raw WikiANN has) is dropped where every word of a sentence has the same one.
    """
    tokens: list[str] = []
    tags: list[str] = []
    first = ""
    for line, place in lines_of(path):
        if not line.strip():
            if tokens:
                yield {"tokens": _without_prefix(tokens), "tags": tags}, first
            tokens, tags = [], []
            continue
        parts = line.split("\t")
        if len(parts) < 2 or not parts[-1]:
            raise DataError(f"{place}: expected a word, a tab and its tag, got {line[:60]!r}")
        if not tokens:
            first = place
        tokens.append(parts[0])
        tags.append(parts[-1])
    if tokens:
        yield {"tokens": _without_prefix(tokens), "tags": tags}, first


def _without_prefix(tokens: list[str]) -> list[str]:
    prefix, colon, _ = tokens[0].partition(":")
    if len(tokens) > 1 and colon and 2 <= len(prefix) <= 3 and prefix.isalpha() and prefix.islower():
        start = prefix + ":"
        if all(token.startswith(start) and len(token) > len(start) for token in tokens):
            return [token[len(start) :] for token in tokens]
    return tokens


def conllu(path: Path) -> Iterator[Row]:
    """Universal Dependencies: FORM and UPOS. A multiword token stands before its words and is left out."""
    tokens: list[str] = []
    tags: list[str] = []
    first = ""
    for line, place in lines_of(path):
        if line.startswith("#"):
            continue
        if not line.strip():
            if tokens:
                yield {"tokens": tokens, "tags": tags}, first
            tokens, tags = [], []
            continue
        parts = line.split("\t")
        if len(parts) != 10:
            raise DataError(f"{place}: {len(parts)} columns, CoNLL-U has 10")
        if "-" in parts[0] or "." in parts[0]:
            continue
        if not tokens:
            first = place
        tokens.append(parts[1])
        tags.append(parts[3])
    if tokens:
        yield {"tokens": tokens, "tags": tags}, first


def _json(path: Path) -> Any:
    with open_text(path) as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not valid JSON ({error})") from error
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error


def squad_json(path: Path) -> Iterator[Row]:
    """SQuAD v1.1, v2.0, XQuAD, MLQA, TyDiQA-GoldP. Each answer must stand in the context where it says.

    Ids that repeat in a file (89 of TyDiQA's English ones) get "#2", "#3" and so on.
    """
    document = _json(path)
    seen: dict[str, int] = {}
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for question in paragraph["qas"]:
                    base = str(question["id"])
                    seen[base] = seen.get(base, 0) + 1
                    place = f"{path}, question {base}"
                    answers = {"text": [], "answer_start": []}  # type: dict[str, list[Any]]
                    for answer in question.get("answers", []):
                        text, start = answer["text"], answer["answer_start"]
                        if context[start : start + len(text)] != text:
                            there = context[start : start + len(text)]
                            raise DataError(f"{place}: the answer {text!r} is not at {start}, there stands {there!r}")
                        answers["text"].append(text)
                        answers["answer_start"].append(start)
                    yield (
                        {
                            "id": base if seen[base] == 1 else f"{base}#{seen[base]}",
                            "title": article.get("title", ""),
                            "context": context,
                            "question": question["question"],
                            "answers": answers,
                        },
                        place,
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not in SQuAD's form ({type(error).__name__}: {error})") from error


def json_list(path: Path) -> Iterator[Row]:
    """One JSON array of objects."""
    document = _json(path)
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
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not valid JSON ({error})") from error
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


def _table(path: Path, **options: Any) -> Iterator[Row]:
    with open_text(path) as file:
        reader = csv.reader(file, **options)
        header: list[str] | None = None
        try:
            for values in reader:
                place = f"{path}:{reader.line_num}"
                if header is None:
                    header = [name.strip().lstrip("\ufeff") for name in values]
                    continue
                if not values:
                    continue
                if len(values) != len(header):
                    raise DataError(f"{place}: {len(values)} columns, the header has {len(header)}")
                yield dict(zip(header, values, strict=True)), place
        except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
            raise DataError(f"{path}:{reader.line_num}: cannot be read ({error})") from error


def csv_rows(path: Path) -> Iterator[Row]:
    """Comma-separated with a header line."""
    return _table(path, strict=True)


def tsv_rows(path: Path) -> Iterator[Row]:
    """Tab-separated with a header line; a quotation mark is a character like any other."""
    return _table(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def lines(path: Path) -> Iterator[Row]:
    """One text a line; empty lines are left out."""
    return (({"text": line}, place) for line, place in lines_of(path) if line.strip())


def aligned_lines(path: Path) -> Iterator[Row]:
    """One text a line, empty ones too: line i belongs to line i of another file."""
    return (({"text": line}, place) for line, place in lines_of(path))


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


def ccg_tsv(path: Path) -> Iterator[Row]:
    """CCG supertags: "words TAB tags", both parted by spaces, or "word|||tag word|||tag"."""
    for line, place in lines_of(path):
        if not line.strip():
            continue
        if "|||" in line:
            pairs = [item.split("|||") for item in line.split()]
            if any(len(pair) != 2 for pair in pairs):
                raise DataError(f"{place}: expected word|||tag")
            yield {"tokens": [p[0] for p in pairs], "tags": [p[1] for p in pairs]}, place
            continue
        row = _columns(line, place, ("tokens", "tags"))
        tokens, tags = row["tokens"].split(), row["tags"].split()
        if len(tokens) != len(tags):
            raise DataError(f"{place}: {len(tokens)} words but {len(tags)} tags")
        yield {"tokens": tokens, "tags": tags}, place


READERS: Mapping[str, Reader] = {
    "xnli_tsv": xnli_tsv,
    "pawsx_tsv": pawsx_tsv,
    "conll_tsv": conll_tsv,
    "conllu": conllu,
    "squad_json": squad_json,
    "json_list": json_list,
    "jsonl": jsonl,
    "commonsenseqa_jsonl": commonsenseqa_jsonl,
    "csv": csv_rows,
    "tsv": tsv_rows,
    "lines": lines,
    "aligned_lines": aligned_lines,
    "hellaswag_blocks": hellaswag_blocks,
    "ccg_tsv": ccg_tsv,
}
