"""Answers are compared by the task's own rules: SQuAD's in XQuAD and TyDiQA, each language's in MLQA."""

from __future__ import annotations

import pytest

from effstilts.errors import RecipeError
from effstilts.identity import of_part
from effstilts.kinds import kind_of
from effstilts.tasks.registry import declare, get
from effstilts.tasks.task import Task
from effstilts.workbench import TaskPart


def scored(task: Task, prediction: str, gold: str, language: str) -> dict[str, float]:
    example = {"id": "q", "question": "?", "context": gold, "answers": [{"text": gold, "start": 0}]}
    return kind_of("span").score(task, [prediction], [example], language)


@pytest.mark.parametrize(
    ("language", "prediction", "gold", "mlqa", "squad"),
    [
        ("de", "Hund", "der Hund", 100.0, 0.0),
        ("zh", "电化电池。", "电化电池", 100.0, 0.0),
        ("en", "the dog", "dog", 100.0, 100.0),
        ("de", "a Hund", "Hund", 0.0, 100.0),
    ],
)
def test_exact_match(language: str, prediction: str, gold: str, mlqa: float, squad: float) -> None:
    assert scored(get("mlqa"), prediction, gold, language)["exact_match"] == mlqa
    for name in ("xquad", "tydiqa"):
        assert scored(get(name), prediction, gold, language)["exact_match"] == squad


def test_the_normaliser_is_a_tasks_own_and_counts_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from effstilts.data import sources

    monkeypatch.setattr(sources, "fingerprint", lambda *_: "data")
    spec = {"kind": "span", "files": {"test": "t.json"}, "format": "squad_json", "languages": ["de"]}
    plain, own = declare("mine", spec), declare("mine", {**spec, "normaliser": "mlqa"})
    assert (plain.normaliser, own.normaliser) == ("squad", "mlqa")
    bench = type("Bench", (), {"where": None})()
    keys = [dict(of_part(bench, TaskPart(task, "de"), "test")) for task in (plain, own)]
    # Keys of tasks that were scored so before do not move.
    assert "normaliser" not in keys[0] and keys[1] == {**keys[0], "normaliser": "mlqa"}
    with pytest.raises(RecipeError, match="'english' is not one of squad, mlqa"):
        declare("mine", {**spec, "normaliser": "english"})
    with pytest.raises(RecipeError, match="that have an answer"):
        declare("mine", {**spec, "normaliser": "mlqa", "no_answer": True})
