"""What the README says, held against the tree."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from effstilts.cli import main
from effstilts.recipe_reader import load_recipe, shipped_recipes
from effstilts.studies.report import table
from effstilts.tasks.task import FORMATS, ROLES, Task

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_of_the_package_has_its_line() -> None:
    files = {p.name for p in (ROOT / "effstilts").rglob("*.py") if p.name not in ("__init__.py", "__main__.py")}
    layout = README.split("```\neffstilts/")[1].split("```")[0]
    assert not {name for name in files if not re.search(rf"(?<!\w){re.escape(name)}", layout)}
    folders = re.findall(r"^  (\w+/)", layout, re.M)
    assert len(set(folders)) == len(folders)


def test_what_the_layout_names_exists() -> None:
    layout = README.split("```\neffstilts/")[1].split("```")[0]
    names = {p.name for p in ROOT.rglob("*") if ".venv" not in p.parts}
    for word in re.findall(r"[\w-]+\.(?:py|yaml|md|txt)", layout):
        assert word in names, word


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make (\w+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_recipe_in_the_readme_reads(tmp_path: Path) -> None:
    """The first block is a whole recipe; the others take the place of its keys."""
    from effstilts.tasks.registry import declare_all

    path = tmp_path / "mine.yaml"
    whole, *parts = re.findall(r"```yaml\n(.*?)```", README, re.S)
    for part in parts:
        path.write_text(yaml.safe_dump(yaml.safe_load(whole) | yaml.safe_load(part)), encoding="utf-8")
        load_recipe(str(path))
    path.write_text(whole, encoding="utf-8")
    recipe = load_recipe(str(path))

    assert declare_all(recipe.tasks) and recipe.intermediate and recipe.targets


def test_what_a_declared_task_may_hold_is_named() -> None:
    """Kinds and their roles, formats, keys: a user has nowhere else to look."""
    section = README.split("### A task of your own")[1].split("\n### ")[0]
    named = set(re.findall(r"`([^`\n]+)`", section))
    words = {word for text in named for word in re.findall(r"\w+", text)}
    keys = {field.name for field in fields(Task)} - {"name", "synthetic"} | {"extends", "format", "language_codes"}
    roles = {role.rstrip("?") for of_kind in ROLES.values() for role in of_kind}
    assert not (set(ROLES) | roles | set(FORMATS) | keys) - words - {"columns", "kind"}
    for kind in ROLES:
        assert any(line.startswith(f"| `{kind}`") for line in section.splitlines()), kind


def test_the_python_of_the_readme_runs(tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["--set", "targets=[]", "--set", "arms=[nli]"]
    assert main(["run", str(tiny_recipe), "--offline", "--quiet", "--store", "effstilts-store", *settings]) == 0
    for name, text in (("de.txt", "Guten Tag."), ("en.txt", "Good day.")):
        Path(name).write_text(f"{text}\nB.\nC d.\nE f g.\n", encoding="utf-8")
    words = ["embed", "de.txt", "en.txt", "--model", "tiny:nli", "--out", "vectors", "--layers", "2"]
    assert main([*words, "--offline", "--quiet", "--store", "effstilts-store"]) == 0
    by_files, by_model = re.findall(r"```python\n(.*?)```", README, re.S)
    found: dict[str, Any] = {}
    exec(by_files.replace("layer8", "layer2"), found)
    assert found["forward"].indices.shape == found["backward"].indices.shape == (4, 4)
    exec(by_model.replace("RUN:mnli", "tiny:nli").replace("RUN", "tiny").replace("Pooling(4", "Pooling(1"), found)
    assert found["layer4"].shape == found["layer2"].shape == (2, 32)
    assert {"section", "arm", "seed", "task", "language", "split", "score", "metric", "metrics"} <= set(
        found["cells"][0]
    )


def test_shipped_recipes_are_named() -> None:
    for name in shipped_recipes():
        assert f"`{name}`" in README


RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["quickstart-3-seeds", "real-small-3-seeds"])
def test_a_results_text_is_that_of_its_numbers(name: str) -> None:
    record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    text = (RESULTS / f"{name}.txt").read_text(encoding="utf-8")
    assert table(record, width=118) + "\n" == text


def test_the_results_are_of_the_recipe_that_is_shipped() -> None:
    assert (RESULTS / "quickstart-3-seeds.txt").read_text(encoding="utf-8") in README
    record = json.loads((RESULTS / "quickstart-3-seeds.json").read_text(encoding="utf-8"))
    shipped = load_recipe("quickstart", ["seeds=[1,2,3]", "name=quickstart-3-seeds"])
    assert record["recipe"] == json.loads(json.dumps(asdict(shipped)))
