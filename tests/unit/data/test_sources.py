from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from effstilts.data.sources import DataConfig, evaluation_splits, fingerprint, load
from effstilts.errors import DataError, RecipeError
from effstilts.synthetic import World
from effstilts.tasks.registry import declare, get, known_tasks

NLI = {
    "kind": "classification",
    "files": {"train": "t.jsonl", "dev": "d.jsonl"},
    "columns": {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    "labels": ["entailment", "neutral", "contradiction"],
    "label_values": {"0": "entailment", "1": "neutral", "2": "contradiction"},
}


def jsonl(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def nli(label: Any, premise: str = "a") -> dict[str, Any]:
    return {"premise": premise, "hypothesis": "b", "label": label}


def test_a_declared_task_reads_files(tmp_path: Path) -> None:
    jsonl(tmp_path / "t.jsonl", nli(0), nli("neutral"))
    rows = load(declare("mine", NLI), "train", "en", DataConfig(tmp_path)).examples
    assert [row["label"] for row in rows] == ["entailment", "neutral"]
    assert rows[1]["where"].endswith("t.jsonl:2") and rows[0]["text_pair"] == "b"
    assert len(load(declare("mine", NLI), "train", "en", DataConfig(tmp_path), limit=1).examples) == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (nli("maybe"), ["t.jsonl:1", "'maybe'", "entailment, neutral, contradiction"]),
        (nli(-1), ["t.jsonl:1", "stripped"]),
        (nli(None), ["stripped"]),
        ({"premise": "a", "label": 0}, ["t.jsonl:1", "'hypothesis'", "premise, label"]),
        (nli(0) | {"premise": 3}, ["expected text"]),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], words: list[str]) -> None:
    jsonl(tmp_path / "t.jsonl", row)
    with pytest.raises(DataError) as caught:
        load(declare("mine", NLI), "train", "en", DataConfig(tmp_path))
    for word in words:
        assert word in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    task = declare("mine", NLI)
    with pytest.raises(DataError, match=r"t\.jsonl does not exist"):
        load(task, "train", "en", DataConfig(tmp_path))
    with pytest.raises(DataError, match="EFFSTILTS_DATA"):
        load(task, "train", "en", DataConfig(None))
    with pytest.raises(DataError, match="declare no test split"):
        load(task, "test", "en", DataConfig(tmp_path))
    with pytest.raises(RecipeError, match="no language 'de'"):
        load(task, "train", "de", DataConfig(tmp_path))
    (tmp_path / "t.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no rows"):
        load(task, "train", "en", DataConfig(tmp_path))


def test_labels_that_are_dropped(tmp_path: Path) -> None:
    jsonl(tmp_path / "t.jsonl", nli("-"), nli(1))
    rows = load(declare("mine", NLI | {"drop_labels": ["-"]}), "train", "en", DataConfig(tmp_path)).examples
    assert [row["label"] for row in rows] == ["neutral"]


def test_choices_in_all_their_spellings(tmp_path: Path) -> None:
    config = DataConfig(tmp_path)
    cosmos = {"context": "c.", "question": "q?", "answer0": "w", "answer1": "x", "answer2": "y", "answer3": "z"}
    task = declare("c", {"extends": "cosmosqa", "files": {"train": "t.jsonl"}})
    jsonl(tmp_path / "t.jsonl", cosmos | {"label": 2})
    (row,) = load(task, "train", "en", config).examples
    assert (row["prompt"], row["choices"], row["label"]) == ("c. q?", ["w", "x", "y", "z"], 2)
    listed = declare("d", {"extends": "commonsenseqa", "files": {"train": "t.jsonl"}})
    jsonl(
        tmp_path / "t.jsonl", {"question": "q", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "B"}
    )
    assert load(listed, "train", "en", config).examples[0]["label"] == 1
    jsonl(
        tmp_path / "t.jsonl", {"question": "q", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "C"}
    )
    with pytest.raises(DataError, match="names none of the 2 choices"):
        load(listed, "train", "en", config)


@pytest.mark.parametrize(
    ("label", "index"),
    [("0", 0), (2, 2), ("A", 0), ("C", 2), ("D", None), ("3", None), ("²", None), ("a", None), ("1.0", None)],
)
def test_a_choice_label_is_a_number_or_a_letter(tmp_path: Path, label: Any, index: int | None) -> None:
    columns = {"prompt": "p", "choices": ["x", "y", "z"], "label": "label"}
    task = declare("c", {"kind": "choice", "files": {"train": "t.jsonl"}, "columns": columns})
    jsonl(tmp_path / "t.jsonl", {"p": "p", "x": "1", "y": "2", "z": "3", "label": label})
    if index is None:
        with pytest.raises(DataError, match=r"t\.jsonl:1.*names none of the 3 choices"):
            load(task, "train", "en", DataConfig(tmp_path))
    else:
        assert load(task, "train", "en", DataConfig(tmp_path)).examples[0]["label"] == index


def test_a_rows_own_names_of_choices_come_first(tmp_path: Path) -> None:
    task = declare(
        "c", {"extends": "commonsenseqa", "files": {"train": "t.jsonl"}, "label_values": {"1": "0", "2": "1"}}
    )
    row = {"question": "q", "choices": {"label": ["1", "2", "3"], "text": ["x", "y", "z"]}, "answerKey": "2"}
    jsonl(tmp_path / "t.jsonl", row)
    assert load(task, "train", "en", DataConfig(tmp_path)).examples[0]["label"] == 1
    for broken in ({"label": ["1"], "text": ["x", "y"]}, ["x"]):
        jsonl(tmp_path / "t.jsonl", row | {"choices": broken})
        with pytest.raises(DataError, match="choices with"):
            load(task, "train", "en", DataConfig(tmp_path))


def test_an_answer_stands_where_it_says_whatever_the_source(tmp_path: Path) -> None:
    task = declare("s", {"kind": "span", "files": {"train": "t.jsonl"}})
    row = {"id": 1, "question": "q", "context": "Anna ran."}
    for answers, words in (
        ({"text": ["ran"], "answer_start": [4]}, "'ran' is not at 4, there stands ' ra'"),
        ({"text": [""], "answer_start": [0]}, "stripped"),
        ({"text": [], "answer_start": []}, "stripped"),
    ):
        jsonl(tmp_path / "t.jsonl", row | {"answers": answers})
        with pytest.raises(DataError, match=words):
            load(task, "train", "en", DataConfig(tmp_path))


def test_a_template_takes_texts_and_numbers_alone(tmp_path: Path) -> None:
    task = declare("x", NLI | {"columns": {"text": "{premise} {hypothesis}", "label": "label"}})
    jsonl(tmp_path / "t.jsonl", nli(0))
    assert load(task, "train", "en", DataConfig(tmp_path)).examples[0]["text"] == "a b"
    jsonl(tmp_path / "t.jsonl", nli(0) | {"hypothesis": None})
    with pytest.raises(DataError, match="hypothesis is None, expected text"):
        load(task, "train", "en", DataConfig(tmp_path))


def test_comparable_corpora(tmp_path: Path) -> None:
    folder = tmp_path / "xtreme" / "bucc2018"
    folder.mkdir(parents=True)
    (folder / "zh-en.dev.zh").write_text("zh-1\ta\nzh-2\tb\n")
    (folder / "zh-en.dev.en").write_text("en-1\tx\n")
    (folder / "zh-en.dev.gold").write_text("zh-2\ten-1\n")
    task, config = get("bucc2018"), DataConfig(tmp_path)
    assert [(r["id"], r["side"], r["gold"]) for r in load(task, "dev", "zh", config).examples] == [
        ("zh-1", "source", []), ("zh-2", "source", ["en-1"]), ("en-1", "target", ["zh-2"]),
    ]  # fmt: skip
    (folder / "zh-en.dev.gold").write_text("zh-3\ten-1\n")
    with pytest.raises(DataError, match=r"gold:1: no source sentence has the id 'zh-3'"):
        load(task, "dev", "zh", config)


def test_xcopa_asks_its_question_in_words(tmp_path: Path) -> None:
    row = {"premise": "P.", "choice1": "a", "choice2": "b", "question": "cause", "label": 1, "idx": 7}
    jsonl(tmp_path / "t.jsonl", row)
    task = declare("c", {"extends": "copa", "files": {"train": "t.jsonl"}})
    (example,) = load(task, "train", "en", DataConfig(tmp_path)).examples
    assert example["prompt"] == "P. What was the cause?" and example["id"] == "7"
    jsonl(tmp_path / "t.jsonl", row | {"question": "why"})
    with pytest.raises(DataError, match="'why', known are cause, effect"):
        load(task, "train", "en", DataConfig(tmp_path))


def test_templates_hold_plain_names_alone(tmp_path: Path) -> None:
    jsonl(tmp_path / "t.jsonl", nli(0))
    for template in ("{premise.__class__}", "{premise[0]}", "{premise!r}", "{premise:>9}", "{premise", "}{", 3):
        columns: Any = {"text": template, "label": "label"}
        with pytest.raises(RecipeError, match="plain column names"):
            declare("x", NLI | {"columns": columns})
        # A plug-in builds its Task itself.
        if template != 3:
            task = dataclasses.replace(declare("x", NLI), columns=columns)
            with pytest.raises(RecipeError, match="plain column names"):
                load(task, "train", "en", DataConfig(tmp_path))


def test_zero_shot_targets_train_on_english_alone(tmp_path: Path) -> None:
    """jiant's tydiqa_en trained on all nine languages; here the other languages' rows cannot be had for training."""
    for name, task in known_tasks().items():
        for language in task.languages[1:]:
            if task.kind not in ("masked_lm", "bitext", "mining", "candidates") and not task.train_languages:
                with pytest.raises(DataError, match="training rows are"):
                    load(task, "train", language, DataConfig(tmp_path, world=World()))
                break
        assert name == task.name


def questions(ids: list[str]) -> str:
    """A SQuAD file, a context for each question."""
    answers = [{"text": "context", "answer_start": 0}]
    paragraphs = [
        {"context": f"context {i} ends", "qas": [{"id": id_, "question": "q", "answers": answers}]}
        for i, id_ in enumerate(ids)
    ]
    return json.dumps({"data": [{"paragraphs": paragraphs}]})


def test_rows_of_nine_languages_under_the_english_name_are_refused(tmp_path: Path) -> None:
    """jiant's download wrote the whole train file to tydiqa.en.train.json; it trained on nine languages for years."""
    path = tmp_path / "xtreme" / "tydiqa" / "tydiqa.goldp.en.train.json"
    path.parent.mkdir(parents=True)
    task, config = get("tydiqa"), DataConfig(tmp_path)
    english = [f"english-{i}-0" for i in range(30)]
    path.write_text(questions(english))
    assert len(load(task, "train", "en", config).examples) + len(load(task, "dev", "en", config).examples) == 30
    for name in ("arabic", "bengali", "finnish", "indonesian", "korean", "russian", "swahili", "telugu"):
        path.write_text(questions([*english, f"{name}-77-0"]))
        for split in ("train", "dev"):
            with pytest.raises(DataError, match=f"is {name} by its id, but the file is read as 'en'"):
                load(task, split, "en", config)  # type: ignore[arg-type]
    # Ids that tell nothing, as in XTREME's own files: then the number of rows does.
    path.write_text(questions([str(i) for i in range(3696)]))
    assert len(load(task, "train", "en", config).examples) > 3000
    path.write_text(questions([str(i) for i in range(3697)]))
    with pytest.raises(DataError, match="more rows than the 3696 that tydiqa has in 'en'"):
        load(task, "train", "en", config)
    # A row of another language stands in its own file by right.
    (path.parent / "tydiqa.goldp.sw.train.json").write_text(questions(["swahili-1-0"]))
    assert len(load(task, "test", "sw", config).examples) == 1


def test_one_hub_table_of_nine_languages_gives_english_alone(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("english", "arabic", "swahili")
    rows = [
        {"id": f"{names[i % 3]}-{i}-0", "question": "q", "context": f"context {i} ends",
         "answers": {"text": ["context"], "answer_start": [0]}}
        for i in range(90)
    ]  # fmt: skip
    folder = tmp_path / "repository" / "secondary_task"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    card = "---\nconfigs:\n- config_name: secondary_task\n  data_files:\n  - split: train\n"
    (tmp_path / "repository" / "README.md").write_text(card + "    path: secondary_task/train-*\n---\n")
    task = get("tydiqa")
    assert task.hub is not None and task.hub.counts == {"train/en": 3696}
    local = dataclasses.replace(task.hub, id=str(tmp_path / "repository"), counts={"train/en": 30})
    task, config = dataclasses.replace(task, hub=local), DataConfig(source="hub")
    found = [row for split in ("train", "dev") for row in load(task, split, "en", config).examples]  # type: ignore[arg-type]
    assert len(found) == 30 and all(row["id"].startswith("english-") for row in found)
    whole = dataclasses.replace(task, hub=dataclasses.replace(local, language_of_id=False))
    with pytest.raises(DataError, match="has 90 rows in 'en', not the 30"):
        load(whole, "train", "en", config)


def test_train_and_dev_of_a_holdout_are_told_apart_by_every_key(tmp_path: Path) -> None:
    """Both come out of one file and share its fingerprint, which names the source: keys add the split."""
    from effstilts.identity import of_part
    from effstilts.log import Log
    from effstilts.store import Store, content_key
    from effstilts.workbench import TaskPart, Workbench

    path = tmp_path / "xtreme" / "tydiqa" / "tydiqa.goldp.en.train.json"
    path.parent.mkdir(parents=True)
    path.write_text(questions([f"english-{i}-0" for i in range(60)]))
    task, config = get("tydiqa"), DataConfig(tmp_path)
    bench = Workbench(Store(tmp_path / "store"), config, Log(quiet=True), {})
    part = TaskPart(task, "en")
    keys = [content_key(of_part(bench, part, split)) for split in ("train", "dev")]  # type: ignore[arg-type]
    assert keys[0] != keys[1]
    contexts = [{e["context"] for e in bench.examples(part, split)} for split in ("train", "dev")]  # type: ignore[arg-type]
    assert all(contexts) and not contexts[0] & contexts[1]


def test_a_holdout_parts_the_train_rows_by_context(tmp_path: Path) -> None:
    folder = tmp_path / "xtreme" / "tydiqa"
    folder.mkdir(parents=True)
    paragraphs = [
        {
            "context": f"context {i // 2} ends",
            "qas": [{"id": str(i), "question": "q", "answers": [{"text": "context", "answer_start": 0}]}],
        }
        for i in range(400)
    ]
    (folder / "tydiqa.goldp.en.train.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    task, config = get("tydiqa"), DataConfig(tmp_path)
    train = load(task, "train", "en", config).examples
    dev = load(task, "dev", "en", config).examples
    assert len(train) + len(dev) == 400 and 10 < len(dev) < 80
    assert not {e["context"] for e in train} & {e["context"] for e in dev}
    # The other languages' train files serve as their tests; English must not be tested on what it trained on.
    (folder / "tydiqa.goldp.sw.train.json").write_text((folder / "tydiqa.goldp.en.train.json").read_text())
    assert evaluation_splits(task, config) == {"en": "dev", "sw": "test"}
    with pytest.raises(DataError, match="trained on"):
        load(task, "test", "en", config)


def test_a_holdout_by_row_parts_translations_alike(tmp_path: Path) -> None:
    for language in ("en", "de"):
        lines = "".join(f"{language} {i}\t{language} too {i}\t{i % 2}\n" for i in range(200))
        (tmp_path / f"{language}.tsv").write_text(lines)
    declared = {
        "kind": "classification",
        "files": {"train": {"path": "{lang}.tsv", "format": "pawsx_tsv"}},
        "columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
        "labels": ["0", "1"],
        "languages": ["en", "de"],
        "holdout": {"share": 0.5, "by": "row"},
        "evaluate_on": "dev",
        "train_languages": ["en", "de"],
    }
    task, config = declare("halves", declared), DataConfig(tmp_path)
    assert evaluation_splits(task, config) == {"en": "dev", "de": "dev"}
    numbers = {
        (split, language): {row["text"].split()[1] for row in load(task, split, language, config).examples}
        for split in ("train", "dev")
        for language in ("en", "de")
    }
    assert numbers["train", "en"] == numbers["train", "de"] and numbers["dev", "en"] == numbers["dev", "de"]
    assert 70 < len(numbers["dev", "en"]) < 130 and not numbers["train", "en"] & numbers["dev", "de"]
    by_no_column = declare("halves", {**declared, "holdout": {"share": 0.5, "by": "subject"}})
    with pytest.raises(DataError, match=r"en\.tsv:1: halves\.holdout\.by: the row has no column 'subject'"):
        load(by_no_column, "train", "en", config)


def test_aligned_files(tmp_path: Path) -> None:
    folder = tmp_path / "tatoeba"
    folder.mkdir()
    (folder / "tatoeba.deu-eng.deu").write_text("eins\n\ndrei\n")
    (folder / "tatoeba.deu-eng.eng").write_text("one\n\nthree\n")
    task, config = get("tatoeba"), DataConfig(tmp_path)
    assert evaluation_splits(task, config) == {"de": "test"}
    rows = load(task, "test", "de", config).examples
    assert [(r["source"], r["target"]) for r in rows] == [("eins", "one"), ("", ""), ("drei", "three")]
    (folder / "tatoeba.deu-eng.eng").write_text("one\n")
    with pytest.raises(DataError, match="3 lines.*1: they are not aligned"):
        load(task, "test", "de", config)


def test_parallel_text_for_translation_lm(tmp_path: Path) -> None:
    """Aligned files of a masked-LM task are pairs, those of a format of single texts stand one after another."""
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.deu").write_text("eins\nzwei\n")
    paths = ["a.en", "a.{file_lang}"]
    declared = {"kind": "masked_lm", "languages": ["de"], "language_codes": {"de": "deu"}}
    pairs = declare("p", declared | {"files": {"train": {"path": paths, "format": "aligned_lines"}}, "columns":
                    {"text": "source", "text_pair": "target"}})  # fmt: skip
    rows = load(pairs, "train", "de", DataConfig(tmp_path)).examples
    assert [(r["text"], r["text_pair"]) for r in rows] == [("one", "eins"), ("two", "zwei")]
    single = declare("s", declared | {"files": {"train": {"path": paths, "format": "lines"}}})
    rows = load(single, "train", "de", DataConfig(tmp_path)).examples
    assert [r["text"] for r in rows] == ["one", "two", "eins", "zwei"]


def test_a_fingerprint_follows_content_and_declaration(tmp_path: Path) -> None:
    jsonl(tmp_path / "t.jsonl", nli(0))
    task, config = declare("mine", NLI), DataConfig(tmp_path)
    first = fingerprint(task, "train", "en", config)
    assert fingerprint(declare("mine", NLI), "train", "en", config) == first
    assert fingerprint(declare("mine", NLI | {"drop_labels": ["-"]}), "train", "en", config) != first
    jsonl(tmp_path / "t.jsonl", nli(1), nli(1))
    assert fingerprint(task, "train", "en", config) != first
    synthetic = get("synthetic/mnli")
    worlds = [DataConfig(world=World(seed)) for seed in (0, 1)]
    assert fingerprint(synthetic, "train", "en", worlds[0]) != fingerprint(synthetic, "train", "en", worlds[1])


@pytest.mark.slow
def test_a_hub_shaped_repository_of_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real datasets code, with the network refused."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "repository"
    repository.mkdir()
    table = pa.table(
        {
            "id": ["english-1", "swahili-2", "english-3"],
            "question": ["q", "q", "q"],
            "context": ["Anna ran", "Anna ran", "Boris ran"],
            "answers": [{"text": ["Anna"], "answer_start": [0]}] * 2 + [{"text": ["Boris"], "answer_start": [0]}],
        }
    )
    pq.write_table(table, repository / "train-00000-of-00001.parquet")
    hub = {
        "id": str(repository),
        "splits": {"train": "train", "test": "train"},
        "language_of_id": True,
        "language_codes": {"en": "english", "sw": "swahili"},
    }
    task = declare("hubbed", {"kind": "span", "hub": hub, "languages": ["en", "sw"]})
    config = DataConfig(source="hub", offline=True)
    assert [e["id"] for e in load(task, "train", "en", config).examples] == ["english-1", "english-3"]
    assert [e["id"] for e in load(task, "test", "sw", config).examples] == ["swahili-2"]
    before = fingerprint(task, "train", "en", config)
    pq.write_table(table.slice(0, 2), repository / "train-00000-of-00001.parquet")
    assert fingerprint(task, "train", "en", config) != before


def test_an_unpinned_hub_set_is_pinned_to_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    task, config = get("anli"), DataConfig(source="hub")
    with pytest.raises(DataError, match="cannot ask the hub for the revision of facebook/anli"):
        fingerprint(task, "train", "en", config)
    found = []
    for commit in ("a" * 40, "b" * 40):
        monkeypatch.setattr("effstilts.data.hub._REVISIONS", {})
        info = type("Info", (), {"sha": commit})
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, info=info, **asked: info)
        found.append(fingerprint(task, "train", "en", config))
    assert found[0] != found[1]


def test_offline_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="not in the cache; run once without --offline"):
        load(get("anli"), "train", "en", DataConfig(offline=True))


def test_offline_reads_what_datasets_prepared_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    repository, cache = tmp_path / "siqa", tmp_path / "cache"
    repository.mkdir()
    row = {"context": "c.", "question": "q?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}
    pq.write_table(pa.table({k: [v] for k, v in row.items()}), repository / "train-00000-of-00001.parquet")
    datasets.load_dataset(str(repository), split="train", cache_dir=str(cache))
    (made,) = (p for p in cache.iterdir() if p.is_dir())
    made.rename(cache / "lighteval___siqa")
    (commit,) = (p.name for p in (cache / "lighteval___siqa" / "default" / "0.0.0").iterdir() if p.is_dir())
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
    task, config = get("siqa"), DataConfig(source="hub", offline=True)
    (example,) = load(task, "train", "en", config).examples
    assert example["label"] == 2 and example["prompt"] == "c. q?"
    first = fingerprint(task, "train", "en", config)
    assert task.hub is not None
    pinned = dataclasses.replace(task, hub=dataclasses.replace(task.hub, revision=commit))
    assert load(pinned, "train", "en", config).examples == load(task, "train", "en", config).examples
    other = dataclasses.replace(task, hub=dataclasses.replace(task.hub, revision="0" * 40))
    with pytest.raises(DataError, match="not in the cache"):
        load(other, "train", "en", config)
    assert fingerprint(task, "train", "en", config) == first
    shutil.rmtree(cache)
    with pytest.raises(DataError, match="not in the cache"):
        fingerprint(task, "train", "en", config)


def test_a_loading_script_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """main holds mlqa.py, which datasets >= 4 refuses: the hub's Parquet export is read, at its commit."""
    import datasets
    import huggingface_hub

    script = type("File", (), {"rfilename": "mlqa.py"})
    row = {"id": "1", "question": "q", "context": "ab", "answers": {"text": ["b"], "answer_start": [1]}}
    asked: list[Any] = []

    def info(self: Any, name: str, revision: str | None = None, timeout: float = 0) -> Any:
        return type("Info", (), {"sha": ("e" if revision else "m") * 40, "siblings": [script]})

    def load_dataset(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return datasets.Dataset.from_list([row])

    monkeypatch.setattr("effstilts.data.hub._REVISIONS", {})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    assert len(load(get("mlqa"), "dev", "de", DataConfig(source="hub")).examples) == 1
    ((args, options),) = asked
    assert args == ("facebook/mlqa",) and options["revision"] == "e" * 40
    assert options["data_files"] == {"validation": "mlqa.de.de/validation/*.parquet"}


def test_hub_tags_go_by_their_names(tmp_path: Path) -> None:
    """The numbers of WikiANN's classes are the hub's; a permuted order must not change a tag."""
    import datasets

    repository = tmp_path / "hub"
    repository.mkdir()
    names = ["B-LOC", "I-LOC", "O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    table = datasets.Dataset.from_dict({"tokens": [["in", "Rome"]], "ner_tags": [[2, 0]]}, features=features)
    table.to_parquet(repository / "train-00000-of-00001.parquet")
    hub = {"id": str(repository), "splits": {"train": "train"}, "rename": {"ner_tags": "tags"}}
    task = declare("x", {"extends": "panx", "hub": hub})
    (row,) = load(task, "train", "en", DataConfig(source="hub")).examples
    assert (row["tokens"], row["tags"]) == (["in", "Rome"], ["O", "B-LOC"])
    # Another number of rows than the official one is refused.
    short = declare("x", {"extends": "panx", "hub": hub | {"counts": {"train/en": 20000}}})
    with pytest.raises(DataError, match="has 1 rows in 'en', not the 20000"):
        load(short, "train", "en", DataConfig(source="hub"))


def test_official_files_have_their_own_columns(tmp_path: Path) -> None:
    """MNLI's release says sentence1, gold_label; a file with the hub's columns reads by the other layout."""
    folder = tmp_path / "mnli"
    folder.mkdir()
    task, config = get("mnli"), DataConfig(tmp_path)
    jsonl(folder / "train.jsonl", nli(2))
    assert load(task, "train", "en", config).examples[0]["label"] == "contradiction"
    release = {"sentence1": "p", "sentence2": "h", "label": "of another kind", "gold_label": "neutral"}
    jsonl(folder / "multinli_1.0_train.jsonl", release | {"gold_label": "-"}, release)
    (row,) = load(task, "train", "en", config).examples
    assert (row["text"], row["text_pair"], row["label"]) == ("p", "h", "neutral")
    del release["gold_label"]
    jsonl(folder / "multinli_1.0_train.jsonl", release)
    with pytest.raises(DataError, match="'of another kind' is not one of entailment"):
        load(task, "train", "en", config)
    with pytest.raises(DataError, match=r"multinli_1\.0_dev_matched\.jsonl does not exist.*EFFSTILTS_DATA or --data"):
        load(task, "dev", "en", DataConfig(tmp_path, source="files"))


def test_anli_is_three_rounds(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        folder = tmp_path / "anli" / f"R{number}"
        folder.mkdir(parents=True)
        jsonl(
            folder / "train.jsonl",
            {"uid": "u", "context": f"round {number}", "hypothesis": "h", "label": "enc"[number - 1]},
        )
    rows = load(get("anli"), "train", "en", DataConfig(tmp_path)).examples
    assert [row["label"] for row in rows] == ["entailment", "neutral", "contradiction"]
    assert rows[2]["text"] == "round 3" and rows[2]["where"].endswith("R3/train.jsonl:1")
    assert get("anli").labels == get("mnli").labels == get("snli").labels
    assert get("anli").head == get("mnli").head == get("snli").head


def test_what_load_gives_beside_rows(tmp_path: Path) -> None:
    jsonl(tmp_path / "t.jsonl", nli("-"), nli(0), nli("-"), nli(-1))
    task = declare("mine", NLI | {"drop_labels": ["-", "-1"]})
    loaded = load(task, "train", "en", DataConfig(tmp_path))
    assert (len(loaded.examples), loaded.dropped) == (1, {"-": 2, "-1": 1}) and "from files" in loaded.source
    synthetic = get("synthetic/mnli")
    default = fingerprint(synthetic, "dev", "en", DataConfig())
    assert default == fingerprint(synthetic, "dev", "en", DataConfig(world=World()))
    assert len(load(synthetic, "dev", "en", DataConfig(), limit=5).examples) == 5


def test_braces_in_a_path_are_only_those_of_the_language(tmp_path: Path) -> None:
    (tmp_path / "{x.y}").mkdir()
    (tmp_path / "{x.y}" / "en.txt").write_text("a\n")
    task = declare("t", {"kind": "masked_lm", "files": {"train": "{x.y}/{lang}.txt"}})
    assert load(task, "train", "en", DataConfig(tmp_path)).examples[0]["text"] == "a"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, ["needs a `kind`"]),
        ({"kind": "clasification"}, ["did you mean 'classification'"]),
        (NLI | {"lables": []}, ["unknown key 'lables'", "did you mean 'labels'"]),
        (NLI | {"labels": ["one"]}, ["at least two labels"]),
        (NLI | {"labels": [True, "b"]}, ["quotes"]),
        (NLI | {"columns": {"text": "a"}}, ["no column is given for label"]),
        (NLI | {"columns": {"txt": "a", "text": "a", "label": "b"}}, ["no role 'txt'"]),
        (NLI | {"files": {"trian": "x.jsonl"}}, ["did you mean 'train'"]),
        (NLI | {"files": {"train": "x.parquet"}}, ["tells no format"]),
        (NLI | {"hub": {"id": "a", "split": {}}}, ["did you mean 'splits'"]),
        ({k: v for k, v in NLI.items() if k != "files"}, ["needs `files` or `hub`"]),
        ({"extends": "mnly"}, ["no task 'mnly'", "did you mean 'mnli'"]),
        (NLI | {"max_length": "long"}, ["max_length", "expected int"]),
        (NLI | {"files": {"train": {"path": "x", "format": "exe"}}}, ["no format 'exe'"]),
        (NLI | {"labels": {"file": "/nowhere.txt"}}, ["labels", "/nowhere.txt cannot be read"]),
        (NLI | {"labels": {"path": "x"}}, ["mapping with `file` alone"]),
        (NLI | {"hub": {"id": "a", "splits": {"trian": "train"}}}, ["hub.splits", "did you mean 'train'"]),
        (NLI | {"hub": {"id": "a", "config": [3], "splits": {}}}, ["mine.hub: config", "[3]"]),
        (NLI | {"columns": {"text": ["a", "b"], "label": "c"}}, ["columns.text", "one column"]),
    ],
)
def test_a_bad_declaration_is_named(spec: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        declare("mine", spec)
    for word in words:
        assert word in str(caught.value)


def nli_plus(root: Path) -> None:
    """MNLI, SNLI and ANLI with 5, 2 and 3 training rows."""
    for folder in ("mnli", "snli", *(f"anli/R{r}" for r in (1, 2, 3))):
        (root / folder).mkdir(parents=True)
    release = [{"sentence1": f"p{i}", "sentence2": "h", "gold_label": "neutral"} for i in range(5)]
    for split, name in (("train", "train"), ("dev_matched", "dev")):
        jsonl(root / "mnli" / f"multinli_1.0_{split}.jsonl", *release)
        jsonl(root / "snli" / f"snli_1.0_{name}.jsonl", *release[:2], release[0] | {"gold_label": "-"})
        for r in (1, 2, 3):
            jsonl(root / "anli" / f"R{r}" / f"{name}.jsonl", {"context": f"R{r}", "hypothesis": "h", "label": "c"})


def test_anli_plus_is_one_task_of_three_parts(tmp_path: Path) -> None:
    nli_plus(tmp_path)
    task, config = get("anli+"), DataConfig(tmp_path, source="files")
    loaded = load(task, "train", "en", config)
    ids = [row["id"].split("/")[0] for row in loaded.examples]
    # One of each part in turn, so that the first rows of dev, by which a step is chosen, are not of MNLI alone.
    assert ids == ["mnli", "snli", "anli"] * 2 + ["mnli", "anli"] + ["mnli"] * 2 and loaded.dropped == {"-": 1}
    assert len(set(row["id"] for row in loaded.examples)) == 10
    parts = [load(part, "train", "en", config).examples for part in task.parts]
    assert sorted(row["text"] for row in loaded.examples) == sorted(row["text"] for part in parts for row in part)
    assert evaluation_splits(task, config) == {"en": "dev"}
    before = fingerprint(task, "train", "en", config)
    jsonl(tmp_path / "anli" / "R2" / "train.jsonl", {"context": "new", "hypothesis": "h", "label": "e"})
    assert fingerprint(task, "train", "en", config) != before
    (tmp_path / "snli" / "snli_1.0_train.jsonl").unlink()
    with pytest.raises(DataError, match="snli: no train rows in 'en'"):
        load(task, "train", "en", config)


def test_a_recipe_may_replace_a_part(tmp_path: Path) -> None:
    nli_plus(tmp_path)
    jsonl(tmp_path / "mine.jsonl", nli(0), nli(1))
    mine = declare("mnli", {"extends": "mnli", "files": {"train": "mine.jsonl"}})
    task = get("anli+", {"mnli": mine})
    rows = load(task, "train", "en", DataConfig(tmp_path, source="files")).examples
    assert [row["text"] for row in rows if row["id"].startswith("mnli/")] == ["a", "a"]
    two = declare("two", {"kind": "classification", "parts": ["mnli", "snli"]})
    assert two.labels == get("mnli").labels and [part.name for part in two.parts] == ["mnli", "snli"]
    for parts, words in (("mnli", "two or more"), (["mnli", "nothing"], "no task"), (["mnli", "qqp"], "other labels")):
        with pytest.raises(RecipeError, match=words):
            declare("two", {"kind": "classification", "parts": parts})


def test_ccgbank_is_read_section_by_section(tmp_path: Path) -> None:
    leaves = "(<T S[dcl] 0 2> (<L NP NNP NNP Anna NP>) (<L S[dcl]\\NP VBD VBD ran S[dcl]\\NP>) )"
    for section, name in (("02", "wsj_0201"), ("21", "wsj_2101"), ("21", "wsj_2100"), ("00", "wsj_0001")):
        folder = tmp_path / "ccg" / "AUTO" / section
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.auto").write_text(f"ID={name}.1 PARSER=GOLD NUMPARSE=1\n{leaves}\n")
    task = declare("ccg", {"extends": "ccg", "labels": ["NP", "S[dcl]\\NP"]})
    config = DataConfig(tmp_path)
    with pytest.raises(DataError, match=r"ccg/train\.tsv does not exist"):
        load(task, "train", "en", config)
    for section in range(3, 21):
        folder = tmp_path / "ccg" / "AUTO" / f"{section:02d}"
        folder.mkdir()
        (folder / "wsj.auto").write_text(f"ID=x.{section}\n{leaves}\n")
    rows = load(task, "train", "en", config).examples
    assert len(rows) == 21 and rows[0]["tokens"] == ["Anna", "ran"] and rows[0]["tags"] == ["NP", "S[dcl]\\NP"]
    assert [Path(row["where"]).name[:8] for row in rows[-2:]] == ["wsj_2100", "wsj_2101"]
    assert len(load(task, "dev", "en", config).examples) == 1


def test_candidates_of_mewslix_and_lareqa(tmp_path: Path) -> None:
    config = DataConfig(tmp_path, source="files")
    (tmp_path / "mewslix").mkdir()
    mentions = [
        {"example_id": f"e{i}", "entity_id": "Q1", "mention_span": {"start": 0, "end": 4, "text": "Anna"}}
        for i in (1, 2)
    ]
    for code in ("de", "tr"):
        context = {"text": "Anna lief.", "language": code}
        with (tmp_path / "mewslix" / "wikinews_mentions-dev.jsonl").open("a") as file:
            file.write(json.dumps({"context": context, "mentions": mentions}) + "\n")
    entities = [{"entity_id": f"Q{i}", "title": "t", "description": "d"} for i in (1, 2, 3)]
    jsonl(tmp_path / "mewslix" / "candidate_set_entities.jsonl", *entities)
    rows = load(get("mewslix"), "dev", "tr", config).examples
    assert [(r["id"], r["side"], r["gold"], r["span"]) for r in rows] == [
        *((f"e{i}", "query", ["Q1"], [0, 4]) for i in (1, 2)), *((f"Q{i}", "candidate", [], None) for i in (1, 2, 3)),
    ]  # fmt: skip
    (tmp_path / "lareqa").mkdir()
    questions = [
        {"id": name, "question": "?", "answers": [{"text": text, "answer_start": start}]}
        for name, text, start in (("a", "Anna", 0), ("b", "Boris", 10), ("c", "fell", 16))
    ]
    paragraph = {
        "context": "Anna ran. Boris fell.", "sentences": ["Anna ran.", "Boris fell."],
        "sentence_breaks": [[0, 9], [10, 21]], "qas": questions,
    }  # fmt: skip
    (tmp_path / "lareqa" / "de.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    rows = load(get("lareqa"), "test", "de", config).examples
    assert [(r["id"], r["side"], r["gold"]) for r in rows] == [
        ("0-0-0", "candidate", ["a"]), ("0-0-1", "candidate", ["b", "c"]), ("a", "query", ["0-0-0"]),
        ("b", "query", ["0-0-1"]), ("c", "query", ["0-0-1"]),
    ]  # fmt: skip


def test_translated_sets_train_in_the_languages_they_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "XNLI-MT-1.0" / "multinli"
    folder.mkdir(parents=True)
    (folder / "multinli.train.sw.tsv").write_text("premise\thypo\tlabel\na\tb\tcontradictory\n")
    (row,) = load(get("xnli-translated"), "train", "sw", DataConfig(tmp_path)).examples
    assert (row["text"], row["text_pair"], row["label"]) == ("a", "b", "contradiction")
    with pytest.raises(DataError, match="training rows are en only"):
        load(get("xnli"), "train", "sw", DataConfig(tmp_path))


def test_a_mirror_steps_in_where_the_hub_lacks_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    from effstilts.data import hub

    gone: set[str] = set()

    def info(self: Any, name: str, revision: str | None = None, timeout: float = 0) -> Any:
        if name in gone:
            raise ConnectionError("404")
        return type("Info", (), {"sha": revision or "n" * 40})

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    keys = []
    for missing in ((), ("google-research-datasets/paws-x",), ("google-research-datasets/paws-x", "google/xtreme")):
        monkeypatch.setattr(hub, "_REVISIONS", {})
        gone |= set(missing)
        if len(missing) < 2:
            keys.append(
                (hub.settled(get("pawsx"), "de", False).id, fingerprint(get("pawsx"), "test", "de", DataConfig()))
            )
    assert [name for name, _ in keys] == ["google-research-datasets/paws-x", "google/xtreme"]
    assert keys[0][1] != keys[1][1]
    with pytest.raises(DataError, match=r"cannot ask the hub for the revision of google-research-datasets/paws-x"):
        fingerprint(get("pawsx"), "test", "de", DataConfig())


def test_a_holdouts_fingerprint_goes_by_the_format_that_it_is_read_in(tmp_path: Path) -> None:
    """Dev rows come out of the train file, in the train file's format."""
    from effstilts.data.sources import fingerprint
    from effstilts.tasks.registry import declare

    (tmp_path / "text.en.txt").write_text("".join(f"line {i}\tx\n" for i in range(40)), encoding="utf-8")

    def task(form: str) -> Any:
        files = {"train": {"path": "text.{lang}.txt", "format": form}}
        spec = {"kind": "masked_lm", "files": files, "languages": ["en"], "holdout": {"share": 0.2, "by": "row"}}
        return declare("held", spec | ({"columns": {"text": "line"}} if form == "tsv" else {}))

    where = DataConfig(tmp_path)
    assert fingerprint(task("lines"), "dev", "en", where) != fingerprint(task("tsv"), "dev", "en", where)
