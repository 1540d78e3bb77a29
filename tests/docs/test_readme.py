"""What the README says, held against the tree."""

from __future__ import annotations

import re
from pathlib import Path

from effstilts.recipe import load_recipe, shipped_recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_of_the_package_has_its_line() -> None:
    files = {p.name for p in (ROOT / "effstilts").rglob("*.py") if p.name not in ("__init__.py", "__main__.py")}
    assert not {name for name in files if name not in README}


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
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    path = tmp_path / "mine.yaml"
    path.write_text(block, encoding="utf-8")
    recipe = load_recipe(str(path))
    from effstilts.tasks.registry import declare

    for name, spec in recipe.tasks.items():
        declare(name, spec)
    assert recipe.intermediate and recipe.targets


def test_shipped_recipes_are_named() -> None:
    for name in shipped_recipes():
        assert f"`{name}`" in README
