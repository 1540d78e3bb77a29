"""The scores of XTREME and XTREME-R: which tasks, languages and groups, each task's metric, the averages.

Source: evaluate.py of google-research/xtreme (commit 838c13b). Every number here is the official script's, in percent;
where that script and good sense part, it is said which of them stands:

- POS and NER are span F1 over tags (`metrics.span_f1`), also POS, for which accuracy would be natural; that stands
  beside it (`tag_accuracy`) and enters no average.
- XQuAD and TyDiQA are scored with SQuAD's English normaliser in every language, MLQA with that of the language.
- A question, or a Mewsli-X mention, without prediction scores 0; it is counted (`unanswered`).
- A question id that stands several times in the gold counts as often, with one prediction. (XTREME's preprocessing
  of TyDiQA leaves 89 ids to the 3,696 English training questions; those of its test files are unique.)
- XTREME-R: xcopa is in two groups, and lareqa in none; so in the official script. That script has no languages and no
  reader for lareqa, so that it never prints an overall score: without lareqa there is none here either. With it (our
  own layout, that of mewslix; mAP@20, candidates of all languages in one ranking) `all_task` is the mean of the ten
  tasks, which the script intends.
- Stripped gold is refused (`refuse_stripped`). The script scores it: 33 % on XNLI, all zeros on XCOPA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from effstilts.errors import DataError
from effstilts.evaluation.metrics import SeqevalVersion, accuracy, span_f1
from effstilts.evaluation.qa_text import mlqa_score, squad_score
from effstilts.evaluation.ranking import mean_average_precision, pair_f1

Version = Literal["xtreme", "xtreme-r"]
# What a file holds: a label a line, tags a line, pairs of ids a line, {id: answer}, {"label": index} a line,
# {id: [candidates]}.
Form = Literal["labels", "tags", "pairs", "answers", "choices", "rankings"]
SUFFIX: Mapping[Form, str] = {
    "labels": "tsv", "tags": "tsv", "pairs": "tsv", "answers": "json", "choices": "jsonl", "rankings": "json",
}  # fmt: skip
# The metrics of which a task's average is the mean.
AVERAGED: Mapping[Form, tuple[str, ...]] = {
    "labels": ("accuracy",), "tags": ("f1",), "pairs": ("f1",), "answers": ("exact_match", "f1"),
    "choices": ("accuracy",), "rankings": ("map@20",),
}  # fmt: skip
# Gold of as many rows or words that is one label throughout has been stripped by XTREME's preprocessing.
CONSTANT_GOLD = 50


@dataclass(frozen=True)
class Target:
    """A task of the benchmark.

    labels: the only ones that may stand in its files, where that is known. mlqa: answers are normalised by the rules
    of their language (MLQA), not by SQuAD's English ones.
    """

    name: str
    form: Form
    languages: tuple[str, ...]
    labels: frozenset[str] = frozenset()
    mlqa: bool = False

    @property
    def suffix(self) -> str:
        return SUFFIX[self.form]

    def file(self, language: str) -> str:
        """The official file name, below the prediction or label folder."""
        return f"{self.name}/test-{language}.{self.suffix}"


@dataclass(frozen=True)
class Benchmark:
    """The tasks by name, and the groups by which the leaderboard averages."""

    version: Version
    targets: Mapping[str, Target]
    groups: Mapping[str, tuple[str, ...]]


@dataclass
class Scores:
    """detailed: task -> metric -> language -> percent. partial: tasks of which languages are left out."""

    detailed: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    partial: dict[str, list[str]] = field(default_factory=dict)


_XNLI = "ar,bg,de,el,en,es,fr,hi,ru,sw,th,tr,ur,vi,zh"
_PANX = (
    "ar,he,vi,id,jv,ms,tl,eu,ml,ta,te,af,nl,en,de,el,bn,hi,mr,ur,fa,fr,it,pt,es,bg,ru,ja,ka,ko,th,sw,yo,my,zh,kk,tr,"
    "et,fi,hu"
)
_UDPOS = "af,ar,bg,de,el,en,es,et,eu,fa,fi,fr,he,hi,hu,id,it,ja,kk,ko,mr,nl,pt,ru,ta,te,th,tl,tr,ur,vi,yo,zh"
_TATOEBA = "ar,he,vi,id,jv,tl,eu,ml,ta,te,af,nl,de,el,bn,hi,mr,ur,fa,fr,it,pt,es,bg,ru,ja,ka,ko,th,sw,zh,kk,tr,et,fi,hu"
_XQUAD = "en,es,de,el,ru,tr,ar,vi,th,zh,hi"
_NLI_LABELS = frozenset({"contradiction", "entailment", "neutral"})


def _target(name: str, form: Form, languages: str, labels: frozenset[str] = frozenset(), mlqa: bool = False) -> Target:
    return Target(name, form, tuple(languages.split(",")), labels, mlqa)


def _by_name(*targets: Target) -> dict[str, Target]:
    return {target.name: target for target in targets}


BENCHMARKS: Mapping[Version, Benchmark] = {
    "xtreme": Benchmark(
        "xtreme",
        _by_name(
            _target("pawsx", "labels", "de,en,es,fr,ja,ko,zh", frozenset({"0", "1"})),
            _target("xnli", "labels", _XNLI, _NLI_LABELS),
            _target("panx", "tags", _PANX),
            _target("udpos", "tags", _UDPOS),
            _target("bucc2018", "pairs", "de,fr,ru,zh"),
            _target("tatoeba", "labels", _TATOEBA),
            _target("xquad", "answers", _XQUAD),
            _target("mlqa", "answers", "en,es,de,ar,hi,vi,zh", mlqa=True),
            _target("tydiqa", "answers", "en,ar,bn,fi,id,ko,ru,sw,te"),
        ),
        {
            "classification": ("pawsx", "xnli"),
            "tagging": ("udpos", "panx"),
            "qa": ("xquad", "mlqa", "tydiqa"),
            "retrieval": ("bucc2018", "tatoeba"),
        },
    ),
    "xtreme-r": Benchmark(
        "xtreme-r",
        _by_name(
            _target("xnli", "labels", _XNLI, _NLI_LABELS),
            _target("panx", "tags", _PANX + ",qu,pl,uk,az,lt,pa,gu,ro"),
            _target("udpos", "tags", _UDPOS + ",lt,pl,uk,wo,ro"),
            _target("tatoeba", "labels", _TATOEBA + ",az,lt,pl,uk,ro"),
            _target("xcopa", "choices", "et,ht,id,it,qu,sw,ta,th,tr,vi,zh"),
            _target("lareqa", "rankings", "ar,de,el,en,es,hi,ru,th,tr,vi,zh"),
            _target("mewslix", "rankings", "ar,de,en,es,fa,ja,pl,ro,ta,tr,uk"),
            _target("xquad", "answers", _XQUAD + ",ro"),
            _target("mlqa", "answers", "en,es,de,ar,hi,vi,zh", mlqa=True),
            _target("tydiqa", "answers", "en,ar,bn,fi,id,ko,ru,sw,te"),
        ),
        {
            "classification": ("xnli", "xcopa"),
            "tagging": ("udpos", "panx"),
            "qa": ("xquad", "mlqa", "tydiqa"),
            "retrieval": ("tatoeba", "mewslix"),
            "multi_choice": ("xcopa",),
        },
    ),
}


def score_language(
    target: Target, predictions: Any, gold: Any, language: str, seqeval: SeqevalVersion = "1.x"
) -> dict[str, float]:
    """The task's official metrics in one language, in percent, in the official order.

    Predictions and gold by the task's form: lists of labels (labels, choices), of sentences of tags, of pairs; for
    answers {id: text} against a list of (id, gold texts); for rankings {id: candidates} against {id: relevant ones}.
    DataError on different lengths, nothing to score, or stripped gold.
    """
    refuse_stripped(target, gold)
    if target.form in ("labels", "choices"):
        return {"accuracy": accuracy(predictions, gold)}
    if target.form == "rankings":
        relevant = {query: frozenset(candidates) for query, candidates in gold.items()}
        return {"map@20": mean_average_precision(predictions, relevant, 20)}
    if target.form == "answers":
        return _answers(target, predictions, gold, language)
    spans = span_f1(predictions, gold, version=seqeval) if target.form == "tags" else pair_f1(predictions, gold)
    return {"f1": spans.f1, "precision": spans.precision, "recall": spans.recall}


def _answers(
    target: Target, predictions: Mapping[str, str], gold: Sequence[tuple[str, Sequence[str]]], language: str
) -> dict[str, float]:
    # One key for each row of the gold: ids may stand twice, and each row counts.
    references = {f"{row} {question}": answers for row, (question, answers) in enumerate(gold)}
    given = {
        f"{row} {question}": predictions[question] for row, (question, _) in enumerate(gold) if question in predictions
    }
    if target.mlqa:
        scores = mlqa_score(given, references, language, missing="zero")
    else:
        scores = squad_score(given, references, missing="zero")
    return {"exact_match": scores["exact_match"], "f1": scores["f1"]}


def unanswered(predictions: Mapping[str, Any], gold: Any) -> list[str]:
    """The ids of the gold (answers or rankings) that have no prediction."""
    queries = gold if isinstance(gold, Mapping) else [question for question, _ in gold]
    return [query for query in queries if query not in predictions]


def refuse_stripped(target: Target, gold: Any) -> None:
    """DataError where the gold has been removed: blank labels and answers, or the constants that XTREME's
    preprocessing writes instead of them (0 in XCOPA, O in PAN-X, X in UDPOS), over CONSTANT_GOLD rows or more."""
    if target.form == "answers":
        for question, answers in gold:
            if not any(answer.strip() for answer in answers):
                raise DataError(f"question {question!r} has no gold answer: the gold is stripped")
    elif target.form == "rankings":
        for query, candidates in gold.items():
            if not any(str(candidate).strip() for candidate in candidates):
                raise DataError(f"{query!r} has no gold candidate: the gold is stripped")
    elif target.form in ("labels", "choices", "tags"):
        flat = [tag for sentence in gold for tag in sentence] if target.form == "tags" else list(gold)
        if any(isinstance(label, str) and not label.strip() for label in flat):
            raise DataError("a gold label is empty: the gold is stripped")
        if len(flat) >= CONSTANT_GOLD and len(set(flat)) == 1:
            raise DataError(f"all {len(flat)} gold labels are {flat[0]!r}: the gold is stripped")


def official_report(benchmark: Benchmark, scores: Scores) -> dict[str, Any]:
    """What evaluate.py writes: `all_task` and the groups that are complete, then for each task {metric: {language:
    value}}, `avg_` of each metric, and `avg_metric`, by which tasks are averaged: of QA the mean of exact match and F1.

    A task that lacks languages (`scores.partial`) enters no group and not `all_task`.
    """
    detailed: dict[str, dict[str, Any]] = {}
    for name, metrics in scores.detailed.items():
        averages = {f"avg_{m}": sum(values.values()) / len(values) for m, values in metrics.items()}
        chosen = [averages[f"avg_{m}"] for m in AVERAGED[benchmark.targets[name].form]]
        detailed[name] = {**metrics, **averages, "avg_metric": sum(chosen) / len(chosen)}
    complete = {name for name in detailed if name not in scores.partial}
    overall: dict[str, Any] = {}
    for group, names in {"all_task": tuple(benchmark.targets), **benchmark.groups}.items():
        if complete.issuperset(names):
            overall[group] = sum(detailed[name]["avg_metric"] for name in names) / len(names)
    return {**overall, **detailed}
