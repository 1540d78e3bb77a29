"""Our numbers against the official scripts themselves, on random and adversarial input (see official_scripts.py)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from effstilts.data.xtreme_folders import score_folders
from effstilts.errors import DataError
from effstilts.evaluation.qa_text import best_no_answer_threshold, mlqa_score, squad_score
from effstilts.evaluation.ranking import average_precision, pair_f1
from effstilts.evaluation.xtreme import BENCHMARKS, Version, official_report
from effstilts.studies.submission import official_order
from tests.official_folders import make_folders
from tests.unit.evaluation.official_scripts import oracle, oracle_path

# Articles of each language, punctuation of several scripts, Han inside and outside the official range, white space
# that is not ASCII, casing that changes length, joiners and half-width forms.
PIECES = [
    "the", "A", "an", "THE.", "una", "los", "der", "Dem", "của", "cái", "ال", "البيت", " ال", "و", "。", "،", "«x»",
    "¿", "电", "池", "龥", "龦", "〇", "Ａ", "İ", "ß", "ſ", "\u3000", "\xa0", "\u200d", "\u200c", "\t", "\n", " ", "-",
    "—", "$", "`", "1990", "3,5", "x", "É", "e\u0301", "हिन्दी", "मैं।", "ไทย", "😀",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=6).map("".join) | st.lists(
    st.sampled_from(PIECES), max_size=5
).map(" ".join)
gold_answers = st.lists(texts, min_size=1, max_size=3).filter(lambda answers: any(a.strip() for a in answers))
LASER_CODES = (
    "afr ara bul ben deu ell spa est eus pes fin fra heb hin hun ind ita jpn jav kat kaz kor mal mar nld por rus swh "
    "tam tel tha tgl tur urd vie cmn aze lit pol ukr ron"
)
many = settings(max_examples=300, derandomize=True, database=None)


def dataset(questions: list[tuple[str, list[str]]]) -> list[dict[str, Any]]:
    rows = [{"id": name, "answers": [{"text": text} for text in answers]} for name, answers in questions]
    return [{"paragraphs": [{"qas": [row]}]} for row in rows]


@pytest.mark.parametrize("script", ["xtreme/third_party/evaluate_squad.py", "squad/evaluate-v1.1.py"])
def test_squad_v1(script: str) -> None:
    official = oracle(script)

    @many
    @given(gold_answers, texts)
    def check(answers: list[str], prediction: str) -> None:
        expected = official.evaluate(dataset([("q", answers)]), {"q": prediction})
        found = squad_score({"q": prediction}, {"q": answers})
        assert {m: found[m] for m in expected} == pytest.approx(expected)

    check()


@pytest.mark.parametrize("script", ["xtreme/third_party/evaluate_mlqa.py", "mlqa/mlqa_evaluation_v1.py"])
@pytest.mark.parametrize("language", ["en", "es", "hi", "vi", "de", "ar", "zh"])
def test_mlqa(script: str, language: str) -> None:
    official = oracle(script)

    @settings(many, max_examples=150)
    @given(gold_answers, texts)
    def check(answers: list[str], prediction: str) -> None:
        expected = official.evaluate(dataset([("q", answers)]), {"q": prediction}, language)
        found = mlqa_score({"q": prediction}, {"q": answers}, language)
        assert {m: found[m] for m in expected} == pytest.approx(expected)

    check()


questions_v2 = st.lists(st.tuples(st.lists(texts, max_size=2), texts, st.floats(0, 1)), min_size=1, max_size=6)


def test_squad_v2() -> None:
    official = oracle("squad/evaluate-v2.0.py")

    @many
    @given(questions_v2)
    def check(rows: list[tuple[list[str], str, float]]) -> None:
        questions = [(f"q{i}", answers) for i, (answers, _, _) in enumerate(rows)]
        predictions = {f"q{i}": text for i, (_, text, _) in enumerate(rows)}
        exact, f1 = official.get_raw_scores(dataset(questions), predictions)
        expected = official.make_eval_dict(exact, f1)
        found = squad_score(predictions, dict(questions), no_answer=True)
        assert (found["exact_match"], found["f1"]) == pytest.approx((expected["exact"], expected["f1"]))
        has_answer = official.make_qid_to_has_ans(dataset(questions))
        for prefix, wanted in (("has_ans", True), ("no_ans", False)):
            chosen = [name for name, has in has_answer.items() if has is wanted]
            if chosen:
                part = official.make_eval_dict(exact, f1, qid_list=chosen)
                assert found[f"{prefix}_f1"] == pytest.approx(part["f1"])
                assert found[f"{prefix}_total"] == part["total"]

    check()


def test_squad_v2_thresholds() -> None:
    official = oracle("squad/evaluate-v2.0.py")

    @many
    @given(questions_v2)
    def check(rows: list[tuple[list[str], str, float]]) -> None:
        assume(len({score for _, _, score in rows}) == len(rows))
        questions = [(f"q{i}", answers) for i, (answers, _, _) in enumerate(rows)]
        predictions = {f"q{i}": text for i, (_, text, _) in enumerate(rows)}
        absent = {f"q{i}": score for i, (_, _, score) in enumerate(rows)}
        exact, f1 = official.get_raw_scores(dataset(questions), predictions)
        has_answer = official.make_qid_to_has_ans(dataset(questions))
        found = best_no_answer_threshold(predictions, dict(questions), absent)
        for name, raw in (("exact_match", exact), ("f1", f1)):
            best, threshold = official.find_best_thresh(predictions, raw, absent, has_answer)
            assert found[f"best_{name}"] == pytest.approx(best)
            assert found[f"best_{name}_threshold"] == threshold

    check()


def evaluate(root: Path, version: Version) -> dict[str, Any]:
    official = oracle("xtreme/evaluate.py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        overall, detailed = official.evaluate(str(root / "predictions"), str(root / "labels"), version)
    report: dict[str, Any] = json.loads(json.dumps({**overall, **detailed}))
    return report


def ours(root: Path, version: Version, **options: Any) -> dict[str, Any]:
    benchmark = BENCHMARKS[version]
    scores = score_folders(benchmark, root / "predictions", root / "labels", **options)
    report: dict[str, Any] = json.loads(json.dumps(official_report(benchmark, scores)))
    return report


def same(found: Any, expected: Any) -> bool:
    """Whether two reports have the same keys in the same order, and numbers equal but for rounding."""
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    return bool(found == pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize("version", ["xtreme", "xtreme-r"])
def test_the_whole_report_of_random_folders(tmp_path: Path, version: Version) -> None:
    oracle("xtreme/evaluate.py")
    for seed in range(3):
        root = tmp_path / str(seed)
        make_folders(root, version, seed)
        if version == "xtreme-r":
            for side in ("predictions", "labels"):
                for path in (root / side / "lareqa").iterdir():
                    path.unlink()
                (root / side / "lareqa").rmdir()
        report = ours(root, version)
        assert same(report, evaluate(root, version))
        assert ("all_task" in report) == (version == "xtreme")


def test_the_official_script_cannot_score_xtreme_r_with_lareqa(tmp_path: Path) -> None:
    oracle("xtreme/evaluate.py")
    make_folders(tmp_path, "xtreme-r")
    with pytest.raises(KeyError, match="avg_metric"):
        evaluate(tmp_path, "xtreme-r")
    report = ours(tmp_path, "xtreme-r")
    assert report["all_task"] == pytest.approx(
        sum(report[t]["avg_metric"] for t in BENCHMARKS["xtreme-r"].targets) / 10
    )


def test_the_mock_submission_of_the_repository() -> None:
    """The averages are those of the repository's own evaluate_test.py, which were made with the seqeval of 2020."""
    mock = oracle_path("xtreme/mock_test_data")
    report = ours(mock, "xtreme", seqeval="0.x")
    assert report["udpos"]["avg_f1"] == pytest.approx(70.21746048354693)
    assert report["panx"]["avg_f1"] == pytest.approx(57.50793650793652)
    assert report["mlqa"]["avg_f1"] == pytest.approx(81.76870748299321)
    assert report["xquad"]["avg_exact_match"] == pytest.approx(77.27272727272727)
    assert report["bucc2018"]["avg_f1"] == pytest.approx(55.0)
    assert ours(mock, "xtreme-r", partial=True)["mewslix"]["avg_map@20"] == pytest.approx(14.39025156130419)
    oracle("xtreme/evaluate.py")
    assert same(ours(mock, "xtreme"), evaluate(mock, "xtreme"))


def one_file(root: Path, file: str, predictions: str, labels: str) -> tuple[str, str]:
    for side, text in (("predictions", predictions), ("labels", labels)):
        (root / side / file).parent.mkdir(parents=True, exist_ok=True)
        (root / side / file).write_text(text, encoding="utf-8")
    return str(root / "predictions" / file), str(root / "labels" / file)


@pytest.mark.parametrize(
    ("task", "suffix", "predictions", "labels", "official_score"),
    [
        # Gold removed by XTREME's own preprocessing; the script takes it for gold.
        ("xquad", "json", '{"q": "Paris"}', '[{"paragraphs": [{"qas": [{"id": "q", "answers": [{"text": ""}]}]}]}]', 0),
        ("xcopa", "jsonl", '{"label": 0}\n{"label": 1}\n' * 30, '{"label": 0}\n' * 60, 50.0),
        ("panx", "tsv", "B-PER\n" * 60, "O\n" * 60, 0.0),
        # A label outside the set, and a pair the wrong way round, count as wrong.
        ("xnli", "tsv", "1\n2\n", "neutral\nentailment\n", 0.0),
        ("bucc2018", "tsv", "en-1\tde-1\n", "de-1\ten-1\n", 0.0),
        # An empty line is a label like any other, as long as both files have one.
        ("pawsx", "tsv", "0\n\n", "1\n\n", 50.0),
    ],
)
def test_what_the_official_script_scores_and_we_refuse(
    tmp_path: Path, task: str, suffix: str, predictions: str, labels: str, official_score: float
) -> None:
    official = oracle("xtreme/evaluate.py")
    version: Version = "xtreme-r" if task == "xcopa" else "xtreme"
    language = "et" if task == "xcopa" else "de"
    files = one_file(tmp_path, f"{task}/test-{language}.{suffix}", predictions, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = official.evaluate_one_task(*files, task, language=language)
    assert next(iter(scores.values())) == official_score
    with pytest.raises(DataError):
        ours(tmp_path, version, partial=True)


def test_mewslix_and_lareqa_rankings() -> None:
    mewslix = oracle("xtreme/third_party/utils_mewslix.py")
    lareqa = oracle("xtreme/third_party/utils_lareqa.py")
    ids = st.sampled_from([f"Q{i}" for i in range(30)])

    @many
    @given(st.lists(ids, max_size=40), st.sets(ids, min_size=1))
    def check(ranked: list[str], relevant: set[str]) -> None:
        assert average_precision(ranked, relevant, 20) == pytest.approx(
            lareqa.average_precision_at_k(sorted(relevant), ranked, 20)
        )
        one = min(relevant)
        assert average_precision(ranked, {one}, 20) == pytest.approx(mewslix.evaluate({"m": [one]}, {"m": ranked}))

    check()


def test_bucc_pairs() -> None:
    official = oracle("xtreme/evaluate.py")
    pair = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda p: f"de-{p[0]}\ten-{p[1]}")

    @many
    @given(st.lists(pair), st.lists(pair, min_size=1))
    def check(predicted: list[str], gold: list[str]) -> None:
        found = pair_f1(predicted, gold)
        expected = official.bucc_f1(gold, predicted)
        assert (found.f1, found.precision, found.recall) == pytest.approx(tuple(expected.values()))

    check()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(english=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])), min_size=1))
def test_tatoebas_order(tmp_path: Path, english: list[str]) -> None:
    preprocess: ModuleType = oracle("xtreme/utils_preprocess.py")
    for code in LASER_CODES.split():
        for end in (code, "eng"):
            (tmp_path / f"tatoeba.{code}-eng.{end}").write_text("".join(f"{line}\n" for line in english))
    preprocess.tatoeba_preprocess(SimpleNamespace(data_dir=str(tmp_path), output_dir=str(tmp_path / "out")))
    expected = (tmp_path / "out/de-en.en").read_text().removesuffix("\n").split("\n")
    order = official_order([{"target": line} for line in english])
    assert [english[row].strip() for row in order] == expected
