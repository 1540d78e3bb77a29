"""The intermediate tasks of Phang et al. 2020, all English, by their hub sets and their official files.

Paths are relative to the data folder. Hub sets are pinned to a commit where one is on public record; a set without one
is read at the commit that is newest, which goes into every key.
"""

from __future__ import annotations

from effstilts.tasks.task import Files, Hub, Task

NLI_LABELS = ("entailment", "neutral", "contradiction")
NLI_NUMBERS = {"0": "entailment", "1": "neutral", "2": "contradiction", "contradictory": "contradiction"}
NLI_COLUMNS = {"text": "premise", "text_pair": "hypothesis", "label": "label"}
# The columns of the MNLI and SNLI releases; "-" is their gold label where the annotators did not agree.
NLI_RELEASE = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"}
SPAN_COLUMNS = {"id": "id", "question": "question", "context": "context", "answers": "answers"}
SQUAD_SPLITS = {"train": "train", "dev": "validation"}
GLUE_COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
# CCGbank's sections (Hockenmaier and Steedman 2007): 02 to 21 for training, 00 for development, 23 for test.
CCGBANK_SECTIONS = {"train": range(2, 22), "dev": (0,), "test": (23,)}

_NLI: tuple[Task, ...] = (
    Task(
        name="mnli",
        kind="classification",
        columns=NLI_COLUMNS,
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS,
        drop_labels=("-1", "-"),
        hub=Hub("nyu-mll/glue", {"train": "train", "dev": "validation_matched"}, config="mnli", revision=GLUE_COMMIT),
        files=Files(
            {"train": "mnli/multinli_1.0_train.jsonl", "dev": "mnli/multinli_1.0_dev_matched.jsonl"},
            "jsonl",
            rename=NLI_RELEASE,
            alternatives=(Files({"train": "mnli/train.jsonl", "dev": "mnli/dev_matched.jsonl"}, "jsonl"),),
        ),
        head="nli",
        evaluate_on="dev",
        score="accuracy",
        description="natural language inference over ten genres (Williams et al. 2018)",
    ),
    Task(
        name="snli",
        kind="classification",
        columns=NLI_COLUMNS,
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS,
        drop_labels=("-1", "-"),
        hub=Hub(
            "stanfordnlp/snli",
            {"train": "train", "dev": "validation", "test": "test"},
            revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        ),
        files=Files(
            {split: f"snli/snli_1.0_{split}.jsonl" for split in ("train", "dev", "test")}, "jsonl", rename=NLI_RELEASE
        ),
        head="nli",
        score="accuracy",
        description="natural language inference over captions (Bowman et al. 2015); a part of ANLI+",
    ),
    Task(
        name="anli",
        kind="classification",
        columns=NLI_COLUMNS,
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS | {label[0]: label for label in NLI_LABELS},
        hub=Hub(
            "facebook/anli",
            {"train": "train_r1+train_r2+train_r3", "dev": "dev_r1+dev_r2+dev_r3"},
        ),
        files=Files(
            {split: tuple(f"anli/R{r}/{split}.jsonl" for r in (1, 2, 3)) for split in ("train", "dev")},
            "jsonl",
            rename={"context": "premise"},
        ),
        head="nli",
        evaluate_on="dev",
        score="accuracy",
        description="adversarial natural language inference, rounds 1 to 3 (Nie et al. 2020); a part of ANLI+",
    ),
)
_OTHERS: tuple[Task, ...] = (
    Task(
        name="qqp",
        kind="classification",
        columns={"text": "question1", "text_pair": "question2", "label": "label"},
        labels=("not_duplicate", "duplicate"),
        label_values={"0": "not_duplicate", "1": "duplicate"},
        hub=Hub("nyu-mll/glue", {"train": "train", "dev": "validation"}, config="qqp", revision=GLUE_COMMIT),
        files=Files({"train": "qqp/train.tsv", "dev": "qqp/dev.tsv"}, "qqp_tsv", rename={"is_duplicate": "label"}),
        evaluate_on="dev",
        score="accuracy",
        description="duplicate questions",
    ),
    Task(
        name="squad",
        kind="span",
        columns=SPAN_COLUMNS,
        hub=Hub("rajpurkar/squad", SQUAD_SPLITS, revision="7b6d24c440a36b6815f21b70d25016731768db1f"),
        files=Files({"train": "squad/train-v1.1.json", "dev": "squad/dev-v1.1.json"}, "squad_json"),
        evaluate_on="dev",
        max_length=384,
        score="f1",
        description="SQuAD v1.1 (Rajpurkar et al. 2016)",
    ),
    Task(
        name="squad-v2",
        kind="span",
        columns=SPAN_COLUMNS,
        hub=Hub("rajpurkar/squad_v2", SQUAD_SPLITS, revision="3ffb306f725f7d2ce8394bc1873b24868140c412"),
        files=Files({"train": "squad/train-v2.0.json", "dev": "squad/dev-v2.0.json"}, "squad_json"),
        no_answer=True,
        evaluate_on="dev",
        max_length=384,
        score="f1",
        description="SQuAD v2.0, with questions that have no answer (Rajpurkar et al. 2018)",
    ),
    Task(
        name="hellaswag",
        kind="choice",
        columns={"prompt": "ctx", "choices": "endings", "label": "label"},
        hub=Hub("Rowan/hellaswag", SQUAD_SPLITS, revision="218ec52e09a7e7462a5400043bb9a69a41d06b76"),
        files=Files(
            {"train": "hellaswag/hellaswag_train.jsonl", "dev": "hellaswag/hellaswag_val.jsonl"},
            "jsonl",
            alternatives=(Files({"dev": "hellaswag/hellaswag_val_full.txt.bz2"}, "hellaswag_blocks"),),
        ),
        evaluate_on="dev",
        max_length=256,
        score="accuracy",
        description="the likeliest ending (Zellers et al. 2019)",
    ),
    Task(
        name="cosmosqa",
        kind="choice",
        columns={
            "prompt": "{context} {question}",
            "choices": ("answer0", "answer1", "answer2", "answer3"),
            "label": "label",
        },
        hub=Hub("Samsoup/cosmos_qa", SQUAD_SPLITS, hashes={"dev/en": "6e9261207a4dc75cc76c65aaa80ddbaf"}),
        files=Files({"train": "cosmosqa/train.csv", "dev": "cosmosqa/valid.csv"}, "csv"),
        evaluate_on="dev",
        max_length=256,
        score="accuracy",
        description="reading comprehension with commonsense (Huang et al. 2019); prompt as in jiant",
    ),
    Task(
        name="commonsenseqa",
        kind="choice",
        columns={"prompt": "question", "choices": "choices", "label": "answerKey"},
        hub=Hub("tau/commonsense_qa", SQUAD_SPLITS, revision="94630fe30dad47192a8546eb75f094926d47e155"),
        files=Files(
            {
                "train": "commonsenseqa/train_rand_split.jsonl",
                "dev": "commonsenseqa/dev_rand_split.jsonl",
            },
            "commonsenseqa_jsonl",
        ),
        evaluate_on="dev",
        max_length=96,
        score="accuracy",
        description="commonsense questions with five choices (Talmor et al. 2019)",
    ),
    Task(
        name="ccg",
        kind="tagging",
        columns={"tokens": "tokens", "tags": "tags"},
        files=Files(
            {split: f"ccg/{split}.tsv" for split in ("train", "dev", "test")},
            "ccg_tsv",
            alternatives=(
                Files(
                    {split: tuple(f"ccg/AUTO/{n:02d}/*.auto" for n in own) for split, own in CCGBANK_SECTIONS.items()},
                    "ccgbank_auto",
                ),
            ),
        ),
        evaluate_on="dev",
        score="f1",
        description="CCG supertags of CCGbank (LDC2005T13, licensed); declare `{extends: ccg, labels: {file: PATH}}` "
        "with the tag set, as jiant's tags_to_id.json or a tag a line",
    ),
)

INTERMEDIATE: tuple[Task, ...] = (
    *_NLI,
    Task(
        name="anli+",
        kind="classification",
        columns=NLI_COLUMNS,
        labels=NLI_LABELS,
        parts=_NLI,
        head="nli",
        evaluate_on="dev",
        score="accuracy",
        description="MNLI, SNLI and ANLI as one task with one head, 1,104,934 training rows (Phang et al. 2020)",
    ),
    *_OTHERS,
)
