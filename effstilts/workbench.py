"""What the steps work with: tasks, rows encoded once, encoders and heads opened from what earlier steps left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from effstilts.data import overlap, sources
from effstilts.data.cache import FILE, Rows, read_rows, write_rows
from effstilts.engine.plain import Model, default_device
from effstilts.engine.ranks import ALONE, Ranks
from effstilts.errors import DataError, ModelError
from effstilts.kinds import kind_of
from effstilts.kinds.kind import cut_at_most, lost_answers
from effstilts.log import Log
from effstilts.model import adapters, opening, quantised
from effstilts.model.alignment import NONE
from effstilts.model.alignment import read as read_translations
from effstilts.model.encoder import Encoder
from effstilts.model.files import read_tensors
from effstilts.model.transplant import begin_aligned, transplant
from effstilts.recipe import Method, Phase, Retrieval, Spread, Training
from effstilts.recipe import Model as ModelSpec
from effstilts.store import Damaged, Store, content_key
from effstilts.tasks import registry
from effstilts.tasks.task import SplitName, Task

HEADS_FILE = "heads.safetensors"
ENCODER_FOLDER = "encoder"
_MANY_CUT = 0.01  # of a split's rows, worth a word


@dataclass(frozen=True)
class TaskPart:
    """One language of a task in a step. rows: first rows used, 0: all; weight, language_exponent: of its share;
    selected_on: the task whose dev rows choose the weights, None: its own."""

    task: Task
    language: str
    rows: int = 0
    weight: float = 1.0
    language_exponent: float = 0.0
    selected_on: Task | None = None

    @property
    def head(self) -> str:
        return self.task.head or kind_of(self.task.kind).shared_head or self.task.name

    @property
    def name(self) -> str:
        return f"{self.task.name} ({self.language})"

    def selection(self, rows: int = 0) -> TaskPart:
        """The part whose dev split chooses the weights, in the language that is trained on; its first `rows`."""
        return TaskPart(self.selected_on or self.task, self.language, rows)


@dataclass(frozen=True, eq=False)
class Source:
    """Where phase 1 begins: a checkpoint, or random weights with the tokenizer of a step."""

    model: ModelSpec
    identity: Mapping[str, Any]
    tokenizer: Step | None = None
    alignment: Step | None = None
    seed: int = 0
    per_seed: bool = False

    @property
    def inputs(self) -> list[Step]:
        """The steps whose artefacts it opens."""
        return [step for step in (self.tokenizer, self.alignment) if step is not None]

    @property
    def key(self) -> str:
        return content_key(dict(self.identity))

    @property
    def method(self) -> Method:
        return Method()


@dataclass(frozen=True, eq=False)
class Step:
    """One node of the graph: what it depends on, and the function that makes its artefact.

    shared: every rank takes part in `make`; else rank 0 alone.
    """

    kind: str
    key: str
    label: str
    spec: Mapping[str, Any]
    make: Callable[[Workbench, Step], None]
    parts: tuple[TaskPart, ...] = ()
    split: SplitName = "train"
    base: Source | Step | None = None
    phase: Phase = field(default_factory=Phase)
    training: Training = field(default_factory=Training)
    method: Method = field(default_factory=Method)
    retrieval: Retrieval = field(default_factory=Retrieval)
    seed: int = 0
    per_seed: bool = False
    trains: bool = False
    shared: bool = False
    arms: tuple[tuple[Step, float], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.key}"

    @property
    def inputs(self) -> list[Step]:
        """The steps whose artefacts it opens."""
        before = [self.base] if isinstance(self.base, Step) else self.base.inputs if self.base else []
        return [*before, *(arm for arm, _ in self.arms)]

    @property
    def adapter_base(self) -> Source | Step | None:
        """What this step's adapter is added to: the step before, its adapter merged; for one that is continued or
        dropped, what that one's was added to."""
        before = self.base
        if isinstance(before, Step) and before.leaves_adapter and self.method.carry in ("continue", "fresh"):
            return before.adapter_base
        return before

    @property
    def leaves_adapter(self) -> bool:
        """Whether the artefact is an adapter and not a whole encoder."""
        return self.method.name != "full"


def carried(step: Step, how: str) -> Step | None:
    """The step before, where its adapter is carried over in this way."""
    before = step.base
    if isinstance(before, Step) and before.leaves_adapter and step.leaves_adapter and step.method.carry == how:
        return before
    return None


def root_of(at: Source | Step) -> Source:
    """Where phase 1 of an encoder begins."""
    while isinstance(at, Step):
        assert at.base is not None
        at = at.base
    return at


class Workbench:
    """Opens what steps need and remembers what is costly to open."""

    def __init__(
        self,
        store: Store,
        where: sources.DataConfig,
        log: Log,
        declared: Mapping[str, Mapping[str, Any]],
        ranks: Ranks = ALONE,
        spread: Spread = Spread(),  # noqa: B008 - frozen
    ) -> None:
        self.ranks = ranks
        self.spread = spread
        self.store = store
        self.where = where
        self.log = log
        self.device = default_device()
        self.declared = registry.declare_all(declared)
        # Tasks whose dev file the recipe itself names.
        self.dev_files = registry.naming_dev(declared)
        self.without_dev: set[str] = set()  # what was said of
        self._examples: dict[Any, Sequence[Mapping[str, Any]]] = {}
        # Of the last pooled task: every language of it is searched in the same candidates.
        self._candidates: tuple[tuple[str, str], list[Mapping[str, Any]]] = ("", ""), []
        self._opened: tuple[str, Model] | None = None
        self._skeletons: dict[str, Encoder] = {}

    def task(self, name: str) -> Task:
        return registry.get(name, self.declared)

    def has_split(self, part: TaskPart, split: SplitName) -> bool:
        return sources.has_split(part.task, split, part.language, self.where)

    def examples(self, part: TaskPart, split: SplitName) -> Sequence[Mapping[str, Any]]:
        """The rows of a split in the roles of the task's kind."""
        key = (part.task.name, split, part.language, part.rows)
        if key not in self._examples:
            loaded = sources.load(part.task, split, part.language, self.where, part.rows or None)
            if not loaded.examples:
                raise DataError(f"{part.name}: the {split} split of {loaded.source} holds no rows")
            if loaded.dropped:
                self.log.event("dropped", task=part.task.name, language=part.language, split=split, rows=loaded.dropped)
            while len(self._examples) > 8:
                self._examples.pop(next(iter(self._examples)))
            self._examples[key] = loaded.examples
        return self._examples[key]

    def pool(self, task: Task) -> list[str]:
        """The languages whose candidates form one set; none where each language has its own."""
        return list(sources.evaluation_splits(task, self.where)) if task.pooled else []

    def retrieval_examples(self, part: TaskPart, split: SplitName) -> Sequence[Mapping[str, Any]]:
        """The rows of a retrieval task; of a pooled one the queries of the part's language and the candidates of all,
        whose ids then begin with their language."""
        pool = self.pool(part.task)
        if not pool:
            return self.examples(part, split)
        if self._candidates[0] != (part.task.name, split):
            candidates: list[Mapping[str, Any]] = [
                {**row, "id": f"{language}:{row['id']}"}
                for language in pool
                for row in self.examples(TaskPart(part.task, language), split)
                if row["side"] == "candidate"
            ]
            self._candidates = (part.task.name, split), candidates
        return [row for row in self.examples(part, split) if row["side"] == "query"] + self._candidates[1]

    def count(self, part: TaskPart, split: SplitName) -> int:
        """Rows of a split. Reads them; synthetic ones are known without."""
        declared = part.task.synthetic
        if declared is not None and split in declared.counts and self.where.source in ("auto", "synthetic"):
            return min(declared.counts[split], part.rows or declared.counts[split])
        return len(self.examples(part, split))

    def rows(self, part: TaskPart, split: SplitName, opened: Encoder) -> Rows:
        """Encoded rows, from the cache or made now."""
        kind = kind_of(part.task.kind)
        length = min(part.task.max_length, opened.max_length)
        spec = {
            "data": sources.fingerprint(part.task, split, part.language, self.where),
            "language": part.language,
            "split": split,
            "limit": part.rows,
            "kind": [kind.name, kind.version],
            "tokenizer": tokenizer_identity(opened.tokenizer),
            "lengths": [length, part.task.stride],
            "labels": list(part.task.labels),
        }
        key = content_key(spec)

        def make() -> bool:
            if not self._holds("rows", key):
                # Another run on this store may be encoding them.
                with self.store.lock("rows", key, wait=True):
                    if not self.store.has("rows", key):
                        self._encode(part, split, opened, length, key)
            return True

        # No other rank looks before the first has checked or made them.
        self.ranks.tell(make)
        self.await_artefact("rows", key)
        return read_rows(self.store.open("rows", key).folder / FILE)

    def _encode(self, part: TaskPart, split: SplitName, opened: Encoder, length: int, key: str) -> None:
        """Puts the rows of a split into the store."""
        kind = kind_of(part.task.kind)
        examples = self.examples(part, split)
        columns = kind.encode(examples, part.task, opened.tokenizer, length)
        lost = lost_answers(examples, columns)
        if lost:
            self.log.warn(f"{part.name}, {split}: {lost} of {len(examples)} answers fit no window of {length} tokens")
        cut = cut_at_most(columns, length) if kind.cuts else 0
        if cut and cut >= _MANY_CUT * len(examples):
            more = "" if length == opened.max_length else "; the task's max_length may be raised"
            self.log.warn(
                f"{part.name}, {split}: {cut:,} of {len(examples):,} rows reach {length} tokens and are cut there{more}"
            )

        def fill(folder: Path) -> None:
            write_rows(folder / FILE, columns)

        facts = {"task": part.task.name, "language": part.language, "split": split, "lost_answers": lost, "cut": cut}
        tokens = sum(len(row) for row in columns["input_ids"])
        self.store.put("rows", key, fill, facts | {"rows": len(columns["input_ids"]), "tokens": tokens})
        self.log.event("encoded", **facts, rows=len(columns["input_ids"]), tokens=tokens)

    def digests(self, part: TaskPart, split: SplitName) -> overlap.Digests:
        """Hashes of a split's texts, from the cache or made now."""
        import numpy as np

        spec = {
            "digests": overlap.VERSION,
            "data": sources.fingerprint(part.task, split, part.language, self.where),
            "language": part.language,
            "split": split,
            "rows": part.rows,
        }
        key = content_key(spec)
        if not self._holds("digests", key):
            made = overlap.digests(self.examples(part, split))
            facts = {"task": part.task.name, "language": part.language, "split": split}

            def fill(folder: Path) -> None:
                np.savez(folder / "digests.npz", allow_pickle=False, **made)

            with self.store.lock("digests", key, wait=True):
                if not self.store.has("digests", key):
                    self.store.put("digests", key, fill, facts)
        with np.load(self.store.open("digests", key).folder / "digests.npz", allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files}

    def _holds(self, kind: str, key: str) -> bool:
        """Whether the store has what can be made again here at once; a damaged one is set aside."""
        try:
            return self.store.has(kind, key) and bool(self.store.open(kind, key))
        except Damaged as error:
            self.log.warn(f"made again: {error.what}")
            self.store.set_aside(error)
            return False

    def await_artefact(self, kind: str, key: str, seconds: float = 120.0) -> None:
        """On ranks other than 0: waits until what rank 0 wrote can be seen here."""
        if not self.ranks.leads:
            what = f"{kind}-{key} in {self.store.root}: the store must lie where every machine reads it"
            self.ranks.wait(lambda: self.store.has(kind, key), seconds, what)

    def open_encoder(self, at: Source | Step | None) -> Encoder:
        """The encoder that a step left, adapters merged; a Source's is loaded, or made with random weights."""
        if at is None:
            raise ModelError("this step has no encoder before it")
        if isinstance(at, Source):
            return self._open_source(at)
        artefact = self.store.open(at.kind, at.key)
        if not at.leaves_adapter:
            return opening.load(str(artefact.folder / ENCODER_FOLDER))
        opened = self.open_encoder(at.adapter_base)
        adapters.load_merged(opened, artefact.folder / adapters.FOLDER)
        return opened

    def _open_source(self, source: Source) -> Encoder:
        spec = source.model
        if spec.name != "new":
            return opening.load(spec.name, spec.revision, self.where.offline)
        if source.tokenizer is not None:
            place = str(self.store.open(source.tokenizer.kind, source.tokenizer.key).folder)
        else:
            place = spec.tokenizer
        tokenizer = opening.load_tokenizer(place, spec.revision, self.where.offline)
        created = opening.create(spec.config, tokenizer, source.seed)
        at = source.alignment
        translations = read_translations(self.store.open(at.kind, at.key).folder) if at else NONE
        if spec.body:
            taken = transplant(opening.load(spec.body, spec.body_revision, self.where.offline), created, translations)
            self.log.event("transplanted", body=spec.body, pieces=taken.copied, translated=taken.translated)
        elif at:
            self.log.event("aligned", translated=begin_aligned(created, translations))
        return created

    def check_architecture(self, step: Step) -> None:
        """ModelError now for a model that is no encoder, and for an adapter, frozen blocks or a layer of retrieval that
        the encoder of a step cannot have."""
        layer = step.retrieval.layer if step.kind == "retrieve" else -1
        if not step.trains and layer < 0:
            return
        source = root_of(step)
        if source.key not in self._skeletons:
            spec = source.model
            self._skeletons[source.key] = opening.skeleton(spec.name, spec.revision, self.where.offline, spec.config)
        skeleton = self._skeletons[source.key]
        try:
            if step.trains:
                adapters.check(skeleton, step.method)
                skeleton.check_freezing(step.training.freeze_layers)
                if step.leaves_adapter and step.training.freeze_layers == skeleton.depth:
                    raise ModelError(
                        f"freeze_layers {skeleton.depth} leaves {step.method.name} no block to adapt; freeze fewer"
                    )
            if layer > skeleton.depth:
                raise ModelError(
                    f"layer {layer} does not exist: this encoder has hidden states 0 to {skeleton.depth}, where 0 is "
                    "the output of the embeddings"
                )
        except ModelError as error:
            raise ModelError(f"{step.label}: {error}") from error

    def open_for_training(self, step: Step) -> Encoder:
        """The encoder that a training step begins with, its adapter attached where the method has one."""

        def kept(before: Step | None) -> Path | None:
            return None if before is None else self.store.open(before.kind, before.key).folder / adapters.FOLDER

        continued, under = carried(step, "continue"), carried(step, "stack")
        opened = self.open_encoder(step.adapter_base if under is None else under.adapter_base)
        opened.set_dropout(step.training.dropout)
        if step.method.name in quantised.FORMS:
            quantised.quantise(opened, quantised.FORMS[step.method.name])
        if step.leaves_adapter:
            adapters.attach(opened, step.method, kept(continued), kept(under))
        training = step.training
        if training.freeze_embeddings or training.freeze_layers:
            opened.freeze(training.freeze_layers)
        if training.gradient_checkpointing:
            opened.checkpoint_gradients()
        return opened

    def heads(self, step: Step, opened: Encoder, fresh: bool) -> dict[str, nn.Module]:
        """The heads of a training step: fresh ones, or those that it left. A masked LM's head comes from the
        checkpoint where that has one; a target trained after another one (`Task.train_first`) goes on with its head."""
        dropout = step.training.dropout if step.training.dropout >= 0 else 0.1
        heads: dict[str, nn.Module] = {}
        for part in step.parts:
            kind = kind_of(part.task.kind)
            if part.head in heads:
                continue
            head = kind.head(part.task, opened, dropout)
            if fresh and isinstance(step.base, Step) and step.base.kind == step.kind == "target":
                ((before, trained),) = load_heads(self.store.open(step.base.kind, step.base.key).folder).items()
                fit_head(head, trained, before)
            elif fresh and kind.shared_head:
                state = self.pretrained_head(step.base, kind.shared_head)
                if state is not None:
                    fit_head(head, state, part.head)
                elif not (isinstance(step.base, Source) and step.base.model.name == "new"):
                    self.log.warn(f"{step.label}: the checkpoint has no {part.head} head, a fresh one is trained")
            heads[part.head] = head
        if not fresh:
            saved = load_heads(self.store.open(step.kind, step.key).folder)
            for name, head in heads.items():
                fit_head(head, saved.get(name, {}), name)
        return heads

    def pretrained_head(self, base: Source | Step | None, name: str) -> Mapping[str, Tensor] | None:
        """The tensors of a head that an earlier step, or the checkpoint before all, has; None where none has."""
        while isinstance(base, Step):
            saved = load_heads(self.store.open(base.kind, base.key).folder)
            if name in saved:
                return saved[name]
            base = base.base
        if base is None or base.model.name == "new":
            return None
        return opening.masked_lm_head(base.model.name, base.model.revision, self.where.offline)

    def open_model(self, step: Step) -> Model:
        """A trained step's encoder and heads, ready to predict. The last one opened is kept."""
        if self._opened is None or self._opened[0] != step.name:
            self._opened = None
            opened = self.open_encoder(step)
            model = Model(opened, self.heads(step, opened, fresh=False)).to(self.device)
            self._opened = (step.name, model.eval())
        return self._opened[1]

    def open_bare(self, at: Source | Step | None) -> Encoder:
        """An encoder without heads on the device. The last one opened is kept."""
        if at is None:
            raise ModelError("this step has no encoder before it")
        name = at.name if isinstance(at, Step) else at.key
        if self._opened is None or self._opened[0] != name:
            self._opened = None
            self._opened = (name, Model(self.open_encoder(at), {}).to(self.device).eval())
        return self._opened[1].encoder


def tokenizer_identity(tokenizer: Any) -> str:
    """Hash of a fast tokenizer's rules and vocabulary; padding and truncation, set by each call, do not count."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules.pop("truncation", None)
    rules.pop("padding", None)
    return content_key(rules)


def save_heads(heads: Mapping[str, nn.Module], folder: Path) -> None:
    """Writes heads in full precision; a tensor's name is `head|parameter`."""
    from safetensors.torch import save_file

    save_file(
        {
            f"{name}|{key}": tensor.detach().float().cpu().contiguous()
            for name, head in heads.items()
            for key, tensor in head.state_dict().items()
        },
        str(folder / HEADS_FILE),
    )


def load_heads(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Head name -> its tensors; empty where the folder has none."""
    path = folder / HEADS_FILE
    heads: dict[str, dict[str, Tensor]] = {}
    if path.is_file():
        for full_name, tensor in read_tensors(path).items():
            name, _, key = full_name.partition("|")
            heads.setdefault(name, {})[key] = tensor
    return heads


def fit_head(head: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Loads a head's tensors; ModelError unless every one is there and fits: nothing stays freshly initialised."""
    own = head.state_dict()
    if set(own) != set(state):
        odd = sorted(set(own) ^ set(state))[0]
        raise ModelError(f"the saved head {name!r} does not fit: {odd} stands on one side alone")
    fitted = {}
    for key, tensor in own.items():
        saved = state[key]
        if saved.shape != tensor.shape:
            raise ModelError(
                f"the saved head {name!r} does not fit: {key} is {list(saved.shape)}, needed {list(tensor.shape)}"
            )
        fitted[key] = saved
    head.load_state_dict(fitted)
