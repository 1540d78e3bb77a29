"""Peak memory of a stretch of work: what a CUDA device had allocated, or what of this process was resident."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures from when it is made, or from the last `restart`.

    before: bytes in use at that moment. resettable: whether this system can forget a peak; where it cannot (neither
    CUDA nor Linux), `peak` is that of the process since its start. collects: see `restart`.
    """

    def __init__(self, device: torch.device, collects: bool = True) -> None:
        self.device, self.collects = device, collects
        self.resettable = True
        self.before = 0
        self.restart()

    def restart(self) -> None:
        """Gives freed memory back to the system and begins anew, so that what was freed before does not count. Where it
        `collects`, what only Python's collector can free goes first, which takes some 0.2 seconds."""
        if self.collects:
            gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
            return
        _trim()
        try:
            # 5 sets the peak of the resident set to what is resident now (proc(5), since Linux 4.0).
            _CLEAR.write_text("5")
        except OSError:
            self.resettable = False
        self.before = _field("VmRSS")

    def peak(self) -> int:
        """Bytes; on a CPU the largest resident set, memory-mapped files and the libraries' code included."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if self.resettable:
            return _field("VmHWM")
        # Linux counts in KiB, macOS in bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _field(name: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is no such line."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) * 1024 if found else 0


def _trim() -> None:
    """glibc keeps freed pages resident for later use; other C libraries have no such call."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
