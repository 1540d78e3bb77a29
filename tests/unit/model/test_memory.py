from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from effstilts.model import memory


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("makes", [True, False])
def test_onednn_is_left_out_only_where_it_is_stuck(makes: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert memory._makes_primitives()
    monkeypatch.setattr(memory, "_makes_primitives", lambda: makes)
    try:
        memory.release()
        assert torch.backends.mkldnn.enabled is makes
        assert ("the same command again is faster" in capsys.readouterr().err) is not makes
    finally:
        torch.backends.mkldnn.set_flags(True)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_a_thread_that_is_not_stuck_is_not_taken_for_one() -> None:
    """A layer that has no such kernel says so, whatever memory there is: under autocast, on another device."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert memory._makes_primitives()
    with torch.device("meta"):
        assert memory._makes_primitives()


_STUCK = """
import resource, sys, torch
import torch.nn.functional as F
from effstilts.model.memory import is_shortage, release
torch.set_num_threads(1)
def work(n):
    return F.linear(torch.ones(64, n).to_mkldnn(), torch.ones(96, n)).to_dense().sum().item()
def size():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) << 10
work(64)
resource.setrlimit(resource.RLIMIT_AS, (size() + (int(sys.argv[1]) << 10), resource.RLIM_INFINITY))
try:
    for n in range(65, 2000):
        work(n)
except (RuntimeError, MemoryError) as error:
    assert is_shortage(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    work(5000)
    print("not stuck")
except RuntimeError:
    release()
    print("stuck")
x = torch.ones(64, 5001, dtype=torch.bfloat16)
assert F.gelu(F.linear(x, x)).shape == (64, 64)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits the address space by /proc")
def test_a_stuck_thread_goes_on() -> None:
    """oneDNN itself is brought to it by a full address space; how full it must be differs between machines."""
    for kilobytes in (1024, 2048, 1536, 3072, 4096, 768):
        done = subprocess.run([sys.executable, "-c", _STUCK, str(kilobytes)], capture_output=True, text=True)
        assert "AssertionError" not in done.stderr, done.stderr
        if done.stdout == "stuck\n":
            assert done.returncode == 0, done.stderr
            return
    pytest.skip("oneDNN did not get stuck here")
