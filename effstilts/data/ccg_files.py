"""CCG supertags: jiant's two columns, "word|||tag", and CCGbank's own .auto files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effstilts.data.text_files import lines_of
from effstilts.errors import DataError

# A leaf of CCGbank (Hockenmaier and Steedman 2007): <L category modified-POS original-POS word predicate-argument>.
_LEAF = re.compile(r"<L (\S+) \S+ \S+ (\S+) \S+>")


def ccg_tsv(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """CCG supertags: "words TAB tags", both parted by spaces, or "word|||tag word|||tag"."""
    for line, place in lines_of(path):
        if not line.strip():
            continue
        if "|||" in line:
            pairs = [item.split("|||") for item in line.split()]
            if any(len(pair) != 2 for pair in pairs):
                raise DataError(f"{place}: expected word|||tag")
            yield {"tokens": [p[0] for p in pairs], "tags": [p[1] for p in pairs]}, place
            continue
        parts = line.split("\t")
        if len(parts) != 2:
            raise DataError(f"{place}: {len(parts)} columns, expected 2 (tokens, tags)")
        tokens, tags = parts[0].split(), parts[1].split()
        if len(tokens) != len(tags):
            raise DataError(f"{place}: {len(tokens)} words but {len(tags)} tags")
        yield {"tokens": tokens, "tags": tags}, place


def ccgbank_auto(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """CCGbank: a line "ID=..." and a line with the derivation, whose leaves are the words and their categories."""
    name = ""
    for line, place in lines_of(path):
        if line.startswith("ID="):
            if name:
                raise DataError(f"{place}: the derivation of {name} is missing")
            name = line.split()[0]
        elif line.strip():
            leaves = _LEAF.findall(line)
            if not name or not leaves or len(leaves) != line.count("<L "):
                raise DataError(f"{place}: expected a derivation of CCGbank after its ID, got {line[:60]!r}")
            yield {"tokens": [word for _, word in leaves], "tags": [category for category, _ in leaves]}, place
            name = ""
    if name:
        raise DataError(f"{path}: the derivation of {name} is missing")
