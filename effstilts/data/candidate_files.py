"""Official files of retrieval from a set of candidates: XQuAD-R (LAReQA) and Mewsli-X.

Each reader yields (row, place) with the columns id, text, side ("query" or "candidate"), gold, language ("" for
candidates of every language), span and context; see `effstilts.data.roles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effstilts.data.text_files import json_of, lines_of, misplaced, parse_json
from effstilts.errors import DataError


def xquad_r_json(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """XQuAD-R: SQuAD's form with `sentences` and `sentence_breaks` ([start, end] in the context).

    Every sentence is a candidate, answered are the questions whose answer begins in it; a question's gold is that
    sentence. Questions have the same ids in all languages, so a sentence of any language answers by its `gold`.
    """
    document = json_of(path)
    questions: list[tuple[dict[str, Any], str]] = []
    try:
        for a, article in enumerate(document["data"]):
            for p, paragraph in enumerate(article["paragraphs"]):
                context = paragraph["context"]
                breaks, sentences = paragraph["sentence_breaks"], paragraph["sentences"]
                if len(breaks) != len(sentences):
                    raise DataError(f"{path}, paragraph {a}-{p}: {len(sentences)} sentences, {len(breaks)} breaks")
                answered: list[list[str]] = [[] for _ in sentences]
                for question in paragraph["qas"]:
                    place = f"{path}, question {question['id']}"
                    number = _sentence_of(question, context, breaks, place)
                    answered[number].append(str(question["id"]))
                    questions.append(
                        (_row(str(question["id"]), question["question"], "query", [f"{a}-{p}-{number}"]), place)
                    )
                for s, (sentence, gold) in enumerate(zip(sentences, answered, strict=True)):
                    row = _row(f"{a}-{p}-{s}", sentence, "candidate", gold) | {"context": context}
                    yield row, f"{path}, sentence {a}-{p}-{s}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not in XQuAD-R's form ({type(error).__name__}: {error})") from error
    yield from questions


def _sentence_of(question: Mapping[str, Any], context: str, breaks: list[list[int]], place: str) -> int:
    answers = question["answers"]
    if not answers:
        raise DataError(f"{place}: no answer: the gold answers are stripped")
    start = answers[0]["answer_start"]
    if problem := misplaced(context, answers[0]["text"], start):
        raise DataError(f"{place}: {problem}")
    # The blank between two sentences belongs to the one before.
    number = sum(1 for begin, _ in breaks if begin <= start) - 1
    if number < 0:
        raise DataError(f"{place}: the answer begins before the first sentence")
    return number


def mewslix_jsonl(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Mewsli-X: articles with their mentions (queries, gold is the entity's QID), or entities (candidates).

    Article texts are empty in the archive; get-mewsli-x.sh of the release fills them in.
    """
    for line, place in lines_of(path):
        if not line.strip():
            continue
        item = parse_json(line, place)
        try:
            if "mentions" not in item:
                text = f"{item['title']}: {item['description']}"
                yield _row(item["entity_id"], text, "candidate", []), place
                continue
            context = item["context"]
            for mention in item["mentions"]:
                span = mention["mention_span"]
                if not context["text"]:
                    raise DataError(f"{place}: the article has no text; run the release's get-mewsli-x.sh")
                if problem := misplaced(context["text"], span["text"], span["start"]):
                    raise DataError(f"{place}, mention {mention['example_id']}: {problem}".replace("answer", "mention"))
                row = _row(mention["example_id"], context["text"], "query", [mention["entity_id"]])
                yield row | {"span": [span["start"], span["end"]], "language": context["language"]}, place
        except (KeyError, TypeError) as error:
            raise DataError(f"{place}: not in Mewsli-X's form ({type(error).__name__}: {error})") from error


def _row(name: str, text: str, side: str, gold: list[str]) -> dict[str, Any]:
    return {"id": name, "text": text, "side": side, "gold": gold, "language": "", "span": None, "context": ""}
