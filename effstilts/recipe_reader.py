"""Reads a recipe from YAML and `--set key=value`, and refuses what no run can be.

Unknown keys are refused with the nearest known name; every value is checked against its field's type. `training` and
`method` at the top are the defaults; the same keys inside a phase or a target override them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effstilts.errors import RecipeError, did_you_mean
from effstilts.recipe import LORA_METHODS, Combine, Method, Model, Recipe, Share, Target, Training
from effstilts.yaml_tree import apply_override, decode, parse_yaml, shown

MAX_RECIPE_BYTES = 1 << 18


@dataclass(frozen=True)
class _Defaults:
    training: Training = field(default_factory=Training)
    method: Method = field(default_factory=Method)


def shipped_recipes() -> dict[str, Path]:
    """Name -> path of the recipes that come with the package."""
    folder = Path(__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a shipped recipe by name or a YAML file by path, applies `key=value` overrides, checks everything."""
    shipped = shipped_recipes()
    path = shipped.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        hint = did_you_mean(name_or_path, shipped)
        raise RecipeError(
            f"no recipe {name_or_path!r}{hint}: not a file, and the shipped ones are {', '.join(shipped)}"
        )
    tree = parse_yaml(_text_of(path), str(path))
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys, not {type(tree).__name__}")
    tree.setdefault("name", path.stem)
    for override in overrides:
        apply_override(tree, override, _stands_for)
    where = f"recipe {name_or_path}" if name_or_path in shipped else str(path)
    return recipe_from_tree(tree, where + " with --set" if overrides else where)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_RECIPE_BYTES + 1)
        if len(raw) > MAX_RECIPE_BYTES:
            raise RecipeError(f"{path}: a recipe has at most {MAX_RECIPE_BYTES} bytes")
        text = raw.decode("utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error
    return text


def recipe_from_tree(tree: dict[str, Any], where: str) -> Recipe:
    """Builds and checks a Recipe from plain YAML data."""
    tree = dict(tree)
    tree["intermediate"] = _arms(tree.get("intermediate"))
    defaults = {"training": tree.get("training") or {}, "method": tree.get("method") or {}}
    # First by themselves: a mistake in them is none of the phases' that take them over. What a method's settings must
    # be to each other holds where they meet.
    check_training(decode(_Defaults, defaults, where).training, f"{where}: training")

    def inherit(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        node = dict(node)
        for part, own in defaults.items():
            if isinstance(own, Mapping) and isinstance(node.get(part) or {}, Mapping):
                node[part] = {**own, **(node.get(part) or {})}
        return node

    tree["mlm"] = inherit(tree.get("mlm") or {})
    if isinstance(tree["intermediate"], Mapping):
        for name, arm in tree["intermediate"].items():
            if isinstance(arm, Mapping) and arm.get("combine") and len(arm) > 1:
                others = ", ".join(repr(key) for key in arm if key != "combine")
                raise RecipeError(
                    f"{where}: intermediate.{name!s}: a combination of arms trains nothing; take out {others}"
                )
        tree["intermediate"] = {name: inherit(arm or {}) for name, arm in tree["intermediate"].items()}
    if isinstance(tree.get("targets"), list):
        tree["targets"] = [inherit({"task": t} if isinstance(t, str) else t) for t in tree["targets"]]
    recipe: Recipe = decode(Recipe, tree, where, shorthands={Share: "task", Target: "task", Model: "name"})
    _check(recipe, where)
    return recipe


def _stands_for(place: Sequence[str]) -> str:
    """The key that a bare text at this place of a recipe is short for."""
    if list(place) == ["model"]:
        return "name"
    shares = place[0] in ("mlm", "intermediate") and place[-2:-1] == ["tasks"]
    shares |= place[0] == "intermediate" and len(place) in (2, 3) and place[-1].isdecimal()
    return "task" if shares or (place[0] == "targets" and len(place) == 2) else ""


def _arms(value: Any) -> Any:
    """`null` is the baseline; a list of tasks is one arm; a mapping names its arms."""
    if value is None or value == {} or value == []:
        return {"baseline": {}}
    if isinstance(value, list):
        names = [str(v.get("task", "?")) if isinstance(v, dict) else str(v) for v in value]
        return {"+".join(name.rpartition("/")[2] for name in names): {"tasks": value}}
    return value


def _check(recipe: Recipe, where: str) -> None:
    def refuse(text: str) -> None:
        raise RecipeError(f"{where}: {text}")

    if not recipe.name.isprintable() or len(recipe.name.encode()) > 200 or any(c in recipe.name for c in "/\\"):
        refuse(f"the name {shown(recipe.name)} cannot be a file name")
    if ":" in recipe.name:
        refuse(f"the name {recipe.name!r} has a colon, which parts run, arm and seed where a run is named")
    if not recipe.name or recipe.name.startswith("."):
        refuse(f"the name {recipe.name!r} cannot be a file name")
    if not recipe.seeds or len(set(recipe.seeds)) != len(recipe.seeds) or min(recipe.seeds) < 0:
        refuse(f"seeds: needs distinct numbers from 0 up, got {list(recipe.seeds)}")
    if recipe.model.name == "new" and not recipe.mlm.tasks:
        refuse("model new has random weights: give phase 1 (mlm) its tasks, or name a checkpoint")
    if recipe.model.name == "new" and "model_type" not in recipe.model.config:
        refuse("model.config: 'model_type' is missing (for example xlm-roberta)")
    if recipe.model.body and recipe.model.name != "new":
        refuse("model.body is for model new: a checkpoint has its own blocks")
    if recipe.model.body_revision and not recipe.model.body:
        refuse("model.body_revision is of model.body, which is missing")
    if recipe.model.aligned_by and recipe.model.name != "new":
        refuse("model.aligned_by is for model new: a checkpoint has its own embeddings")
    read_in_phase_one = [share.task for share in recipe.mlm.tasks]
    for task in recipe.model.aligned_by:
        if task not in read_in_phase_one:
            # So that whatever looks for test rows in what was trained on sees them.
            refuse(f"model.aligned_by: {task!r} is not among mlm.tasks{did_you_mean(task, read_in_phase_one)}")
    # sentencepiece's own bounds
    if not 0.98 <= recipe.model.character_coverage <= 1:
        refuse("model.character_coverage is a share from 0.98 to 1")

    def once(values: Sequence[str], at: str) -> None:
        if len(set(values)) != len(values):
            refuse(f"{at}: one stands twice in {list(values)}")

    once(recipe.arms, "arms")
    once(recipe.retrieval.tasks, "retrieval.tasks")
    once(recipe.retrieval.languages, "retrieval.languages")
    for arm in recipe.arms:
        if arm not in recipe.intermediate:
            refuse(f"arms: no arm {arm!r} in intermediate{did_you_mean(arm, recipe.intermediate)}")
    for task in recipe.retrieval.layers:
        if task not in recipe.retrieval.tasks:
            refuse(
                f"retrieval.layers: {task!r} is not among retrieval.tasks{did_you_mean(task, recipe.retrieval.tasks)}"
            )
    check_training(recipe.training, f"{where}: training")
    check_method(recipe.method, f"{where}: method")
    places = {"mlm": recipe.mlm, **{f"intermediate.{n}": arm for n, arm in recipe.intermediate.items()}}
    for name, phase in places.items():
        check_training(phase.training, f"{where}: {name}.training")
        check_method(phase.method, f"{where}: {name}.method")
        if phase.temperature <= 0 or phase.cap < 1:
            refuse(f"{name}: temperature and cap must be above 0")
        tasks = [share.task for share in phase.tasks]
        if len(set(tasks)) != len(tasks):
            refuse(f"{name}.tasks: a task stands twice in {tasks}")
        for i, share in enumerate(phase.tasks):
            once(share.languages, f"{name}.tasks[{i}].languages")
        if any(share.weight <= 0 or share.rows < 0 for share in phase.tasks):
            refuse(f"{name}.tasks: weights are above 0, rows 0 or more")
        if any(not 0 <= share.language_exponent <= 1 for share in phase.tasks):
            refuse(f"{name}.tasks: language_exponent is from 0 to 1")
        for problem in _of_combination(recipe, name, phase.combine):
            refuse(f"{name}.combine: {problem}")
    if recipe.mlm.method.name != "full" and recipe.mlm.tasks and recipe.model.name == "new":
        refuse("mlm.method: random weights need full training")
    if recipe.retrieval.neighbours < 1 or recipe.retrieval.rows < 0 or recipe.retrieval.batch_tokens < 1:
        refuse("retrieval: neighbours and batch_tokens are 1 or more, rows 0 or more")
    if recipe.data.evaluation_rows < 0:
        refuse("data.evaluation_rows is 0 or more")
    if min([recipe.retrieval.layer, *recipe.retrieval.layers.values()]) < -1:
        refuse("retrieval: layers are counted from 0, the embedding output; -1 is the protocol's")
    seen = set()
    for i, target in enumerate(recipe.targets):
        check_training(target.training, f"{where}: targets[{i}].training")
        check_method(target.method, f"{where}: targets[{i}].method")
        once(target.languages, f"targets[{i}].languages")
        if target.rows < 0:
            refuse(f"targets[{i}].rows is 0 or more")
        if target.task in seen:
            refuse(f"targets: {target.task!r} stands twice")
        seen.add(target.task)
    if recipe.engine.timeout_seconds <= 0:
        refuse("engine.timeout_seconds must be above 0")
    if recipe.engine.name == "plain" and recipe.engine.config:
        refuse("engine: the plain engine takes no config; leave it out, or name zero")
    if recipe.synthetic.cognates > 1:
        refuse("synthetic.cognates: a share is at most 1")


def _of_combination(recipe: Recipe, place: str, combine: Combine) -> Iterator[str]:
    """What is wrong with a combination of arms."""
    if not combine.arms:
        if combine != Combine():
            yield "the arms are missing: name -> weight"
        return
    if place == "mlm":
        yield "phase 1 has no arms"
    for name, weight in combine.arms.items():
        if name not in recipe.intermediate:
            yield f"no arm {name!r} in intermediate{did_you_mean(str(name), recipe.intermediate)}"
        elif not recipe.intermediate[name].tasks:
            yield f"the arm {name!r} trains nothing itself"
        if weight == 0 or (weight < 0 and combine.how in ("ties", "dare_ties")):
            yield f"the weight of {name!r} is {weight:g}; {combine.how} needs weights {_ALLOWED_WEIGHTS[combine.how]} 0"
    if not 0 < combine.density <= 1:
        yield "density is a share above 0, at most 1"
    if combine.how == "linear" and combine.density != Combine().density:
        yield "density is for ties, dare_linear and dare_ties; how: linear keeps every weight"
    if combine.scale <= 0:
        yield "scale is above 0"


_ALLOWED_WEIGHTS = {"linear": "other than", "dare_linear": "other than", "ties": "above", "dare_ties": "above"}


def check_training(training: Training, at: str) -> None:
    """RecipeError for values no training can have."""
    t = training
    rules = {
        "batch_size must be 1 or more": t.batch_size >= 1,
        "micro_tokens must be 1 or more": t.micro_tokens >= 1,
        "steps must be 0 or more": t.steps >= 0,
        "epochs must be above 0": t.epochs > 0,
        "learning_rate must be above 0": t.learning_rate > 0,
        "head_learning_rate must be 0 or more": t.head_learning_rate >= 0,
        "warmup is a share of the steps, from 0 to 1": 0 <= t.warmup <= 1,
        "warmup_steps, freeze_layers must be 0 or more": min(t.warmup_steps, t.freeze_layers) >= 0,
        "weight_decay must be 0 or more": t.weight_decay >= 0,
        "beta2 must be in [0, 1)": 0 <= t.beta2 < 1,
        "epsilon must be above 0": t.epsilon > 0,
        "clip_norm must be above 0": t.clip_norm > 0,
        "evaluate_every, patience must be 0 or more": min(t.evaluate_every, t.patience) >= 0,
        "evaluate_examples, restarts must be 0 or more": min(t.evaluate_examples, t.restarts) >= 0,
        "checkpoint_every must be 1 or more": t.checkpoint_every >= 1,
        "dropout must be in [0, 1), or -1": t.dropout == -1 or 0 <= t.dropout < 1,
        "mask_share must be in (0, 1)": 0 < t.mask_share < 1,
    }
    _require(rules, f"{at}: ")


def _require(rules: Mapping[str, bool], before: str) -> None:
    """RecipeError, with `before`, of the first rule that does not hold."""
    for text, holds in rules.items():
        if not holds:
            raise RecipeError(f"{before}{text}")


def check_method(method: Method, at: str) -> None:
    """RecipeError for values no method can have."""
    if method.name in (*LORA_METHODS, "adalora", "vera"):
        rules = {
            f"rank >= 1, not {method.rank}": method.rank >= 1,
            f"alpha > 0, not {method.alpha:g}": method.alpha > 0,
            f"dropout in [0, 1), not {method.dropout:g}": 0 <= method.dropout < 1,
            f"rate_ratio > 0, not {method.rate_ratio:g}": method.rate_ratio > 0,
        }
        _require(rules, f"{at}: {method.name} needs ")
    if method.name == "adalora":
        if method.initial_rank < 0 or method.first_rank <= method.rank:
            raise RecipeError(
                f"{at}: adalora's initial_rank is above its rank, {method.rank} (or 0: half as many again)"
            )
        shares = (method.budget_warmup, method.budget_settle)
        if min(shares) < 0 or sum(shares) >= 1 or method.allocate_every < 1 or method.orthogonality < 0:
            raise RecipeError(
                f"{at}: adalora needs shares budget_warmup + budget_settle below 1, allocate_every >= 1 and "
                "orthogonality >= 0"
            )
    if method.name == "bitfit" and method.targets:
        raise RecipeError(f"{at}: bitfit trains every bias and takes no targets")
