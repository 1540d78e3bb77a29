"""What a step cost, measured in one place for every method."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import torch

from effstilts.cost.flops import encoder_flops_per_token, forward_flops_per_token
from effstilts.cost.memory import PeakMemory
from effstilts.engine.checkpoint import Progress
from effstilts.engine.plain import Model
from effstilts.model.encoder import Encoder


class Meter:
    """Begins when made; `facts` gives the cost so far. collects: as of PeakMemory."""

    def __init__(self, device: torch.device, collects: bool = True) -> None:
        self.device = device
        self.memory = PeakMemory(device, collects)
        self.began = time.perf_counter()
        self._before, self._opening = self.memory.before, 0

    def training_begins(self) -> None:
        """The model is there: what its making took and gave back does not count for training."""
        self._opening = self.memory.peak()
        self.memory.restart()

    def facts(self, model: Model, progress: Progress) -> dict[str, Any]:
        """What a training step cost, and the machine.

        seconds: of optimizer steps, over all resumptions; wall_seconds: of this process; tokens without padding,
        padded_tokens with it; flops: of the encoder's blocks, see `encoder_flops_per_token`. In bytes, on a CPU
        resident: memory_before, when the step began; peak_memory, of the step; training_peak_memory, of its
        optimizer steps and evaluations on dev without the making of the model.
        """
        training = self.memory.peak()
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return {
            "cost": {
                "seconds": round(progress.seconds, 3),
                "wall_seconds": round(time.perf_counter() - self.began, 3),
                "tokens": progress.tokens,
                "padded_tokens": progress.padded_tokens,
                "flops": encoder_flops_per_token(model.encoder.backbone) * progress.padded_tokens,
                "memory_before_bytes": self._before,
                "peak_memory_bytes": max(self._opening, training),
                "training_peak_memory_bytes": training,
                "parameters": sum(n for n, _ in sizes),
                "trained_parameters": sum(n for n, trained in sizes if trained),
            },
            "machine": machine(self.device),
        }

    def of_scoring(self, encoder: Encoder, tokens: int, layer: int = -1) -> dict[str, Any]:
        """What one number cost, and the machine.

        seconds: with the opening of the model and the encoding of the rows, for the number that is the first to need
        them; tokens that the encoder read, without padding; flops of its blocks on them, up to hidden state `layer`;
        memory as in `facts`.
        """
        return {
            "scoring_cost": {
                "seconds": round(time.perf_counter() - self.began, 3),
                "tokens": tokens,
                "flops": forward_flops_per_token(encoder.backbone, layer) * tokens,
                "memory_before_bytes": self._before,
                "peak_memory_bytes": self.memory.peak(),
                "parameters": sum(p.numel() for p in encoder.parameters()),
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
