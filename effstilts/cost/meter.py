"""What a training step cost, measured in one place for every method."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from typing import Any

import torch
from torch import nn

from effstilts.engine.checkpoint import Progress


class Meter:
    """Begins when made; `facts` gives the cost so far."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.began = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def facts(self, model: nn.Module, progress: Progress) -> dict[str, Any]:
        """seconds: of optimizer steps, over all resumptions; wall_seconds: of this process; peak_memory_bytes: of
        the device, on a CPU of the whole process so far; tokens without padding, padded_tokens with it."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            # Linux counts in KiB, macOS in bytes.
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return {
            "cost": {
                "seconds": round(progress.seconds, 3),
                "wall_seconds": round(time.perf_counter() - self.began, 3),
                "tokens": progress.tokens,
                "padded_tokens": progress.padded_tokens,
                "peak_memory_bytes": peak,
                "parameters": sum(n for n, _ in sizes),
                "trained_parameters": sum(n for n, trained in sizes if trained),
            },
            "machine": machine(self.device),
        }


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware and the versions that gave a number."""
    import transformers

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
