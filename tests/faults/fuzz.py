"""A fuzzer for what people hand in: `python -m tests.faults.fuzz FOLDER SEED TARGET=COUNT...`.

Inputs are grown from small real ones: bytes and words are changed, dropped, doubled and spliced; of JSON and YAML also
the tree. An input that ends in a new way (another message, another place in the source) joins those that others grow
from. Only EffstiltsError may come out; each input takes at most a second of the processor, and the process grows by at
most 200 MB over all of them.
"""

from __future__ import annotations

import base64
import json
import random
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from effstilts.errors import EffstiltsError
from tests.faults.fuzz_targets import TARGETS, Target

SECONDS, MEGABYTES = 1.0, 200


COMMON = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\t",
    b"\t\t",
    b" ",
    b'"',
    b"'",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"-",
    b"_",
    b"-1",
    b"0",
    b"1e309",
    b"nan",
    b"9" * 30,
    b"1.5",
    b"true",
    b"null",
    "\u2028".encode(),
    "\ud800".encode("utf-8", "surrogatepass"),
    "ß\u0301".encode(),
    b"\xe2\x80\x8b",
    b"../..",
    b"<script>",
    b"%s{0}",
    b"\x1b[2J",
    b"A" * 5000,
    b"\\ud800",
    b"\\u0000",
    b"[" * 2000,
    b"# text =",
    b"\x85",
    b"-DOCSTART-",
)
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    10**40,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "0",
    "en",
    "\x00",
    "\ud800",
    "a/b",
    "../x",
    "<script>",
    "é" * 500,
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    [None],
    ["a", 1],
    {"a": {"a": {}}},
)


def _tree(draw: random.Random, tree: Any) -> Any:
    """One place of the tree changed."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((node, key))
            walk(value)

    walk(tree)
    if not places:
        return draw.choice(VALUES)
    node, key = draw.choice(places)
    how = draw.randrange(7)
    if how == 0:
        del node[key]
    elif how == 1 and isinstance(node, dict):
        node[draw.choice([*node, "x", "", "sha256", "data", "task", "name", "files"])] = node.pop(key)
    elif how == 2:
        other, there = draw.choice(places)
        node[key] = json.loads(json.dumps(other[there])) if isinstance(other, list) or there in other else None
    elif how == 3 and isinstance(node, list):
        node.extend(json.loads(json.dumps(node[key : key + 1])) * draw.choice((1, 2, 300)))
    elif how == 4:
        value = node[key]
        node[key] = [value] if draw.random() < 0.5 else {"x": value}
    elif how == 5 and isinstance(node[key], int | float) and not isinstance(node[key], bool):
        node[key] = draw.choice((-node[key], node[key] * 10**6, node[key] + 1, float(node[key]), str(node[key])))
    else:
        node[key] = draw.choice(VALUES)
    return tree


def grow(draw: random.Random, target: Target, corpus: list[bytes]) -> bytes:
    """A new input out of one or two old ones, half of the time a real one."""
    raw = draw.choice(corpus if draw.random() < 0.5 else target.seeds)
    if target.tree and draw.random() < 0.5:
        try:
            if target.tree == "yaml":
                tree = yaml.load(raw, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
                raw = json.dumps(_tree(draw, tree)).encode()
            elif target.tree == "json":
                raw = json.dumps(
                    _tree(draw, json.loads(raw)), indent=draw.choice((1, None)), ensure_ascii=False
                ).encode()
            else:
                lines = raw.decode().splitlines() or [""]
                at = draw.randrange(len(lines))
                lines[at] = json.dumps(_tree(draw, json.loads(lines[at])))
                raw = "\n".join(lines).encode()
        except (ValueError, RecursionError, TypeError, KeyError, IndexError, yaml.YAMLError):
            pass
        if draw.random() < 0.7:
            return raw
    changed = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        how, size = draw.randrange(7), len(changed)
        at = draw.randrange(size + 1)
        end = min(size, at + draw.choice((1, 1, 2, 8, 64, 1000)))
        if how == 0 and at < size:
            changed[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del changed[at:end]
        elif how == 2:
            changed[at:at] = draw.choice((*COMMON, *target.words * 4))
        elif how == 3:
            changed[at:at] = changed[at:end] * draw.choice((1, 2, 50))
        elif how == 4:
            other = draw.choice(corpus)
            begin = draw.randrange(len(other) + 1)
            changed[at:end] = other[begin : begin + draw.choice((4, 40, 400))]
        elif how == 5:
            changed[at:end] = bytes(draw.randrange(256) for _ in range(end - at))
        else:
            changed[at:] = b""
    return bytes(changed[: 1 << 16])


def _ending(error: EffstiltsError | None, found: object, folder: Path) -> str:
    """What tells one way to end from another, wherever the inputs lie."""
    if error is None:
        return f"read: {found}"
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    said = str(error).replace(str(folder), "").split("(did you")[0]
    words = re.sub(r"'[^']*'|\"[^\"]*\"|\d+|\S*input\S*|\S*recipe.yaml\S*", "", said)
    return f"{type(error).__name__} {last.tb_lineno if last else 0} {words[:80]}"


def fuzz(name: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Tries `count` inputs; stops at the first that breaks a rule, which stands in the result, base64."""
    target = TARGETS[name]
    draw = random.Random(f"{name} {seed}")
    corpus = list(target.seeds)
    endings: set[str] = set()
    for raw in corpus:
        target.attempt(folder, raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest, accepted, broken, done = 0.0, 0, {}, 0
    began = time.process_time()
    for done in range(1, count + 1):
        raw = grow(draw, target, corpus)
        start = time.process_time()
        error: EffstiltsError | None = None
        found: object = None
        problem = ""
        try:
            found = target.attempt(folder, raw)
            accepted += 1
        except EffstiltsError as refused:
            error = refused
            if re.search("[\\x00-\\x1f\\x7f-\\x9f\ud800-\udfff]", str(refused)):
                problem = f"a message that is not one line of text: {refused}"
        except Exception as escaped:
            problem = f"{type(escaped).__name__}: {escaped}"
        seconds = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        slowest = max(slowest, seconds)
        if seconds > SECONDS:
            problem = problem or f"took {seconds:.1f} s"
        if grown > MEGABYTES:
            problem = problem or f"grew by {grown:.0f} MB"
        if problem:
            broken = {"problem": problem[:1000], "input": base64.b64encode(raw).decode(), "number": done}
            break
        ending = _ending(error, found, folder)
        if ending not in endings and len(endings) < 2000:
            endings.add(ending)
            corpus.append(raw)
    spent = time.process_time() - began
    return {
        "target": name,
        "inputs": done,
        "read": accepted,
        "refused": done - accepted - bool(broken),
        "endings": len(endings),
        "per_second": round(done / max(spent, 1e-9)),
        "slowest_seconds": round(slowest, 3),
        "grown_megabytes": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
        "broken": broken,
    }


if __name__ == "__main__":
    for word in sys.argv[3:]:
        asked, _, count = word.rpartition("=")
        print(json.dumps(fuzz(asked, int(count), int(sys.argv[2]), Path(sys.argv[1]))), flush=True)
