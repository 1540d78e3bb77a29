"""Evaluates as one process of a launch: the other half of test_predict.py.

Called as `python -m tests.parity.predicting TOKENIZER OUT`; rank 0 writes the outputs of every kind to OUT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from effstilts.engine.plain import Model
from effstilts.engine.predict import predict, row_outputs
from effstilts.engine.ranks import Ranks, joined
from effstilts.kinds import KINDS, kind_of
from effstilts.model.opening import create, load_tokenizer
from tests.conftest import TINY_CONFIG
from tests.unit.kinds.test_kinds import as_rows, examples_of


def found(tokenizer: str, ranks: Ranks) -> dict[str, Any]:
    """Kind -> outputs of each row and predictions of each example; also of one row alone, fewer than ranks."""
    opened = load_tokenizer(tokenizer, offline=True)
    encoder = create(TINY_CONFIG, opened, seed=5)
    torch.manual_seed(1)
    results = {}
    for name in sorted(KINDS):
        kind = kind_of(name)
        task, examples = examples_of(name)
        model = Model(encoder, {name: kind.head(task, encoder, 0.0)})
        for count in (len(examples), 1):
            rows = as_rows(kind.encode(examples[:count], task, opened, 40))
            outputs = row_outputs(kind, model, name, rows, "fp32", 60, 0.3, ranks=ranks)
            own = examples[:count] if ranks.leads else []
            predictions = predict(kind, task, model, name, own, rows, "fp32", 60, 0.3, ranks=ranks)
            results[f"{name} {count}"] = [[output.tolist() for output in outputs], predictions]
    return results


def main(tokenizer: str, out: Path) -> None:
    with joined() as ranks:
        ranks.connect(60.0)
        results = found(tokenizer, ranks)
        if ranks.leads:
            out.write_text(json.dumps(results))
        else:
            assert all(part == [] for result in results.values() for part in result)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
