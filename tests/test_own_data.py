"""A user's own data and models: what a declaration leaves open, what no declaration can mean, runs opened elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effstilts.cli import main
from effstilts.data.sources import DataConfig, fingerprint, load
from effstilts.errors import DataError, ModelError, RecipeError, StoreError
from effstilts.kinds import KINDS
from effstilts.log import Log
from effstilts.model.opening import save
from effstilts.model.tokenizer import train_tokenizer
from effstilts.procedure import retrieval_splits
from effstilts.store import Store
from effstilts.studies.trained import open_named
from effstilts.tasks import registry
from effstilts.tasks.task import Task
from effstilts.workbench import Workbench


def declared(**spec: Any) -> Task:
    return registry.declare("own", spec)


def write(path: Path, *rows: Any) -> str:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows_of(task: Task, split: Any = "test", language: str = "en") -> list[dict[str, Any]]:
    return load(task, split, language, DataConfig()).examples


@pytest.mark.parametrize(
    ("labels", "score"),
    [(["N", "V"], "accuracy"), (["O", "B-PER", "I-PER"], "f1"), (["O", "PER"], "accuracy"), (["O", "B", "I"], "f1")],
)
def test_tags_that_mark_no_spans_are_scored_by_accuracy(labels: list[str], score: str) -> None:
    """seqeval reads a tag's first letter as a prefix: N for NP and VP alike would be right."""
    assert declared(kind="tagging", labels=labels, files={"train": "a.jsonl"}).score == score
    assert declared(kind="tagging", labels=labels, files={"train": "a.jsonl"}, score="f1").score == "f1"


def test_numbers_that_are_names_of_tags_are_no_places(tmp_path: Path) -> None:
    row = {"tokens": ["a", "b", "c"], "tags": [1, 2, 3]}
    path = write(tmp_path / "a.jsonl", row)
    named = declared(kind="tagging", labels=["1", "2", "3"], files={"test": path})
    assert rows_of(named)[0]["tags"] == ["1", "2", "3"]
    placed = declared(kind="tagging", labels=["w", "x", "y", "z"], files={"test": path})
    assert rows_of(placed)[0]["tags"] == ["x", "y", "z"]


def test_lines_of_a_bitext_stay_where_they_are(tmp_path: Path) -> None:
    """A blank line on each side, at different places: no pair is shifted."""
    left, right = write(tmp_path / "a.txt", "a1", "", "a3", "a4"), write(tmp_path / "b.txt", "b1", "b2", "b3", "")
    for form in ({}, {"format": "lines"}, {"format": "aligned_lines"}):
        task = declared(kind="bitext", files={"test": [left, right]}, **form)
        pairs = [(row["source"], row["target"]) for row in rows_of(task)]
        assert pairs == [("a1", "b1"), ("", "b2"), ("a3", "b3"), ("a4", "")]


def test_two_tables_of_texts_are_two_sides(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.jsonl", {"text": f"t{n}"}) for n in (1, 2)]
    task = declared(kind="bitext", files={"test": files})
    assert [(row["source"], row["target"]) for row in rows_of(task)] == [("t1", "t2")]


def test_two_tables_of_a_bitext_follow_each_other(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.jsonl", {"source": f"s{n}", "target": f"t{n}"}) for n in (1, 2)]
    assert [r["source"] for r in rows_of(declared(kind="bitext", files={"test": files}))] == ["s1", "s2"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"kind": "bitext", "files": {"test": ["a.txt", "b.txt"]}, "languages": ["de", "fr"]}, "put {lang} where"),
        ({"kind": "bitext", "files": {"test": "{lang}.tsv"}, "languages": ["a/b"]}, "'a/b' is no language code"),
        ({"kind": "bitext", "files": {"test": "a.tsv"}, "pooled": True}, "pooled: is for candidates"),
    ],
)
def test_declarations_that_no_data_can_fit(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        declared(**spec)


@pytest.mark.parametrize("files", [["a.jsonl"], ["a.jsonl", "a.jsonl"], ["a.txt", "a.txt", "a.txt"]])
def test_mining_in_other_files_than_corpora_is_one_line(tmp_path: Path, files: list[str]) -> None:
    write(tmp_path / "a.jsonl", {"id": "1", "text": "x"})
    write(tmp_path / "a.txt", "x")
    for kind in ("mining", "candidates"):
        if (kind, len(files)) == ("candidates", 3):
            continue
        columns = {"id": "id", "text": "text"}
        task = declared(kind=kind, columns=columns, files={"test": [str(tmp_path / name) for name in files]})
        with pytest.raises(DataError, match=r"a\.(jsonl|txt)"):
            rows_of(task)


RECIPE = """
name: own
model: FOLDER/model
training: {steps: 3, batch_size: 4, evaluate_every: 0}
targets: [moods]
tasks:
  moods: {kind: classification, labels: [good, bad], columns: {text: x, label: y}, languages: [en, de, xx],
          files: {train: "FOLDER/{lang}.jsonl", dev: "FOLDER/{lang}.jsonl", test: "FOLDER/{lang}.test.jsonl"}}
"""


@pytest.fixture
def own(tmp_path: Path, encoder: Any) -> Path:
    save(encoder, tmp_path / "model")
    rows = [{"x": f"day {i}", "y": ("good", "bad")[i % 2]} for i in range(8)]
    for name in ("en", "en.test", "de.test"):
        write(tmp_path / f"{name}.jsonl", *rows)
    (tmp_path / "own.yaml").write_text(RECIPE.replace("FOLDER", str(tmp_path)), encoding="utf-8")
    return tmp_path


def words(own: Path, command: str, *sets: str) -> list[str]:
    found = [command, str(own / "own.yaml"), "--store", str(own / "store"), "--offline"]
    for text in sets:
        found += ["--set", text]
    return found


def test_a_language_without_rows_is_said(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(own, "plan")) == 0
    said = capsys.readouterr().err
    assert "moods: no test rows in 'xx'" in said and "xx.test.jsonl does not exist" in said and "'de'" not in said


def test_a_table_says_of_how_many_languages_it_is(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(own, "run")) == 0
    assert "moods: 2 of its 3 languages; a mean over these is no mean over all" in capsys.readouterr().out
    assert main(words(own, "plan")) == 0
    assert "2 of 3 languages" in capsys.readouterr().out


def test_rows_that_are_cut_are_counted(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"x": "day " * (40 if i % 4 == 0 else 1), "y": ("good", "bad")[i % 2]} for i in range(8)]
    write(own / "en.jsonl", *rows)
    assert main(words(own, "run", "tasks.moods.max_length=16")) == 0
    said = capsys.readouterr().err
    assert "moods (en), train: 2 of 8 rows reach 16 tokens and are cut there; the task's max_length" in said
    assert "test: " not in said


def test_an_adapter_at_a_rate_of_whole_weights_is_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rate, named in (("2e-5", True), ("2e-4", False)):
        assert main(words(own, "plan", "method.name=lora", f"training.learning_rate={rate}")) == 0
        assert ("lora at a learning rate of 2e-05; adapters usually take" in capsys.readouterr().err) == named
    assert main(words(own, "plan", "training.learning_rate=2e-5")) == 0
    assert "adapters" not in capsys.readouterr().err


def test_labels_that_are_numbers(tmp_path: Path) -> None:
    """-1 marks a stripped label, but where it is a label; a number for a name gets the key that says which."""
    path = write(tmp_path / "a.jsonl", {"text": "x", "label": -1}, {"text": "y", "label": 1})
    spec: dict[str, Any] = {"kind": "classification", "columns": {"text": "text", "label": "label"}}
    spec["files"] = {"test": path}
    assert [row["label"] for row in rows_of(declared(**spec, labels=["-1", "1"]))] == ["-1", "1"]
    with pytest.raises(DataError, match="the label is stripped"):
        rows_of(declared(**spec, labels=["0", "1"]))
    spec["files"] = {"test": write(tmp_path / "b.jsonl", {"text": "y", "label": 1})}
    with pytest.raises(DataError, match="not one of bad, good; `label_values: {'1': NAME}`"):
        rows_of(declared(**spec, labels=["bad", "good"]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("method={name: lora, rank: 0}", "method: lora needs rank >= 1, not 0"),
        ("tasks.moods.files={test: {lang}.tsv}", "put texts with braces in quotes"),
        ("tasks.moods.foo=1", "unknown key 'foo'; there are columns,"),
        ("tasks.moods.files={test: a.xyz}", "give tasks.moods.format, one of xnli_tsv"),
        ("tasks.moods.score=f1", "classification has no score 'f1'; it has accuracy, macro_f1"),
        ("data.evaluation_rows=-1", "data.evaluation_rows is 0 or more"),
        ("targets=[{task: moods, rows: -3}]", "rows is 0 or more"),
        ("retrieval.batch_tokens=0", "batch_tokens are 1 or more"),
        ("name=a:b", "has a colon"),
        ("targets.²=x", "'²' is not an index into a list of 1"),
        ("arms=[baseline, baseline]", "arms: one stands twice"),
        ("retrieval.tasks=[tatoeba, tatoeba]", "retrieval.tasks: one stands twice"),
        ("retrieval.languages=[de, de]", "retrieval.languages: one stands twice"),
        ("targets=[{task: moods, languages: [de, de]}]", "targets[0].languages: one stands twice"),
        ("intermediate=[{task: moods, languages: [en, en]}]", "tasks[0].languages: one stands twice"),
    ],
)
def test_settings_that_no_run_can_have(own: Path, settings: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(own, "plan", settings)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_short_form_has_the_keys_of_what_it_stands_for(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`model: DIR` and a bare task's name, reached into by --set."""
    sets = ["targets.0.rows=5", "intermediate={a: {tasks: [moods]}}", "intermediate.a.tasks.0.rows=6"]
    assert main(words(own, "plan", *sets)) == 0
    shown = capsys.readouterr().out
    assert "5 rows" in shown and "6 rows" in shown
    assert main(words(own, "plan", "model.revisio=abc")) == 2
    assert "did you mean 'revision'" in capsys.readouterr().err
    assert main(words(own, "plan", "name.x=abc")) == 2
    assert "'name' is a plain value" in capsys.readouterr().err


def test_a_dev_file_that_is_named_and_missing(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused where the recipe names it; told of a task that is known, which then takes the last step."""
    missing = str(own / "nowhere.jsonl")
    sets = [f'tasks.moods.files.dev="{missing}"', "training.evaluate_every=2"]
    assert main(words(own, "plan", *sets)) == 3
    assert missing in capsys.readouterr().err
    assert main(words(own, "plan", sets[0])) == 0, "nothing is chosen on it"
    capsys.readouterr()
    (own / "data" / "xtreme" / "panx").mkdir(parents=True)
    for name in ("train-en", "test-de"):
        (own / "data" / "xtreme" / "panx" / f"{name}.tsv").write_text("Bonn\tB-LOC\nis\tO\n\n" * 9)
    known = [*words(own, "plan", "targets=[panx]", "training.evaluate_every=2"), "--data", str(own / "data")]
    assert main(known) == 0
    assert "no dev rows to choose a step on, the last one is taken: " in capsys.readouterr().err


def test_weights_that_are_not_finite_in_the_end_are_not_kept(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["training.steps=1", "training.learning_rate=1e39", "training.warmup=0"]
    assert main(words(own, "run", *sets)) == 6
    assert "weights are not finite in the end" in capsys.readouterr().err
    assert not list((own / "store").glob("target/*"))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_what_is_no_encoder_or_has_no_tokenizer(own: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A folder without a tokenizer's files trained on <unk> alone; a plan of a decoder was one."""
    model = own / "model"
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    assert main(words(own, command)) == 4
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("effstilts: ") and last.endswith("has no masked-LM form in transformers: not an encoder")
    (model / "config.json").write_text(json.dumps(config))
    for path in model.glob("tokenizer*"):
        path.unlink()
    if command == "run":
        assert main(words(own, command)) == 4
        said = capsys.readouterr().err
        assert "tokenizer" in said and "Traceback" not in said


def test_the_scores_of_a_kind_are_those_it_names(tiny_recipe: Path, tmp_path: Path) -> None:
    sets = ["intermediate=null", "targets=[synthetic/xnli, synthetic/udpos, synthetic/tydiqa, synthetic/xcopa]"]
    sets += ["retrieval.tasks=[]", "training.steps=1", "mlm.training.steps=1"]
    arguments = ["run", str(tiny_recipe), "--store", str(tmp_path / "store"), "--offline", "--quiet"]
    assert main([*arguments, *(word for text in sets for word in ("--set", text))]) == 0
    seen = {}
    for cell in Store(tmp_path / "store").read_run("tiny")["cells"]:
        seen[registry.get(cell["task"]).kind] = set(cell["metrics"])
    assert seen == {kind: set(KINDS[kind].metrics) for kind in ("classification", "tagging", "span", "choice")}


def test_a_run_is_opened_from_anywhere_but_on_no_other_model(
    own: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    text = (own / "own.yaml").read_text().replace(str(own / "model"), "model")
    (own / "own.yaml").write_text(text)
    lora = "intermediate={none: {}, a: {tasks: [moods], method: {name: lora, rank: 2}}, whole: {tasks: [moods]}}"
    assert main([*words(own, "run", lora), "--quiet"]) == 0
    (own / "elsewhere").mkdir()
    monkeypatch.chdir(own / "elsewhere")
    opened = {
        arm: open_named(f"own:{arm}", Store(own / "store")).encoder.backbone.state_dict()
        for arm in ("none", "a", "whole")
    }
    plain = encoder.backbone.state_dict()
    assert all(np.array_equal(opened["none"][name], plain[name]) for name in plain)
    assert not all(np.array_equal(opened["a"][name], plain[name]) for name in plain)
    (own / "elsewhere" / "model").mkdir()
    open_named("own:a", Store(own / "store"))
    next(encoder.parameters()).data.add_(1.0)
    for place in (own / "model", own / "elsewhere" / "model"):
        save(encoder, place)
    for arm in ("none", "a"):
        with pytest.raises(StoreError, match="began with another model than what is model now"):
            open_named(f"own:{arm}", Store(own / "store"))
    again = open_named("own:whole", Store(own / "store")).encoder.backbone.state_dict()
    assert all(np.array_equal(again[name], opened["whole"][name]) for name in again), "whole weights need no other"


def test_a_folder_of_a_models_name_is_not_that_model(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "effstilts" / "mini").mkdir(parents=True)
    monkeypatch.chdir(own)
    assert main([*words(own, "run", "model=effstilts/mini", "training.steps=1"), "--quiet"]) == 0
    assert open_named("own", Store(own / "store")).encoder.hidden_size == 384


def test_rows_of_tags_that_are_numbers_have_a_key_of_their_own(tmp_path: Path) -> None:
    """A store of the earlier reading has other rows under the other key; tags in their places never had."""
    path = write(tmp_path / "a.jsonl", {"tokens": ["a"], "tags": [1]})
    keys = []
    for labels in (["0", "1"], ["1", "2"]):
        task = declared(kind="tagging", labels=labels, files={"test": path})
        keys.append([fingerprint(task, "test", "en", DataConfig())])
        with pytest.MonkeyPatch.context() as before:
            before.setattr("effstilts.data.sources._named_by_numbers", lambda _: False)
            keys[-1].append(fingerprint(task, "test", "en", DataConfig()))
    assert keys[0][0] == keys[0][1] and keys[1][0] != keys[1][1]


def test_a_stacked_run_is_opened_by_name(own: Path) -> None:
    method = "method: {name: lora, rank: 2, dropout: 0.1, carry: stack}"
    sets = ["method={name: lora, rank: 2, dropout: 0.1}", f"targets=[{{task: moods, {method}}}]"]
    assert main([*words(own, "run", "intermediate={a: {tasks: [moods]}}", *sets), "--quiet"]) == 0
    assert main(["export", "own", str(own / "out"), "--target", "moods", "--store", str(own / "store")]) == 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_arms_begin_with_the_same_head(own: Path, method: str) -> None:
    """After an intermediate adapter that moved nothing a target's losses are those of the baseline, bit by bit."""
    still = "{tasks: [moods], method: {name: lora, rank: 2}, training: {learning_rate: 1e-30, weight_decay: 0}}"
    sets = [f"intermediate={{none: {{}}, still: {still}}}", f"method={{name: {method}, rank: 2}}"]
    assert main([*words(own, "run", *sets), "--quiet"]) == 0
    losses = []
    for folder in (own / "store" / "artefacts").glob("target-*"):
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        losses.append([event["loss"] for event in events if event["event"] == "step"])
    assert len(losses) == 2 and len(losses[0]) == 3 and losses[0] == losses[1]


def test_a_folder_with_dev_alone_is_not_made_up_from_the_hub(tmp_path: Path) -> None:
    """bucc2018 in the folder has a dev set, and the hub a test set."""
    folder = tmp_path / "xtreme" / "bucc2018"
    folder.mkdir(parents=True)
    for end in ("zh", "en", "gold"):
        write(folder / f"zh-en.dev.{end}", "zh-1\ten-1" if end == "gold" else f"{end}-1\tx")
    bench = Workbench(Store(tmp_path / "store"), DataConfig(tmp_path), Log(quiet=True), {})
    assert retrieval_splits(bench, bench.task("bucc2018"), ("zh",)) == {"zh": ("dev", False)}
    empty = Workbench(Store(tmp_path / "store"), DataConfig(tmp_path / "none"), Log(quiet=True), {})
    assert retrieval_splits(empty, empty.task("bucc2018"), ("zh",)) == {"zh": ("test", False)}


def test_what_is_saved_is_cut_to_what_the_encoder_takes(encoder: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save(encoder, tmp_path / "m")
    assert AutoTokenizer.from_pretrained(tmp_path / "m").model_max_length == encoder.max_length == 128


def test_a_vocabulary_below_the_characters_is_one_line() -> None:
    with pytest.raises(ModelError, match="no tokenizer of 5 pieces can be made of these texts: .*Vocabulary size"):
        train_tokenizer(["the quick brown fox", "jumps over the lazy dog"], 5)
