"""How zero-shot transfer and retrieval answer to cognates and word order, in the artificial languages.

    python benchmarks/sensitivity.py --store STORE --out benchmarks/results/sensitivity.json

Runs phase 1 of `quickstart` in several worlds, and in its own without the alignment of pieces and without training;
then UD POS (baseline arm alone) and Tatoeba; one seed each. Writes the numbers with the machine that gave them, and
prints them as a table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from effstilts.cli import main as effstilts
from effstilts.store import Store

UNTRAINED = ["mlm.training.steps=1", "mlm.training.learning_rate=1e-9"]
WORLDS = {
    "own cognates, own order": [],
    "own cognates, English order": ["synthetic.word_order=english"],
    "no cognates, own order": ["synthetic.cognates=0"],
    "all cognates, own order": ["synthetic.cognates=1"],
    "own cognates, own order, not aligned": ["model.aligned_by=[]"],
    "own cognates, own order, aligned, not trained": [*UNTRAINED],
    "own cognates, own order, no phase 1": [*UNTRAINED, "model.aligned_by=[]"],
}
REDUCED = ["intermediate=null", "targets=[{task: synthetic/udpos, training: {steps: 150}}]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS), metavar="WORLD")
    options = parser.parse_args()
    results: dict[str, dict] = {}
    record: dict = {}
    for world in options.worlds:
        name = "sensitivity-" + world.replace(", ", "-").replace(" ", "-")
        arguments = ["run", "quickstart", "--store", str(options.store), "--quiet", "--set", f"name={name}"]
        for override in [*REDUCED, *WORLDS[world]]:
            arguments += ["--set", override]
        began = time.perf_counter()
        if (code := effstilts(arguments)) != 0:
            raise SystemExit(code)
        record = Store(options.store).read_run(name)
        results[world] = {
            "scores": {f"{c['task']} {c['language']}": round(c["score"], 2) for c in record["cells"]},
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
    (target,) = {s["name"] for s in record["steps"] if s["kind"] == "target"}
    machine = Store(options.store).facts(*target.split("-", 1))["machine"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"seed": 1, "machine": machine, "worlds": results}, indent=1) + "\n")
    columns = [cell for cell in next(iter(results.values()))["scores"] if not cell.endswith(" en")]
    print("| " + " | ".join(["world", *columns]) + " |", "|---" * (len(columns) + 1) + "|", sep="\n")
    for world, found in results.items():
        print("| " + " | ".join([world, *(f"{found['scores'][cell]:.1f}" for cell in columns)]) + " |")


if __name__ == "__main__":
    main()
