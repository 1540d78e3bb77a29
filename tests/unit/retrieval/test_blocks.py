from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effstilts.log import Log
from effstilts.retrieval import blocks
from effstilts.retrieval.blocks import Keep, both_ways, nearest
from effstilts.retrieval.neighbours import Neighbours, normalise
from effstilts.store import write_folder

QUIET = Log(quiet=True)


@pytest.fixture
def sides() -> tuple[Any, Any]:
    generator = np.random.default_rng(1)
    x, y = (normalise(generator.normal(size=(n, 8)).astype(np.float32)) for n in (37, 53))
    y[7] = y[40]  # a tie: the lower index comes first
    return x, y


@pytest.mark.parametrize(("rows", "there"), [(1, 1 << 18), (5, 3), (5, 20), (1 << 15, 1), (1 << 15, 1 << 18)])
def test_blocks_find_what_one_product_finds(sides: Any, rows: int, there: int) -> None:
    x, y = sides
    product = x @ y.T
    ahead, back = both_ways(x, y, 4, QUIET, None, rows, there)
    for found, scores in ((ahead, product), (back, product.T), (nearest(x, y, 4, QUIET, None, rows, there), product)):
        order = np.argsort(-scores, axis=1, kind="stable")[:, :4]
        assert np.array_equal(found.indices, order)
        assert np.allclose(found.scores, np.take_along_axis(scores, order, 1), atol=1e-6)
    few, all_of_them = both_ways(x, y[:2], 4, QUIET, None, rows, there)
    assert few.indices.shape == (37, 2) and all_of_them.indices.shape == (2, 4)


class Broken(Exception):
    pass


def breaking(original: Any, after: int, calls: list[int]) -> Any:
    def look(x: Any, *rest: Any) -> Any:
        if len(calls) == after:
            raise Broken
        calls.append(len(x))
        return original(x, *rest)

    return look


@pytest.mark.parametrize("search", [both_ways, nearest])
@pytest.mark.parametrize("after", [0, 1, 4, 13])
def test_a_broken_search_goes_on(
    sides: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: Any, after: int
) -> None:
    """In 5 blocks by 3 parts: what was found is not looked for again, and the end is that of an unbroken search."""
    monkeypatch.setattr(blocks, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(blocks, "_KEEP_SHARE", 0)
    whole = search(*sides, 4, QUIET, None, 8, 20)
    name = "both_directions" if search is both_ways else "search"
    original, calls = getattr(blocks, name), []
    monkeypatch.setattr(blocks, name, breaking(original, after, calls))
    with pytest.raises(Broken):
        search(*sides, 4, QUIET, Keep(tmp_path / "k", QUIET), 8, 20)
    assert len(list(tmp_path.glob("k/done-*"))) == min(after, 1)
    monkeypatch.setattr(blocks, name, breaking(original, 99, calls))
    again = search(*sides, 4, QUIET, Keep(tmp_path / "k", QUIET), 8, 20)
    assert len(calls) == 15
    for one, other in zip(*map(as_sides, (whole, again)), strict=True):
        assert np.array_equal(one.scores, other.scores) and np.array_equal(one.indices, other.indices)


def as_sides(found: Any) -> tuple[Neighbours, ...]:
    return (found,) if isinstance(found, Neighbours) else tuple(found)


def test_a_damaged_state_and_one_of_other_blocks_are_not_taken(
    sides: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(blocks, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(blocks, "_KEEP_SHARE", 0)
    whole = nearest(*sides, 4, QUIET, Keep(tmp_path / "k", QUIET), 8, 20)
    (state,) = tmp_path.glob("k/done-*")
    other = nearest(*sides, 4, QUIET, Keep(tmp_path / "k", QUIET), 10, 20)
    assert np.array_equal(other.indices, whole.indices)
    (state,) = tmp_path.glob("k/done-*")
    raw = bytearray((state / "1.npy").read_bytes())
    raw[-1] ^= 1
    (state / "1.npy").write_bytes(raw)
    again = nearest(*sides, 4, QUIET, Keep(tmp_path / "k", Log()), 10, 20)
    assert np.array_equal(again.indices, whole.indices)
    assert "is damaged or was never completed: the search does not go on from it" in capsys.readouterr().err


@pytest.mark.parametrize("search", [both_ways, nearest])
def test_half_a_search_over_other_blocks_is_not_gone_on_with(
    sides: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: Any
) -> None:
    monkeypatch.setattr(blocks, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(blocks, "_KEEP_SHARE", 0)
    whole = search(*sides, 4, QUIET, None, 10, 20)
    name = "both_directions" if search is both_ways else "search"
    with monkeypatch.context() as patched:
        patched.setattr(blocks, name, breaking(getattr(blocks, name), 7, []))
        with pytest.raises(Broken):
            search(*sides, 4, QUIET, Keep(tmp_path / "k", QUIET), 8, 20)
    again = search(*sides, 4, QUIET, Keep(tmp_path / "k", QUIET), 10, 20)
    for one, other in zip(*map(as_sides, (whole, again)), strict=True):
        assert np.array_equal(one.scores, other.scores) and np.array_equal(one.indices, other.indices)


def test_a_state_is_kept_over_a_damaged_one_of_the_same_name(sides: Any, tmp_path: Path) -> None:
    """And what a killed process had begun to keep goes."""
    found = (Neighbours(np.ones((3, 2), np.float32), np.ones((3, 2), np.int64)),)
    empty = (Neighbours(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.int64)),)
    left = tmp_path / "k" / "tmp" / "done-000000000004.1.tmp"
    for folder in (left, tmp_path / "k" / "done-000000000004", tmp_path / "k" / "done-000000000003"):
        folder.mkdir(parents=True)
    keep = Keep(tmp_path / "k", QUIET)
    assert keep.restore(empty, (3, 1, 2, 1)) == 0 and not left.exists()
    keep._last = -1e9
    keep.after(4, found, (3, 1, 2, 1))
    assert [path.name for path in tmp_path.glob("k/done-*")] == ["done-000000000004"]
    assert Keep(tmp_path / "k", QUIET).restore(empty, (3, 1, 2, 1)) == 4
    assert np.array_equal(empty[0].scores, found[0].scores) and np.array_equal(empty[0].indices, found[0].indices)


@pytest.mark.parametrize(("blocks_of", "after", "passed"), [((10, 1000, 10, 4), 2, 20), ((10, 4, 10, 5), 5, 18)])
def test_progress_begins_with_the_queries_that_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks_of: tuple[int, ...], after: int, passed: int
) -> None:
    began: list[Any] = []
    log = Log(quiet=True)
    original = log.progress
    monkeypatch.setattr(log, "progress", lambda *told: began.append(told) or original(*told))
    monkeypatch.setattr(Keep, "restore", lambda *_: after)
    blocks._each_pair(lambda *_: None, (), blocks_of, log, Keep(tmp_path, log))  # type: ignore[arg-type]
    assert began == [(10 * -(-10 // blocks_of[3]), "neighbours", passed)]


def test_keeping_takes_a_small_share_of_the_time(sides: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a look of 10 s and a keeping of 3 s, one state a minute; with one of 30 s, one in ten minutes and more."""
    now = 0.0
    monkeypatch.setattr(blocks.time, "monotonic", lambda: now)
    kept: list[float] = []
    takes = 3.0

    def write(*_: Any) -> None:
        nonlocal now
        kept.append(now)
        now += takes

    monkeypatch.setattr(blocks, "write_folder", write)
    keep = Keep(tmp_path / "k", QUIET)
    for _ in range(60):
        now += 10
        keep.after(1, (), (1, 1, 1, 1))
    assert 9 <= len(kept) <= 10
    kept.clear()
    takes = 30.0
    for _ in range(600):
        now += 10
        keep.after(1, (), (1, 1, 1, 1))
    assert 6000 / 640 <= len(kept) <= 6000 / 600 + 1


def test_of_two_states_the_newer_is_taken(sides: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill came after the newer was complete and before the older was gone."""
    monkeypatch.setattr(blocks, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(blocks, "_KEEP_SHARE", 0)
    monkeypatch.setattr(blocks.shutil, "rmtree", lambda *_, **__: None)
    keep = Keep(tmp_path / "k", QUIET)
    for done in (9, 10):
        keep.after(done, (Neighbours(np.full((1, 1), done, np.float32), np.full((1, 1), done)),), (1, 1, 1, 1))
    into = (Neighbours(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64)),)
    assert keep.restore(into, (1, 1, 1, 1)) == 10 and into[0].indices.tolist() == [[10]]


@pytest.mark.parametrize(
    "what", ["objects", "another shape", "another type", "no facts", "no array", "empty", "an archive", "a vast header"]
)
def test_a_state_that_holds_something_else_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """Whole, as its hashes say; no pickle is read."""

    def fill(into: Path) -> None:
        kept: list[Any] = [np.ones((3, 2), np.float32), np.ones((3, 2), np.int64)]
        if what == "objects":
            kept[1] = np.array([[{}, {}]] * 3, dtype=object)
        if what == "another shape":
            kept[0] = np.ones((1, 2), np.float32)
        if what == "another type":
            kept[1] = np.ones((3, 2))
        for i, array in enumerate(kept[: 1 if what == "no array" else 2]):
            np.save(into / f"{i}.npy", array, allow_pickle=True)
        if what == "empty":
            (into / "1.npy").write_bytes(b"")
        if what == "an archive":
            (into / "1.npy").write_bytes(b"PK\x03\x04" + bytes(60))
        if what == "a vast header":
            with (into / "1.npy").open("wb") as file:
                header = {"descr": "<i8", "fortran_order": False, "shape": (10**14, 2)}
                np.lib.format.write_array_header_1_0(file, header)

    facts = {} if what == "no facts" else {"done": 4, "blocks": [3, 1, 2, 1]}
    write_folder(tmp_path / "k" / "done-000000000004", tmp_path / "k" / "tmp", fill, facts)
    empty = (Neighbours(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.int64)),)
    assert Keep(tmp_path / "k", Log()).restore(empty, (3, 1, 2, 1)) == 0
    assert "the search does not go on from it" in capsys.readouterr().err
    assert not empty[0].scores.any() and not empty[0].indices.any()
