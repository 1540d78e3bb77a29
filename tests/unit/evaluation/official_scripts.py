"""Runs the official scripts, which the project does not carry, from the folder that EFFSTILTS_ORACLES names.

    EFFSTILTS_ORACLES/
      xtreme/     google-research/xtreme: evaluate.py, third_party/, mock_test_data/ (commit 838c13b)
      squad/      evaluate-v1.1.py, evaluate-v2.0.py
      mlqa/       mlqa_evaluation_v1.py

Each script is loaded as it is, in this process, under a name of its own; what is not there is skipped with its path.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

VARIABLE = "EFFSTILTS_ORACLES"


def oracle_path(name: str) -> Path:
    """A file or folder below EFFSTILTS_ORACLES; skips the test where it is not there."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set: the official scripts are not here")
    path = Path(root) / name
    if not path.exists():
        pytest.skip(f"{path} does not exist: this official script is not here")
    return path


def oracle(name: str) -> ModuleType:
    """The script at that path below EFFSTILTS_ORACLES, as a module."""
    return _load(oracle_path(name))


@cache
def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"oracle_{path.stem.replace('-', '_')}_{path.parent.name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # evaluate.py imports third_party.* from its own folder.
    sys.path.insert(0, str(path.parent))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
