"""READ FIRST: the three phases as a graph of steps.

    checkpoint ─▶ mlm ─▶ intermediate (one for each arm) ─▶ target (one for each task) ─▶ evaluate (each language)
                              │            ▲
                              │            └ or combine (several arms by weights)
                              └──────▶ retrieve (each task and language)

A step's key is the hash of its part of the recipe, the keys of its inputs, the fingerprint of its data and the
numerics version. Its artefact is in the store under that key, or it is made; nothing is made twice. `build` only
looks (no model is loaded, nothing is trained); `run` makes what is missing, in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effstilts.data import layouts, sources
from effstilts.data.order import long_cycle_possible
from effstilts.engine import zero_config
from effstilts.engine.choice import check_spread
from effstilts.errors import DataError, RecipeError, StoreError, TimeUp, did_you_mean
from effstilts.identity import NUMERICS_VERSION, of_method, of_part, of_retrieval, of_training
from effstilts.kinds import kind_of
from effstilts.model.opening import fingerprint as checkpoint_fingerprint
from effstilts.model.opening import tokenizer_fingerprint
from effstilts.model.transplant import VERSION as TRANSPLANT_VERSION
from effstilts.phases import (
    align_pieces,
    combine_arms,
    evaluate_target,
    make_tokenizer,
    retrieve,
    selection_groups,
    shares_of,
    train_phase,
)
from effstilts.recipe import (
    LORA_METHODS,
    SUMMED_METHODS,
    Combine,
    Method,
    Phase,
    Recipe,
    Share,
    Target,
)
from effstilts.retrieval.evaluate import EVALUATORS, evaluator_of
from effstilts.store import Damaged, content_key
from effstilts.tasks.task import SplitName, Task
from effstilts.workbench import Source, Step, TaskPart, Workbench

_TUNED: tuple[SplitName, SplitName] = ("dev", "test")
_SAID = 5  # languages of a task that are left out
_SLOW_ADAPTER = 5e-5  # learning rate


@dataclass(frozen=True)
class Cell:
    """One number of the results table and the step that gives it."""

    section: str
    arm: str
    seed: int
    task: str
    language: str
    split: str
    step: Step


@dataclass
class Graph:
    """Steps in an order in which each comes after its inputs, the cells of the results table, and the encoder that each
    arm and seed ends phase 2 with."""

    steps: list[Step] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    encoders: dict[tuple[str, int], Source | Step] = field(default_factory=dict)

    def add(self, step: Step) -> Step:
        """The step, or the one with the same key that is there already: shared work stands once."""
        for other in self.steps:
            if other.name == step.name:
                return other
        self.steps.append(step)
        return step


def build(recipe: Recipe, bench: Workbench) -> Graph:
    """The graph of a recipe. Reads fingerprints of data and checkpoint; DataError, RecipeError, ModelError if the
    recipe names what does not exist, or ranks come to different graphs."""
    graph = Graph()
    for seed in recipe.seeds:
        base = _phase_one(recipe, bench, graph, seed)
        for arm in recipe.arms or recipe.intermediate:
            encoder = _phase_two(recipe, bench, graph, arm, base, seed)
            graph.encoders[arm, seed] = encoder
            for target in recipe.targets:
                _target(recipe, bench, graph, target, encoder, arm, seed)
            for name in recipe.retrieval.tasks:
                _retrieval(recipe, bench, graph, name, encoder, arm, seed)
    _check_something_is_carried(recipe, graph)
    _say_what_is_left_out(recipe, bench)
    _say_what_learns_slowly(graph, bench)
    # Before anything is written or trained: what rank 0 does next, it does for all.
    bench.ranks.require_same(content_key([step.name for step in graph.steps]), "steps")
    if bench.ranks.world > 1:
        bench.ranks.require_same(content_key(_carried_out(recipe)), "settings of engine or training")
    return graph


def _carried_out(recipe: Recipe) -> list[Any]:
    """How the steps are carried out, which their keys do not say. A DeepSpeed file by what it holds."""
    spread, trainings = recipe.engine, [recipe.mlm.training, *(arm.training for arm in recipe.intermediate.values())]
    return [
        zero_config.read(spread)[1] if spread.zero else {},
        dataclasses.asdict(dataclasses.replace(spread, config="")),
        *map(dataclasses.asdict, [*trainings, *(target.training for target in recipe.targets)]),
        recipe.retrieval.batch_tokens,
    ]


def run(graph: Graph, bench: Workbench, order: Sequence[Step] = (), proceed: Callable[[], bool] = lambda: True) -> None:
    """Makes every step that the store does not hold, and anew what is found damaged. Of several ranks the first decides
    what that is; all of them train and evaluate, and it does the rest alone.

    order: the graph's steps, each after its inputs; none: as they stand. proceed: asked before each step;
    False: TimeUp.
    """
    if bench.ranks.leads:
        for step in graph.steps:
            if problem := bench.store.drop_if_damaged(step.kind, step.key):
                bench.log.warn(f"{step.label} is made again: {problem}")
            bench.store.clear_work(step.kind, step.key)
    again: set[Path] = set()
    while True:
        try:
            _make_missing(order or graph.steps, bench, proceed)
            return
        except Damaged as error:
            if error.folder in again:
                raise
            again.add(error.folder)
            if bench.ranks.leads:
                bench.store.set_aside(error)
                bench.log.warn(f"made again: {error.what}")
            if bench.ranks.world > 1:
                what = "was damaged and is set aside" if bench.ranks.leads else "is damaged on this machine"
                raise StoreError(f"{error.folder} {what}: run the same command again") from error


def check(steps: Sequence[Step], bench: Workbench) -> None:
    """RecipeError, ModelError or MissingDependencyError for what could not be carried out here, or not on this
    encoder."""
    for step in steps:
        if step.trains:
            check_spread(bench.spread, step.training, step.method)
        bench.check_architecture(step)


def _make_missing(steps: Sequence[Step], bench: Workbench, proceed: Callable[[], bool]) -> None:
    ranks = bench.ranks
    names = ranks.tell(lambda: [step.name for step in steps if not bench.store.has(step.kind, step.key)])
    missing = [step for step in steps if step.name in set(names)]
    check(missing, bench)
    for number, step in enumerate(missing, 1):
        if not ranks.tell(proceed):
            left = len(missing) - number + 1
            raise TimeUp(f"the time is up: {left} of {len(steps)} steps are left; the same command goes on")
        with bench.store.lock(step.kind, step.key) if ranks.leads else nullcontext():
            there = bench.store.has(step.kind, step.key)
            if ranks.tell(lambda there=there: there):  # type: ignore[misc]
                continue
            bench.log.say(f"[{number}/{len(missing)}] {step.label}")
            bench.log.event("begin", step=step.name, label=step.label)
            if ranks.leads or step.shared:
                step.make(bench, step)
            ranks.tell(lambda: True)
            bench.await_artefact(step.kind, step.key)
            bench.log.event("done", step=step.name, label=step.label)


def _phase_one(recipe: Recipe, bench: Workbench, graph: Graph, seed: int) -> Source | Step:
    """The checkpoint as it is, or the step that trains phase 1 from it."""
    model = recipe.model
    mlm_seed = seed if recipe.mlm_seed < 0 else recipe.mlm_seed
    base: Source | Step
    if model.name != "new":
        base = Source(model, checkpoint_fingerprint(model.name, model.revision))
        if not recipe.mlm.tasks:
            return base
    else:
        base = _from_nothing(recipe, bench, graph, mlm_seed)
    for share in recipe.mlm.tasks:
        task = bench.task(share.task)
        if not kind_of(task.kind).shared_head:
            raise RecipeError(f"mlm.tasks: {share.task!r} is of kind {task.kind}; phase 1 trains masked_lm tasks")
    label = "mlm" if recipe.mlm_seed >= 0 else f"mlm, seed {seed}"
    return graph.add(_training_step(bench, "mlm", label, recipe.mlm, base, mlm_seed))


def _from_nothing(recipe: Recipe, bench: Workbench, graph: Graph, seed: int) -> Source:
    """Random weights, or another encoder's blocks, under a vocabulary of their own."""
    model = recipe.model
    identity: dict[str, Any] = {"config": dict(model.config), "seed": seed}
    tokenizer = alignment = None
    if model.tokenizer:
        identity["tokenizer"] = tokenizer_fingerprint(model.tokenizer, model.revision)
    else:
        parts = _parts(bench, recipe.mlm.tasks, "masked_lm")
        exponents = [part.language_exponent for part in parts]
        spec: dict[str, Any] = {
            "vocab_size": model.vocab_size,
            "texts": [of_part(bench, part, "train") for part in parts],
            **({"coverage": model.character_coverage} if model.character_coverage != 1.0 else {}),
            **({"exponents": exponents} if any(exponents) else {}),
            "numerics": NUMERICS_VERSION,
        }
        label = f"tokenizer of {model.vocab_size} pieces"
        tokenizer = graph.add(Step("tokenizer", content_key(spec), label, spec, make_tokenizer, parts=parts))
        identity["tokenizer"] = tokenizer.key
    if model.body:
        identity |= {"body": checkpoint_fingerprint(model.body, model.body_revision), "transplant": TRANSPLANT_VERSION}
    if model.aligned_by:
        parallel = [share for share in recipe.mlm.tasks if share.task in model.aligned_by]
        parts = _parts(bench, parallel, "masked_lm")
        base = Source(model, identity, tokenizer=tokenizer, seed=seed)
        spec = {
            "phase": "alignment",
            "tokenizer": identity["tokenizer"],
            # Rows are cut to what the encoder takes.
            "positions": model.config.get("max_position_embeddings"),
            "texts": [of_part(bench, part, "train") for part in parts],
            "numerics": NUMERICS_VERSION,
        }
        label = f"alignment of pieces by {', '.join(share.task for share in parallel)}"
        step = Step("alignment", content_key(spec), label, spec, align_pieces, parts=parts, base=base, shared=True)
        alignment = graph.add(step)
        identity = identity | {"alignment": alignment.key, "transplant": TRANSPLANT_VERSION}
    return Source(model, identity, tokenizer=tokenizer, alignment=alignment, seed=seed)


def _phase_two(
    recipe: Recipe, bench: Workbench, graph: Graph, arm: str, base: Source | Step, seed: int
) -> Source | Step:
    """The encoder of an arm: phase 1's as it is, trained on, or a combination of other arms'."""
    phase = recipe.intermediate[arm]
    label = f"intermediate {arm}, seed {seed}"
    if phase.tasks:
        return graph.add(_training_step(bench, "intermediate", label, phase, base, seed))
    if not phase.combine.arms:
        return base
    arms = [
        (step, weight)
        for name, weight in phase.combine.arms.items()
        if isinstance(step := _phase_two(recipe, bench, graph, name, base, seed), Step)
    ]
    # By content and not by name, so that names do not change the outcome.
    return graph.add(_combination(label, phase.combine, sorted(arms, key=lambda a: (a[0].key, a[1])), base, seed))


def _combination(
    label: str, combine: Combine, arms: Sequence[tuple[Step, float]], base: Source | Step, seed: int
) -> Step:
    """A sum of low-rank adapters is one of the sum of their ranks; anything else is kept as whole weights."""
    method = Method()
    methods = [step.method for step, _ in arms]
    if (
        combine.how == "linear"
        and all(m.name in SUMMED_METHODS and m.targets == methods[0].targets for m in methods)
        and all(step.adapter_base is not None and step.adapter_base.key == base.key for step, _ in arms)
    ):
        rank = sum(m.rank for m in methods)
        method = dataclasses.replace(methods[0], name="lora", rank=rank, alpha=float(rank), carry="merge")
    spec = {
        "phase": "combine",
        "arms": [[step.key, weight] for step, weight in arms],
        "how": combine.how,
        "scale": combine.scale,
        **({"density": combine.density} if combine.how != "linear" else {}),
        "method": of_method(method, base),
        "base": base.key,
        "seed": seed,
        "numerics": NUMERICS_VERSION,
    }
    return Step(
        kind="combine",
        key=content_key(spec),
        label=label,
        spec=spec,
        make=combine_arms,
        base=base,
        phase=Phase(combine=combine),
        method=method,
        seed=seed,
        per_seed=True,
        arms=tuple(arms),
    )


def _target(
    recipe: Recipe, bench: Workbench, graph: Graph, target: Target, encoder: Source | Step, arm: str, seed: int
) -> None:
    """Training on the English rows, then one evaluation for each language."""
    task = bench.task(target.task)
    _check_score(task)
    trained_on = bench.task(target.train_on or task.train_on or task.name)
    if trained_on.kind != task.kind or trained_on.labels != task.labels:
        raise RecipeError(
            f"targets: {task.name} cannot be evaluated by a model trained on {trained_on.name}: "
            f"{trained_on.kind} with labels {list(trained_on.labels)} against {task.kind} with {list(task.labels)}"
        )
    languages = _languages(bench, task, target.languages)
    if task.train_first and not target.train_on:
        encoder = _train_first(bench, graph, task, target, encoder, arm, seed)
    phase = Phase(tasks=(Share(trained_on.name, rows=target.rows),), training=target.training, method=target.method)
    label = f"target {trained_on.name} ← {arm}, seed {seed}"
    selected_on = task if target.select_on == "target" and task.name != trained_on.name else None
    trained = graph.add(_training_step(bench, "target", label, phase, encoder, seed, selected_on))
    for language, split in languages.items():
        part = TaskPart(task, language, rows=recipe.data.evaluation_rows)
        spec = {
            "task": of_part(bench, part, split),
            "model": trained.key,
            "precision": target.training.precision,
            "numerics": NUMERICS_VERSION,
        }
        step = Step(
            kind="evaluate",
            key=content_key(spec),
            label=f"evaluate {task.name} {language} ← {arm}, seed {seed}",
            spec=spec,
            parts=(part,),
            split=split,
            base=trained,
            training=target.training,
            make=evaluate_target,
            shared=True,
        )
        graph.cells.append(Cell("target", arm, seed, task.name, language, split, graph.add(step)))


def _train_first(
    bench: Workbench, graph: Graph, task: Task, target: Target, encoder: Source | Step, arm: str, seed: int
) -> Step:
    """The training that comes before a target's own, whose head goes on there (XTREME-R's XCOPA: SIQA, then COPA)."""
    first = bench.task(task.train_first)
    if first.kind != task.kind or first.labels != task.labels:
        raise RecipeError(f"targets: {task.name} cannot begin with {first.name}: another kind, or other labels")
    phase = Phase(tasks=(Share(first.name, rows=target.rows),), training=target.training, method=target.method)
    label = f"target {first.name}, before {task.train_on or task.name} ← {arm}, seed {seed}"
    return graph.add(_training_step(bench, "target", label, phase, encoder, seed))


def _retrieval(
    recipe: Recipe, bench: Workbench, graph: Graph, name: str, encoder: Source | Step, arm: str, seed: int
) -> None:
    task = bench.task(name)
    evaluator_of(task, "retrieval.tasks")
    settings = recipe.retrieval.of(name)
    pool = bench.pool(task)
    for language, (split, tuned) in retrieval_splits(bench, task, settings.languages).items():
        part = TaskPart(task, language, rows=settings.rows)
        spec = {
            "task": of_part(bench, part, split),
            **({"dev": of_part(bench, part, "dev")} if tuned else {}),
            **({"pool": [of_part(bench, TaskPart(task, other), split) for other in pool]} if pool else {}),
            **of_retrieval(settings),
            "model": encoder.key,
            "numerics": NUMERICS_VERSION,
        }
        step = Step(
            kind="retrieve",
            key=content_key(spec),
            label=f"retrieve {task.name} {language} ← {arm}" + (f", seed {seed}" if encoder.per_seed else ""),
            spec=spec,
            parts=(part,),
            split=split,
            base=encoder,
            retrieval=settings,
            make=retrieve,
        )
        graph.cells.append(Cell("retrieval", arm, seed, task.name, language, split, graph.add(step)))


def _check_dev(label: str, part: TaskPart, bench: Workbench) -> None:
    """Dev rows that a task declares and that are not there: DataError where the recipe itself names their file, else
    said, since then no step is chosen."""
    if bench.has_split(part, "dev") or not layouts.declares(part.task, "dev"):
        return
    try:
        sources.source_of(part.task, "dev", part.language, bench.where)
    except DataError as error:
        if part.task.name in bench.dev_files:
            raise
        if part.name not in bench.without_dev:
            bench.log.warn(f"{label}: no dev rows to choose a step on, the last one is taken: {error}")
        bench.without_dev.add(part.name)


def _training_step(
    bench: Workbench,
    kind: str,
    label: str,
    phase: Phase,
    base: Source | Step,
    seed: int,
    selected_on: Task | None = None,
) -> Step:
    """A step that trains an encoder, of any of the three phases."""
    parts = _parts(bench, phase.tasks, kind)
    if selected_on is not None:
        parts = tuple(dataclasses.replace(part, selected_on=selected_on) for part in parts)
        for part in parts:
            # Without such a dev set the last weights would be taken, and nobody told.
            _known_language(selected_on, part.language)
            sources.source_of(selected_on, "dev", part.language, bench.where)
    for part in parts if phase.training.evaluate_every else ():
        _check_dev(label, part.selection(), bench)
    _check_carry(label, phase.method, base)
    spec = {
        "phase": kind,
        "tasks": [
            {
                "train": of_part(bench, part, "train"),
                "dev": of_part(bench, part.selection(part.rows), "dev")
                if bench.has_split(part.selection(), "dev")
                else None,
                "weight": part.weight,
                **({"language_exponent": part.language_exponent} if part.language_exponent else {}),
            }
            for part in parts
        ],
        # Selection was once by the mean over parts; with one evaluation alone there is nothing to select.
        **(
            {"selection": "tasks"}
            if phase.training.evaluate_every and len(parts) > len(selection_groups(parts))
            else {}
        ),
        "mixing": [phase.mixing, phase.cap, phase.temperature] if len(parts) > 1 else None,
        # The cycle had 1,000 steps once, whatever the shares.
        **(
            {"cycle": "by shares"}
            if len(parts) > 1 and long_cycle_possible(shares_of(parts), phase.mixing == "fixed")
            else {}
        ),
        "training": of_training(phase.training),
        "method": of_method(phase.method, base),
        # Once heads were drawn after what adapters draw.
        **({"heads": "apart"} if _opening_draws(phase.method, base) else {}),
        "base": base.key,
        "seed": seed,
        "numerics": NUMERICS_VERSION,
    }
    return Step(
        kind=kind,
        key=content_key(spec),
        label=label,
        spec=spec,
        parts=parts,
        base=base,
        phase=phase,
        training=phase.training,
        method=phase.method,
        seed=seed,
        per_seed=True,
        make=train_phase,
        trains=True,
        shared=True,
    )


def _opening_draws(method: Method, base: Source | Step) -> bool:
    """Whether random numbers are drawn while the encoder is opened: for an adapter that is attached or merged."""
    merges = isinstance(base, Step) and base.leaves_adapter and method.carry != "fresh"
    return method.name != "full" or merges


def _check_carry(label: str, method: Method, base: Source | Step) -> None:
    """RecipeError where the adapter of the phase before cannot be carried over as the method says."""
    if not isinstance(base, Step):
        return
    if not base.leaves_adapter:
        if method.carry != "merge" and any(step.leaves_adapter for step, _ in base.arms):
            raise RecipeError(
                f"{label}: carry {method.carry}: these arms, combined by {base.phase.combine.how}, are whole weights "
                "and no adapter any more; use carry merge"
            )
        return
    before = base.method
    if method.name == "full" and method.carry in ("continue", "stack"):
        raise RecipeError(f"{label}: carry {method.carry} needs an adapter in both phases; full fine-tuning merges it")
    if method.carry == "continue" and before.name == method.name == "adalora":
        raise RecipeError(
            f"{label}: carry continue: the phase before has spent adalora's rank budget; merge it and start a fresh one"
        )
    shapes = [(m.name, m.rank, m.alpha, m.dropout, tuple(m.targets)) for m in (before, method)]
    if method.carry == "continue" and shapes[0] != shapes[1]:
        raise RecipeError(
            f"{label}: carry continue needs the same method, rank and alpha, dropout and targets in both phases; the "
            f"phase before has {before.name}, {before.rank}, {before.alpha:g}, {before.dropout:g} and "
            f"{', '.join(before.targets) or 'the default targets'}"
        )
    if method.carry == "stack" and not {method.name, before.name} <= set(LORA_METHODS):
        raise RecipeError(
            f"{label}: carry stack needs adapters of the LoRA family, not {before.name} and {method.name}"
        )
    if method.carry == "stack" and method.name == "dora":
        raise RecipeError(
            f"{label}: carry stack: dora scales the weights' columns as they are without the adapter below; use carry "
            "merge"
        )


def _say_what_is_left_out(recipe: Recipe, bench: Workbench) -> None:
    """Of tasks that the recipe declares: languages that it names and no source has."""
    for name in [target.task for target in recipe.targets if not target.languages]:
        task = bench.task(name)
        if name not in bench.declared:
            continue
        found = sources.evaluation_splits(task, bench.where)
        missing = [language for language in task.languages if language not in found]
        if len(missing) > _SAID:
            bench.log.warn(f"{name}: no rows in {len(missing)} of {len(task.languages)} languages: not evaluated")
            continue
        for language in missing:
            try:
                sources.source_of(task, task.evaluate_on, language, bench.where)
            except DataError as error:
                bench.log.warn(f"{error}: not evaluated")


def _say_what_learns_slowly(graph: Graph, bench: Workbench) -> None:
    """Adapters at a learning rate of full fine-tuning: they begin at nothing, and end near it."""
    slow: dict[tuple[str, float], list[str]] = {}
    for step in graph.steps:
        rate = step.training.learning_rate
        if step.leaves_adapter and rate < _SLOW_ADAPTER:
            slow.setdefault((step.method.name, rate), []).append(step.label)
    for (method, rate), labels in slow.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        bench.log.warn(
            f"{labels[0]}{more}: {method} at a learning rate of {rate:g}; adapters usually take 1e-4 to 1e-3, "
            f"and hardly move below {_SLOW_ADAPTER:g}"
        )


def _check_something_is_carried(recipe: Recipe, graph: Graph) -> None:
    """RecipeError where targets would carry an adapter over and every intermediate phase trains the weights themselves.
    Some arms without one are meant: the baseline has no phase before."""
    before = [
        step for step in graph.encoders.values() if isinstance(step, Step) and step.kind in ("intermediate", "combine")
    ]
    if not before or any(step.leaves_adapter or any(arm.leaves_adapter for arm, _ in step.arms) for step in before):
        return
    for target in recipe.targets:
        if target.method.carry != "merge":
            raise RecipeError(
                f"target {target.task}: carry {target.method.carry}: no intermediate phase leaves an adapter, all are "
                "trained by full; use carry merge"
            )


def _parts(bench: Workbench, shares: Sequence[Share], phase: str) -> tuple[TaskPart, ...]:
    """One part for each task and training language."""
    parts = []
    for share in shares:
        task = bench.task(share.task)
        if task.kind in EVALUATORS:
            raise RecipeError(f"{phase}: {share.task!r} is an evaluation of retrieval; nothing trains on it")
        _check_score(task)
        all_languages = bool(kind_of(task.kind).shared_head)
        default = task.languages if all_languages else (task.training_language,)
        for language in share.languages or default:
            _known_language(task, language)
            parts.append(TaskPart(task, language, share.rows, share.weight, share.language_exponent))
    return tuple(parts)


def _languages(bench: Workbench, task: Task, wanted: tuple[str, ...]) -> dict[str, SplitName]:
    """The languages asked for, or all that the source has, and the split that each is evaluated on."""
    for language in wanted:
        _known_language(task, language)
    found = sources.evaluation_splits(task, bench.where)
    return {language: found.get(language, task.evaluate_on) for language in wanted or found}


def retrieval_splits(bench: Workbench, task: Task, wanted: tuple[str, ...]) -> dict[str, tuple[SplitName, bool]]:
    """Language -> the split that is scored, and whether a threshold is set on dev for it.

    A task with a threshold is scored on its test set where that is there, else on dev, cross-fitted.
    """
    if not EVALUATORS[task.kind].tunes_on_dev:
        return {language: (split, False) for language, split in _languages(bench, task, wanted).items()}
    found: dict[str, tuple[SplitName, bool]] = {}
    for language in wanted or task.languages:
        _known_language(task, language)
        dev, test = (bench.has_split(TaskPart(task, language), split) for split in ("dev", "test"))
        if dev and test:
            # A folder with dev alone is not made up from the hub.
            given = [sources.source_of(task, split, language, bench.where) for split in _TUNED]
            test = given != ["files", "hub"]
        if test or dev or wanted:
            found[language] = ("test", dev) if test else ("dev", False)
    return found or {language: (split, False) for language, split in _languages(bench, task, wanted).items()}


def _check_score(task: Task) -> None:
    known = kind_of(task.kind).metrics
    if task.score not in known:
        raise RecipeError(
            f"{task.name}: {task.kind} has no score {task.score!r}{did_you_mean(task.score, known)}; it has "
            f"{', '.join(known)}"
        )


def _known_language(task: Task, language: str) -> None:
    if language not in task.languages:
        raise RecipeError(f"{task.name} has no language {language!r}; it has {', '.join(task.languages)}")
