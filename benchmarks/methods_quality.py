"""What each method scores: `effstilts run` on a recipe with one key changed, many methods in one store.

The whole procedure runs by the method: the intermediate task, its adapter merged, then every target. Phase 1 of
quickstart is full fine-tuning from nothing, shared by all. What the store holds is not run again.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, get_args, get_type_hints

from effstilts.cli import main as effstilts
from effstilts.recipe import Method
from effstilts.store import Store

METHODS: tuple[str, ...] = get_args(get_type_hints(Method)["name"])

# Peak learning rates of the adapters, the same for every task and arm, not tuned here; `full` has the recipe's own.
# They lie at or above the upper end of what the methods' papers use for encoders (LoRA 4e-4 to 5e-4, VeRA 1e-2 with
# heads apart, BitFit 1e-4 to 1e-3; T-Few's IA3 3e-3; LoRA+ with A slow and B 16 times as fast): these runs are short.
RATES = {"loraplus": 2e-4, "vera": 1e-2, "ia3": 8e-3}
RATE = HEAD_RATE = 1e-3


@dataclass(frozen=True)
class Setting:
    """A recipe as the benchmark runs it: one arm, its targets, which are all of the recipe's unless `overrides` says
    otherwise, and the task of retrieval."""

    recipe: str
    arm: str
    targets: int
    retrieval: str
    overrides: tuple[str, ...] = ()


SETTINGS = {
    "quickstart": Setting(
        "quickstart",
        "nli",
        2,
        "synthetic/tatoeba",
        (
            "targets=[{task: synthetic/xnli, training: {steps: 400, learning_rate: 3e-4}}, "
            "{task: synthetic/udpos, training: {steps: 150}}]",
        ),
    ),
    "real-small": Setting(
        "real-small",
        "mnli",
        1,
        "tatoeba",
        (
            "intermediate.mnli.tasks=[{task: mnli-dev-pairs, rows: 1500}]",
            "targets=[{task: udpos, rows: 2000, training: {learning_rate: 2e-4}}]",
            "retrieval.languages=[de, es, fr]",
        ),
    ),
}


def rate(method: str) -> float:
    return RATES.get(method, RATE)


def arguments(setting: Setting, method: str, seed: int, store: Path) -> list[str]:
    """The command line of one run."""
    overrides = [
        f"name=methods-{setting.recipe}-{method}-{seed}",
        f"seeds=[{seed}]",
        f"arms=[{setting.arm}]",
        *setting.overrides,
    ]
    if method != "full":
        overrides += [f"method.name={method}", "mlm.method.name=full"]
        for place in [f"intermediate.{setting.arm}", *(f"targets.{i}" for i in range(setting.targets))]:
            overrides += [
                f"{place}.training.learning_rate={rate(method)}",
                f"{place}.training.head_learning_rate={HEAD_RATE}",
            ]
    command = ["run", setting.recipe, "--store", str(store), "--quiet"]
    for override in overrides:
        command += ["--set", override]
    return command


def run(setting: Setting, method: str, seed: int, store: Path) -> dict[str, Any]:
    """Scores by task and language, seconds and peak memory of the training steps. SystemExit if the run fails."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = effstilts(arguments(setting, method, seed, store))
    if code != 0:
        raise SystemExit(code)
    gc.collect()
    kept = Store(store)
    record = kept.read_run(f"methods-{setting.recipe}-{method}-{seed}")
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for cell in record["cells"]:
        scores[cell["task"]][cell["language"]] = round(cell["score"], 4)
    trained = [step["name"] for step in record["steps"] if step["kind"] in ("intermediate", "target")]
    facts = [kept.facts(*name.split("-", 1)) for name in trained]
    drifts = [of["merge_drift"] for of in facts if "merge_drift" in of]
    return {
        "scores": dict(scores),
        "seconds": round(sum(of["cost"]["seconds"] for of in facts), 1),
        "machine": facts[-1]["machine"],
        **({"merge_drift": max(drifts)} if drifts else {}),
    }


def zero_shot(scores: dict[str, dict[str, float]], setting: Setting) -> float:
    """Mean over the targets of the mean over the languages that were not trained on."""
    return fmean(
        fmean(score for language, score in of.items() if language != "en")
        for task, of in scores.items()
        if task != setting.retrieval
    )


def summary(runs: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Median over seeds and half the range: of the means over tasks of English and of the other languages, of
    retrieval, and of each task."""
    found: dict[str, list[float]] = defaultdict(list)
    for run_ in runs.values():
        scores = run_["scores"]
        found["zero_shot"].append(zero_shot(scores, setting))
        found["english"].append(fmean(of["en"] for task, of in scores.items() if task != setting.retrieval))
        found["retrieval"].append(fmean(scores[setting.retrieval].values()))
        for task, of in scores.items():
            found[task].append(fmean(score for language, score in of.items() if language != "en"))
    return {
        key: {
            "median": round(median(values), 2),
            "half_range": round((max(values) - min(values)) / 2, 2),
            "seeds": len(values),
        }
        for key, values in found.items()
    }
