"""What effstilts/mini was trained on meets no evaluated row, but for what its card names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from effstilts.commands.places import RecipeChoice
from effstilts.recipe_reader import shipped_recipes
from effstilts.studies.overlap import find_overlaps

pytestmark = [pytest.mark.slow, pytest.mark.real]

# TyDiQA's own training passages are among the text, and these serve as tests of Swahili and as English dev.
KNOWN = {("tydiqa (sw)", "context"), ("tydiqa (en)", "context"), ("panx (fr)", "tokens")}


def test_phase_one_of_the_shipped_model_meets_no_evaluated_row(data_folder: Path, tmp_path: Path) -> None:
    trained, evaluated = (
        yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8")) for name in ("mini-mlm", "miniature")
    )
    both = {**evaluated, "name": "both", "seeds": [1], "intermediate": None, "data": {"source": "files"}}
    both |= {"model": trained["model"], "mlm": trained["mlm"], "tasks": {**evaluated["tasks"], **trained["tasks"]}}
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(both), encoding="utf-8")
    choice = RecipeChoice(recipe=str(path), store=tmp_path / "store", data=data_folder, offline=True)
    with choice.opened(quiet=True, events=False) as (_, bench, graph):
        assert {cell.task for cell in graph.cells} >= {"tatoeba", "bucc2018", "xnli", "xquad", "mlqa", "xcopa", "udpos"}
        texts = {part.name for step in graph.steps if step.kind == "mlm" for part in step.parts}
        found = [one for one in find_overlaps(graph, bench) if one["trained"] in texts and one["split"] != "train"]
    assert {(one["evaluated"], one["role"]) for one in found} == KNOWN
    assert sum(one["rows"] for one in found if one["evaluated"] == "panx (fr)") == 1
