"""`run --budget`: what is informative comes first, the end loses nothing, the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from effstilts.cli import main
from effstilts.commands.places import RecipeChoice
from effstilts.store import Store
from effstilts.studies.budget import by_information


def test_steps_come_by_what_they_tell_each_after_its_inputs(tiny_recipe: Path, tmp_path: Path) -> None:
    choice = RecipeChoice(store=tmp_path, recipe=str(tiny_recipe), set=["seeds=[1,2]"])
    with choice.opened(quiet=True, events=False) as (_, _, graph):
        order = by_information(graph)
    assert sorted(step.name for step in order) == sorted(step.name for step in graph.steps)
    place = {step.name: i for i, step in enumerate(order)}
    assert all(place[before.name] < place[step.name] for step in order for before in step.inputs)
    cells = sorted(graph.cells, key=lambda cell: place[cell.step.name])
    told = list(dict.fromkeys((cell.seed, cell.arm, cell.section) for cell in cells))
    stages = [("baseline", "retrieval"), ("baseline", "target"), ("nli", "retrieval"), ("nli", "target")]
    assert told == [(seed, *stage) for stage in stages for seed in (1, 2)]
    last = [(cell.task, cell.seed) for cell in cells if (cell.arm, cell.section) == ("nli", "target")]
    assert list(dict.fromkeys(last)) == [(task, seed) for task in dict.fromkeys(t for t, _ in last) for seed in (1, 2)]


@pytest.mark.slow
def test_time_up_in_a_training_leaves_a_checkpoint_and_a_table(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    words = ["run", str(tiny_recipe), "--store", str(store), "--offline"]
    long = ["--set", "mlm.training.steps=1000000", "--budget", str(8 / 3600)]
    assert main([*words, *long]) == 0
    said = capsys.readouterr()
    assert "the time is up: stopped mlm" in said.err and "12 of 12 numbers are not there yet" in said.out
    assert list((store / "work").glob("mlm-*/checkpoint-*/manifest.json"))
    assert main([*words, "--budget", "1e-9"]) == 0
    said = capsys.readouterr()
    assert "12 of 12 numbers are not there yet" in said.out
    assert "steps are left; the same command goes on" in said.err
    for hours in ("-1", "nan", "inf"):
        assert main([*words, f"--budget={hours}"]) == 2
    assert main([*words, "--budget", "1", "--quiet"]) == 0
    assert all("score" in cell for cell in Store(store).read_run("tiny")["cells"])
