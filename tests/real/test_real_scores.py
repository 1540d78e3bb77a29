"""XTREME's scorer on the real dev files of EFFSTILTS_DATA: perfect predictions, stripped files, the official script."""

from __future__ import annotations

import json
import warnings
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effstilts.cli import main
from effstilts.data.readers import READERS
from effstilts.data.sources import DataConfig, evaluation_splits, load
from effstilts.data.xtreme_files import write_gold, write_predictions
from effstilts.data.xtreme_folders import score_folders
from effstilts.errors import DataError
from effstilts.evaluation.qa_text import normalise_answer, normalise_mlqa
from effstilts.evaluation.xtreme import BENCHMARKS
from effstilts.studies.submission import official_gold
from effstilts.tasks.registry import get
from tests.unit.evaluation.official_scripts import oracle

pytestmark = pytest.mark.real

TARGETS = {**BENCHMARKS["xtreme-r"].targets, **BENCHMARKS["xtreme"].targets}
NAMES = ["xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa", "tatoeba", "bucc2018", "xcopa"]


def write_labels(name: str, data_folder: Path, root: Path, languages: int = 99) -> dict[str, Any]:
    """Writes the gold of the first languages there are into root/labels; returns language -> gold."""
    task, target, config = get(name), TARGETS[name], DataConfig(data_folder)
    found = {}
    for language, split in islice(evaluation_splits(task, config).items(), languages):
        if language in target.languages:
            gold = official_gold(target, task, load(task, split, language, config).examples)
            write_gold(target, root / "labels" / target.file(language), gold)
            found[language] = gold
    return found


@pytest.mark.parametrize("name", NAMES)
def test_gold_as_prediction_is_perfect(
    data_folder: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = TARGETS[name]
    found = write_labels(name, data_folder, tmp_path)
    for language, gold in found.items():
        content = gold
        if target.form == "answers":
            content = {question: answers[0] for question, answers in gold}
            assert len(content) == len(gold)
        write_predictions(target, tmp_path / "predictions" / target.file(language), content)
    version = "xtreme" if name in BENCHMARKS["xtreme"].targets else "xtreme-r"
    out = tmp_path / "scores.json"
    folders = [str(tmp_path / "predictions"), str(tmp_path / "labels")]
    assert main(["xtreme", "score", *folders, "--partial", "--version", version, "--json", str(out)]) == 0
    capsys.readouterr()
    scored = json.loads(out.read_text())[name]
    metrics = [metric for metric in scored if not metric.startswith("avg_")]
    assert metrics and all(set(scored[metric]) == set(found) for metric in metrics)
    for metric in metrics:
        for language, value in scored[metric].items():
            assert value == pytest.approx(best(target.form, metric, name, language, found[language])), (
                metric,
                language,
            )


def best(form: str, metric: str, name: str, language: str, gold: Any) -> float:
    """100, but for the F1 of answers that normalise to nothing (MLQA has "La" in Spanish): 0 in the official script."""
    if (form, metric) != ("answers", "f1"):
        return 100.0
    normalise = partial(normalise_mlqa, language=language) if name == "mlqa" else normalise_answer
    return 100.0 * sum(bool(normalise(answers[0])) for _, answers in gold) / len(gold)


@pytest.mark.parametrize("name", ["xnli", "udpos", "panx", "xquad", "mlqa", "tydiqa", "tatoeba", "bucc2018", "xcopa"])
def test_spoilt_predictions_have_the_official_scripts_numbers(data_folder: Path, tmp_path: Path, name: str) -> None:
    official, target = oracle("xtreme/evaluate.py"), TARGETS[name]
    rng = np.random.default_rng(0)
    for language, gold in write_labels(name, data_folder, tmp_path, languages=4).items():
        write_predictions(target, tmp_path / "predictions" / target.file(language), spoilt(target.form, gold, rng))
    benchmark = BENCHMARKS["xtreme" if name in BENCHMARKS["xtreme"].targets else "xtreme-r"]
    scores = score_folders(benchmark, tmp_path / "predictions", tmp_path / "labels", partial=True)
    languages = next(iter(scores.detailed[name].values()))
    assert len(languages) >= 1
    for language in languages:
        files = [str(tmp_path / side / target.file(language)) for side in ("predictions", "labels")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = official.evaluate_one_task(*files, name, language=language)
        found = {metric: scores.detailed[name][metric][language] for metric in expected}
        assert found == pytest.approx(expected, abs=1e-9)
        assert all(0 < value < 100 for value in found.values()), found


def spoilt(form: str, gold: Any, rng: np.random.Generator) -> Any:
    """Gold of which a fifth is another row's; of answers some lose a word or are left out."""
    if form == "tags":
        return [[str(rng.choice(tags)) if rng.random() < 0.2 else tag for tag in tags] for tags in gold]
    if form == "answers":
        content = {}
        for question, answers in gold:
            text = answers[0] if rng.random() < 0.8 else gold[rng.integers(len(gold))][1][0]
            if rng.random() < 0.95:
                content[question] = text.rpartition(" ")[0] if rng.random() < 0.2 else text
        return content
    rows = [gold[rng.integers(len(gold))] if rng.random() < 0.2 else row for row in gold]
    if form == "pairs":
        return [(a, rows[i - 1][1]) if rng.random() < 0.2 else (a, b) for i, (a, b) in enumerate(rows)]
    return rows


def test_the_stripped_test_files_are_refused(data_folder: Path, tmp_path: Path) -> None:
    """The benchmark's own test-en.tsv of XNLI has no labels; its text as a label folder must not be scored."""
    rows = list(READERS["xnli_tsv"](data_folder / "xtreme/xnli/test-en.tsv"))
    assert rows and all(row["label"] is None for row, _ in rows)
    target = TARGETS["xnli"]
    write_predictions(target, tmp_path / "predictions" / target.file("en"), ["neutral"] * len(rows))
    (tmp_path / "labels/xnli").mkdir(parents=True)
    label = tmp_path / "labels" / target.file("en")
    for text in ((data_folder / "xtreme/xnli/test-en.tsv").read_text(encoding="utf-8"), "neutral\n" * len(rows)):
        label.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="several columns|stripped"):
            score_folders(BENCHMARKS["xtreme"], tmp_path / "predictions", tmp_path / "labels", partial=True)
