"""What effstilts/mini was trained on meets no evaluated row, but for what its card names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from effstilts.commands.places import RecipeChoice
from effstilts.recipe_reader import shipped_recipes
from effstilts.studies.overlap import find_overlaps

pytestmark = [pytest.mark.slow, pytest.mark.real]

# Beside TyDiQA's own training passages, which serve as tests of Swahili and as English dev: sentences within the text's
# lines (PAN-X: most of them names; of BUCC none in a gold pair), counted for each language of the text.
BESIDE = {"bucc2018": 65, "tatoeba": 1, "udpos": 2, "panx": 27}


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
    rows: Counter[str] = Counter()
    for one in found:
        rows[one["evaluated"].split()[0]] += one["rows"]
    assert rows.keys() == {"tydiqa", *BESIDE}
    assert {name: rows[name] for name in BESIDE} == BESIDE
