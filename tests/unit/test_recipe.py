from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.errors import EffstiltsError, RecipeError
from effstilts.recipe_reader import load_recipe, recipe_from_tree, shipped_recipes
from effstilts.yaml_tree import parse_yaml

MODEL = {"name": "somewhere"}


def build(**keys: object) -> object:
    return recipe_from_tree({"name": "r", "model": MODEL, **keys}, "r.yaml")


def test_every_shipped_recipe_reads() -> None:
    names = shipped_recipes()
    assert "quickstart" in names and "real-small" in names
    for name in names:
        assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"trainig": {}}, ["unknown key 'trainig'", "did you mean 'training'"]),
        ({"training": {"epoch": 3}}, ["training", "did you mean 'epochs'"]),
        ({"training": {"batch_size": "many"}}, ["training.batch_size", "expected int", "'many'"]),
        ({"training": {"batch_size": True}}, ["training.batch_size", "expected int"]),
        ({"training": {"learning_rate": ".nan"}}, ["training.learning_rate", "expected float"]),
        ({"training": {"precision": "fp16"}}, ["fp32, bf16"]),
        ({"training": {"warmup": 2}}, ["warmup", "0 to 1"]),
        ({"method": {"name": "lora", "rank": 0}}, ["rank >= 1"]),
        ({"method": {"name": "loar"}}, ["did you mean 'lora'"]),
        ({"seeds": [1, 1]}, ["seeds", "distinct"]),
        ({"model": {"name": "x", "aligned_by": ["synthetic/parallel"]}}, ["aligned_by", "model new"]),
        ({"targets": ["xnli", "xnli"]}, ["'xnli' stands twice"]),
        ({"targets": [{"task": "xnli", "languages": [False]}]}, ["targets[0].languages[0]", "quotes"]),
        ({"targets": [{"languages": ["en"]}]}, ["'task' is missing"]),
        ({"model": {"name": "new", "config": {"model_type": "bert"}}}, ["random weights"]),
        ({"name": "../x"}, ["cannot be a file name"]),
        ({"intermediate": {"a": {"tasks": ["mnli", "mnli"]}}}, ["stands twice"]),
    ],
)
def test_a_mistake_is_named(keys: dict[str, object], words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        build(**keys)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_phases_inherit_training_and_override_it() -> None:
    recipe = recipe_from_tree(
        {
            "name": "r",
            "model": "m",
            "training": {"batch_size": 4, "learning_rate": "1e-5"},
            "intermediate": {"a": {"tasks": ["mnli"], "training": {"batch_size": 8}}, "none": None},
            "targets": ["udpos"],
        },
        "r.yaml",
    )
    assert recipe.intermediate["a"].training.batch_size == 8
    assert recipe.intermediate["a"].training.learning_rate == 1e-5
    assert recipe.intermediate["none"].tasks == ()
    assert recipe.targets[0].training.batch_size == 4


def test_an_empty_or_listed_intermediate_phase() -> None:
    assert list(build(intermediate=None).intermediate) == ["baseline"]  # type: ignore[attr-defined]
    arms = build(intermediate=["mnli", "squad"]).intermediate  # type: ignore[attr-defined]
    assert [share.task for share in arms["mnli+squad"].tasks] == ["mnli", "squad"]


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ntargets: [{task: udpos}]\n")
    recipe = load_recipe(str(path), ["training.steps=7", "targets.0.rows=3", "seeds=[4, 5]", "mlm.tasks=[a]"])
    assert (recipe.targets[0].training.steps, recipe.targets[0].rows, recipe.seeds) == (7, 3, (4, 5))
    for bad in ("training.steps", "targets.9.rows=1", "model.name.x=1", "=3"):
        with pytest.raises(RecipeError):
            load_recipe(str(path), [bad])


def test_yaml_traps() -> None:
    with pytest.raises(RecipeError, match="stands twice"):
        parse_yaml("a: 1\na: 2", "x")
    with pytest.raises(RecipeError, match="line 1"):
        parse_yaml("a: !!python/object/apply:os.system ['true']", "x")
    with pytest.raises(RecipeError, match="not text"):
        parse_yaml("no: 1", "x")
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    began = time.monotonic()
    with pytest.raises(RecipeError, match="expands"):
        parse_yaml(bomb, "x")
    assert time.monotonic() - began < 5


def test_a_name_that_cannot_be_printed_is_refused_in_one_line() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_tree({"name": "r", "model": "m", "intermediate": {"a\nb": {}}}, "r.yaml")
    assert "'a\\nb' is no name" in str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["model", "mlm", "intermediate", "targets", "training", "method", "seeds", "data", "retrieval", "tasks", "name"]


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=5))
def test_no_tree_gives_anything_but_a_recipe_or_our_error(tree: dict[str, object]) -> None:
    try:
        recipe_from_tree({"name": "r", "model": "m", **tree}, "r.yaml")
    except EffstiltsError as error:
        assert "\n" not in str(error).replace("\\n", "")


def test_a_mistake_in_a_default_is_named_where_it_stands() -> None:
    """And not in the first phase that takes the default over; nor is a shipped file blamed for what --set says."""
    for override, said in (
        ("method.name=lorra", "recipe quickstart with --set: method.name: 'lorra'"),
        ("training.batch_size=0", "recipe quickstart with --set: training: batch_size"),
    ):
        with pytest.raises(RecipeError) as refused:
            load_recipe("quickstart", [override])
        assert str(refused.value).startswith(said)
