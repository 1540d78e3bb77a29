"""Search in candidates: relevance from either side, mAP@20 against hand-made rankings, one pool of all languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effstilts.cli import main
from effstilts.data import sources
from effstilts.errors import DataError
from effstilts.model.opening import save
from effstilts.retrieval import sides
from effstilts.retrieval.candidates import candidates, ranked
from effstilts.store import Store
from effstilts.tasks.registry import get


def row(side: str, name: str, *gold: str, text: str = "t", span: Any = None) -> dict[str, Any]:
    return {"side": side, "id": name, "gold": list(gold), "text": text, "span": span}


def test_a_pair_is_relevant_where_either_side_says_so() -> None:
    rows = [
        row("query", "q1", "c1"),
        row("query", "q2", "gone"),
        row("candidate", "c1"),
        row("candidate", "c2", "q1", "q2"),
    ]
    assert candidates(rows).relevant == {"q1": {"c1", "c2"}, "q2": {"c2"}}
    assert candidates(rows, first=1).query_ids == ["q1"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("candidate", "c")], "there are no queries"),
        ([row("query", "q", "c")], "there are no candidates"),
        ([row("query", "q", "c"), row("query", "q", "c"), row("candidate", "c")], "'q' stands twice"),
        (
            [row("query", "q", "a"), *(row("candidate", name) for name in "abb")],
            "'b' stands twice among the candidates",
        ),
        ([row("query", "q", "d"), row("candidate", "c")], "no candidate answers the query 'q'"),
    ],
)
def test_what_cannot_be_searched_is_named(rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        candidates(rows)


def test_map_by_hand() -> None:
    """q1's answers are 1st and 3rd: (1/1 + 2/3) / 2; q2's one answer is 2nd: 1/2."""
    rows = [row("query", "q1", "a", "c"), row("query", "q2", "b"), *(row("candidate", name) for name in "abc")]
    offered = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    queries = np.array([[3, 2, 1], [1, 0.5, 0]], np.float32)
    score, rankings = ranked(candidates(rows), queries, offered)
    assert rankings == {"q1": ["a", "b", "c"], "q2": ["a", "b", "c"]}
    assert score == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_a_mention_is_asked_by_what_surrounds_it() -> None:
    text = "x" * 500 + "Berlin" + "y" * 500
    (asked,) = candidates([row("query", "q", "c", text=text, span=[500, 506]), row("candidate", "c")]).queries
    assert asked == "x" * 160 + "Berlin" + "y" * 160
    (asked,) = candidates([row("query", "q", "c", text=text, span=[3, 506]), row("candidate", "c")]).queries
    assert asked == text[:666]


def xquad_r(sentences: list[str]) -> dict[str, Any]:
    context, breaks, questions = "", [], []
    for i, sentence in enumerate(sentences):
        breaks.append([len(context), len(context) + len(sentence)])
        answer = {"text": sentence.split()[0], "answer_start": len(context)}
        questions.append({"id": f"q{i}", "question": f"{sentence}?", "answers": [answer]})
        context += sentence + " "
    paragraph = {"context": context, "sentences": sentences, "sentence_breaks": breaks, "qas": questions}
    return {"data": [{"paragraphs": [paragraph]}]}


def test_lareqa_searches_the_sentences_of_all_languages(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same sentences in eleven languages, each question with an answer in each; candidates are embedded once."""
    save(encoder, tmp_path / "model")
    (tmp_path / "lareqa").mkdir()
    languages = get("lareqa").languages
    for language in languages:
        made = xquad_r(["the cat sleeps here.", "a dog barks there.", "birds sing in trees."])
        (tmp_path / "lareqa" / f"{language}.json").write_text(json.dumps(made), encoding="utf-8")
    (tmp_path / "r.yaml").write_text(f"model: {tmp_path / 'model'}\nretrieval: {{tasks: [lareqa]}}\n", encoding="utf-8")
    embedded: list[int] = []
    whole = sides.Embedder.__call__

    def counting(self: Any, texts: list[str], **rest: Any) -> Any:
        embedded.append(len(texts))
        return whole(self, texts, **rest)

    monkeypatch.setattr(sides.Embedder, "__call__", counting)
    read: list[str] = []
    whole_load = sources.load

    def loading(task: Any, split: Any, language: str, *rest: Any) -> Any:
        read.append(language)
        return whole_load(task, split, language, *rest)

    monkeypatch.setattr(sources, "load", loading)
    words = ["run", str(tmp_path / "r.yaml"), "--store", str(tmp_path / "s"), "--data", str(tmp_path), "--offline"]
    assert main([*words, "--quiet"]) == 0
    store = Store(tmp_path / "s")
    cells = store.read_run("r")["cells"]
    assert [(cell["language"], cell["metric"]) for cell in cells] == [(name, "map_at_20") for name in languages]
    assert embedded == [3, 33, *[3] * 10] and len(read) <= 2 * len(languages)
    assert len({cell["score"] for cell in cells}) == 1 and cells[0]["score"] > 100 / 6
    kind, _, key = cells[1]["step"].partition("-")
    rankings = json.loads((store.open(kind, key).folder / f"test-{languages[1]}.json").read_text(encoding="utf-8"))
    assert set(rankings) == {"q0", "q1", "q2"} and len(rankings["q0"]) == 20
    assert {name.split(":")[0] for name in rankings["q0"]} <= set(languages)
