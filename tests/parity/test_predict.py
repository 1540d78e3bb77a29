"""Ranks that share the rows of an evaluation come to what one process does, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from effstilts.engine.ranks import ALONE, _pack, _unpack
from tests.parity.predicting import found
from tests.parity.test_launch import start, torchrun


@pytest.mark.slow
def test_two_ranks_predict_what_one_does(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    here = str(tmp_path / "tokenizer")
    out = tmp_path / "two.json"
    _, error = (process := start(torchrun("-m", "tests.parity.predicting", here, str(out)))).communicate(timeout=120)
    assert process.returncode == 0, error[-3000:]
    one, two = json.loads(json.dumps(found(here, ALONE))), json.loads(out.read_text())
    assert one.keys() == two.keys() and len(one) > 6
    for name in one:
        assert one[name] == two[name], name


SHAPES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=6)


@given(SHAPES, st.sampled_from(["float32", "int64", "float64"]), st.data())
def test_arrays_travel_unchanged(shapes: list[tuple[int, int]], dtype: str, data: st.DataObject) -> None:
    sent = [data.draw(arrays.arrays(dtype, shape)) for shape in shapes]
    came = _unpack(_pack(sent))
    assert len(came) == len(sent)
    for before, after in zip(sent, came, strict=True):
        assert before.shape == after.shape and before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
