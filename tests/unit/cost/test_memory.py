"""Peak memory: what a stretch of work took, and nothing of what came before it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from effstilts.cost.memory import PeakMemory

MIB = 1 << 20
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident peaks are reset through /proc")


def fill(mebibytes: int) -> np.ndarray:
    return np.ones(mebibytes * MIB, np.uint8)


def test_the_peak_is_what_was_held_at_once() -> None:
    meter = PeakMemory(CPU)
    assert meter.resettable
    first = fill(60)
    del first
    second = fill(90)
    assert 85 < (meter.peak() - meter.before) / MIB < 110
    assert second[0] == 1


def test_what_was_freed_before_does_not_count() -> None:
    meter = PeakMemory(CPU)
    big = fill(200)
    del big
    assert (meter.peak() - meter.before) / MIB > 190
    meter.restart()
    small = fill(20)
    assert 15 < (meter.peak() - meter.before) / MIB < 60
    assert small[0] == 1


def test_tensors_that_torch_allocated_are_seen() -> None:
    meter = PeakMemory(CPU)
    held = torch.ones(30 * MIB)
    assert 115 < (meter.peak() - meter.before) / MIB < 135
    assert held[0] == 1


def test_where_peaks_cannot_be_forgotten_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from pathlib import Path

    from effstilts.cost import memory

    monkeypatch.setattr(memory, "_CLEAR", Path(str(tmp_path)) / "none" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", Path(str(tmp_path)) / "none" / "status")
    meter = PeakMemory(CPU)
    assert not meter.resettable and meter.before == 0
    assert meter.peak() > 50 * MIB
