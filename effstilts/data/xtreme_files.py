"""Prediction and label files in XTREME's official layout: TASK/test-{language}.tsv, .json or .jsonl.

The forms are those that google-research/xtreme's evaluate.py reads:

    labels    a label a line (XNLI's words, PAWS-X's 0 or 1, Tatoeba's index of the sentence found, from 0)
    tags      a tag a line, an empty line between sentences
    pairs     two ids a line, a tab between them, the foreign one first (BUCC)
    answers   predictions {id: text}; gold in SQuAD's form
    choices   {"label": index} a line
    rankings  {id: [candidates, best first]}; gold {id: [relevant ones]}

That script cuts, skips or miscounts what does not fit; here each misfit is a DataError that names the file and line.
White space around a label is dropped, as there. Questions without prediction are no misfit: they score 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effstilts.data.text_files import json_of, lines_of, parse_json
from effstilts.errors import DataError
from effstilts.evaluation.xtreme import Form, Target


@dataclass(frozen=True)
class Rows:
    """What a file holds, in the shape that `evaluation.xtreme.score_language` takes, and the place of each row."""

    content: Any
    places: Sequence[str] = ()


def read_predictions(target: Target, path: Path, language: str) -> Rows:
    """A prediction file. DataError names the file and line that is not in the task's form."""
    if target.form == "pairs":
        # No pair found is a result; an empty file of any other form is a broken one.
        return Rows([pair for pair, _ in _pairs(path, language)])
    if target.form == "answers":
        return Rows(_strings(_unwrapped(_mapping(path)), path))
    if target.form == "rankings":
        return Rows(_lists(_mapping(path), path))
    return _lines(target, path)


def read_gold(target: Target, path: Path, language: str) -> Rows:
    """A label file, in the shape that goes with `read_predictions`."""
    if target.form == "pairs":
        return _filled([(pair, place) for pair, place in _pairs(path, language)], path)
    if target.form == "answers":
        return Rows(_squad_gold(path))
    if target.form == "rankings":
        return Rows(_lists(_mapping(path), path))
    return _lines(target, path)


def _lines(target: Target, path: Path) -> Rows:
    readers: Mapping[Form, Callable[[Path], Iterator[tuple[Any, str]]]] = {
        "labels": _labels,
        "tags": _tags,
        "choices": _choices,
    }
    rows = list(readers[target.form](path))
    for label, place in rows if target.labels else ():
        if label not in target.labels:
            raise DataError(f"{place}: the label {label!r} is not one of {', '.join(sorted(target.labels))}")
    return _filled(rows, path)


def _filled(rows: list[tuple[Any, str]], path: Path) -> Rows:
    if not rows:
        raise DataError(f"{path} holds no rows")
    return Rows([row for row, _ in rows], [place for _, place in rows])


def _labels(path: Path) -> Iterator[tuple[str, str]]:
    for line, place in lines_of(path):
        label = line.strip()
        if not label or "\t" in label:
            problem = "several columns" if label else "no label"
            raise DataError(f"{place}: {problem}; expected one label a line and no empty line")
        yield label, place


def _tags(path: Path) -> Iterator[tuple[list[str], str]]:
    """(tags, place of the first) of each sentence. Several empty lines are one."""
    tags: list[str] = []
    first = ""
    for line, place in lines_of(path):
        tag = line.strip()
        if len(tag.split()) > 1:
            raise DataError(f"{place}: expected one tag a line and nothing else, got {tag[:60]!r}")
        if tag:
            first = first if tags else place
            tags.append(tag)
        elif tags:
            yield tags, first
            tags = []
    if tags:
        yield tags, first


def _pairs(path: Path, language: str) -> Iterator[tuple[tuple[str, str], str]]:
    for line, place in lines_of(path):
        parts = line.strip().split("\t")
        if len(parts) != 2 or not all(p.startswith(f"{c}-") for p, c in zip(parts, (language, "en"), strict=True)):
            raise DataError(f"{place}: expected {language}-NUMBER, a tab and en-NUMBER, got {line[:60]!r}")
        yield (parts[0], parts[1]), place


def _choices(path: Path) -> Iterator[tuple[int, str]]:
    for line, place in lines_of(path):
        row = parse_json(line, place) if line.strip() else None
        label = row.get("label") if isinstance(row, dict) else None
        if isinstance(label, bool) or not isinstance(label, int) or label not in (0, 1):
            raise DataError(f'{place}: expected {{"label": 0}} or {{"label": 1}}, got {line[:60]!r}')
        yield label, place


def _mapping(path: Path) -> dict[str, Any]:
    document = json_of(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected a JSON object of id to prediction, got {type(document).__name__}")
    if not document:
        raise DataError(f"{path} holds no rows")
    return document


def _unwrapped(document: dict[str, Any]) -> dict[str, Any]:
    """The official reader takes what stands under "data", if anything does."""
    inner = document.get("data")
    return inner if isinstance(inner, dict) else document


def _strings(document: dict[str, Any], path: Path) -> dict[str, str]:
    for name, text in document.items():
        if not isinstance(text, str):
            raise DataError(f"{path}, question {name!r}: expected the answer's text, got {str(text)[:60]!r}")
    return document


def _lists(document: dict[str, Any], path: Path) -> dict[str, list[str]]:
    for name, candidates in document.items():
        if not isinstance(candidates, list) or not all(isinstance(c, str) for c in candidates):
            raise DataError(f"{path}, {name!r}: expected a list of candidates, got {str(candidates)[:60]!r}")
    return document


def _squad_gold(path: Path) -> list[tuple[str, list[str]]]:
    document = json_of(path)
    rows = []
    try:
        for article in document["data"] if isinstance(document, dict) else document:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = [answer["text"] for answer in question["answers"]]
                    if not all(isinstance(text, str) for text in answers):
                        raise TypeError(f"an answer of {question['id']!r} is no text")
                    rows.append((str(question["id"]), answers))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not in SQuAD's form ({type(error).__name__}: {error})") from error
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows


# Writing


def write_predictions(target: Target, path: Path, content: Any) -> None:
    """Writes what `read_predictions` reads: content in the shape of its `Rows.content`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(target, content), encoding="utf-8")


def write_gold(target: Target, path: Path, content: Any) -> None:
    """Writes what `read_gold` reads; questions without their contexts."""
    if target.form == "answers":
        questions = [{"id": i, "answers": [{"text": text} for text in answers]} for i, answers in content]
        content = {"data": [{"paragraphs": [{"qas": questions}]}]}
    write_predictions(target, path, content)


def _text(target: Target, content: Any) -> str:
    if target.form in ("answers", "rankings"):
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    if target.form == "tags":
        return "\n".join("".join(f"{tag}\n" for tag in sentence) for sentence in content)
    if target.form == "pairs":
        content = ["\t".join(pair) for pair in content]
    elif target.form == "choices":
        content = [json.dumps({"label": label}) for label in content]
    return "".join(f"{line}\n" for line in content)
