"""Checkpoints of a training step: safetensors and a manifest, whole or absent.

    work/<step>/checkpoint-000500/   weights, moments and best .safetensors  progress.json  manifest.json
    work/<step>/checkpoint-001000/   ...

Only trained parameters are kept, by name and in float32, so nothing depends on how many processes wrote them. The
newest folder whose hashes hold is used; one that a crash or a bad disk damaged is passed over with a warning.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from effstilts.errors import StoreError
from effstilts.log import Log
from effstilts.store import disk_errors, verify_folder, write_folder

KEPT = 2


@dataclass
class Progress:
    """Where training stands. `step`: optimizer steps done; `best_step`: -1 before the first evaluation."""

    step: int = 0
    best_step: int = -1
    best_score: float = float("-inf")
    without_gain: int = 0
    stopped: bool = False
    seconds: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    loss_sum: float = 0.0
    first_loss: float = 0.0
    recent_loss: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def add_loss(self, loss: float, steps: int) -> None:
        """The loss of step `step` of `steps`. `recent_loss` is the mean of about the last 50, or of a quarter of all,
        and `first_loss` what it was once there had been as many."""
        self.loss_sum += loss
        window = max(1, min(50, steps // 4))
        self.recent_loss += (loss - self.recent_loss) / min(self.step, window)
        if self.step == window:
            self.first_loss = self.recent_loss


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds: trained weights, the optimizer's moments, the best weights so far, the progress."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    progress: Progress


class Checkpoints:
    """The checkpoints below one work folder."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder = folder
        self.log = log

    def write(self, snapshot: Snapshot) -> None:
        """Writes a checkpoint, then drops all but the newest KEPT."""
        from safetensors.torch import save_file

        def fill(folder: Path) -> None:
            for name in ("weights", "moments", "best"):
                tensors = {k: v.detach().cpu().contiguous() for k, v in getattr(snapshot, name).items()}
                save_file(tensors, str(folder / f"{name}.safetensors"))
            progress = asdict(snapshot.progress)
            if snapshot.progress.best_step < 0:
                progress["best_score"] = None
            (folder / "progress.json").write_text(json.dumps(progress), encoding="utf-8")

        # What a killed process left half written; the step's lock keeps others away.
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        final = self.folder / f"checkpoint-{snapshot.progress.step:08d}"
        write_folder(final, self.folder / "tmp", fill, {"step": snapshot.progress.step})
        for old in self._found()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def read_newest(self) -> Snapshot | None:
        """The newest checkpoint that is whole; None if there is none. Damaged ones are named and removed."""
        from safetensors.torch import load_file

        for folder in reversed(self._found()):
            try:
                verify_folder(folder)
                raw = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
                if raw["best_score"] is None:
                    raw["best_score"] = float("-inf")
                tensors = [load_file(str(folder / f"{n}.safetensors")) for n in ("weights", "moments", "best")]
                return Snapshot(tensors[0], tensors[1], tensors[2], Progress(**raw))
            except StoreError as error:
                self.log.warn(f"passing over a damaged checkpoint: {error}")
                with disk_errors(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        return None

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*"))
