"""A run's numbers, costs and machine as one JSON file, and its table as text beside it.

python benchmarks/export.py --store STORE --run NAME --out benchmarks/results/NAME.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from effstilts.store import Store
from effstilts.studies.report import table

KEPT = (
    "section", "arm", "seed", "task", "language", "split", "metric", "score", "metrics", "examples", "collapsed",
    "failed", "training_language", "selected_on", "step",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    record = Store(options.store).read_run(options.run)
    cells = [{key: cell[key] for key in KEPT if key in cell} for cell in record["cells"]]
    trained = [step for step in record["steps"] if "cost" in step]
    costs = {
        step["label"]: {"steps": step["done_steps"], "best_step": step["best_step"], **step["cost"]} for step in trained
    }
    costs |= {step["label"]: step["scoring_cost"] for step in record["steps"] if "scoring_cost" in step}
    machine = next((step["machine"] for step in reversed(record["steps"]) if "machine" in step), None)
    done = sum("score" in cell for cell in cells)
    result = {
        "run": options.run,
        "done": f"{done} of {len(cells)} numbers",
        "machine": machine,
        "recipe": record["recipe"],
        "costs": costs,
        "cells": cells,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    options.out.with_suffix(".txt").write_text(table(record, width=118) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
