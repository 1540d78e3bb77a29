"""What a run is: frozen dataclasses. Their docstrings give units; `effstilts.recipe_reader` reads and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Model:
    """Where phase 1 begins.

    name: a folder in Hugging Face format, a hub id, `package:NAME` (a Python package that carries its model), or
        `new` for random weights of the architecture in `config`.
    revision: of a hub id: its commit, branch or tag; empty: main. What is read, and stands in keys and records, is the
        commit that it has when the run begins. body_revision: the same for `body`.
    config: for `new`: `model_type` and the fields of that architecture's transformers config.
    tokenizer: for `new`: a folder or hub id; empty: a Unigram tokenizer is trained on the MLM text.
    vocab_size: pieces of a tokenizer that is trained; character_coverage: share of the text's characters that have a
        piece, the rarest being left out (XLM-R: 0.9995; with Chinese and Japanese text 1 spends most pieces on signs).
    body: for `new`: a checkpoint whose blocks and positions the encoder begins with, and whose embeddings it takes for
        the pieces that both vocabularies have; the other pieces are random.
    aligned_by: for `new`: tasks of phase 1 whose rows are a text, in the body's language where there is a body, and its
        translation. A piece that the body lacks, or without a body one that stands in translations rather than in
        texts, begins as the mean of the pieces that it translates (`effstilts.model.alignment`).
    """

    name: str
    revision: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""
    vocab_size: int = 4000
    character_coverage: float = 1.0
    body: str = ""
    body_revision: str = ""
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


# How the vectors of a sentence's tokens become one.
How = Literal["mean", "cls", "weighted"]


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
    pooling: How = "mean"
    special_tokens: bool = True
    rows: int = 0
    batch_tokens: int = 16384
    margin: Literal["", "ratio", "distance", "absolute", "csls"] = ""
    neighbours: int = 4
    mode: Literal["max", "forward", "backward", "intersection"] = "max"
    space: Literal["none", "centre", "language_mean", "whiten"] = "none"

    def of(self, task: str) -> Retrieval:
        """The settings as that task has them."""
        return replace(self, layer=self.layers.get(task, self.layer), layers={})


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
