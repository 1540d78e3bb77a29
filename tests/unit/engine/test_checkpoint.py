"""Checkpoints: what is written is what is read, the newest whole one, and no more of them than are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from effstilts.engine.checkpoint import KEPT, Checkpoints, Progress, Snapshot
from effstilts.errors import StoreError
from effstilts.log import Log
from effstilts.store import read_manifest


class Heard(Log):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warned: list[str] = []

    def warn(self, text: str, **_: Any) -> None:
        self.warned.append(text)


def snapshot(step: int, **progress: Any) -> Snapshot:
    weights = {"a": torch.arange(6.0).reshape(2, 3).T * step, "b": torch.tensor([step + 0.1])}
    moments = {"a|exp_avg": torch.full((3, 2), step / 7)}
    best = {"a": torch.zeros(3, 2) + step, "b": torch.tensor([1e-30])}
    return Snapshot(weights, moments, best, Progress(step=step, **progress))


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


FULL = {
    "best_step": 4, "best_score": 0.25, "without_gain": 2, "stopped": True, "seconds": 1.5, "tokens": 10,
    "padded_tokens": 12, "loss_sum": 3.25, "history": [{"step": 4, "score": 0.25}],
}  # fmt: skip


@pytest.mark.parametrize("progress", [{}, FULL], ids=["before the first evaluation", "after"])
def test_what_is_written_is_read(tmp_path: Path, progress: dict[str, Any]) -> None:
    written = snapshot(5, **progress)
    Checkpoints(tmp_path / "w", Heard()).write(written)
    found = Checkpoints(tmp_path / "w", Heard()).read_newest()
    assert found is not None and found.progress == written.progress
    assert all(same(getattr(found, part), getattr(written, part)) for part in ("weights", "moments", "best"))
    folder = tmp_path / "w" / "checkpoint-00000005"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors", "manifest.json", "moments.safetensors", "progress.json", "weights.safetensors",
    ]  # fmt: skip
    assert read_manifest(folder)["facts"] == {"step": 5}
    kept = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    assert kept["best_score"] == (0.25 if progress else None), "JSON has no infinity"
    assert not list((tmp_path / "w" / "tmp").iterdir())


def test_a_fresh_progress_has_done_nothing() -> None:
    made = Progress()
    assert (made.step, made.best_step, made.best_score, made.without_gain) == (0, -1, float("-inf"), 0)
    assert (made.stopped, made.seconds, made.tokens, made.padded_tokens, made.loss_sum) == (False, 0.0, 0, 0, 0.0)
    assert made.history == [] and Progress().history is not made.history


def test_a_best_score_of_nothing_is_kept_apart_from_one_at_step_0(tmp_path: Path) -> None:
    """Scored at step 0 with any score, that score is kept; never scored, it is below every score."""
    kept = Checkpoints(tmp_path, Heard())
    for progress in ({"best_step": 0, "best_score": 0.0}, {"best_step": -1}):
        kept.write(snapshot(3, **progress))
        found = kept.read_newest()
        assert found is not None and found.progress == Progress(step=3, **progress)


def test_the_newest_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, Heard())
    for step in (2, 9, 10, 100):
        kept.write(snapshot(step))
        found = kept.read_newest()
        assert found is not None and found.progress.step == step
    assert KEPT == 2
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-00000010", "checkpoint-00000100"]


def test_none_where_there_is_none(tmp_path: Path) -> None:
    log = Heard()
    assert Checkpoints(tmp_path / "nothing", log).read_newest() is None and not log.warned


def test_a_damaged_one_is_named_removed_and_passed_over(tmp_path: Path) -> None:
    log = Heard()
    kept = Checkpoints(tmp_path, log)
    kept.write(snapshot(1))
    kept.write(snapshot(2))
    (tmp_path / "checkpoint-00000002" / "best.safetensors").unlink()
    found = kept.read_newest()
    assert found is not None and found.progress.step == 1
    (said,) = log.warned
    assert "passing over a damaged checkpoint" in said and "checkpoint-00000002" in said
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000001"]


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    kept = Checkpoints(tmp_path, Heard())
    kept.write(snapshot(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StoreError, match="checkpoint-00000002: the disk is full"):
        kept.write(snapshot(2))
    found = kept.read_newest()
    assert found is not None and found.progress.step == 1
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000001"]
    assert not list((tmp_path / "tmp").iterdir())


def test_one_that_cannot_be_deleted_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Heard()
    kept = Checkpoints(tmp_path, log)
    for step in (1, 2):
        kept.write(snapshot(step))

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.unlink", refused)
    kept.write(snapshot(3))
    assert len(list(tmp_path.glob("checkpoint-*"))) == 3
    (tmp_path / "checkpoint-00000003" / "progress.json").write_text("{}", encoding="utf-8")
    found = kept.read_newest()
    assert found is not None and found.progress.step == 2 and len(log.warned) == 1


def test_what_a_killed_process_had_begun_to_write_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    left = tmp_path / "w" / "tmp" / "checkpoint-00000004.77.tmp"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    Checkpoints(tmp_path / "w", Heard()).write(snapshot(5))
    assert not left.exists()


@pytest.mark.parametrize(("steps", "window"), [(1, 1), (4, 1), (9, 2), (40, 10), (204, 50), (208, 50), (4000, 50)])
def test_the_recent_loss_is_a_mean_over_a_window_and_the_first_what_it_was_once_full(steps: int, window: int) -> None:
    fresh = Progress()
    assert (fresh.seconds, fresh.loss_sum, fresh.first_loss, fresh.recent_loss) == (0, 0, 0, 0)
    losses = [float(5 + step % 7) for step in range(steps)]
    recent = 0.0
    for step, loss in enumerate(losses, 1):
        fresh.step = step
        fresh.add_loss(loss, steps)
        # All so far weigh alike until the window is full, each step fading by 1 / window from then on.
        recent = sum(losses[:step]) / step if step <= window else recent * (1 - 1 / window) + loss / window
        assert fresh.recent_loss == pytest.approx(recent)
        assert fresh.first_loss == (pytest.approx(sum(losses[:window]) / window) if step >= window else 0)
    assert fresh.loss_sum == sum(losses)
