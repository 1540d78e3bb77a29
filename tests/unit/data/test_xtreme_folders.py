"""Whole folders: numbers by other libraries and by hand, and every misfit named."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from seqeval.metrics import f1_score  # type: ignore[import-untyped]
from sklearn.metrics import accuracy_score  # type: ignore[import-untyped]

from effstilts.data.xtreme_folders import check_submission, score_folders
from effstilts.errors import DataError
from effstilts.evaluation.qa_text import mlqa_score, squad_score
from effstilts.evaluation.xtreme import BENCHMARKS, Version
from tests.official_folders import make_folders

XTREME = BENCHMARKS["xtreme"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    make_folders(tmp_path, "xtreme")
    return tmp_path / "predictions", tmp_path / "labels"


def independent(task: str, language: str, predicted: Any, gold: Any) -> dict[str, float]:
    """The headline numbers of a file by scikit-learn, seqeval, sets, or the text metrics question by question."""
    if task in ("udpos", "panx"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"f1": 100 * f1_score(gold, predicted)}
    if task == "bucc2018":
        right = len(set(predicted) & set(gold))
        return {"f1": 100 * 2 * right / (len(set(predicted)) + len(set(gold)))}
    if task in ("xquad", "mlqa", "tydiqa"):
        rows = []
        for name, answers in gold:
            given = {"q": predicted.get(name, "")} if name in predicted else {}
            one = {"q": answers}
            scored = (
                mlqa_score(given, one, language, "zero") if task == "mlqa" else squad_score(given, one, False, "zero")
            )
            rows.append(scored)
        return {metric: sum(row[metric] for row in rows) / len(rows) for metric in ("exact_match", "f1")}
    if task in ("mewslix", "lareqa"):
        total = 0.0
        for name, relevant in gold.items():
            hits, ranked = 0, list(dict.fromkeys(predicted.get(name, [])[:20]))
            for candidate in ranked:
                if candidate in relevant:
                    hits += 1
                    total += hits / (predicted[name].index(candidate) + 1) / min(len(relevant), 20)
        return {"map@20": 100 * total / len(gold)}
    return {"accuracy": 100 * accuracy_score(gold, predicted)}


@pytest.mark.parametrize("version", ["xtreme", "xtreme-r"])
def test_every_task_and_language_has_the_independent_number(tmp_path: Path, version: Version) -> None:
    made = make_folders(tmp_path, version, seed=1)
    scores = score_folders(BENCHMARKS[version], tmp_path / "predictions", tmp_path / "labels")
    for (task, language), (predicted, gold) in made.items():
        for metric, value in independent(task, language, predicted, gold).items():
            assert scores.detailed[task][metric][language] == pytest.approx(value), (task, language, metric)
    assert not scores.partial and not scores.skipped
    assert set(scores.beside) == {"udpos", "panx"}
    assert any("no prediction for 1 of" in note or "no prediction for 2 of" in note for note in scores.notes)


def test_gold_as_prediction_is_perfect(folders: tuple[Path, Path]) -> None:
    _, labels = folders
    scores = score_folders(BENCHMARKS["xtreme"], *_gold_as_predictions(labels))
    assert {v for metrics in scores.detailed.values() for values in metrics.values() for v in values.values()} == {
        100.0
    }


def _gold_as_predictions(labels: Path) -> tuple[Path, Path]:
    import json

    folder = labels.parent / "gold"
    shutil.copytree(labels, folder)
    for path in folder.rglob("*.json"):
        questions = json.loads(path.read_text())["data"][0]["paragraphs"][0]["qas"]
        # One prediction stands for every row of a repeated id: an id's rows are made to share their gold here.
        for question in questions:
            question["answers"] = next(q["answers"] for q in questions if q["id"] == question["id"])
        path.write_text(json.dumps({q["id"]: q["answers"][0]["text"] for q in questions}))
        label = labels / path.relative_to(folder)
        label.write_text(json.dumps({"data": [{"paragraphs": [{"qas": questions}]}]}))
    return folder, labels


def change(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def test_a_missing_language_is_named_and_partial_goes_on(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    (predictions / "panx/test-yo.tsv").unlink()
    (labels / "panx/test-af.tsv").unlink()
    with pytest.raises(DataError, match=r"panx: 2 of 40 languages are missing: .*--partial"):
        score_folders(XTREME, predictions, labels)
    scores = score_folders(XTREME, predictions, labels, partial=True)
    assert scores.partial == {"panx": ["af", "yo"]} and len(scores.detailed["panx"]["f1"]) == 38


def test_an_absent_task_is_skipped_as_in_the_official_script_but_said(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    shutil.rmtree(predictions / "xnli")
    shutil.rmtree(labels / "mlqa")
    scores = score_folders(XTREME, predictions, labels)
    assert scores.skipped == {"xnli": "no predictions", "mlqa": "no labels"}
    for task in XTREME.targets:
        shutil.rmtree(labels / task, ignore_errors=True)
    with pytest.raises(DataError, match="have no task of xtreme in common"):
        score_folders(XTREME, predictions, labels)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("xnli/test-sw.tsv", "neutral\n", "xnli/test-sw.tsv: 1 rows, .*labels/xnli/test-sw.tsv has 9"),
        ("udpos/test-zh.tsv", "X\n", r"udpos/test-zh.tsv:1: sentence 1 has 1 tags, .*labels/udpos/test-zh.tsv:1 has"),
        ("xquad/test-en.json", '{"other": "a"}', "none of its ids is in .*another language"),
        ("xquad/test-en.json", '{"q0": 1}', "'q0'"),
        ("xnli/test-xx.tsv", "neutral\n", "test-xx.tsv does not belong there"),
        ("xquad/test-en.tsv", "a\n", "test-en.tsv does not belong there: xquad has test-LANGUAGE.json"),
        ("XNLI/test-en.tsv", "neutral\n", "XNLI does not belong there"),
        ("notes.txt", "hello", "notes.txt does not belong there"),
    ],
)
def test_a_misfit_is_named(folders: tuple[Path, Path], file: str, text: str, message: str) -> None:
    predictions, labels = folders
    (predictions / file).parent.mkdir(exist_ok=True)
    change(predictions / file, text)
    with pytest.raises(DataError, match=message) as error:
        score_folders(XTREME, predictions, labels)
    assert "\n" not in str(error.value)


def test_a_short_sentence_list_is_named(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    path = predictions / "panx/test-de.tsv"
    change(path, path.read_text(encoding="utf-8").rpartition("\n\n")[0] + "\n")
    with pytest.raises(DataError, match="test-de.tsv: 4 sentences, .* has 5"):
        score_folders(XTREME, predictions, labels)


def test_stripped_labels_are_refused_with_their_file(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    path = labels / "mlqa/test-hi.json"
    change(path, '{"data": [{"paragraphs": [{"qas": [{"id": "q0", "answers": [{"text": "", "answer_start": 0}]}]}]}]}')
    with pytest.raises(DataError, match=r"labels/mlqa/test-hi.json: question 'q0' .*stripped"):
        score_folders(XTREME, predictions, labels)


def test_files_of_the_other_version_are_no_misfit(tmp_path: Path) -> None:
    make_folders(tmp_path, "xtreme-r")
    make_folders(tmp_path, "xtreme")
    scores = score_folders(XTREME, tmp_path / "predictions", tmp_path / "labels")
    assert len(scores.detailed) == 9 and any("of another version" in note for note in scores.notes)


def test_a_submission_is_read_and_what_it_lacks_is_said(folders: tuple[Path, Path]) -> None:
    predictions, _ = folders
    assert check_submission(XTREME, predictions) == {}
    (predictions / "tydiqa/test-te.json").unlink()
    (predictions / ".DS_Store").write_text("")
    assert check_submission(XTREME, predictions) == {"tydiqa": ["te"]}
    assert set(check_submission(BENCHMARKS["xtreme-r"], predictions)) > {"xcopa", "lareqa", "mewslix", "panx"}
    change(predictions / "bucc2018/test-de.tsv", "en-1\tde-1\n")
    with pytest.raises(DataError, match="test-de.tsv:1"):
        check_submission(XTREME, predictions)
