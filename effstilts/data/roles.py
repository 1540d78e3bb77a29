"""A source's row -> the roles of the task's kind.

    classification  id, text, text_pair (or None), label (a name of task.labels)
    choice          id, prompt, choices, label (an index)
    span            id, question, context, answers [{text, start}]
    tagging         id, tokens, tags
    masked_lm       id, text, text_pair (or None)
    bitext          id, source, target
    mining          id, text, side ("source" or "target"), gold (ids of the translations on the other side)
    candidates      id, text, side ("query" or "candidate"), gold (ids of the answers, or of the questions answered),
                    span ([start, end] of a mention in the text, or None), context (of a candidate's sentence, or "")

and `where`, the place it came from. A label outside the set, a missing column, a stripped label: a DataError that
names the place.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from effstilts.data.readers import Row
from effstilts.data.text_files import misplaced
from effstilts.errors import DataError, RecipeError
from effstilts.tasks.task import Task


def examples(task: Task, raw: Iterator[Row], dropped: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows in the roles of the task's kind; those whose label is to be dropped are left out and counted.

    A question's id that repeats (TyDiQA's 3,696 English rows have 89 of them) gets "#2", "#3" and so on.
    """
    make = _MAKERS[task.kind]
    seen: Counter[str] = Counter()
    for number, (row, place) in enumerate(raw):
        for column, replacements in task.values.items():
            value = _value(row, column, place, task)
            if str(value) not in replacements:
                raise DataError(f"{place}: {column} is {value!r}, known are {', '.join(replacements)}")
            row = {**row, column: replacements[str(value)]}
        example = make(task, row, place)
        if example is None:
            if dropped is not None:
                dropped[str(row[str(task.columns["label"])])] += 1
            continue
        if "answers" in example:
            example["id"] = _distinct(example["id"], seen)
        example.setdefault("id", str(row.get("id") or row.get("idx") or number))
        example["where"] = place
        yield example


def rows_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """Hash of rows in the roles of their kind, whatever their order, ids and places: the same for every source."""
    lines = sorted(
        json.dumps({k: v for k, v in row.items() if k not in ("id", "where")}, ensure_ascii=False, sort_keys=True)
        for row in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _distinct(name: str, seen: Counter[str]) -> str:
    base = name
    while name in seen:
        seen[base] += 1
        name = f"{base}#{seen[base]}"
    seen[name] += 1
    return name


def _value(row: Mapping[str, Any], column: str, place: str, task: Task) -> Any:
    if column not in row:
        raise DataError(f"{place}: {task.name} needs a column {column!r}; there are {', '.join(map(str, row))}")
    return row[column]


def _text(task: Task, row: Mapping[str, Any], column: str, place: str) -> str:
    """A column's text, or a template with columns in braces."""
    if "{" not in column:
        value = _value(row, column, place, task)
        if not isinstance(value, str):
            raise DataError(f"{place}: {column} is {value!r}, expected text")
        return value
    text = ""
    for literal, name, spec, conversion in _parts(task, column):
        text += literal
        if name is not None:
            if not name.isidentifier() or spec or conversion:
                raise RecipeError(f"{task.name}: the template {column!r} may hold plain column names alone")
            value = _value(row, name, place, task)
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise DataError(f"{place}: {name} is {value!r}, expected text")
            text += str(value)
    return text


def _parts(task: Task, template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(f"{task.name}: the template {template!r} may hold plain column names alone") from error


def _role_text(task: Task, row: Mapping[str, Any], role: str, place: str) -> str:
    column = task.columns[role]
    if not isinstance(column, str):
        raise RecipeError(f"{task.name}: the role {role!r} takes one column, not {list(column)}")
    return _text(task, row, column, place)


def _label(task: Task, row: Mapping[str, Any], place: str) -> str | None:
    """The raw label after `label_values`; None means that the row is dropped. DataError for a stripped one."""
    column = str(task.columns["label"])
    value = _value(row, column, place, task)
    raw = "" if value is None else str(value)
    if raw in task.drop_labels:
        return None
    label = task.label_values.get(raw, raw)
    if raw == "" or (raw == "-1" and raw not in (*task.label_values, *task.labels)):
        raise DataError(f"{place}: the label is stripped (column {column!r} is {value!r}); {task.name} needs it")
    return label


def _classification(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    label = _label(task, row, place)
    if label is None:
        return None
    if label not in task.labels:
        hint = f"; `label_values: {{'{label}': NAME}}` of the task says which it is" if label.isdecimal() else ""
        raise DataError(f"{place}: the label {label!r} is not one of {', '.join(task.labels)}{hint}")
    pair = _role_text(task, row, "text_pair", place) if "text_pair" in task.columns else None
    return {"text": _role_text(task, row, "text", place), "text_pair": pair, "label": label}


def _choice(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    label = _label(task, row, place)
    if label is None:
        return None
    column = task.columns["choices"]
    raw = str(_value(row, str(task.columns["label"]), place, task))
    names: list[str] = []
    if isinstance(column, str) and "{" not in column:
        value = _value(row, column, place, task)
        if isinstance(value, Mapping):
            names, value = [str(x) for x in value.get("label") or ()], value.get("text")
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise DataError(f"{place}: {column} is {str(value)[:60]!r}, expected a list of texts")
        choices = list(value)
    else:
        choices = [_text(task, row, c, place) for c in ((column,) if isinstance(column, str) else column)]
    if len(choices) < 2 or (names and len(names) != len(choices)):
        raise DataError(f"{place}: {len(choices)} choices with {len(names)} labels, expected two or more of the same")
    index = _index(raw, label, names, len(choices))
    if index is None:
        known = ", ".join(names) or f"0 to {len(choices) - 1}, or letters"
        raise DataError(f"{place}: the label {label!r} names none of the {len(choices)} choices ({known})")
    return {"prompt": _role_text(task, row, "prompt", place), "choices": choices, "label": index}


def _index(raw: str, label: str, names: list[str], count: int) -> int | None:
    """The choice that a label names: by the row's own names, else by a number from 0, else by a letter from A."""
    if raw in names:
        return names.index(raw)
    if label.isascii() and label.isdecimal():
        number = int(label)
    elif len(label) == 1 and "A" <= label <= "Z":
        number = ord(label) - ord("A")
    else:
        return None
    return number if number < count and not (names and label == raw) else None


def _span(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    answers = _value(row, str(task.columns["answers"]), place, task)
    try:
        found = [{"text": t, "start": int(s)} for t, s in zip(answers["text"], answers["answer_start"], strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: answers need lists `text` and `answer_start`, got {str(answers)[:60]}") from error
    if not found and not task.no_answer:
        raise DataError(f"{place}: the answers are stripped; {task.name} needs them")
    context = _role_text(task, row, "context", place)
    for answer in found:
        if problem := misplaced(context, answer["text"], answer["start"]):
            raise DataError(f"{place}: {problem}")
    return {
        "id": str(_value(row, str(task.columns["id"]), place, task)),
        "question": _role_text(task, row, "question", place),
        "context": context,
        "answers": found,
    }


def _tagging(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    tokens = _value(row, str(task.columns["tokens"]), place, task)
    raw = _value(row, str(task.columns["tags"]), place, task)
    if not isinstance(tokens, list) or not isinstance(raw, list) or len(tokens) != len(raw) or not tokens:
        raise DataError(f"{place}: expected as many tags as words, and at least one")
    if not task.labels:
        raise RecipeError(
            f"{task.name} has no tag set yet: declare tasks: {{{task.name}: {{extends: {task.name}, labels: "
            "{file: PATH}}}, with a tag a line or JSON"
        )
    tags = []
    for number, tag in enumerate(raw, 1):
        # A number is a place in the tag set only where it is no tag's name.
        named = str(tag) if str(tag) in task.labels or not _is_index(tag, task) else task.labels[tag]
        name = task.label_values.get(str(tag), named)
        if name not in task.labels:
            word = f"{place}, word {number} ({str(tokens[number - 1])!r})"
            raise DataError(f"{word}: the tag {name!r} is not one of {', '.join(task.labels)}")
        tags.append(name)
    return {"tokens": [str(t) for t in tokens], "tags": tags}


def _is_index(tag: Any, task: Task) -> bool:
    return isinstance(tag, int) and 0 <= tag < len(task.labels)


def _masked_lm(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    pair = _role_text(task, row, "text_pair", place) if "text_pair" in task.columns else None
    return {"text": _role_text(task, row, "text", place), "text_pair": pair}


def _bitext(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    # The hub's older rows keep the line's end.
    return {
        "source": _role_text(task, row, "source", place).rstrip("\r\n"),
        "target": _role_text(task, row, "target", place).rstrip("\r\n"),
    }


def _mining(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A sentence of one side and the ids of its gold translations on the other side."""
    return {
        "id": str(_value(row, str(task.columns["id"]), place, task)),
        "text": _role_text(task, row, "text", place),
        "side": _value(row, "side", place, task),
        "gold": list(_value(row, "gold", place, task)),
    }


def _candidate(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A query or a candidate of a retrieval benchmark."""
    return _mining(task, row, place) | {"span": row.get("span"), "context": row.get("context", "")}


_MAKERS: Mapping[str, Any] = {
    "classification": _classification,
    "choice": _choice,
    "span": _span,
    "tagging": _tagging,
    "masked_lm": _masked_lm,
    "bitext": _bitext,
    "mining": _mining,
    "candidates": _candidate,
}
