"""Folders in XTREME's official layout: scored against each other, and checked before they are submitted.

PREDICTIONS/TASK/test-{language}.tsv    what a model says; files that the benchmark does not know are refused
LABELS/TASK/test-{language}.tsv         the gold; further files are not looked at
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from effstilts.data.xtreme_files import Rows, read_gold, read_predictions
from effstilts.errors import DataError
from effstilts.evaluation.metrics import SeqevalVersion, span_f1, tag_accuracy
from effstilts.evaluation.xtreme import BENCHMARKS, Benchmark, Scores, Target, score_language, unanswered


@dataclass
class FolderScores(Scores):
    """Scores of two folders. beside: what is shown and enters no average, as `detailed`; notes: what a reader of the
    numbers should know; skipped: task -> why it was not scored."""

    beside: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def score_folders(
    benchmark: Benchmark,
    predictions: Path,
    labels: Path,
    partial: bool = False,
    seqeval: SeqevalVersion = "1.x",
) -> FolderScores:
    """Scores every task that both folders have, as evaluate.py does.

    partial: score a task in the languages that both folders have; else one that is missing is a DataError. DataError
    names the file and line of whatever is broken, does not fit the gold, or does not belong there.
    """
    others = _check_names(benchmark, predictions)
    _check_folder(labels)
    found = FolderScores()
    if others:
        found.notes.append(f"{predictions}: {len(others)} files are of another version ({others[0]}): not scored")
    for name, target in benchmark.targets.items():
        absent = [
            word for word, root in (("predictions", predictions), ("labels", labels)) if not (root / name).is_dir()
        ]
        if absent:
            found.skipped[name] = f"no {' and no '.join(absent)}"
            continue
        missing = {
            language: root / target.file(language)
            for root in (labels, predictions)
            for language in target.languages
            if not (root / target.file(language)).is_file()
        }
        languages = [language for language in target.languages if language not in missing]
        if missing and not (partial and languages):
            named = ", ".join(map(str, list(missing.values())[:3])) + (" ..." if len(missing) > 3 else "")
            advice = "" if partial else "; --partial scores the languages that are there"
            raise DataError(f"{name}: {len(missing)} of {len(target.languages)} languages are missing: {named}{advice}")
        if missing:
            found.partial[name] = [language for language in target.languages if language in missing]
        metrics: dict[str, dict[str, float]] = {}
        for language in languages:
            places = (predictions / target.file(language), labels / target.file(language))
            for metric, value in _score_file(target, language, *places, seqeval, found).items():
                metrics.setdefault(metric, {})[language] = value
        found.detailed[name] = metrics
    if not found.detailed:
        raise DataError(f"{predictions} and {labels} have no task of {benchmark.version} in common")
    return found


def _score_file(
    target: Target, language: str, predictions: Path, labels: Path, seqeval: SeqevalVersion, found: FolderScores
) -> dict[str, float]:
    predicted, gold = read_predictions(target, predictions, language), read_gold(target, labels, language)
    _check_fit(target, predicted, gold, predictions, labels)
    if target.form in ("answers", "rankings"):
        left = unanswered(predicted.content, gold.content)
        if len(left) == len(gold.content):
            raise DataError(f"{predictions}: none of its ids is in {labels}; is it of another language or split?")
        if left:
            found.notes.append(
                f"{predictions}: no prediction for {len(left)} of {len(gold.content)} (first {left[0]!r}): scored 0, "
                "as the official script does"
            )
    try:
        scores = score_language(target, predicted.content, gold.content, language, seqeval)
    except DataError as error:
        raise DataError(f"{labels}: {error}") from error
    if target.form == "tags":
        other: SeqevalVersion = "0.x" if seqeval == "1.x" else "1.x"
        beside = found.beside.setdefault(target.name, {})
        beside.setdefault("accuracy", {})[language] = tag_accuracy(predicted.content, gold.content)
        # The versions part over tags without a place (B, I) before a hyphen, such as POS.
        if any("-" not in tag for tag in {tag for tags in gold.content for tag in tags} - {"O"}):
            spans = span_f1(predicted.content, gold.content, version=other)
            beside.setdefault(f"f1 by seqeval {other}", {})[language] = spans.f1
    return scores


def _check_fit(target: Target, predicted: Rows, gold: Rows, predictions: Path, labels: Path) -> None:
    """DataError unless there are as many rows, and in each sentence as many tags."""
    if target.form not in ("labels", "choices", "tags"):
        return
    what = "sentences" if target.form == "tags" else "rows"
    if target.form == "tags":
        for number, (tags, true) in enumerate(zip(predicted.content, gold.content, strict=False)):
            if len(tags) != len(true):
                raise DataError(
                    f"{predicted.places[number]}: sentence {number + 1} has {len(tags)} tags, "
                    f"{gold.places[number]} has {len(true)}"
                )
    if len(predicted.content) != len(gold.content):
        raise DataError(f"{predictions}: {len(predicted.content)} {what}, {labels} has {len(gold.content)}")


def check_submission(benchmark: Benchmark, folder: Path) -> dict[str, list[str]]:
    """Reads every file of a prediction folder as the scorer does; returns task -> the languages that are missing for a
    full submission. DataError for a broken file or one that does not belong there."""
    _check_names(benchmark, folder)
    missing: dict[str, list[str]] = {}
    for name, target in benchmark.targets.items():
        for language in target.languages:
            path = folder / target.file(language)
            if path.is_file():
                read_predictions(target, path, language)
            else:
                missing.setdefault(name, []).append(language)
    return missing


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder" if folder.exists() else f"the folder {folder} does not exist")


def _check_names(benchmark: Benchmark, folder: Path) -> list[str]:
    """DataError for a file or folder that no version of the benchmark knows: it would be left out without a word.
    Returns what another version knows and this one leaves out."""
    _check_folder(folder)
    versions = list(BENCHMARKS.values())
    known = {target.file(language) for b in versions for target in b.targets.values() for language in target.languages}
    own = {target.file(language) for target in benchmark.targets.values() for language in target.languages}
    others: list[str] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir() or not any(entry.name in b.targets for b in versions):
            folders = ", ".join(benchmark.targets)
            raise DataError(f"{entry} does not belong there: {benchmark.version} has the folders {folders}")
        for file in sorted(entry.iterdir()):
            name = f"{entry.name}/{file.name}"
            if name not in known and not file.name.startswith("."):
                target = next(b.targets[entry.name] for b in versions if entry.name in b.targets)
                raise DataError(
                    f"{file} does not belong there: {target.name} has test-LANGUAGE.{target.suffix} for "
                    f"{', '.join(target.languages)}"
                )
            if name in known - own:
                others.append(name)
    return others
