"""What a run is: frozen dataclasses, read from YAML and from `--set key=value`.

Unknown keys are refused with the nearest known name; every value is checked against its field's type. The fields'
docstrings give units. `training` and `method` at the top are the defaults; the same keys inside a phase or a target
override them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from effstilts.errors import RecipeError, did_you_mean
from effstilts.yaml_tree import apply_override, decode, parse_yaml, shown

MAX_RECIPE_BYTES = 1 << 18


@dataclass(frozen=True)
class Model:
    """Where phase 1 begins.

    name: a folder in Hugging Face format, a hub id, `package:NAME` (a Python package that carries its model), or
        `new` for random weights of the architecture in `config`.
    revision: the hub commit; needed for a hub id, so that a run can be repeated.
    config: for `new`: `model_type` and the fields of that architecture's transformers config.
    tokenizer: for `new`: a folder or hub id; empty: a Unigram tokenizer is trained on the MLM text.
    vocab_size: pieces of a tokenizer that is trained; character_coverage: share of the text's characters that have a
        piece, the rarest being left out (XLM-R: 0.9995; with Chinese and Japanese text 1 spends most pieces on signs).
    body: for `new`: a checkpoint whose blocks and positions the encoder begins with, and whose embeddings it takes for
        the pieces that both vocabularies have; the other pieces are random.
    aligned_by: with `body`: tasks of phase 1 whose rows are a text in the body's language and its translation; a piece
        that the body lacks begins as the mean of the pieces that it translates (`effstilts.model.alignment`).
    """

    name: str
    revision: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""
    vocab_size: int = 4000
    character_coverage: float = 1.0
    body: str = ""
    aligned_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """How weights are trained.

    name: `full` fine-tuning, or what is trained instead (`effstilts.model.adapters` has each one's source): lora,
        rslora, dora, loraplus, adalora, vera, ia3, bitfit, and on a quantised base qlora (NF4) and lora-int8.
    rank, alpha, dropout: LoRA's (Hu et al. 2021): the update is alpha / rank * B A; vera has no alpha.
    rate_ratio: of loraplus: B's learning rate over A's.
    initial_rank: of adalora: directions of each layer at first, of which `rank` are left in the mean over the layers;
        0: half as many again as `rank` (Zhang et al. 2023). budget_warmup, budget_settle: shares of the steps before
        the first and after the last allocation; allocate_every: steps between allocations; orthogonality: weight of
        the regulariser that keeps directions apart.
    targets: names of the linear layers that get an adapter; empty: every linear layer of the encoder's blocks (ia3:
        keys, values and the second feed-forward layer).
    carry: what this phase does with the adapter of the phase before: `merge` it into the encoder and start a fresh
        one, `continue` to train it, `stack` the new one on it, frozen (the same function as merge; a quantised base
        then does not swallow it), or `fresh`: drop it and begin where that phase began.
    """

    name: Literal[
        "full", "lora", "rslora", "dora", "loraplus", "adalora", "vera", "ia3", "bitfit", "qlora", "lora-int8"
    ] = "full"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rate_ratio: float = 16.0
    initial_rank: int = 0
    budget_warmup: float = 0.1
    budget_settle: float = 0.5
    allocate_every: int = 10
    orthogonality: float = 0.1
    targets: tuple[str, ...] = ()
    carry: Literal["merge", "continue", "stack", "fresh"] = "merge"

    @property
    def first_rank(self) -> int:
        """Directions of each layer when training begins."""
        return (self.initial_rank or -(-3 * self.rank // 2)) if self.name == "adalora" else self.rank


# Methods whose adapter is a pair of matrices B A with a rank.
LORA_METHODS = ("lora", "rslora", "dora", "loraplus", "qlora", "lora-int8")
# Of these, those that add that product to the weights, and nothing else.
SUMMED_METHODS = ("lora", "rslora", "loraplus", "qlora", "lora-int8")


@dataclass(frozen=True)
class Training:
    """The loop's settings. Defaults follow the paper's recipe (AdamW, 10 % warm-up, linear decay, clipping at 1).

    epochs: passes over the (mixture's) training rows; `steps`, where not 0, wins.
    batch_size: examples of one optimizer step, over all micro-batches and processes.
    micro_tokens: tokens of one micro-batch, padding included. Bounds memory; the gradient does not depend on it.
    learning_rate, head_learning_rate: peak; 0 for the head means the same as the encoder's.
    warmup: share of the steps; warmup_steps, where not 0, wins. weight_decay: not on biases and LayerNorm.
    optimizer: `adamw`, or bitsandbytes' with 8-bit or paged moments (`effstilts.engine.optimizers`).
    clip_norm: of the whole gradient.
    evaluate_every: steps between evaluations on dev, 0: at the end alone.
    evaluate_examples: first rows of dev used, 0: all.
    patience: evaluations without a better score before training stops, 0: never.
    checkpoint_every: steps between checkpoints.
    precision: `fp32`, or `bf16` (autocast, weights and optimizer stay fp32).
    dropout: of the encoder and heads; -1 keeps the checkpoint's own.
    mask_share: masked-LM alone: share of the tokens that are predicted (Devlin et al. 2019).
    freeze_embeddings, freeze_layers: leave the embeddings, or them and the lowest blocks, as they are: no gradient and
        no optimizer state for them.
    restarts: how often a training that collapsed, diverged or never moved its dev score begins again with another seed.
    gradient_checkpointing: compute each block's inner states twice instead of keeping them; the result is the same.
    """

    epochs: float = 3.0
    steps: int = 0
    batch_size: int = 32
    micro_tokens: int = 8192
    learning_rate: float = 2e-5
    head_learning_rate: float = 0.0
    warmup: float = 0.1
    warmup_steps: int = 0
    weight_decay: float = 0.01
    beta2: float = 0.999
    epsilon: float = 1e-8
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw", "paged_adamw8bit"] = "adamw"
    clip_norm: float = 1.0
    evaluate_every: int = 1000
    evaluate_examples: int = 500
    patience: int = 30
    checkpoint_every: int = 500
    precision: Literal["fp32", "bf16"] = "fp32"
    dropout: float = -1.0
    mask_share: float = 0.15
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    gradient_checkpointing: bool = False
    restarts: int = 0


@dataclass(frozen=True)
class Share:
    """One task of a mixture.

    weight: its fixed share, for `mixing: fixed`; rows: training rows used of each language, 0: all.
    language_exponent: 0: each language counts as a task of its own, with this weight. Above 0: the languages are one
        task, whose steps they share as rows ** exponent (Conneau and Lample 2019, section 3.1: 0.7; XLM-R: 0.3).
    """

    task: str
    weight: float = 1.0
    rows: int = 0
    languages: tuple[str, ...] = ()
    language_exponent: float = 0.0


@dataclass(frozen=True)
class Combine:
    """An arm of phase 2 that is made of others, without training.

    arms: name -> weight of what that arm adds to the encoder of phase 1. how, density, scale: see
        `effstilts.model.combine`; density: the share of each difference that is kept, of all but `linear`.
    """

    arms: Mapping[str, float] = field(default_factory=dict)
    how: Literal["linear", "ties", "dare_linear", "dare_ties"] = "linear"
    density: float = 0.5
    scale: float = 1.0


@dataclass(frozen=True)
class Phase:
    """Phase 1 (tasks of kind masked_lm) or an arm of phase 2. No tasks and nothing to combine: the phase is empty.

    mixing: how steps are shared among tasks (Raffel et al. 2020, section 3.5.2): `proportional` to the rows, with
        `cap` rows at most counted per task; to the power 1 / `temperature`; `fixed`: by the shares' weights.
    """

    tasks: tuple[Share, ...] = ()
    mixing: Literal["proportional", "fixed"] = "proportional"
    cap: int = 1 << 17
    temperature: float = 1.0
    training: Training = field(default_factory=Training)
    method: Method = field(default_factory=Method)
    combine: Combine = field(default_factory=Combine)


@dataclass(frozen=True)
class Target:
    """One target task: trained on its English (training-language) rows, evaluated in every language.

    train_on: train on this task instead (XQuAD has no training set of its own); empty: the task's own declaration.
    languages: evaluated ones, empty: all that the data source has. rows: training rows used, 0: all.
    select_on: whose dev set in the training language chooses the best step: that of the task that is `trained` on
        (XNLI: MNLI's, as jiant), or the `target`'s own (XNLI's English one, as XTREME's scripts).
    """

    task: str
    train_on: str = ""
    select_on: Literal["trained", "target"] = "trained"
    languages: tuple[str, ...] = ()
    rows: int = 0
    training: Training = field(default_factory=Training)
    method: Method = field(default_factory=Method)


@dataclass(frozen=True)
class Retrieval:
    """Sentence retrieval on the encoder of phase 2, as it is.

    layer: index into hidden_states, where 0 is the embedding output; -1: the protocol's choice for the depth
        (12 layers: 8, 24 layers: 14, else two thirds of the depth). layers: another one for a task, by its name.
    pooling: `mean` over the tokens, `cls`, or `weighted` by the token's place; special_tokens: whether a mean counts
        <s> and </s>, as XTREME's does.
    rows: first sentence pairs used (mining: first sentences of each side), 0: all. Fewer candidates make the task
        easier: such a number is no benchmark's.
    margin: how a pair is scored against the `neighbours` nearest (Artetxe and Schwenk 2019; `csls`: Conneau et al.
        2018); empty: the protocol's, plain cosine for aligned sentences and `ratio` for mining.
    mode: which mined pairs are kept; `max`: greedily the best, each sentence once.
    space: what is taken from the vectors first, fitted on the compared sentences themselves, without labels.
    """

    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    layer: int = -1
    layers: Mapping[str, int] = field(default_factory=dict)
    pooling: Literal["mean", "cls", "weighted"] = "mean"
    special_tokens: bool = True
    rows: int = 0
    batch_tokens: int = 16384
    margin: Literal["", "ratio", "distance", "absolute", "csls"] = ""
    neighbours: int = 4
    mode: Literal["max", "forward", "backward", "intersection"] = "max"
    space: Literal["none", "centre", "language_mean", "whiten"] = "none"


@dataclass(frozen=True)
class Data:
    """Where rows come from. `evaluation_rows`: first rows of each target's evaluation split used, 0: all."""

    source: Literal["auto", "files", "hub", "synthetic"] = "auto"
    evaluation_rows: int = 0


@dataclass(frozen=True)
class SyntheticWorld:
    """The artificial languages. cognates: overrides each language's share, -1: their own; word_order: see docs."""

    seed: int = 0
    cognates: float = -1.0
    word_order: Literal["own", "english"] = "own"


@dataclass(frozen=True)
class Spread:
    """How the work is spread over processes. Says nothing about the numbers, so no step's key depends on it.

    name: `plain`: the whole model on every process; `zero`: DeepSpeed ZeRO; `auto`: `zero` where `config` is given.
    config: name of a shipped DeepSpeed file (zero1, zero2, zero2_offload, zero3, zero3_offload), or the path of one.
    timeout_seconds: longest that a process waits for another that does not answer.
    """

    name: Literal["auto", "plain", "zero"] = "auto"
    config: str = ""
    timeout_seconds: float = 600.0

    @property
    def zero(self) -> bool:
        return self.name == "zero" or (self.name == "auto" and bool(self.config))


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    seeds: one run of the graph each; `mlm_seed`: fixed seed of phase 1, so that all seeds share one encoder, as a
        public checkpoint is shared; -1: phase 1 is trained anew with each seed.
    intermediate: arm name -> phase 2. An empty arm is the baseline "no intermediate task".
    arms: the arms that run, empty: all.
    tasks: tasks that the recipe declares itself (name -> declaration).
    """

    name: str
    model: Model
    description: str = ""
    seeds: tuple[int, ...] = (1,)
    mlm_seed: int = -1
    mlm: Phase = field(default_factory=Phase)
    intermediate: Mapping[str, Phase] = field(default_factory=lambda: {"baseline": Phase()})
    arms: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    retrieval: Retrieval = field(default_factory=Retrieval)
    training: Training = field(default_factory=Training)
    method: Method = field(default_factory=Method)
    engine: Spread = field(default_factory=Spread)
    data: Data = field(default_factory=Data)
    synthetic: SyntheticWorld = field(default_factory=SyntheticWorld)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
        apply_override(tree, override)
    return recipe_from_tree(tree, str(path))


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
    if recipe.model.aligned_by and not recipe.model.body:
        refuse("model.aligned_by places new pieces among those of model.body, which is missing")
    read_in_phase_one = [share.task for share in recipe.mlm.tasks]
    for task in recipe.model.aligned_by:
        if task not in read_in_phase_one:
            # So that whatever looks for test rows in what was trained on sees them.
            refuse(f"model.aligned_by: {task!r} is not among mlm.tasks{did_you_mean(task, read_in_phase_one)}")
    if not 0 < recipe.model.character_coverage <= 1:
        refuse("model.character_coverage is a share above 0, at most 1")
    for arm in recipe.arms:
        if arm not in recipe.intermediate:
            refuse(f"arms: no arm {arm!r} in intermediate{did_you_mean(arm, recipe.intermediate)}")
    for task in recipe.retrieval.layers:
        if task not in recipe.retrieval.tasks:
            refuse(
                f"retrieval.layers: {task!r} is not among retrieval.tasks{did_you_mean(task, recipe.retrieval.tasks)}"
            )
    places = {"mlm": recipe.mlm, **{f"intermediate.{n}": arm for n, arm in recipe.intermediate.items()}}
    for name, phase in places.items():
        check_training(phase.training, f"{where}: {name}.training")
        check_method(phase.method, f"{where}: {name}.method")
        if phase.temperature <= 0 or phase.cap < 1:
            refuse(f"{name}: temperature and cap must be above 0")
        tasks = [share.task for share in phase.tasks]
        if len(set(tasks)) != len(tasks):
            refuse(f"{name}.tasks: a task stands twice in {tasks}")
        if any(share.weight <= 0 or share.rows < 0 for share in phase.tasks):
            refuse(f"{name}.tasks: weights are above 0, rows 0 or more")
        if any(not 0 <= share.language_exponent <= 1 for share in phase.tasks):
            refuse(f"{name}.tasks: language_exponent is from 0 to 1")
        for problem in _of_combination(recipe, name, phase.combine):
            refuse(f"{name}.combine: {problem}")
    if recipe.mlm.method.name != "full" and recipe.mlm.tasks and recipe.model.name == "new":
        refuse("mlm.method: random weights need full training")
    if recipe.retrieval.neighbours < 1 or recipe.retrieval.rows < 0:
        refuse("retrieval: neighbours is 1 or more, rows 0 or more")
    seen = set()
    for i, target in enumerate(recipe.targets):
        check_training(target.training, f"{where}: targets[{i}].training")
        check_method(target.method, f"{where}: targets[{i}].method")
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
    for text, holds in rules.items():
        if not holds:
            raise RecipeError(f"{at}: {text}")


def check_method(method: Method, at: str) -> None:
    """RecipeError for values no method can have."""
    if method.name in (*LORA_METHODS, "adalora", "vera") and (
        method.rank < 1 or method.alpha <= 0 or not 0 <= method.dropout < 1 or method.rate_ratio <= 0
    ):
        raise RecipeError(f"{at}: {method.name} needs rank >= 1, alpha > 0, dropout in [0, 1) and rate_ratio > 0")
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
