"""What weights are chosen by: tasks with equal weight, masked LM aside, test labels never."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from effstilts.cli import main
from effstilts.phases import selection_groups
from effstilts.store import Store
from effstilts.tasks.registry import get
from effstilts.workbench import TaskPart
from tests.test_procedure import kinds, run

pytestmark = pytest.mark.slow

MIXED = (
    "intermediate={mixed: {tasks: [synthetic/mnli, synthetic/udpos, "
    "{task: tiny/text, language_exponent: 0.5}], mixing: fixed, training: {steps: 12}}}"
)


def facts_of(store: Path, kind: str) -> dict[str, Any]:
    (folder,) = (store / "artefacts").glob(f"{kind}-*")
    return Store(store).facts(kind, folder.name.removeprefix(f"{kind}-"))


def test_masked_lm_trains_within_a_mixture_and_selects_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    """Each task has its head, the LM goes on with phase 1's, and the score is the mean over the other tasks."""
    store = tmp_path / "store"
    run(tiny_recipe, store, MIXED, "targets=[]", "retrieval.tasks=[]")
    facts = facts_of(store, "intermediate")
    assert set(facts["rows"]) == {"synthetic/mnli (en)", "synthetic/udpos (en)", "tiny/text (en)", "tiny/text (qaa)"}
    for scores in facts["history"]:
        assert scores["score"] == pytest.approx(fmean(scores[f"synthetic/{task} (en)"] for task in ("mnli", "udpos")))
    events = next((store / "artefacts").glob("intermediate-*/events.jsonl")).read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)["event"] == "step" for line in events) == 12


@pytest.mark.parametrize(("select_on", "name"), [("trained", "synthetic/mnli"), ("target", "synthetic/xnli")])
def test_the_dev_set_that_selects_is_the_one_asked_for(
    tiny_recipe: Path, tmp_path: Path, select_on: str, name: str
) -> None:
    """XNLI trains on MNLI: jiant selects on MNLI's dev set, XTREME's script on XNLI's own, both in English alone."""
    store = tmp_path / "store"
    target = f"{{task: synthetic/xnli, rows: 64, languages: [qaa], select_on: {select_on}, training: {{steps: 6}}}}"
    run(tiny_recipe, store, "intermediate=null", f"targets=[{target}]", "retrieval.tasks=[]")
    for scores in facts_of(store, "target")["history"]:
        assert set(scores) == {"step", f"{name} (en)", "score"} and scores["score"] == scores[f"{name} (en)"]
    folder = next((store / "artefacts").glob("target-*"))
    (task,) = json.loads((folder / "spec.json").read_text(encoding="utf-8"))["tasks"]
    assert (task["train"]["task"], task["dev"]["task"], task["dev"]["split"]) == ("synthetic/mnli", name, "dev")
    assert (task["train"]["language"], task["dev"]["language"]) == ("en", "en")


def test_a_target_without_english_dev_rows_cannot_select(
    model_and_task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither another language's dev rows nor, silently, the last weights."""
    for languages, split, words in (("xx", "dev", "no language 'en'"), ("en, xx", "test", "no dev split")):
        recipe = (
            (tmp_path / "r.yaml")
            .read_text(encoding="utf-8")
            .replace(
                "targets: [{task: mine, languages: [xx]}]",
                "targets: [{task: other, languages: [xx], select_on: target}]",
            )
        )
        own = "kind: classification, labels: [a, b], columns: {text: x, label: y}, train_on: mine"
        recipe += (
            f"  other: {{{own}, languages: [{languages}], evaluate_on: {split}, files: {{{split}: test.jsonl}}}}\n"
        )
        path = tmp_path / "other.yaml"
        path.write_text(
            recipe.replace("tasks: {mine: {", "tasks:\n  mine: {").replace("}}}\n", "}}\n", 1), encoding="utf-8"
        )
        assert main(["plan", str(path), "--store", str(tmp_path / "store"), "--offline", "--data", str(tmp_path)]) in (
            2,
            3,
        )
        error = capsys.readouterr().err
        assert words in error and len(error.strip().splitlines()) == 1


def test_languages_of_a_task_count_as_one_task_in_the_selection() -> None:
    task, text = get("xnli-translated"), get("wikipedia")
    parts = [TaskPart(get("mnli"), "en"), TaskPart(task, "de"), TaskPart(task, "ru"), TaskPart(text, "de")]
    groups = selection_groups(parts)
    assert {name: len(own) for name, own in groups.items()} == {"mnli": 1, "xnli-translated": 2}
    assert list(selection_groups(parts[3:])) == ["wikipedia"]


def test_labels_of_the_test_set_choose_nothing(model_and_task: Path, tmp_path: Path) -> None:
    """With other test labels nothing is trained again and the predictions stay: only the score is another."""
    store, recipe = tmp_path / "store", tmp_path / "r.yaml"
    arguments = ["run", str(recipe), "--store", str(store), "--quiet", "--offline", "--data", str(tmp_path)]
    assert main(arguments) == 0
    before = {p.name for p in (store / "artefacts").iterdir()}
    (score,) = [cell["score"] for cell in Store(store).read_run("r")["cells"]]
    path = tmp_path / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    swapped = {"a": "b", "b": "a"}
    path.write_text("".join(json.dumps({**row, "y": swapped[row["y"]]}) + "\n" for row in rows), encoding="utf-8")
    assert main(arguments) == 0
    after = {p.name for p in (store / "artefacts").iterdir()}
    assert {name.split("-")[0] for name in after - before} <= {"evaluate", "rows", "digests"} and kinds(store)[
        "target"
    ] == 1
    (other,) = [cell["score"] for cell in Store(store).read_run("r")["cells"]]
    assert other == pytest.approx(100 - score)
    first, second = ((p / "predictions.jsonl").read_text() for p in (store / "artefacts").glob("evaluate-*"))
    assert first == second


@pytest.fixture
def model_and_task(tmp_path: Path, encoder: Any) -> Path:
    from effstilts.model.opening import save
    from effstilts.synthetic import rows

    save(encoder, tmp_path / "model")
    for split, language, count in (("train", "en", 40), ("dev", "en", 20), ("test", "qaa", 30)):
        lines = [
            json.dumps({"x": row["text"], "y": "ab"[i % 2]})
            for i, row in enumerate(rows("text", "train", language, count))
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        f"model: {tmp_path / 'model'}\n"
        "training: {steps: 6, batch_size: 8, evaluate_every: 2}\n"
        "targets: [{task: mine, languages: [xx]}]\n"
        "tasks: {mine: {kind: classification, labels: [a, b], languages: [en, xx], columns: {text: x, label: y},\n"
        "  files: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}}}\n",
        encoding="utf-8",
    )
    return tmp_path
