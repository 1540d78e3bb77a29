from __future__ import annotations

import errno
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effstilts import store as store_module
from effstilts.errors import StoreError
from effstilts.store import Store, canonical_json, content_key, verify_folder, write_folder


def fill(folder: Path) -> None:
    (folder / "a.txt").write_text("alpha" * 50)
    (folder / "inner").mkdir()
    (folder / "inner" / "b.bin").write_bytes(bytes(range(256)))


def test_put_open_and_facts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.has("mlm", "k")
    made = store.put("mlm", "k", fill, {"score": 1.5})
    assert store.has("mlm", "k") and made.facts == {"score": 1.5} and made.bytes == 250 + 256
    assert store.facts("mlm", "k") == {"score": 1.5} and store.size("mlm", "k") == 506
    assert not (tmp_path / "tmp").exists() or not any((tmp_path / "tmp").iterdir())


@given(data=st.data())
def test_every_flipped_bit_and_every_cut_is_found(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("artefact") / "x"
    write_folder(folder, folder.parent / "tmp", fill, {"n": 1, "label": "ä"})
    victim = data.draw(st.sampled_from(["a.txt", "inner/b.bin", "manifest.json"]))
    content = bytearray((folder / victim).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        damaged = bytes(content[:at])
    else:
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        damaged = bytes(content)
    (folder / victim).write_bytes(damaged)
    with pytest.raises(StoreError):
        verify_folder(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", tmp_path / "tmp", fill, {})
    (tmp_path / "x" / "a.txt").unlink()
    with pytest.raises(StoreError, match=r"a\.txt is missing"):
        verify_folder(tmp_path / "x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", range(4))
def test_a_failing_disk_leaves_no_partial_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: int
) -> None:
    store = Store(tmp_path)
    store.put("mlm", "old", fill, {})
    count = 0
    real = store_module.sync_file

    def failing(path: Path) -> None:
        nonlocal count
        count += 1
        if count > call:
            raise OSError(code, "injected")
        real(path)

    monkeypatch.setattr(store_module, "sync_file", failing)
    if call >= 3:
        store.put("mlm", "new", fill, {})
        assert store.has("mlm", "new")
        return
    with pytest.raises(StoreError, match="disk"):
        store.put("mlm", "new", fill, {})
    monkeypatch.undo()
    assert not store.has("mlm", "new") and not store.artefact_folder("mlm", "new").exists()
    verify_folder(store.artefact_folder("mlm", "old"))
    assert not any((tmp_path / "tmp").iterdir())


def _hold(root: str, ready: Any, done: Any) -> None:
    with Store(Path(root)).lock("mlm", "k"):
        ready.set()
        done.wait(20)


def test_a_second_process_is_refused_by_name_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, done))
    process.start()
    assert ready.wait(30)
    with pytest.raises(StoreError, match=f"pid {process.pid}"), Store(tmp_path).lock("mlm", "k"):
        pass
    process.kill()
    process.join()
    with Store(tmp_path).lock("mlm", "k"):
        pass


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "tmp" / "mlm-k.1.tmp"
    other = tmp_path / "tmp" / "mlm-other.1.tmp"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "half").write_text("half")
    Store(tmp_path).put("mlm", "k", fill, {})
    assert not left.exists() and other.exists(), "another step's may be under way"


def test_work_of_a_finished_step_is_dropped_unless_a_live_process_holds_the_step(tmp_path: Path) -> None:
    """A kill after the artefact's rename leaves checkpoints that no later run of the step would drop."""
    store = Store(tmp_path)
    store.put("mlm", "k", fill, {})
    for key in ("k", "unfinished"):
        store.work_folder("mlm", key).mkdir(parents=True)
    with Store(tmp_path).lock("mlm", "k"):
        store.clear_work("mlm", "k")
        assert store.work_folder("mlm", "k").exists()
    for key in ("k", "unfinished"):
        store.clear_work("mlm", key)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["mlm-unfinished"]


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, done))
    process.start()
    assert ready.wait(30)
    threading.Timer(0.2, done.set).start()
    began = time.monotonic()
    with Store(tmp_path).lock("mlm", "k", wait=True):
        assert time.monotonic() - began > 0.1
    process.join()


def test_keys_do_not_depend_on_the_order_of_keys() -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": (1, 2), "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_run("r", {"cells": []})
    assert store.run_names() == ["r"] and store.read_run("r") == {"cells": []}
    (tmp_path / "runs" / "r.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        store.read_run("r")
    with pytest.raises(StoreError, match="no run named"):
        store.read_run("q")
