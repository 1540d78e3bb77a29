"""What each kind of step does: train a tokenizer or a phase, combine arms, evaluate a target, retrieve sentences."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from effstilts.cost.meter import Meter
from effstilts.data.cache import Rows
from effstilts.data.order import Order, Share, key, mixture
from effstilts.engine.checkpoint import Checkpoints
from effstilts.engine.choice import make_engine
from effstilts.engine.guard import collapse, failures
from effstilts.engine.loop import TrainTask, train
from effstilts.engine.plain import Model, to_tensors
from effstilts.engine.predict import predict
from effstilts.engine.ranks import ALONE, Ranks
from effstilts.errors import DataError, TrainingError
from effstilts.kinds import kind_of
from effstilts.log import JsonLines, Log
from effstilts.model import adapters, alignment, encoder, opening, quantised
from effstilts.model.combine import add_combined
from effstilts.recipe import Training
from effstilts.retrieval.evaluate import EVALUATORS, Trial, passed_over, poolings
from effstilts.store import write_atomic
from effstilts.tasks.task import SplitName
from effstilts.workbench import ENCODER_FOLDER, Step, TaskPart, Workbench, save_heads


def make_tokenizer(bench: Workbench, step: Step) -> None:
    """Trains an XLM-R-like tokenizer on the text of phase 1 and keeps it as a transformers folder."""
    from effstilts.model.tokenizer import as_transformers, train_tokenizer

    rows = tokenizer_rows([bench.count(part, "train") for part in step.parts], shares_of(step.parts))
    texts = (
        text
        for part, count in zip(step.parts, rows, strict=True)
        for example in islice(bench.examples(part, "train"), count)
        for text in (example["text"], example.get("text_pair"))
        if text
    )
    coverage = float(step.spec.get("coverage", 1.0))
    tokenizer = as_transformers(train_tokenizer(texts, int(step.spec["vocab_size"]), coverage))

    def fill(folder: Path) -> None:
        tokenizer.save_pretrained(folder)

    bench.store.put(step.kind, step.key, fill, {"label": step.label, "pieces": len(tokenizer)})


def align_pieces(bench: Workbench, step: Step) -> None:
    """Which pieces of the tokenizer translate each other in the parallel text of phase 1."""
    opened = bench.open_encoder(step.base)
    special = opened.token_ids().special
    encoded = [bench.rows(part, "train", opened).head(alignment.MOST_PAIRS) for part in step.parts]
    if not bench.ranks.leads:
        return
    found = []
    for part, rows in zip(step.parts, encoded, strict=True):
        # Masked LM's rows of two texts: <s> A </s></s> B </s>, the second beginning at `restart`; 0 where it is blank.
        texts = [
            [side[~np.isin(side, special)] for side in np.split(ids, [start])]
            for ids, start in zip(rows["input_ids"], rows["restart"].tolist(), strict=True)
            if start
        ]
        if not texts:
            raise DataError(
                f"model.aligned_by: {part.name}: its rows are one text each, not a text and its translation"
            )
        found.append(alignment.align(*zip(*texts, strict=True)))
    links = alignment.merged(found)

    def fill(folder: Path) -> None:
        alignment.write(links, folder)

    bench.store.put(step.kind, step.key, fill, {"label": step.label, "links": len(links.piece)})


def tokenizer_rows(sizes: Sequence[int], shares: Sequence[Share]) -> list[int]:
    """First rows of each part that a tokenizer is trained on: all of them, but of the languages of one task as many
    as stand to each other like rows ** exponent, so that small languages get pieces (Conneau et al. 2020, section
    3.1). The language that is shortest of its share gives all its rows."""
    taken = list(sizes)
    for group in {share.group for share in shares if share.group}:
        own = [i for i, share in enumerate(shares) if share.group == group]
        wanted = {i: sizes[i] ** shares[i].exponent for i in own}
        scale = min(sizes[i] / wanted[i] for i in own)
        for i in own:
            taken[i] = min(sizes[i], round(scale * wanted[i]))
    return taken


def train_phase(bench: Workbench, step: Step) -> None:
    """Trains the encoder of a phase with its tasks' heads, and keeps the weights that did best on dev. A training that
    failed is named, and begun again with another seed as often as `restarts` allows."""
    work = bench.store.work_folder(step.kind, step.key)
    record = work / "failed.json"
    failed: list[list[str]] = bench.ranks.tell(lambda: _failed_before(record))
    while found := _train(bench, step, work, failed):
        failed.append(found)
        if bench.ranks.leads:
            write_atomic(record, json.dumps(failed, ensure_ascii=False))


_NOT_FINITE = "the weights are not finite in the end"


def _failed_before(record: Path) -> list[list[str]]:
    with contextlib.suppress(OSError, ValueError):
        return list(json.loads(record.read_text(encoding="utf-8")))
    return []


def _train(bench: Workbench, step: Step, work: Path, failed: Sequence[Sequence[str]]) -> list[str]:
    """One training, whose artefact is put into the store; or what failed, where it is to be begun again. failed: what
    earlier ones did; each draws from a seed of its own, which is no other run's."""
    ranks = bench.ranks
    seed = int(key(step.seed, 5, len(failed))) >> 1 if failed else step.seed
    place = work / f"restart-{len(failed)}" if failed else work
    events = JsonLines(work / "events.jsonl") if ranks.leads else None
    log = Log(*bench.log.sinks, *([events] if events else []), quiet=bench.log.quiet)
    meter = Meter(bench.device)
    try:
        torch.manual_seed(int(key(seed, 6)) >> 1)
        opened = bench.open_for_training(step)
        # Adapters draw while they are attached or merged: the heads of two arms begin alike all the same.
        torch.manual_seed(int(key(seed, 3)) >> 1)
        model = Model(opened, bench.heads(step, opened, fresh=True)).to(bench.device)
        tasks = [_train_task(bench, part, opened) for part in step.parts]
        order, counted = _order(step, [len(task.rows) for task in tasks], seed)
        steps = step.training.steps or order.steps_for(step.training.epochs, counted)
        engine = make_engine(bench.spread, model, step.training, bench.device, ranks, step.method, steps)
        model.train()
        meter.training_begins()
        progress, chosen = train(
            engine,
            tasks,
            order,
            steps,
            step.training,
            opened.token_ids(),
            seed,
            _dev_scores(bench, step, model),
            Checkpoints(place, log),
            log,
            step.label,
            ranks,
        )
        found = failures(progress)
        finite = ranks.tell(lambda: all(bool(tensor.isfinite().all()) for tensor in chosen.values()))
        if not finite:
            found = [*found, _NOT_FINITE]
        again = bool(found) and len(failed) < step.training.restarts
        for problem in found if ranks.leads else ():
            log.warn(f"{step.label}: {problem}" + ("; begun again with another seed" if again else ""))
        if not finite and not again:
            raise TrainingError(f"{step.label}: {_NOT_FINITE}; lower training.learning_rate")
        if again or not ranks.leads:
            return found if again else []
        cost = meter.facts(model, progress)
        own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(chosen[name])
        drift = _merge_drift(bench, step, opened, tasks[0], work) if step.method.name in quantised.FORMS else {}
    finally:
        if events is not None:
            events.close()

    def fill(folder: Path) -> None:
        if not step.leaves_adapter:
            opening.save(opened, folder / ENCODER_FOLDER)
        else:
            adapters.save(opened, folder / adapters.FOLDER)
        save_heads({part.head: model.head(part.head) for part in step.parts}, folder)
        (folder / "spec.json").write_text(json.dumps(step.spec, indent=1, ensure_ascii=False), encoding="utf-8")
        if (work / "events.jsonl").is_file():
            (folder / "events.jsonl").write_bytes((work / "events.jsonl").read_bytes())

    facts = {
        "label": step.label,
        "steps": progress.step,
        "planned_steps": steps,
        "best_step": progress.best_step if progress.best_step >= 0 else progress.step,
        "history": progress.history,
        **({"failed": found} if found else {}),
        **({"restarts": list(failed)} if failed else {}),
        "mean_loss": progress.loss_sum / max(progress.step, 1),
        "rows": {task.name: len(task.rows) for task in tasks},
        "encoder": encoder.describe(opened),
        **drift,
        **({"ranks": kept} if (kept := adapters.ranks(opened)) else {}),
        **cost,
    }
    bench.store.put(step.kind, step.key, fill, facts)
    return []


def combine_arms(bench: Workbench, step: Step) -> None:
    """Adds arms of phase 2 by weights: low-rank adapters as one adapter, anything else as whole weights."""
    opened = bench.open_encoder(step.base)
    if step.leaves_adapter:
        scale = step.phase.combine.scale
        parts = [(bench.store.open(s.kind, s.key).folder / adapters.FOLDER, w * scale) for s, w in step.arms]
        adapters.concatenate(opened, step.method, parts)
    else:
        arms = [(bench.open_encoder(arm), weight) for arm, weight in step.arms]
        add_combined(opened, arms, step.phase.combine, step.seed)

    def fill(folder: Path) -> None:
        if step.leaves_adapter:
            adapters.save(opened, folder / adapters.FOLDER)
        else:
            opening.save(opened, folder / ENCODER_FOLDER)
        (folder / "spec.json").write_text(json.dumps(step.spec, indent=1, ensure_ascii=False), encoding="utf-8")

    facts = {
        "label": step.label,
        "combined": [[arm.label, weight] for arm, weight in step.arms],
        "encoder": encoder.describe(opened),
    }
    bench.store.put(step.kind, step.key, fill, facts)


def _merge_drift(
    bench: Workbench, step: Step, trained: encoder.Encoder, task: TrainTask, work: Path
) -> dict[str, float]:
    """How far the adapter merged into full precision, which is what later steps and evaluation use, is from the adapter
    on its quantised base: mean |difference| of the last hidden states over their mean magnitude, on 8 training rows."""
    adapters.save(trained, work / "drift")
    merged = bench.open_encoder(step.adapter_base)
    adapters.load_merged(merged, work / "drift")
    rows = list(range(min(8, len(task.rows))))
    seeds = np.zeros(len(rows), np.uint64)
    arrays = task.kind.collate(task.rows, rows, seeds, trained.token_ids(), step.training.mask_share)
    was_training = trained.training
    states = []
    with torch.no_grad():
        for one in (trained.eval(), merged.to(bench.device).eval()):
            batch = to_tensors(arrays, bench.device)
            ids = batch["input_ids"].reshape(-1, batch["input_ids"].shape[-1])
            states.append(one(ids, batch["attention_mask"].reshape(ids.shape)).float())
    trained.train(was_training)
    difference = (states[0] - states[1]).abs().mean() / states[1].abs().mean()
    return {"merge_drift": round(float(difference), 6)}


def _train_task(bench: Workbench, part: TaskPart, opened: encoder.Encoder) -> TrainTask:
    kind = kind_of(part.task.kind)
    rows = bench.rows(part, "train", opened)

    def sample_ids(indices: Sequence[int]) -> list[str]:
        examples = bench.examples(part, "train")
        return [str(examples[int(rows["example"][i])]["where"]) for i in indices]

    return TrainTask(part.name, kind, part.head, rows, kind.widths(rows), sample_ids)


def _order(step: Step, sizes: list[int], seed: int) -> tuple[Order, list[int]]:
    """The order of a step's rows, and the rows of each part that count for an epoch."""
    phase = step.phase
    weights, counted = mixture(
        sizes, shares_of(step.parts), phase.cap, phase.temperature, fixed=phase.mixing == "fixed"
    )
    return Order(tuple(sizes), weights, step.training.batch_size, seed), counted


def shares_of(parts: Sequence[TaskPart]) -> list[Share]:
    """What each part is to the mixture."""
    return [
        Share(part.task.name if part.language_exponent else "", part.weight, part.language_exponent) for part in parts
    ]


def selection_groups(parts: Sequence[TaskPart]) -> dict[str, list[TaskPart]]:
    """Task -> its parts, of the tasks whose dev score selects weights. Beside others masked LM does not count: its
    accuracy is of another scale and rises for as long as it is trained."""
    groups: dict[str, list[TaskPart]] = {}
    for part in parts:
        groups.setdefault(part.task.name, []).append(part)
    others = {name: own for name, own in groups.items() if not kind_of(own[0].task.kind).shared_head}
    return others or groups


def _dev_scores(bench: Workbench, step: Step, model: Model) -> Callable[[], Mapping[str, Any]] | None:
    """Scores on the first `evaluate_examples` of each part's dev split, in the training language; "score", what
    selection goes by, is the mean over tasks with equal weight (jiant's EqualMetricAggregator), of a task's languages
    their mean; "collapsed" names the parts with one answer for all rows. None where no part has a dev split."""
    training = step.training
    parts = [part for part in step.parts if bench.has_split(part.selection(), "dev")]
    if not parts:
        return None
    dev = [part.selection(training.evaluate_examples) for part in parts]
    rows = [bench.rows(part, "dev", model.encoder) for part in dev]
    groups = selection_groups(dev)

    def scores() -> Mapping[str, Any]:
        found: dict[str, float] = {}
        collapsed = []
        for trained, part, own in zip(parts, dev, rows, strict=True):
            metrics, predictions = _score(bench, part, "dev", model, trained.head, own, training)
            found[part.name] = metrics[part.task.score]
            collapsed += [f"{part.name} {note}"] if (note := collapse(predictions)) else []
        of_tasks = [fmean(found[part.name] for part in own) for own in groups.values()]
        return {**found, "score": fmean(of_tasks), **({"collapsed": "; ".join(collapsed)} if collapsed else {})}

    return scores


def _score(
    bench: Workbench,
    part: TaskPart,
    split: SplitName,
    model: Model,
    head: str,
    rows: Rows,
    training: Training,
    ranks: Ranks = ALONE,
) -> tuple[dict[str, float], list[Any]]:
    """Metrics and predictions of a head on a split. Of several ranks, which share the rows, the first has them."""
    kind = kind_of(part.task.kind)
    examples = bench.examples(part, split) if ranks.leads else []
    predictions = predict(
        kind,
        part.task,
        model,
        head,
        examples,
        rows,
        training.precision,
        training.micro_tokens,
        training.mask_share,
        log=bench.log,
        ranks=ranks,
    )
    if not ranks.leads:
        return {}, []
    return kind.score(part.task, predictions, examples, part.language), predictions


def evaluate_target(bench: Workbench, step: Step) -> None:
    """Scores a trained target model in one language, the rows shared by the ranks; keeps the metrics and every
    prediction."""
    (part,) = step.parts
    trained = step.base
    assert isinstance(trained, Step)
    meter = Meter(bench.device, collects=False)  # a number may take less than the collecting
    model = bench.open_model(trained)
    rows = bench.rows(part, step.split, model.encoder)
    head = trained.parts[0].head
    metrics, predictions = _score(bench, part, step.split, model, head, rows, step.training, bench.ranks)
    if not bench.ranks.leads:
        return
    cost = meter.of_scoring(model.encoder, int(rows["input_ids"].lengths.sum()))
    examples = bench.examples(part, step.split)

    def fill(folder: Path) -> None:
        with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
            for example, prediction in zip(examples, predictions, strict=True):
                line = {"id": example["id"], "prediction": prediction}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    collapsed = collapse(predictions)
    if collapsed:
        bench.log.warn(f"{step.label}: {collapsed}")
    facts = {
        "label": step.label,
        "metrics": metrics,
        "score": metrics[part.task.score],
        "metric": part.task.score,
        "examples": len(examples),
        "collapsed": collapsed,
        "spec": dict(step.spec),
        **cost,
    }
    bench.store.put(step.kind, step.key, fill, facts)


def retrieve(bench: Workbench, step: Step) -> None:
    """One language of a retrieval task from pooled hidden states; keeps the predictions in the official form."""
    (part,) = step.parts
    meter = Meter(bench.device, collects=False)  # a number may take less than the collecting
    opened = bench.open_bare(step.base)
    settings = step.retrieval
    evaluator = EVALUATORS[part.task.kind]
    rows = replace(part, rows=0) if evaluator.limits_rows else part
    over = poolings(opened, settings)

    def examples(split: SplitName) -> Sequence[Mapping[str, Any]]:
        return bench.retrieval_examples(rows, split)

    length = part.task.max_length
    sweep = evaluator.evaluate(Trial(opened, examples, step.split, settings, length, over, tune="dev" in step.spec))
    (outcome,) = sweep.outcomes.values()
    cost = meter.of_scoring(opened, outcome.tokens, outcome.facts["layer"])

    def fill(folder: Path) -> None:
        lines = "".join(f"{line}\n" for line in outcome.predictions)
        (folder / f"{step.split}-{part.language}.{outcome.form}").write_text(lines, encoding="utf-8")

    if odd := passed_over(outcome, min(length, opened.max_length), settings):
        bench.log.warn(f"{step.label}: {odd}")
    facts = {
        "label": step.label,
        "metrics": outcome.metrics,
        "score": outcome.score,
        "metric": outcome.metric,
        "examples": len(examples(step.split)),
        "collapsed": "",
        **outcome.facts,
        "spec": dict(step.spec),
        **cost,
    }
    bench.store.put(step.kind, step.key, fill, facts)
