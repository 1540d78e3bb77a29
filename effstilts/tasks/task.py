"""What a task is: data that says which rows, which columns mean what, which labels and languages.

A task holds no behaviour of its own. How rows are encoded, scored and decoded is its kind's business
(`effstilts.kinds`); where rows come from is its source's (`effstilts.data.sources`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SplitName = Literal["train", "dev", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")

# What a row of each kind must provide. A role that ends in "?" may be absent from a task's columns.
ROLES: Mapping[str, tuple[str, ...]] = {
    "classification": ("text", "text_pair?", "label"),
    "choice": ("prompt", "choices", "label"),
    "span": ("id", "question", "context", "answers"),
    "tagging": ("tokens", "tags"),
    "masked_lm": ("text", "text_pair?"),
    "bitext": ("source", "target"),
    "mining": ("id", "text"),
    "candidates": ("id", "text"),
}

# The formats that `effstilts.data.readers` reads, and the one that a file's ending stands for.
FORMATS = (
    "xnli_tsv", "pawsx_tsv", "conll_tsv", "conll", "conllu", "squad_json", "json_list", "jsonl", "commonsenseqa_jsonl",
    "csv", "tsv", "lines", "aligned_lines", "stsb_csv", "qqp_tsv", "bucc", "bucc_gold", "hellaswag_blocks", "ccg_tsv",
    "ccgbank_auto", "xquad_r_json", "mewslix_jsonl",
)  # fmt: skip
# The rows of lists that `effstilts.data.hub` unfolds.
UNFOLDINGS = ("comparable_corpora",)
FORMAT_OF_ENDING: Mapping[str, str] = {
    ".jsonl": "jsonl", ".json": "json_list", ".csv": "csv", ".tsv": "tsv", ".txt": "lines", ".conllu": "conllu",
    ".conll": "conll",
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Official files below the data folder.

    `paths` maps a split to a path relative to the data folder, with `{lang}` (the task's language code) or
    `{file_lang}` (the code after `language_codes`) filled in; a list means that the files are concatenated. A path
    may hold `*` (the files that match, sorted by name).
    `format` names a reader of `effstilts.data.readers`; `formats` overrides it for single splits.
    `rename` maps a column of the files to the task's name for it (MNLI's "sentence1" is the hub's "premise").
    `alternatives` are other layouts, looked at in turn where the files of a split are not there.
    """

    paths: Mapping[str, str | tuple[str, ...]]
    format: str
    formats: Mapping[str, str] = field(default_factory=dict)
    language_codes: Mapping[str, str] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    alternatives: tuple[Files, ...] = ()


@dataclass(frozen=True)
class Hub:
    """A script-free data set of the hub at a pinned revision.

    `config` may hold `{lang}`; `splits` maps a split to the hub's split name (may hold `{lang}` too).
    `language_of_id` keeps only the rows whose id begins with the language's prefix (TyDiQA's one table of nine
    languages), mapped by `language_codes`. `rename` is as in Files. `counts` maps "split/language" to the number of
    rows that must be there, else a DataError (jiant's English TyDiQA had the rows of nine languages). `hashes` maps
    it to the hash of the rows (`effstilts.data.roles.rows_hash`), recorded from the official files.
    `evaluate_on`: the split to evaluate where rows come from the hub, whose test sets keep the labels that the
    organisers' files lack; empty: the task's. `absent`: split -> languages in which the set does not have it.
    `unfold` names how a row of lists becomes rows (`effstilts.data.hub`). `mirror` is read where the set itself can
    not be had: the rows of another repository.
    """

    id: str
    splits: Mapping[str, str]
    config: str = ""
    revision: str = ""
    language_codes: Mapping[str, str] = field(default_factory=dict)
    language_of_id: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    evaluate_on: Literal["", "train", "dev", "test"] = ""
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unfold: str = ""
    mirror: Hub | None = None


@dataclass(frozen=True)
class Synthetic:
    """Rows of the embedded generator: `dataset` is a name of `effstilts.synthetic.DATASETS`.

    `counts` is the number of rows of each split.
    """

    dataset: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Holdout:
    """Makes the dev split out of the train split, where there is no official English dev set.

    Rows are grouped by the text of `by` (a role, such as "context", or a column of the file) so that no group stands
    on both sides; a group belongs to dev when its hash falls in the lowest `share`. by `row`: the row's number in its
    file counts, for files whose rows are translations of each other: a row is then on one side in every language.
    """

    share: float = 0.1
    by: str = "context"


@dataclass(frozen=True)
class Task:
    """One task. Every field is data; the defaults suit a task with English train and dev.

    columns: role -> column of the source's rows. A value with braces is a template over columns,
        `"{context} {question}"`; for the role `choices` it is a tuple of columns or templates.
    values: column -> {raw value: replacement}, applied before templates (XCOPA's "cause" -> a question).
    labels: the label names, in the order of the head's outputs (classification, tagging).
    label_values: raw label -> label name, where the source writes numbers or other spellings.
    drop_labels: raw labels whose rows are dropped (SNLI's -1: annotators did not agree).
    languages: the languages with an evaluation split; the first is the training language.
    train_languages: languages with training rows; empty: the training language alone (masked_lm: all).
    train_on: name of the task that a target with no training set of its own trains on (XQuAD: SQuAD).
    train_first: name of a task that is trained on before that one, its head going on (XCOPA: SIQA, then COPA).
    parts: tasks of the same kind and labels whose rows, one of each in turn, are this task's (ANLI+).
    evaluate_on: the split that has labels for zero-shot evaluation.
    no_answer: span tasks: whether a question may have no answer (SQuAD v2.0).
    normaliser: span tasks: how answers are compared: by SQuAD's English rules, or by MLQA's of the language.
    pooled: the candidates of all languages form one set, in which each language's queries are searched.
    max_length: tokens, specials included; `stride`: tokens shared by two windows of one context.
    head: name of a head that several tasks share (the parts of ANLI+); empty: a head of its own.
    score: the metric that stands for the task, a key of what the kind's metric returns.
    """

    name: str
    kind: str
    columns: Mapping[str, str | tuple[str, ...]]
    files: Files | None = None
    hub: Hub | None = None
    synthetic: Synthetic | None = None
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    label_values: Mapping[str, str] = field(default_factory=dict)
    drop_labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    train_languages: tuple[str, ...] = ()
    train_on: str = ""
    train_first: str = ""
    parts: tuple[Task, ...] = ()
    holdout: Holdout | None = None
    evaluate_on: SplitName = "test"
    pooled: bool = False
    no_answer: bool = False
    normaliser: Literal["squad", "mlqa"] = "squad"
    max_length: int = 128
    stride: int = 128
    head: str = ""
    score: str = ""
    description: str = ""

    @property
    def training_language(self) -> str:
        return self.languages[0]
