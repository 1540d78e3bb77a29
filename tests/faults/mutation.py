"""A small mutation tester: `python -m tests.faults.mutation [--sample N] [--group NAME]` prints what survives.

A mutant is a module with one change of its syntax tree: a comparison, an arithmetic or logical operator, a number, a
text, a truth value, a condition, a returned value, an argument dropped, a call left out. It is killed if the module's
tests fail or run out of time. Not changed: docstrings, annotations, assertions, the words of messages, and what is only
logged.
Each mutant is tried in a forked process that has the libraries imported and the package not, so that a trial costs the
tests alone; first by those that pass its line, the fastest first, and by all where they find nothing. Equivalent
mutants are not taken out: the score is a lower bound.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib.abc
import importlib.util
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RETRIEVAL = "tests/unit/retrieval"
# Group -> module -> its tests, those that kill most first.
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "checkpoint": {
        "effstilts/engine/checkpoint.py": ("tests/unit/engine/test_checkpoint.py", "tests/unit/engine/test_loop.py"),
    },
    "order": {"effstilts/data/order.py": ("tests/unit/data/test_order.py",)},
    "metrics": {
        "effstilts/evaluation/metrics.py": ("tests/unit/evaluation/test_metrics.py",),
        "effstilts/evaluation/qa_text.py": (
            "tests/unit/evaluation/test_qa_text.py",
            "tests/unit/evaluation/test_official_scripts.py",
        ),
        "effstilts/evaluation/ranking.py": ("tests/unit/evaluation/test_ranking.py",),
    },
    "statistics": {"effstilts/evaluation/significance.py": ("tests/unit/evaluation/test_significance.py",)},
    "retrieval": {
        f"effstilts/retrieval/{name}.py": tests
        for name, tests in {
            "bucc": (f"{RETRIEVAL}/test_bucc.py", f"{RETRIEVAL}/test_evaluate.py"),
            "candidates": (f"{RETRIEVAL}/test_candidates.py",),
            "certified": (f"{RETRIEVAL}/test_certificates.py", f"{RETRIEVAL}/test_neighbours.py"),
            "exact": (f"{RETRIEVAL}/test_certificates.py", f"{RETRIEVAL}/test_neighbours.py"),
            "mining": (f"{RETRIEVAL}/test_mining.py", f"{RETRIEVAL}/test_retrieval.py"),
            "neighbours": (f"{RETRIEVAL}/test_neighbours.py", f"{RETRIEVAL}/test_retrieval.py"),
            "spaces": (f"{RETRIEVAL}/test_mining.py",),
            "blocks": (f"{RETRIEVAL}/test_blocks.py", f"{RETRIEVAL}/test_corpus.py"),
            "codes": (f"{RETRIEVAL}/test_certificates.py", f"{RETRIEVAL}/test_neighbours.py"),
            "integers": (f"{RETRIEVAL}/test_certificates.py", f"{RETRIEVAL}/test_neighbours.py"),
            "approximate": (f"{RETRIEVAL}/test_neighbours.py",),
            "sides": (f"{RETRIEVAL}/test_mining.py", f"{RETRIEVAL}/test_evaluate.py"),
            "vectors": (f"{RETRIEVAL}/test_vectors.py",),
            "corpus": (f"{RETRIEVAL}/test_corpus.py",),
            "embed": tuple(f"{RETRIEVAL}/test_{of}.py" for of in ("embed", "vectors", "retrieval")),
            "evaluate": tuple(
                f"{RETRIEVAL}/test_{of}.py" for of in ("evaluate", "retrieval", "bucc", "mining", "candidates")
            ),
        }.items()
    },
}
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip
# Where tests run the encoding is UTF-8 and the device the CPU without being named; `strict` is an assertion.
_NOT_DROPPED = {"encoding", "device", "strict"}
_SAID = {"say", "warn", "told", "progress", "advance"}


@dataclass(frozen=True)
class Mutant:
    """Change `number` of the node that stands at `place` in the module's syntax tree."""

    module: str
    line: int
    change: str
    place: int
    number: int

    def source(self) -> str:
        tree = ast.parse((ROOT / self.module).read_text(encoding="utf-8"))
        node = next(itertools.islice(_nodes(tree), self.place, None))
        (_, new) = next(itertools.islice(_changes(node), self.number, None))
        for parent in ast.walk(tree):
            for name, value in ast.iter_fields(parent):
                if value is node:
                    setattr(parent, name, new)
                elif isinstance(value, list):
                    value[:] = [new if item is node else item for item in value]
        return ast.unparse(ast.fix_missing_locations(tree))


def _fields(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that are mutated: no annotations, messages, decorators or docstrings."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
        return
    if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SAID:
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cast":
        yield node.args[1]
        return
    skipped = {"annotation", "returns", "decorator_list", "type_params"}
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST))


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in _fields(tree):
        yield node
        yield from _nodes(node)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(what is changed, the node that takes this one's place)."""

    def like(**fields: Any) -> Any:
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            new = _COMPARISONS[type(operator)]()
            yield (
                f"{type(operator).__name__} to {type(new).__name__}",
                like(ops=[*node.ops[:i], new, *node.ops[i + 1 :]]),
            )
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        new = _OPERATORS[type(node.op)]()
        yield f"{type(node.op).__name__} to {type(new).__name__}", like(op=new)
    elif isinstance(node, ast.BoolOp):
        yield "and/or", like(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"{type(node.op).__name__} dropped", node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield f"{node.value} to {not node.value}", like(value=not node.value)
        elif isinstance(node.value, int | float):
            yield f"{node.value} to {node.value + 1}", like(value=node.value + 1)
        elif isinstance(node.value, str):
            yield f"{node.value[:20]!r} to another text", like(value=f"XX{node.value}XX")
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "return None", like(value=ast.Constant(None))
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        yield "condition turned", like(test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Break):
        yield "break to continue", ast.Continue()
    elif isinstance(node, ast.Continue):
        yield "continue to break", ast.Break()
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        if not (isinstance(called, ast.Attribute) and called.attr in _SAID):
            yield "a call left out", ast.Pass()
    if isinstance(node, ast.Call) and node.keywords:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg and keyword.arg not in _NOT_DROPPED:
                yield f"{keyword.arg}= dropped", like(keywords=node.keywords[:i] + node.keywords[i + 1 :])


def mutants(module: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its syntax tree."""
    nodes = _nodes(ast.parse((ROOT / module).read_text(encoding="utf-8")))
    return [
        Mutant(module, getattr(node, "lineno", 0), change, place, number)
        for place, node in enumerate(nodes)
        for number, (change, _) in enumerate(_changes(node))
    ]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutant where its module is imported."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = mutant.module.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return (
            importlib.util.spec_from_loader(name, self, origin=str(ROOT / self.mutant.module))
            if name == self.name
            else None
        )

    def exec_module(self, module: Any) -> None:
        module.__file__ = str(ROOT / self.mutant.module)
        exec(compile(self.mutant.source(), module.__file__, "exec"), module.__dict__)


class _Covered:
    """Of a pytest run: which tests pass a line of a module, the fastest first."""

    def __init__(self, module: str) -> None:
        import coverage

        self.path = str(ROOT / module)
        self.coverage = coverage.Coverage(data_file=None, include=[self.path], config_file=False)
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def by_line(self) -> dict[int, list[str]]:
        contexts = self.coverage.get_data().contexts_by_lineno(self.path)
        passing = {line: [test for test in tests if test] for line, tests in contexts.items()}
        return {line: sorted(tests, key=self.seconds.__getitem__) for line, tests in passing.items()}


def _forked(run: Callable[[str], int], seconds: float) -> tuple[bool, float]:
    """(whether `run`, given a folder of its own, fails, how long it took)."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp()
        code = 1
        try:
            with tempfile.TemporaryDirectory() as folder:
                code = run(folder)
        finally:
            os._exit(0 if code == 0 else 1)
    while time.monotonic() - began < seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status != 0, time.monotonic() - began
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True, seconds


def _pytest(tests: Sequence[str], folder: str, *plugins: Any) -> int:
    import pytest

    options = ["-q", "-x", "-m", "not slow and not real", f"--basetemp={folder}/t", "-p", "no:cacheprovider"]
    return int(pytest.main([*options, *tests], plugins=plugins))


def trial(mutant: Mutant | None, tests: Sequence[str], seconds: float) -> tuple[bool, float]:
    """(whether the tests fail, how long they took). None: the module as it is."""

    def run(folder: str) -> int:
        if mutant is not None:
            sys.meta_path.insert(0, _Finder(mutant))
        return _pytest(tests, folder)

    return _forked(run, seconds)


def covering(module: str, tests: Sequence[str]) -> dict[int, list[str]]:
    """Line of a module -> the tests that pass it, the fastest first. SystemExit if one fails."""
    with tempfile.NamedTemporaryFile("r") as into:

        def run(folder: str) -> int:
            covered = _Covered(module)
            with covered.coverage.collect():
                code = _pytest(tests, folder, covered)
            Path(into.name).write_text(json.dumps(covered.by_line()), encoding="utf-8")
            return code

        failed, _ = _forked(run, 600)
        if failed:
            raise SystemExit(f"the tests of {module} fail without a mutant: {' '.join(tests)}")
        return {int(line): tests for line, tests in json.load(into).items()}


def preload() -> None:
    """What the tests import and the mutants do not touch."""
    import hypothesis
    import numpy
    import pyarrow
    import safetensors.torch
    import sklearn.metrics
    import torch
    import transformers

    torch.set_num_threads(1)
    assert hypothesis and numpy and pyarrow and safetensors and sklearn
    assert transformers.PreTrainedTokenizerFast and transformers.XLMRobertaModel and transformers.AutoModel
    assert not any(name.startswith("effstilts") for name in sys.modules)
    # As in driver.py: no collection of a child copies these pages.
    gc.collect()
    gc.freeze()


def score(group: str, sample: int, seed: int = 0, deadline: float = float("inf")) -> dict[str, Any]:
    """Tries `sample` mutants of a group drawn at random (0: all); names those that survive."""
    drawn = [(mutant, tests) for module, tests in GROUPS[group].items() for mutant in mutants(module)]
    total = len(drawn)
    random.Random(seed).shuffle(drawn)
    if sample:
        drawn = drawn[:sample]
    usual: dict[str, float] = {}
    passing: dict[str, dict[int, list[str]]] = {}
    survivors: list[str] = []
    tried = 0
    for mutant, tests in drawn:
        if time.monotonic() > deadline:
            break
        if mutant.module not in usual:
            passing[mutant.module] = covering(mutant.module, tests)
            by_name = sorted({test for near in passing[mutant.module].values() for test in near})
            failed, usual[mutant.module] = trial(None, [*tests, *by_name], 600)
            if failed:
                raise SystemExit(f"the tests of {mutant.module} fail when they are called by their names")
        limit = 20 + 8 * usual[mutant.module]
        # First those that pass its line; what a fixture runs for others too is seen by all of them alone.
        near = passing[mutant.module].get(mutant.line, [])
        killed = (bool(near) and trial(mutant, near, limit)[0]) or trial(mutant, tests, limit)[0]
        tried += 1
        if not killed:
            survivors.append(f"{mutant.module}:{mutant.line}: {mutant.change}")
            print(survivors[-1], file=sys.stderr, flush=True)
    return {
        "group": group, "mutants": total, "tried": tried, "killed": tried - len(survivors),
        "score": round(100 * (tried - len(survivors)) / max(tried, 1), 1), "survivors": survivors,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="mutants of each group; 0: all")
    parser.add_argument("--group", choices=list(GROUPS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each group, at most")
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    preload()
    for name in asked.group or GROUPS:
        print(json.dumps(score(name, asked.sample, asked.seed, time.monotonic() + asked.seconds)), flush=True)
