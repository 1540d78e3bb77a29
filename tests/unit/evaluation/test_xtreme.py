"""XTREME's tasks, metrics and averages: each place where the official script has a trap, and what stands here."""

from __future__ import annotations

from typing import Any

import pytest

from effstilts.errors import DataError
from effstilts.evaluation.xtreme import BENCHMARKS, Scores, Target, official_report, score_language
from effstilts.tasks.registry import known_tasks

XTREME, XTREME_R = BENCHMARKS["xtreme"], BENCHMARKS["xtreme-r"]


def scores_of(values: dict[str, dict[str, float]], partial: tuple[str, ...] = ()) -> Scores:
    """Every task's metrics with the same value in two languages."""
    detailed = {t: {m: {"aa": v, "bb": v} for m, v in metrics.items()} for t, metrics in values.items()}
    return Scores(detailed, {name: ["cc"] for name in partial})


def all_at(benchmark: Any, value: float) -> dict[str, dict[str, float]]:
    names = {"labels": ["accuracy"], "choices": ["accuracy"], "answers": ["exact_match", "f1"], "rankings": ["map@20"]}
    return {
        t: {m: value for m in names.get(x.form, ["f1", "precision", "recall"])} for t, x in benchmark.targets.items()
    }


@pytest.mark.parametrize("benchmark", [XTREME, XTREME_R], ids=["xtreme", "xtreme-r"])
def test_the_tasks_are_those_of_the_registry_with_the_same_languages(benchmark: Any) -> None:
    wider = {"panx": {"qu", "pl", "uk", "az", "lt", "pa", "gu", "ro"}, "udpos": {"lt", "pl", "uk", "wo", "ro"}}
    wider |= {"xquad": {"ro"}, "tatoeba": {"az", "lt", "pl", "uk", "ro", "cs"}}
    tasks = known_tasks()
    compared = 0
    for name, target in benchmark.targets.items():
        variant = tasks.get(f"{benchmark.version}/{name}")
        task = variant or tasks.get(name)
        if task is None:
            continue
        allowed = set() if variant else wider.get(name, set())
        assert set(target.languages) ^ set(task.languages) <= allowed, name
        assert target.labels <= set(task.labels) | set(task.label_values)
        compared += 1
    assert compared >= 8


def test_numbers_of_tasks_and_languages() -> None:
    counts = {name: len(target.languages) for name, target in XTREME.targets.items()}
    assert counts == {
        "pawsx": 7, "xnli": 15, "panx": 40, "udpos": 33, "bucc2018": 4, "tatoeba": 36, "xquad": 11, "mlqa": 7,
        "tydiqa": 9,
    }  # fmt: skip
    counts = {name: len(target.languages) for name, target in XTREME_R.targets.items()}
    assert counts == {
        "xnli": 15, "panx": 48, "udpos": 38, "tatoeba": 41, "xcopa": 11, "lareqa": 11, "mewslix": 11, "xquad": 12,
        "mlqa": 7, "tydiqa": 9,
    }  # fmt: skip
    for benchmark in (XTREME, XTREME_R):
        for target in benchmark.targets.values():
            assert len(set(target.languages)) == len(target.languages)


def test_questions_average_exact_match_and_f1_and_the_overall_score_is_over_tasks_not_groups() -> None:
    values = all_at(XTREME, 0.0)
    values["xquad"] = {"exact_match": 40.0, "f1": 60.0}
    values["udpos"] = {"f1": 90.0, "precision": 0.0, "recall": 0.0}
    report = official_report(XTREME, scores_of(values))
    assert report["xquad"]["avg_metric"] == 50.0
    assert (report["qa"], report["tagging"], report["retrieval"]) == (pytest.approx(50 / 3), 45.0, 0.0)
    assert report["all_task"] == pytest.approx(140 / 9)
    assert list(report) == ["all_task", "classification", "tagging", "qa", "retrieval", *XTREME.targets]
    assert list(report["udpos"]) == ["f1", "precision", "recall", "avg_f1", "avg_precision", "avg_recall", "avg_metric"]


def test_a_task_that_lacks_languages_or_is_absent_enters_no_average() -> None:
    values = all_at(XTREME, 50.0)
    report = official_report(XTREME, scores_of(values, partial=("panx",)))
    assert "all_task" not in report and "tagging" not in report and report["qa"] == 50.0
    assert report["panx"]["avg_f1"] == 50.0
    del values["mlqa"]
    assert {"all_task", "qa"}.isdisjoint(official_report(XTREME, scores_of(values)))


def test_xtreme_r_without_lareqa_has_no_overall_score_as_the_official_script() -> None:
    values = all_at(XTREME_R, 50.0)
    values["lareqa"] = {"map@20": 100.0}
    assert official_report(XTREME_R, scores_of(values))["all_task"] == pytest.approx(55.0)
    assert official_report(XTREME_R, scores_of(values))["retrieval"] == 50.0
    del values["lareqa"]
    report = official_report(XTREME_R, scores_of(values))
    assert "all_task" not in report and report["multi_choice"] == report["classification"] == 50.0


def test_pos_is_span_f1_not_accuracy() -> None:
    target = XTREME.targets["udpos"]
    gold, predicted = [["PRON", "PRON", "VERB", "NOUN"]], [["PRON", "DET", "VERB", "NOUN"]]
    # Two PRON are one span: one wrong tag of four makes one span of three wrong, and one too many.
    found = score_language(target, predicted, gold, "en")
    assert found == pytest.approx({"f1": 200 * 2 / 7, "precision": 50.0, "recall": 200 / 3})


def test_the_seqeval_of_2020_reads_pos_tags_otherwise() -> None:
    target = XTREME.targets["udpos"]
    gold, predicted = [["SCONJ", "NOUN"]], [["CCONJ", "NOUN"]]
    assert score_language(target, predicted, gold, "en")["f1"] == 100.0
    assert score_language(target, predicted, gold, "en", seqeval="0.x")["f1"] == 50.0


def test_answers_are_normalised_by_language_in_mlqa_alone() -> None:
    gold, predicted = [("q", ["der Hund"])], {"q": "Hund"}
    assert score_language(XTREME.targets["mlqa"], predicted, gold, "de")["exact_match"] == 100.0
    assert score_language(XTREME.targets["xquad"], predicted, gold, "de")["exact_match"] == 0.0
    gold, predicted = [("q", ["电化电池"])], {"q": "电池"}
    assert score_language(XTREME.targets["mlqa"], predicted, gold, "zh")["f1"] == pytest.approx(200 / 3)
    assert score_language(XTREME.targets["xquad"], predicted, gold, "zh")["f1"] == 0.0


def test_a_missing_answer_scores_zero_and_a_repeated_question_counts_twice() -> None:
    gold = [("q", ["yes"]), ("q", ["no"]), ("r", ["maybe"]), ("s", ["so"])]
    found = score_language(XTREME.targets["tydiqa"], {"q": "yes", "s": "so"}, gold, "en")
    assert found == {"exact_match": 50.0, "f1": 50.0}


STRIPPED = [
    ("xnli", ["", "neutral"]),
    ("xnli", ["neutral"] * 50),
    ("pawsx", ["0"] * 50),
    ("udpos", [["X"] * 25] * 2),
    ("panx", [["O"] * 60]),
    ("xquad", [("q", [""])]),
    ("mlqa", [("q", [])]),
    ("tydiqa", [("p", ["gold"]), ("q", [" "])]),
    ("xcopa", [0] * 50),
    ("mewslix", {"m": [""]}),
    ("lareqa", {"q": []}),
]


@pytest.mark.parametrize(("name", "gold"), STRIPPED)
def test_stripped_gold_is_refused_never_scored(name: str, gold: Any) -> None:
    target: Target = {**XTREME.targets, **XTREME_R.targets}[name]
    predictions = (
        {"q": "a", "p": "a"} if target.form == "answers" else {"m": ["Q"]} if target.form == "rankings" else gold
    )
    with pytest.raises(DataError, match="stripped"):
        score_language(target, predictions, gold, "en")


def test_gold_of_one_label_is_taken_where_it_is_short() -> None:
    assert score_language(XTREME.targets["pawsx"], ["0", "1"], ["0", "0"], "en") == {"accuracy": 50.0}
