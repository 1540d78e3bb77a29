"""The two presets differ exactly where the README says that the protocols do."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from effstilts.recipe import Recipe
from effstilts.recipe_reader import load_recipe
from effstilts.tasks.registry import declare_all, get

README = Path(__file__).parents[2] / "README.md"
XTREME = ("xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa")


def settings(recipe: Recipe) -> dict[str, Any]:
    """`targets.xnli.training.epochs` -> value, for all that the protocols speak of."""
    found: dict[str, Any] = {
        "seeds": recipe.seeds,
        "intermediate": tuple(recipe.intermediate),
        "model": recipe.model.name,
        "model.revision": recipe.model.revision,
    }
    for target in recipe.targets:
        for key, value in dataclasses.asdict(target.training).items():
            found[f"targets.{target.task}.training.{key}"] = value
        for key in ("method", "select_on", "train_on", "rows", "languages"):
            found[f"targets.{target.task}.{key}"] = getattr(target, key)
    for task in recipe.retrieval.tasks:
        found[f"retrieval.layers.{task}"] = recipe.retrieval.layers[task]
    found |= {f"retrieval.{key}": getattr(recipe.retrieval, key) for key in ("tasks", "pooling", "special_tokens")}
    # What only an intermediate arm trains on is a difference between the arms.
    trained = {target.train_on or get(target.task).train_on for target in recipe.targets}
    both = {target.task for target in recipe.targets} | trained | set(recipe.retrieval.tasks)
    for name, declared in recipe.tasks.items():
        if name in both:
            found |= {f"tasks.{name}.{key}": value for key, value in declared.items()}
    return found


def test_the_presets_are_whole() -> None:
    for name in ("phang2020", "xtreme-official"):
        recipe = load_recipe(name)
        assert tuple(target.task for target in recipe.targets) == XTREME and recipe.model.revision
        assert recipe.retrieval.tasks == ("tatoeba", "bucc2018")
    phang = load_recipe("phang2020")
    assert {"anli+", "mnli", "qqp", "squad", "squad-v2", "hellaswag", "ccg", "cosmosqa", "commonsenseqa"} < set(
        phang.intermediate
    )


def test_no_row_of_a_preset_is_longer_or_shorter_than_its_protocol_says() -> None:
    """jiant: 256, 384 for questions; XTREME: 128, 384; both 512 for retrieval."""
    for name, length in (("phang2020", 256), ("xtreme-official", 128)):
        recipe = load_recipe(name)
        tasks = declare_all(recipe.tasks)
        used = {share.task for arm in recipe.intermediate.values() for share in arm.tasks}
        used |= {target.task for target in recipe.targets} | set(recipe.retrieval.tasks)
        used |= {get(task).train_on for task in used} - {""}
        used -= {"ccg"}  # declared by the user, who has its tags
        for task in used:
            found = tasks.get(task, get(task))
            own = 384 if found.kind == "span" else 512 if task in recipe.retrieval.tasks else length
            assert (found.max_length, found.stride) == (own, 128), task


def test_they_differ_where_the_readme_says_and_nowhere_else() -> None:
    ours, theirs = settings(load_recipe("phang2020")), settings(load_recipe("xtreme-official"))
    assert set(ours) == set(theirs)
    differing = {key for key in ours if ours[key] != theirs[key]}
    section = README.read_text(encoding="utf-8").split("## Presets")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    told: set[str] = set()
    for pattern, left, right in rows:
        keys = {key for key in differing if re.fullmatch(pattern.replace(".", r"\.").replace("*", r"[\w-]+"), key)}
        assert keys, f"{pattern} does not differ"
        for side, cell in ((ours, left), (theirs, right)):
            for key in keys:
                value = side[key]
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                if key != "intermediate":
                    assert shown.strip("()").rstrip(",") in cell.replace("`", ""), f"{key}: {shown} is not in {cell!r}"
        told |= keys
    assert told == differing, sorted(differing - told)


@pytest.mark.parametrize("name", ["phang2020", "xtreme-official"])
def test_without_data_a_preset_says_in_one_line_what_is_missing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from effstilts.cli import main

    monkeypatch.delenv("EFFSTILTS_DATA", raising=False)
    assert main(["plan", name, "--offline", "--store", str(tmp_path)]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "set EFFSTILTS_DATA" in lines[0] and "--offline" in lines[0]
