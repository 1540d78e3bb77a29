"""R12: a training that collapses, never moves or diverges is named in the log, in the result and beside every number
that rests on it; it is begun again where the recipe says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from effstilts.cli import main
from effstilts.engine.checkpoint import Progress
from effstilts.engine.guard import collapse, failures
from effstilts.procedure import build
from effstilts.recipe_reader import load_recipe
from effstilts.store import Store
from effstilts.studies.report import table
from tests.faults.recipes import words, write_recipe

SETS = ["retrieval={tasks: []}", "intermediate={none: {}}", "training.evaluate_every=1"]


def progress_of(losses: Sequence[float], scores: Sequence[float] = (), collapsed: str = "") -> Progress:
    progress = Progress()
    for loss in losses:
        progress.step += 1
        progress.add_loss(loss, len(losses))
    note = {"collapsed": collapsed} if collapsed else {}
    progress.history = [{"step": i + 1, "score": score, **note} for i, score in enumerate(scores)]
    progress.best_step = 1 if scores else -1
    return progress


def test_each_failure_is_named() -> None:
    falling = [2.0 - 0.01 * i for i in range(100)]
    assert failures(progress_of(falling, [50.0, 60.0, 70.0])) == []
    assert failures(progress_of(falling, [33.3] * 4)) == ["constant dev score: 33.3 at all 4 evaluations"]
    assert failures(progress_of(falling, [100.0] * 4)) == [], "a task that is solved at once"
    assert failures(progress_of(falling, [33.3, 33.3])) == [], "too few to tell"
    (rose,) = failures(progress_of([1.0 + 0.05 * i for i in range(100)]))
    assert rose.startswith("diverged: the loss rose from 1.")
    assert failures(progress_of([1.0, 9.0, 9.0])) == [], "too few to tell"
    assert failures(progress_of(falling, [40.0, 50.0, 60.0], "x (en) collapsed: all one")) == [
        "dev x (en) collapsed: all one"
    ]


def test_the_mean_of_the_last_losses_is_the_same_after_a_resumption() -> None:
    losses = [3.0 / (1 + i % 7) for i in range(90)]
    whole, broken = progress_of(losses), Progress()
    for loss in losses:
        broken = Progress(**json.loads(json.dumps(broken.__dict__ | {"best_score": 0.0})))
        broken.step += 1
        broken.add_loss(loss, len(losses))
    assert (broken.recent_loss, broken.first_loss) == (whole.recent_loss, whole.first_loss)


def test_collapse_of_tags() -> None:
    assert "collapsed: 100.0 %" in collapse([["O", "O", "O"]] * 10)
    assert collapse([["O", "B-PER", "O"]] * 10) == "" and collapse([]) == ""


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trainings whose heads give one answer for all rows; those in the list, by their number, are spared."""
    from effstilts.kinds.tagging import Tagging
    from effstilts.workbench import Workbench

    spared: list[int] = []
    begun = 0
    real_heads, real_outputs = Workbench.heads, Tagging.outputs

    def heads(self: Any, step: Any, opened: Any, fresh: bool) -> Any:
        nonlocal begun
        begun += fresh and step.kind == "target"
        made = real_heads(self, step, opened, fresh)
        for head in made.values():
            if hasattr(head, "out") and begun not in spared:
                head.stuck = True
        return made

    def outputs(self: Any, head: Any, encoder: Any, batch: Any) -> Any:
        found = real_outputs(self, head, encoder, batch)
        return [row * 0 for row in found] if hasattr(head, "stuck") else found

    monkeypatch.setattr(Workbench, "heads", heads)
    monkeypatch.setattr(Tagging, "outputs", outputs)
    return spared


def events(store: Path) -> list[dict[str, Any]]:
    lines = (store / "runs" / "crash.events.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def trained(store: Path) -> dict[str, Any]:
    (folder,) = (store / "artefacts").glob("target-*")
    return Store(store).facts("target", folder.name.partition("-")[2])


@pytest.mark.slow
def test_a_collapsed_run_is_named_in_log_result_and_table(
    tmp_path: Path, stuck: list[int], capsys: pytest.CaptureFixture[str], figures: dict[str, Any]
) -> None:
    store = tmp_path / "store"
    assert main(words(write_recipe(tmp_path / "data"), store, *SETS)) == 0
    warnings = [event["text"] for event in events(store) if event["event"] == "warning"]
    assert any("dev tags (en) collapsed" in text for text in warnings)
    assert any("constant dev score" in text for text in warnings)
    facts = trained(store)
    assert len(facts["failed"]) == 2 and "restarts" not in facts
    record = Store(store).read_run("crash")
    (cell,) = record["cells"]
    assert cell["collapsed"] and any("constant dev score" in text for text in cell["failed"])
    shown = capsys.readouterr().out
    assert f"{cell['score']:.1f}!" in shown and "! a number with a run that failed in it" in shown
    assert shown.count("constant dev score") == 1 and table(record) in shown
    figures.update(failed=facts["failed"])


@pytest.mark.slow
def test_it_is_begun_again_with_another_seed(tmp_path: Path, stuck: list[int], figures: dict[str, Any]) -> None:
    stuck.append(3)
    store, recipe = tmp_path / "store", write_recipe(tmp_path / "data")
    assert main(words(recipe, store, *SETS, "training.restarts=5")) == 0
    facts = trained(store)
    assert len(facts["restarts"]) == 2 and "failed" not in facts
    warnings = [event["text"] for event in events(store) if event["event"] == "warning"]
    again = [text for text in warnings if "begun again with another seed" in text]
    assert len(again) == 4, "two trainings, each with two things wrong"
    orders = [e["loss"] for e in events(store) if e["event"] == "step" and e["step"] == 1]
    assert len(set(orders[-3:])) == 3, "each draws anew"
    figures.update(restarts=len(facts["restarts"]))


def test_no_key_moves_where_restarts_are_left_at_none(tmp_path: Path) -> None:
    from effstilts.data.sources import DataConfig
    from effstilts.log import Log
    from effstilts.workbench import Workbench

    recipe = write_recipe(tmp_path / "data")

    def keys(*sets: str) -> list[str]:
        loaded = load_recipe(str(recipe), sets)
        bench = Workbench(Store(tmp_path), DataConfig(tmp_path, offline=True), Log(quiet=True), loaded.tasks)
        return [step.key for step in build(loaded, bench).steps]

    assert keys("training.restarts=0") == keys() != keys("training.restarts=1")
