"""The tasks of the embedded default: artificial languages, the columns of the real data sets."""

from __future__ import annotations

from collections.abc import Mapping

from effstilts.tasks.intermediate import NLI_COLUMNS, NLI_LABELS, NLI_NUMBERS, SPAN_COLUMNS
from effstilts.tasks.reasoning import COPA_COLUMNS
from effstilts.tasks.task import Synthetic, Task
from effstilts.tasks.xtreme import NER, UPOS

LANGUAGES = ("en", "qaa", "qab", "qac", "qad")
_TARGET = {"train": 4000, "dev": 300, "test": 400}
_EVALUATION = {"dev": 300, "test": 400}


def _synthetic(
    dataset: str,
    kind: str,
    columns: Mapping[str, str | tuple[str, ...]],
    counts: Mapping[str, int],
    name: str = "",
    **fields: object,
) -> Task:
    score = {"tagging": "f1", "span": "f1"}.get(kind, "accuracy")
    return Task(
        name=f"synthetic/{name or dataset}",
        kind=kind,
        columns=columns,
        synthetic=Synthetic(dataset, counts),
        description=f"artificial rows in the form of {name or dataset}",
        **{"max_length": 64, "score": score, **fields},  # type: ignore[arg-type]
    )


SYNTHETIC: tuple[Task, ...] = (
    _synthetic("text", "masked_lm", {"text": "text"}, {"train": 16000, "dev": 200}, languages=LANGUAGES, max_length=48),
    _synthetic(
        "parallel",
        "masked_lm",
        {"text": "source", "text_pair": "target"},
        {"train": 4000, "dev": 100},
        languages=LANGUAGES[1:],
    ),
    _synthetic(
        "mnli",
        "classification",
        NLI_COLUMNS,
        {"train": 8000, "dev": 300},
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS,
        head="synthetic-nli",
        evaluate_on="dev",
    ),
    _synthetic(
        "xnli",
        "classification",
        NLI_COLUMNS,
        _EVALUATION,
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS,
        languages=LANGUAGES,
        train_on="synthetic/mnli",
        head="synthetic-nli",
    ),
    _synthetic(
        "pawsx",
        "classification",
        {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
        _TARGET,
        labels=("different", "paraphrase"),
        label_values={"0": "different", "1": "paraphrase"},
        languages=LANGUAGES,
    ),
    _synthetic("squad", "span", SPAN_COLUMNS, {"train": 8000, "dev": 300}, evaluate_on="dev", max_length=96),
    _synthetic(
        "squad_v2",
        "span",
        SPAN_COLUMNS,
        {"train": 8000, "dev": 300},
        name="squad-v2",
        no_answer=True,
        evaluate_on="dev",
        max_length=96,
    ),
    _synthetic("tydiqa", "span", SPAN_COLUMNS, _TARGET, languages=LANGUAGES, max_length=96),
    _synthetic(
        "hellaswag",
        "choice",
        {"prompt": "ctx", "choices": "endings", "label": "label"},
        {"train": 4000, "dev": 300},
        evaluate_on="dev",
    ),
    _synthetic(
        "commonsense_qa",
        "choice",
        {"prompt": "question", "choices": "choices", "label": "answerKey"},
        {"train": 4000, "dev": 300},
        name="commonsenseqa",
        evaluate_on="dev",
    ),
    _synthetic(
        "xcopa",
        "choice",
        COPA_COLUMNS,
        _TARGET,
        values={"question": {"cause": "?", "effect": ""}},
        languages=LANGUAGES,
    ),
    _synthetic(
        "udpos",
        "tagging",
        {"tokens": "tokens", "tags": "pos_tags"},
        {"train": 2000, "dev": 300, "test": 400},
        labels=(*UPOS, "_"),
        languages=LANGUAGES,
    ),
    _synthetic("panx", "tagging", {"tokens": "tokens", "tags": "ner_tags"}, _TARGET, labels=NER, languages=LANGUAGES),
    _synthetic(
        "tatoeba",
        "bitext",
        {"source": "source_sentence", "target": "target_sentence"},
        {"test": 500},
        languages=LANGUAGES[1:],
    ),
)
