"""Every declared hub set, as a local repository with the set's own columns and features, through the real datasets
code with the network refused. The features are those of the sets' cards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Features, Sequence, Value

from effstilts.data.roles import rows_hash
from effstilts.data.sources import DataConfig, evaluation_splits, load, source_of
from effstilts.errors import DataError
from effstilts.tasks.registry import get, known_tasks
from effstilts.tasks.task import Hub, Task

TEXT, INT = Value("string"), Value("int32")
UPOS = [
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
    "VERB", "X",
]  # fmt: skip
NER = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
ANSWERS = Sequence({"text": TEXT, "answer_start": INT})
NLI_LABEL = ClassLabel(names=["entailment", "neutral", "contradiction"])
NLI = {"premise": TEXT, "hypothesis": TEXT, "label": NLI_LABEL}
NLI_ROW = {"premise": "p", "hypothesis": "h", "label": 2}
NLI_READ = {"text": "p", "text_pair": "h", "label": "contradiction"}
SPAN = {"id": TEXT, "context": TEXT, "question": TEXT, "answers": ANSWERS}
SPAN_ROW = {
    "id": "7", "context": "Anna ran.", "question": "who?", "answers": {"text": ["Anna"], "answer_start": [0]},
}  # fmt: skip
SPAN_READ = {"context": "Anna ran.", "question": "who?", "answers": [{"text": "Anna", "start": 0}]}
PAIR_ROW = {"sentence1": "a", "sentence2": "b"}
PAIR_READ = {"text": "a", "text_pair": "b", "label": "paraphrase"}
COPA = {"premise": TEXT, "choice1": TEXT, "choice2": TEXT, "question": TEXT, "idx": INT}
COPA_ROW = {"premise": "P.", "choice1": "a", "choice2": "b", "question": "effect", "idx": 4, "label": 1}
COPA_READ = {"prompt": "P. What happened as a result?", "choices": ["a", "b"], "label": 1, "id": "4"}
GAP = {"sentence": TEXT, "option1": TEXT, "option2": TEXT, "answer": TEXT}
GAP_ROW = {"sentence": "The _ ran.", "option1": "a", "option2": "b", "answer": "2"}
GAP_READ = {"prompt": "The _ ran.", "choices": ["a", "b"], "label": 1}


def texts(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, TEXT)


# (id, beginning of the config) -> features, a row of the set, what is read of it.
SETS: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    ("nyu-mll/glue", "mnli"): (NLI | {"idx": INT}, NLI_ROW | {"idx": 3}, NLI_READ | {"id": "3"}),
    ("nyu-mll/glue", "qqp"): (
        texts("question1", "question2") | {"label": ClassLabel(names=["not_duplicate", "duplicate"]), "idx": INT},
        {"question1": "a", "question2": "b", "label": 1, "idx": 0},
        {"text": "a", "text_pair": "b", "label": "duplicate"},
    ),
    ("stanfordnlp/snli", ""): (NLI, NLI_ROW, NLI_READ),
    ("facebook/anli", ""): (
        {"uid": TEXT, **NLI, "reason": TEXT}, NLI_ROW | {"uid": "u", "reason": ""}, NLI_READ,
    ),
    ("facebook/xnli", ""): (NLI, NLI_ROW, NLI_READ),
    ("rajpurkar/squad", ""): (SPAN | {"title": TEXT}, SPAN_ROW | {"title": "t"}, SPAN_READ | {"id": "7"}),
    ("rajpurkar/squad_v2", ""): (
        SPAN | {"title": TEXT},
        SPAN_ROW | {"title": "t", "answers": {"text": [], "answer_start": []}},
        SPAN_READ | {"answers": []},
    ),
    ("google/xquad", ""): (SPAN, SPAN_ROW, SPAN_READ),
    ("facebook/mlqa", ""): (SPAN, SPAN_ROW, SPAN_READ),
    ("google-research-datasets/tydiqa", ""): (
        SPAN | {"title": TEXT}, SPAN_ROW | {"title": "t", "id": "{code}-7"}, SPAN_READ,
    ),
    ("google/xtreme", "XQuAD"): (SPAN, SPAN_ROW, SPAN_READ),
    ("google/xtreme", "MLQA"): (SPAN | {"title": TEXT}, SPAN_ROW | {"title": "t"}, SPAN_READ),
    ("google/xtreme", "PAWS-X"): (
        texts("sentence1", "sentence2", "label"), PAIR_ROW | {"label": "1"}, PAIR_READ,
    ),
    ("google/xtreme", "PAN-X"): (
        {"tokens": Sequence(TEXT), "ner_tags": Sequence(ClassLabel(names=NER)), "langs": Sequence(TEXT)},
        {"tokens": ["in", "Rome"], "ner_tags": [0, 5], "langs": ["en", "en"]},
        {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]},
    ),
    ("google/xtreme", "udpos"): (
        {"tokens": Sequence(TEXT), "pos_tags": Sequence(ClassLabel(names=UPOS))},
        {"tokens": ["Anna", "ran"], "pos_tags": [11, 15]},
        {"tokens": ["Anna", "ran"], "tags": ["PROPN", "VERB"]},
    ),
    ("google-research-datasets/paws-x", ""): (
        {"id": INT, **texts("sentence1", "sentence2"), "label": ClassLabel(names=["0", "1"])},
        PAIR_ROW | {"id": 9, "label": 1},
        PAIR_READ | {"id": "9"},
    ),
    ("unimelb-nlp/wikiann", ""): (
        {
            "tokens": Sequence(TEXT), "ner_tags": Sequence(ClassLabel(names=NER)), "langs": Sequence(TEXT),
            "spans": Sequence(TEXT),
        },
        {"tokens": ["in", "Rome"], "ner_tags": [0, 5], "langs": ["en", "en"], "spans": ["LOC: Rome"]},
        {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]},
    ),
    ("izhx/xtreme-r-udpos", ""): (
        {"tokens": Sequence(TEXT), "pos_tags": Sequence(ClassLabel(names=UPOS))},
        {"tokens": ["Anna", "ran"], "pos_tags": [11, 15]},
        {"tokens": ["Anna", "ran"], "tags": ["PROPN", "VERB"]},
    ),
    ("Rowan/hellaswag", ""): (
        {
            "ind": INT, **texts("activity_label", "ctx_a", "ctx_b", "ctx"), "endings": Sequence(TEXT),
            **texts("source_id", "split", "split_type", "label"),
        },
        {
            "ind": 4, "activity_label": "x", "ctx_a": "A man", "ctx_b": "he", "ctx": "A man he",
            "endings": ["w", "x", "y", "z"], "source_id": "s", "split": "val", "split_type": "indomain", "label": "3",
        },
        {"prompt": "A man he", "choices": ["w", "x", "y", "z"], "label": 3},
    ),
    ("Samsoup/cosmos_qa", ""): (
        texts("id", "context", "question", "answer0", "answer1", "answer2", "answer3") | {"label": INT},
        {"id": "i", "context": "c.", "question": "q?", **{f"answer{n}": "wxyz"[n] for n in range(4)}, "label": 2},
        {"prompt": "c. q?", "choices": ["w", "x", "y", "z"], "label": 2},
    ),
    ("tau/commonsense_qa", ""): (
        {
            **texts("id", "question", "question_concept"), "choices": Sequence({"label": TEXT, "text": TEXT}),
            "answerKey": TEXT,
        },
        {
            "id": "i", "question": "q?", "question_concept": "c", "answerKey": "B",
            "choices": {"label": list("ABCDE"), "text": list("vwxyz")},
        },
        {"prompt": "q?", "choices": list("vwxyz"), "label": 1},
    ),
    ("aps/super_glue", "copa"): (COPA | {"label": ClassLabel(names=["choice1", "choice2"])}, COPA_ROW, COPA_READ),
    ("cambridgeltl/xcopa", ""): (
        COPA | {"label": INT, "changed": Value("bool")}, COPA_ROW | {"changed": False}, COPA_READ,
    ),
    ("lighteval/siqa", ""): (
        texts("context", "question", "answerA", "answerB", "answerC", "label"),
        {"context": "c.", "question": "q?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"},
        {"prompt": "c. q?", "choices": ["x", "y", "z"], "label": 2},
    ),
    ("allenai/winogrande", "winogrande_xl"): (GAP, GAP_ROW, GAP_READ),
    ("Muennighoff/xwinograd", ""): (GAP, GAP_ROW, GAP_READ),
    ("juletxara/xstory_cloze", ""): (
        {
            "story_id": TEXT, **texts(*(f"input_sentence_{n}" for n in range(1, 5))),
            **texts("sentence_quiz1", "sentence_quiz2"), "answer_right_ending": INT,
        },
        {
            "story_id": "s", **{f"input_sentence_{n}": f"S{n}." for n in range(1, 5)}, "sentence_quiz1": "x",
            "sentence_quiz2": "y", "answer_right_ending": 1,
        },
        {"prompt": "S1. S2. S3. S4.", "choices": ["x", "y"], "label": 0},
    ),
    ("facebook/belebele", ""): (
        {
            "link": TEXT, "question_number": Value("int64"), **texts("flores_passage", "question"),
            **texts(*(f"mc_answer{n}" for n in range(1, 5)), "correct_answer_num", "dialect", "ds"),
        },
        {
            "link": "l", "question_number": 1, "flores_passage": "P.", "question": "q?", "correct_answer_num": "4",
            **{f"mc_answer{n}": f"a{n}" for n in range(1, 5)}, "dialect": "d", "ds": "2023",
        },
        {"prompt": "P. q?", "choices": ["a1", "a2", "a3", "a4"], "label": 3},
    ),
    ("wikimedia/wikipedia", "20231101."): (
        texts("id", "url", "title", "text"),
        {"id": "1", "url": "u", "title": "t", "text": "Anna ran."},
        {"text": "Anna ran.", "text_pair": None},
    ),
    ("mteb/tatoeba-bitext-mining", ""): (
        texts("sentence1", "sentence2", "lang"),
        {"sentence1": "eins\n", "sentence2": "one", "lang": "deu-eng"},
        {"source": "eins", "target": "one"},
    ),
    ("mteb/BUCC", ""): (
        {"sentence1": Sequence(TEXT), "sentence2": Sequence(TEXT), "gold": Sequence(Sequence(Value("int64")))},
        {"sentence1": ["a", "b"], "sentence2": ["x"], "gold": [[2, 1]]},
        {"text": "a", "side": "source", "gold": []},
    ),
}  # fmt: skip


def declared() -> Iterator[Any]:
    for name, task in known_tasks().items():
        if task.hub is not None:
            yield pytest.param(task, task.hub, id=name)
            if task.hub.mirror is not None:
                yield pytest.param(task, task.hub.mirror, id=f"{name} mirror")


def repository(folder: Path, hub: Hub, code: str, count: int = 1) -> Hub:
    """A local repository with the set's configuration for one language; the declaration that reads it."""
    ((features, row, _),) = [
        v for (name, config), v in SETS.items() if name == hub.id and hub.config.startswith(config)
    ]
    row = {k: v.replace("{code}", code) if isinstance(v, str) else v for k, v in row.items()}
    config = hub.config.replace("{lang}", code) or "default"
    lines = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
    for split in sorted({part for names in hub.splits.values() for part in names.split("+")}):
        table = datasets.Dataset.from_list([row] * count, features=Features(features))
        (folder / config).mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
        lines += [f"  - split: {split}", f"    path: {config}/{split}-*.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return dataclasses.replace(hub, id=str(folder), revision="", counts={}, hashes={}, mirror=None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("task", "hub"), declared())
def test_the_columns_of_every_hub_set(task: Task, hub: Hub, tmp_path: Path) -> None:
    own = {"train": (task.train_languages or task.languages)[0]} | dict.fromkeys(("dev", "test"), task.languages[-1])
    config = DataConfig(source="hub", offline=True)
    for code in {hub.language_codes.get(own[split], own[split]) for split in hub.splits}:
        local = repository(tmp_path / code, hub, code)
        reading = dataclasses.replace(task, hub=local, holdout=None)
        for split, language in own.items():
            if split in hub.splits and hub.language_codes.get(language, language) == code:
                rows = load(reading, split, language, config).examples  # type: ignore[arg-type]
                ((_, _, expected),) = [
                    v for (name, start), v in SETS.items() if name == hub.id and hub.config.startswith(start)
                ]
                assert len(rows) >= len(hub.splits[split].split("+"))  # type: ignore[index]
                assert {key: rows[0][key] for key in expected} == expected


def test_no_set_of_the_table_is_left_over() -> None:
    declarations = [value.values[1] for value in declared()]
    for name, config in SETS:
        assert any(hub.id == name and hub.config.startswith(config) for hub in declarations)


def test_comparable_corpora_know_their_partners(tmp_path: Path) -> None:
    task = get("bucc2018")
    assert task.hub is not None
    task = dataclasses.replace(task, hub=repository(tmp_path / "r", task.hub, "ru"))
    rows = load(task, "test", "ru", DataConfig(source="hub")).examples
    assert [(r["id"], r["side"], r["gold"]) for r in rows] == [
        ("ru-1", "source", []), ("ru-2", "source", ["en-1"]), ("en-1", "target", ["ru-2"]),
    ]  # fmt: skip


def test_repeated_question_ids_of_a_hub_set_are_told_apart(tmp_path: Path) -> None:
    """TyDiQA's 3,696 English rows share 89 ids; a scorer that keys by id would lose rows."""
    task = get("tydiqa")
    assert task.hub is not None
    task = dataclasses.replace(task, hub=repository(tmp_path / "r", task.hub, "swahili", count=3))
    rows = load(task, "test", "sw", DataConfig(source="hub")).examples
    assert [row["id"] for row in rows] == ["swahili-7", "swahili-7#2", "swahili-7#3"]


def test_a_mirror_is_read_only_with_the_recorded_rows(tmp_path: Path) -> None:
    task = get("cosmosqa")
    assert task.hub is not None and task.hub.hashes
    local = repository(tmp_path / "r", task.hub, "en")
    config = DataConfig(source="hub")
    rows = load(dataclasses.replace(task, hub=local), "dev", "en", config).examples
    good = dataclasses.replace(task, hub=dataclasses.replace(local, hashes={"dev/en": rows_hash(rows)}))
    assert load(good, "dev", "en", config).examples == rows
    bad = dataclasses.replace(task, hub=dataclasses.replace(local, hashes=task.hub.hashes))
    with pytest.raises(DataError, match=r"1 dev rows in 'en' .* not those of the official release .*recorded"):
        load(bad, "dev", "en", config)
    # Neither order nor ids nor places count, any text does.
    assert rows_hash([*rows, {**rows[0], "label": 0}]) == rows_hash([{**rows[0], "label": 0, "id": "x"}, *rows])
    assert rows_hash(rows) != rows_hash([{**rows[0], "prompt": "c. q? "}])


def test_hub_rows_are_evaluated_where_they_have_labels(tmp_path: Path) -> None:
    """The benchmark's folder has stripped test labels; the hub's sets have them."""
    splits = evaluation_splits(get("udpos"), DataConfig())
    assert set(splits.values()) == {"test"} and len(splits) == 33
    assert evaluation_splits(get("copa"), DataConfig()) == {"en": "dev"}
    folder = tmp_path / "xtreme" / "udpos"
    folder.mkdir(parents=True)
    (folder / "dev-de.tsv").write_text("Anna\tPROPN\n")
    assert evaluation_splits(get("udpos"), DataConfig(tmp_path)) == {"de": "dev"}
    with pytest.raises(DataError, match="has no dev split in 'th'"):
        source_of(get("udpos"), "dev", "th", DataConfig())


def prepared(tmp_path: Path, folder: str, hub: Hub, config: str, **options: Any) -> None:
    """Leaves in the cache what `datasets` leaves there after a download of the hub's set."""
    cache = tmp_path / "cache"
    datasets.load_dataset(folder, config or None, cache_dir=str(cache), **options)
    (made,) = (p for p in cache.iterdir() if p.is_dir())
    moved = made.rename(cache / hub.id.replace("/", "___"))
    if hub.revision:
        for commit in [p for p in moved.glob("*/*/*") if p.is_dir()]:
            commit.rename(commit.parent / hub.revision)


@pytest.mark.parametrize("first", [True, False], ids=["set", "mirror"])
def test_offline_reads_the_set_or_its_mirror_from_the_cache(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the cache as `datasets` leaves it after a download of google/xtreme, or of the first choice."""
    task = get("pawsx")
    assert task.hub is not None and task.hub.mirror is not None
    wanted = task.hub if first else task.hub.mirror
    local = repository(tmp_path / wanted.id.split("/")[-1], wanted, "de")
    prepared(tmp_path, local.id, wanted, local.config.replace("{lang}", "de"))
    asked: list[Any] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **options: asked.append(args))
    rows = load(task, "test", "de", DataConfig(source="hub", offline=True)).examples
    assert rows[0]["label"] == "paraphrase" and not asked
    with pytest.raises(DataError, match="not in the cache"):
        load(task, "test", "ja", DataConfig(source="hub", offline=True))
    assert not asked


def test_offline_reads_a_parquet_export_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that was read from refs/convert/parquet is prepared split by split, under a hash for a name."""
    task = get("mlqa")
    assert task.hub is not None
    folder = tmp_path / "mlqa"
    repository(folder, task.hub, "de")
    (folder / "README.md").unlink()
    export = folder / "mlqa.de.de" / "test"
    export.mkdir()
    (export.parent / "test-00000-of-00001.parquet").rename(export / "0000.parquet")
    real = datasets.load_dataset

    def from_the_folder(name: str, revision: str, **options: Any) -> Any:
        assert (name, revision) == ("facebook/mlqa", "e" * 40)
        return real(str(folder), **options)

    monkeypatch.setattr("effstilts.data.hub._REVISIONS", {("facebook/mlqa", ""): ("e" * 40, True)})
    monkeypatch.setattr(datasets, "load_dataset", from_the_folder)
    online = load(task, "test", "de", DataConfig(source="hub")).examples
    (tmp_path / "cache" / "mlqa").rename(tmp_path / "cache" / "facebook___mlqa")
    config = DataConfig(source="hub", offline=True)
    assert load(task, "test", "de", config).examples == online and online[0]["question"] == "who?"
    for split, language in (("dev", "de"), ("test", "es")):
        with pytest.raises(DataError, match="not in the cache"):
            load(task, split, language, config)  # type: ignore[arg-type]
