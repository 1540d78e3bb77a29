"""Every method beside the others: memory, speed, size on disk, quality. Makes the README's table of methods.

    python benchmarks/methods.py memory --rounds 3             # one child process for each measurement
    python benchmarks/methods.py quality --store STORE --data FILES --seeds 3
    python benchmarks/methods.py table                         # OUT.md, OUT.png, the table in README.md

Results go to OUT.json (default: benchmarks/results/methods.json) after each measurement; what stands there is not
measured again, so a part that was stopped goes on. `--again` measures anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import methods_quality as quality
import methods_table as tables
from methods_memory import Case

OUT = Path(__file__).resolve().parent / "results" / "methods.json"
README = Path(__file__).resolve().parents[1] / "README.md"


class Results:
    """The JSON file, written whole after each change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def at(self, *keys: str) -> dict[str, Any]:
        """The node at a path of keys, made where it is not there."""
        node = self.tree
        for key in keys:
            node = node.setdefault(key, {})
        return node

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".partial")
        aside.write_text(json.dumps(self.tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(aside, self.path)


def cases() -> list[Case]:
    """What `memory` measures, what is asked for most first."""
    found = []
    for precision in ("bf16", "fp32"):
        base = Case(precision=precision)
        found += [replace(base, method=method) for method in quality.METHODS]
        found += [
            replace(base, freeze_embeddings=True),
            replace(base, freeze_embeddings=True, freeze_layers=6),
            replace(base, gradient_checkpointing=True),
            replace(base, freeze_embeddings=True, gradient_checkpointing=True),
            replace(base, method="lora", gradient_checkpointing=True),
            replace(base, method="qlora", gradient_checkpointing=True),
        ]
        masked = replace(base, kind="masked_lm")
        found += [masked, replace(masked, full_logits=True), replace(masked, freeze_embeddings=True)]
    large = Case(size="large")
    found += [large, replace(large, freeze_embeddings=True), replace(large, gradient_checkpointing=True)]
    found += [replace(large, method=method) for method in quality.METHODS if method != "full"]
    return found


def key_of(case: Case) -> str:
    """`base bf16 full, frozen embeddings`: a case in words."""
    words = [f"{case.size} {case.precision} {case.method}"]
    words += ["masked LM"] * (case.kind == "masked_lm")
    words += ["logits everywhere"] * case.full_logits
    if case.freeze_layers:
        words.append(f"frozen embeddings and {case.freeze_layers} blocks")
    elif case.freeze_embeddings:
        words.append("frozen embeddings")
    words += ["checkpointing"] * case.gradient_checkpointing
    return ", ".join(words)


def needed(case: Case) -> int:
    """Bytes that should be free before a case begins; generous, so that the machine does not run out."""
    parameters = {"base": 278e6, "large": 560e6}[case.size]
    return int(parameters * (18 if case.method == "full" else 9) + 2e9 + 5e9 * case.full_logits)


def available() -> int:
    """Bytes that a CPU process can still have; unlimited where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 1 << 62
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 1 << 62


def run_memory(results: Results, options: argparse.Namespace) -> None:
    """Rounds outermost, so that speeds are taken A B A B; memory, which hardly differs, in the first round alone."""
    chosen = [
        case
        for case in cases()
        if case.method in options.methods and case.size in options.sizes and case.precision in options.precisions
    ]
    for number in range(options.rounds):
        for case in chosen:
            node = results.at("memory").get(key_of(case), {})
            # Speeds are compared where the README compares them: the plain methods; elsewhere one round serves.
            if len(node.get("rounds", [])) > number or (number and case != Case(method=case.method)):
                continue
            for _ in range(20):
                if available() > needed(case):
                    break
                time.sleep(15)
            else:
                print(f"{key_of(case)}: passed over, {available() / 2**30:.1f} GiB free", flush=True)
                continue
            found = child(replace(case, flops=not number, disk=not number))
            rounds = [*node.get("rounds", []), found.pop("seconds")]
            if not number:
                node = found
            node["rounds"] = rounds
            results.at("memory")[key_of(case)] = node
            results.write()
            print(f"{key_of(case)}: {node['peak_bytes'] / 2**30:.2f} GiB, seconds {rounds[-1]}", flush=True)


def child(case: Case) -> dict[str, Any]:
    """One measurement in a process of its own. SystemExit with the end of its messages where it fails."""
    command = [sys.executable, str(Path(__file__).with_name("methods_memory.py")), json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{key_of(case)} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_quality(results: Results, options: argparse.Namespace) -> None:
    """Seeds outermost: whoever stops early has every method with as many seeds."""
    if options.data is not None:
        os.environ["EFFSTILTS_DATA"] = str(options.data)
    for name in options.recipes:
        results.at("settings")[name] = asdict(quality.SETTINGS[name])
    for seed in range(1, options.seeds + 1):
        for name in options.recipes:
            setting = quality.SETTINGS[name]
            for method in options.methods:
                runs = results.at("quality", name, method, "runs")
                if str(seed) in runs and not options.again:
                    continue
                print(f"{name}, {method}, seed {seed}", flush=True)
                runs[str(seed)] = quality.run(setting, method, seed, options.store)
                node = results.at("quality", name, method)
                node["learning_rate"] = "the recipe's" if method == "full" else quality.rate(method)
                node["summary"] = quality.summary(runs, setting)
                results.write()


def write_tables(results: Results, options: argparse.Namespace) -> None:
    """The text and the picture beside the JSON, and the README's part."""
    options.out.with_suffix(".md").write_text(tables.whole(results.tree), encoding="utf-8")
    tables.draw(results.tree, options.out.with_suffix(".png"))
    if options.out == OUT:
        README.write_text(tables.into_readme(README.read_text(encoding="utf-8"), results.tree), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("memory", "quality", "table"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="measure anew what the file holds already")
    parser.add_argument(
        "--methods", nargs="*", default=list(quality.METHODS), choices=quality.METHODS, metavar="METHOD"
    )
    parser.add_argument("--rounds", type=int, default=1, help="memory: how often speeds are measured")
    parser.add_argument("--sizes", nargs="*", default=["base", "large"], choices=["base", "large"])
    parser.add_argument("--precisions", nargs="*", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--store", type=Path, default=Path("effstilts-store"), help="quality: the store of the runs")
    parser.add_argument("--data", type=Path, help="quality: the folder of official files (EFFSTILTS_DATA)")
    parser.add_argument("--recipes", nargs="*", default=list(quality.SETTINGS), choices=list(quality.SETTINGS))
    parser.add_argument("--seeds", type=int, default=1, help="quality: seeds 1 to this")
    options = parser.parse_args()
    results = Results(options.out)
    {"memory": run_memory, "quality": run_quality, "table": write_tables}[options.part](results, options)


if __name__ == "__main__":
    main()
