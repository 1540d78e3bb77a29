"""A model by the name that a user gives it: a folder, a hub id, a package's, or what a run of the store trained.

`RUN:ARM:SEED` is the encoder that an arm of a run ended phase 2 with, an arm without tasks phase 1's, or the
checkpoint itself. SEED and, where the run has one arm only, ARM may be left out.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from effstilts import identity
from effstilts.data.sources import DataConfig
from effstilts.errors import ModelError, RecipeError, StoreError, did_you_mean
from effstilts.log import Log
from effstilts.model import opening
from effstilts.model.encoder import Encoder
from effstilts.model.export import declared_length, declared_pooling
from effstilts.model.names import PREFIXES, located, settled
from effstilts.recipe import How, Method, Model, Retrieval
from effstilts.store import Store
from effstilts.workbench import Source, Step, Workbench, load_heads
from effstilts.yaml_tree import decode


@dataclass(frozen=True)
class Named:
    """An opened encoder, what identifies it, the settings of retrieval that its run had or, of a sentence-transformers
    model, its last hidden state and its pooling (else the defaults), its masked-LM head where it has one, and the
    tokens of a sentence that are read unless a command says otherwise."""

    name: str
    encoder: Encoder
    identity: Mapping[str, Any]
    retrieval: Retrieval
    masked_lm: Callable[[], Mapping[str, Tensor] | None]
    max_length: int = 512

    def asked(self, layer: int = -1, pooling: How | Literal[""] = "", special_tokens: bool = True) -> Retrieval:
        """Its settings of retrieval with what a command asks for instead; the defaults ask for nothing. A run that left
        <s> and </s> out of its means leaves them out here."""
        own = self.retrieval
        return replace(
            own,
            layer=own.layer if layer < 0 else layer,
            pooling=pooling or own.pooling,
            special_tokens=special_tokens and own.special_tokens,
        )


@dataclass(frozen=True)
class Tuned:
    """What a target task trained: encoder and head, the kind of task, and the labels that the head's outputs are."""

    name: str
    encoder: Encoder
    identity: Mapping[str, Any]
    kind: str
    labels: tuple[str, ...]
    head: Mapping[str, Tensor]


def open_named(name: str, store: Store, revision: str = "", offline: bool = False) -> Named:
    """Opens a model. RecipeError for an arm or seed that the run does not have, StoreError for a step that has not
    been made yet, ModelError for what is no encoder."""
    run, *rest = name.split(":")
    if name.startswith(PREFIXES) or Path(name).exists() or run not in store.run_names():
        if rest and not name.startswith(PREFIXES):
            raise store.no_run(run)
        if not located(name)[1]:
            revision, offline = settled(name, revision, offline)
        opened = opening.load(name, revision, offline)
        how = declared_pooling(name, revision, offline)
        own = Retrieval(layer=opened.depth, pooling=how) if how else Retrieval()
        own_head = functools.partial(opening.masked_lm_head, name, revision, offline)
        length = Named.max_length
        if how:
            most = min(opened.tokenizer.model_max_length, opened.max_length)
            length = declared_length(name, revision, offline) or most
        return Named(name, opened, _identity(opening.fingerprint(name, revision)), own, own_head, length)
    record = store.read_run(run)
    arm, seed, shown = _chosen(record, rest)
    at = _end_of_phase_two(record, store, arm, seed)
    bench = Workbench(store, DataConfig(None, "auto", offline), Log(quiet=True), {})
    opened = bench.open_encoder(at)
    settings = decode(Retrieval, record["recipe"]["retrieval"], f"{run}.retrieval")
    origin = {"step": at.name} if isinstance(at, Step) else dict(at.identity)
    head = functools.partial(bench.pretrained_head, at, "masked_lm")
    return Named(shown, opened, _identity(origin), settings, head)


def _identity(of: Mapping[str, Any]) -> dict[str, Any]:
    """What vectors are kept under: a version with other numbers neither takes older ones nor goes on with them."""
    return {**of, **({"numerics": identity.NUMERICS_VERSION} if identity.NUMERICS_VERSION > 1 else {})}


def open_target(name: str, target: str, store: Store, offline: bool = False) -> Tuned:
    """Opens what a target task of a run trained. RecipeError for a target that the run does not have, StoreError for a
    name that is no run's and for a step that has not been made yet."""
    run, *rest = name.split(":")
    if run not in store.run_names():
        raise store.no_run(run)
    record = store.read_run(run)
    arm, seed, shown = _chosen(record, rest)
    cells = [cell for cell in record["cells"] if (cell["arm"], cell["seed"]) == (arm, seed)]
    known = list(dict.fromkeys(cell["task"] for cell in cells if cell["section"] == "target"))
    if target not in known:
        hint = did_you_mean(target, known)
        raise RecipeError(f"the run {shown} has no target {target!r}{hint}; it has {', '.join(known) or 'none'}")
    evaluated = {cell["step"] for cell in cells if (cell["section"], cell["task"]) == ("target", target)}
    before = {name for step in record["steps"] if step["name"] in evaluated for name in step["inputs"]}
    at = _step(next(name for name in sorted(before) if name.startswith("target-")), record, store)
    folder = store.open(at.kind, at.key).folder
    ((_, head),) = load_heads(folder).items()
    trained_on = at.spec["tasks"][0]["train"]
    bench = Workbench(store, DataConfig(None, "auto", offline), Log(quiet=True), {})
    kind, labels = trained_on["kind"][0], tuple(trained_on["labels"])
    return Tuned(f"{shown}, {target}", bench.open_encoder(at), {"step": at.name}, kind, labels, head)


def _chosen(record: Mapping[str, Any], rest: list[str]) -> tuple[str, int, str]:
    """Arm and seed of a run, and how a table names the three."""
    run, recipe = record["name"], record["recipe"]
    # One that the recipe has and the run left out is known, and said to be not run.
    arms = list(recipe["intermediate"] if rest and rest[0] else recipe.get("arms") or recipe["intermediate"])
    arm = _one_of(rest[0] if rest else "", arms, f"the run {run}", "arm")
    seed = _one_of(rest[1] if len(rest) > 1 else "", [str(s) for s in recipe["seeds"]], f"{run}", "seed")
    return arm, int(seed), f"{run}:{arm}" + (f":{seed}" if len(recipe["seeds"]) > 1 else "")


def _one_of(given: str, known: list[str], where: str, what: str) -> str:
    """The arm or seed asked for; the only or, for seeds, the first one where none is."""
    if given in known:
        return given
    if not given and (len(known) == 1 or what == "seed"):
        return known[0]
    if not given:
        raise RecipeError(f"{where} has several arms ({', '.join(known)}): say which, RUN:ARM or --arm")
    raise RecipeError(f"{where} has no {what} {given!r}{did_you_mean(given, known)}; it has {', '.join(known)}")


def _end_of_phase_two(record: Mapping[str, Any], store: Store, arm: str, seed: int) -> Source | Step:
    name = record.get("encoders", {}).get(f"{arm}:{seed}")
    if name is None:
        raise StoreError(
            f"the record of the run {record['name']} names no encoder of the arm {arm!r} with seed {seed}: the arm was "
            "not run, or by an older version; effstilts run writes it anew, and makes nothing twice"
        )
    return _step(name, record, store) if name else _source(record, record.get("checkpoint", ""))


def _source(record: Mapping[str, Any], key: str) -> Source:
    """The checkpoint that a run began with, by the name it had or in the folder where it lay. key: what it was then,
    empty where an older record does not say. StoreError for another one, ModelError for none."""
    model = decode(Model, record["recipe"]["model"], f"{record['name']}.model")
    absent: ModelError | None = None
    for name in dict.fromkeys([model.name, record.get("model_folder", model.name)]):
        try:
            found = Source(replace(model, name=name), opening.fingerprint(name, model.revision))
        except ModelError as error:
            absent = absent or error
            continue
        if not key or model.name == "new" or found.key == key:
            return found
    if absent is not None and "model_folder" not in record:
        raise absent
    raise StoreError(
        f"the run {record['name']} began with another model than what is {model.name} now: its files have changed, or "
        "another folder has that name here; give the run the model it had, or run the recipe again"
    )


def _step(name: str, record: Mapping[str, Any], store: Store) -> Step:
    """A training step out of what it left, with the steps before it that opening its encoder may need."""
    kind, _, key = name.partition("-")
    if not store.has(kind, key):
        raise StoreError(f"the step {name} of the run {record['name']} has not been made yet: effstilts run makes it")
    spec = json.loads((store.open(kind, key).folder / "spec.json").read_text(encoding="utf-8"))
    before = next((s["name"] for s in record["steps"] if s["name"].endswith(f"-{spec['base']}")), None)
    # A step that was trained in full holds its whole encoder: what came before matters for the head of phase 1 alone.
    base: Source | Step | None = None
    if before is None:
        try:
            base = _source(record, spec["base"])
        except (ModelError, StoreError):
            if spec["method"]["name"] != "full":
                raise
    elif spec["method"]["name"] != "full" or store.has(*before.split("-", 1)):
        base = _step(before, record, store)
    settings = {key: value for key, value in spec["method"].items() if key != "below"}  # a version's mark
    method = decode(Method, settings, f"{name}.method")
    return Step(kind, key, name, spec, _never, base=base, method=method)


def _never(bench: Workbench, step: Step) -> None:
    raise AssertionError(f"{step.name} is there to be read")
