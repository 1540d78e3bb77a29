"""Exact search against numpy in float64, by every method; ties, duplicates, common directions, memory maps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import effstilts.retrieval.certified as certified
import effstilts.retrieval.integers as integers
import effstilts.retrieval.neighbours as neighbours
from effstilts.errors import DataError
from effstilts.retrieval.approximate import Index, IndexSpec, recall
from effstilts.retrieval.codes import encode
from effstilts.retrieval.neighbours import both_directions, normalise, search


def oracle(queries: Any, database: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 products rounded to float32; falling score, rising index."""
    products = (queries.astype(np.float64)[:, None] * database.astype(np.float64)[None]).sum(2).astype(np.float32)
    indices = np.argsort(-products, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(products, indices, 1), indices


def same(found: Any, wanted: Any) -> None:
    assert np.array_equal(found[1], wanted[1])
    assert np.array_equal(found[0], wanted[0])


@pytest.fixture
def small_tiles(monkeypatch: Any) -> None:
    """Many panels and tiles, cut edges on both sides, from a few hundred vectors."""
    monkeypatch.setattr(certified, "PANEL_ROWS", 128)
    monkeypatch.setattr(certified, "TILE_ROWS", 64)
    monkeypatch.setattr(integers, "PANEL_ROWS", 128)
    monkeypatch.setattr(integers, "TILE_ROWS", 64)
    monkeypatch.setattr(neighbours, "QUERY_ROWS", 50)
    monkeypatch.setattr(neighbours, "DATABASE_ROWS", 70)


def draw(kind: str, n: int, m: int, dim: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = (generator.normal(size=(rows, dim)).astype(np.float32) for rows in (n, m))
    if kind == "one way":
        x, y = x + 5, y + 5
    if kind == "pairs":
        y[: min(n, m)] = x[: min(n, m)] + 0.3 * y[: min(n, m)]
    if kind == "duplicates":
        y = y[generator.integers(0, max(1, m // 5), m)]
    if kind == "integers":
        x, y = np.round(x), np.round(y)
    if kind == "near ties":
        y = y[generator.integers(0, 3, m)] + 1e-4 * y
    if kind == "lengths":
        y = y * (10.0 ** generator.uniform(-3, 3, (m, 1))).astype(np.float32)
    if kind == "negative":
        y = -np.abs(y)
        x = np.abs(x)
    if kind == "zeros":
        y[: m // 2] = 0
    return x, y


KINDS = ["plain", "one way", "pairs", "duplicates", "integers", "near ties", "lengths", "negative", "zeros"]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(1, 24), st.integers(1, 8), st.integers(0, 999))
def test_every_method_is_the_oracle(kind: str, n: int, m: int, dim: int, count: int, seed: int) -> None:
    x, y = draw(kind, n, m, dim, np.random.default_rng(seed))
    wanted = oracle(x, y, count), oracle(y, x, count)
    for method in ("faiss", "bf16", "int8"):
        for found, exact in zip(both_directions(x, y, count, method), wanted, strict=True):
            same(found, exact)
        same(search(x, y, count, method), wanted[0])


def test_at_full_tile_size() -> None:
    """More rows than a panel and than several tiles; a common direction; certified without a row to redo."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4500, 48)).astype(np.float32) + 0.5
    y = x[generator.permutation(4500)[:2500]] + 0.5 * generator.normal(size=(2500, 48)).astype(np.float32)
    x, y = normalise(x), normalise(y)
    forward, backward = certified.scan(x, y, 4)
    assert backward is not None and not len(backward.failed) and not len(forward.failed)
    exact = neighbours._float32(x, y, 4), neighbours._float32(y, x, 4)
    same((forward.scores, forward.indices), exact[0])
    same((backward.scores, backward.indices), exact[1])
    part = np.arange(0, 4500, 90)
    same((forward.scores[part], forward.indices[part]), oracle(x[part], y, 4))


@settings(max_examples=30)
@given(st.integers(1, 64), st.integers(0, 999), st.floats(-3, 3), st.booleans())
def test_the_bound_holds(dim: int, seed: int, offset: float, both_ways: bool) -> None:
    """No product of the rounded sides is further from the true one than stated, before and after rounding to bf16."""
    generator = np.random.default_rng(seed)
    x, y = ((generator.normal(size=(60, dim)) + offset).astype(np.float32) for _ in range(2))
    left, right = certified._sides(x, y if both_ways else x)
    bound = certified._bounds(left, right).double().numpy()[:, None]
    c, d = (side.own.double().numpy() if left.centred else np.zeros(dim) for side in (left, right))
    truth = x.astype(np.float64) @ right.vectors.astype(np.float64).T - c @ d
    rounded = (left.rounded(0, 60) @ right.rounded(0, 60).T).float().numpy().astype(np.float64)
    unit = certified._ROUNDING
    assert (np.abs(rounded - truth) <= bound * (1 + unit) + unit * (np.abs(truth) + bound)).all()
    assert torch.allclose(left.size, torch.from_numpy(np.linalg.norm(x - c, axis=1).astype(np.float32)), rtol=1e-2)


@pytest.mark.usefixtures("small_tiles")
def test_only_rows_in_doubt_are_searched_whole(monkeypatch: Any) -> None:
    """Random vectors are told apart by far more than faiss's rounding; a row of near ties is not."""
    generator = np.random.default_rng(5)
    x, y = (generator.normal(size=(rows, 16)).astype(np.float32) for rows in (40, 300))
    y[:200] = x[7] * 10 + 1e-6 * generator.normal(size=(200, 16)).astype(np.float32)
    whole: list[int] = []
    original = neighbours.exhaustive
    monkeypatch.setattr(neighbours, "exhaustive", lambda *of: whole.extend(of[2].tolist()) or original(*of))
    same(search(x[:7], y[200:], 4, "faiss"), oracle(x[:7], y[200:], 4))
    assert not whole
    same(search(x, y, 4, "faiss"), oracle(x, y, 4))
    assert 7 in whole


@pytest.mark.usefixtures("small_tiles")
def test_too_many_candidates_fail_and_are_searched_otherwise() -> None:
    x = np.ones((300, 8), np.float32)
    forward, backward = certified.scan(x, x, 2)
    assert len(forward.failed) == 300 and backward is not None and len(backward.failed) == 300
    for found in both_directions(x, x, 2, "bf16"):
        assert (found.indices == [0, 1]).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(st.integers(1, 80), st.integers(0, 999))
def test_integer_products_bound_the_true_ones(kind: str, dim: int, seed: int) -> None:
    x, y = draw(kind, 90, 70, dim, np.random.default_rng(seed))
    made = encode(x, y)
    if made is None:
        assert kind in ("lengths", "zeros") or dim < 8
        return
    products = torch._int_mm(made.left(20, 90), made.right.T).numpy()
    truth = x[20:].astype(np.float64) @ y.astype(np.float64).T
    bound = products * made.unit + made.offset
    assert (truth <= bound).all()
    assert (made.left_length >= np.linalg.norm(x, axis=1)).all()
    assert (made.right_length >= np.linalg.norm(y, axis=1)).all()
    if kind in ("plain", "one way") and dim >= 32:
        spread = np.linalg.norm(x - x.mean(0), axis=1).max() * np.linalg.norm(y - y.mean(0), axis=1).max()
        assert np.median(bound - truth) < 0.05 * spread, "a bound that is loose excludes nothing"


needs_int8 = pytest.mark.skipif(not integers.int8_gain(), reason="this processor's int8 products are wrong")


@needs_int8
def test_int8_at_full_tile_size(monkeypatch: Any) -> None:
    """Several panels and tiles of 256 dimensions, both directions; the rows that fail are those with too many ties."""
    generator = np.random.default_rng(0)
    y = generator.normal(size=(3000, 256)).astype(np.float32)
    x = y[generator.integers(0, 1500, 4500)] + generator.normal(size=(4500, 256)).astype(np.float32)
    x, y = normalise(x + 0.2), normalise(y + 0.2)
    y[1000:2100] = y[1000]
    x[0] = y[1000]
    found = integers.scan(x, y, 4)
    assert found is not None and found[1] is not None and 0 in found[0].failed and len(found[0].failed) < 100
    monkeypatch.setattr(certified, "scan", None)
    exact = neighbours._float32(x, y, 4), neighbours._float32(y, x, 4)
    for one, other in zip(both_directions(x, y, 4, "int8"), exact, strict=True):
        same(one, other)
    assert exact[0].indices[0].tolist() == [1000, 1001, 1002, 1003]


@needs_int8
def test_int8_gives_up_where_it_tells_too_little_apart() -> None:
    """Three clusters whose vectors differ by less than a code's step."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 64))[generator.integers(0, 3, 3000)] + 1e-4 * generator.normal(size=(3000, 64))
    x = normalise(x.astype(np.float32))
    assert integers.scan(x, x, 4) is None
    part = np.arange(0, 3000, 50)
    found = both_directions(x, x, 4, "int8")[1]
    same((found.scores[part], found.indices[part]), oracle(x[part], x, 4))


@given(width=st.sampled_from([16, 400, 1120, 4096]), rows=st.integers(1, 1 << 22), seed=st.integers(0, 9999))
def test_pairs_as_integers_stand_by_query_and_falling_product(width: int, rows: int, seed: int) -> None:
    keys = integers._Keys.of(width, integers.PANEL_ROWS, rows)
    assert keys is not None
    generator = np.random.default_rng(seed)
    most = width * 127**2
    who = generator.integers(0, integers.PANEL_ROWS, 200).astype(np.int32)
    values = generator.choice([-most, most, 0, *generator.integers(-most, most, 5)], 200).astype(np.int32)
    places = generator.integers(0, rows, 200).astype(np.int32)
    pairs = np.sort(keys.packed(who, values, places))
    order = np.lexsort((places, -values.astype(np.int64), who))
    assert (keys.who(pairs) == who[order]).all() and (keys.places(pairs) == places[order]).all()


def test_no_pair_is_lost_while_a_tile_has_fewer_than_are_asked_for(monkeypatch: Any) -> None:
    """Nothing is known of a level until then: it is the lowest integer there is."""
    monkeypatch.setattr(integers, "TILE_ROWS", 16)
    monkeypatch.setattr(integers, "_TOO_MANY", 2.0)
    generator = np.random.default_rng(0)
    x, y = (normalise(generator.standard_normal((n, 32), np.float32)) for n in (8, 300))
    found = integers.scan(x, y, 40, both=False)
    assert found is not None and not len(found[0].failed)
    assert (found[0].indices == search(x, y, 40)[1]).all()


def test_pairs_that_fit_no_integer_go_another_way(monkeypatch: Any) -> None:
    assert integers._Keys.of(1 << 15, 1024, 1 << 27) is None
    x = normalise(np.random.default_rng(0).standard_normal((64, 16), np.float32))
    monkeypatch.setattr(integers._Keys, "of", lambda *_: None)
    assert integers.scan(x, x, 4) is None
    same(both_directions(x, x, 4, "int8")[0], oracle(x, x, 4))


def test_int8_is_taken_where_its_products_are_right_and_faster(monkeypatch: Any) -> None:
    x = np.broadcast_to(np.float32(0), (1 << 15, 256))
    monkeypatch.setattr("effstilts.model.packed.bf16_gain", lambda: 2.0)
    monkeypatch.setattr(neighbours, "_device", lambda: "cpu")
    for gain, taken in ((1.9, ["int8", "bf16"]), (1.2, ["bf16"])):
        monkeypatch.setattr(integers, "int8_gain", lambda gain=gain: gain)
        assert neighbours._ways("auto", x, x, 4) == taken
    assert neighbours._ways("auto", x, x, 40) == neighbours._ways("auto", x[:, :64], x[:, :64], 4) == ["bf16"]
    assert neighbours._ways("auto", x[:20_000], x, 4) == ["bf16"]
    monkeypatch.setattr(integers, "int8_gain", lambda: 1.9)
    assert neighbours._ways("auto", x[:16384], x[: 1 << 15], 16) == ["int8", "bf16"]
    assert neighbours._ways("auto", x[:16384], x[: 1 << 15], 17) == ["bf16"]
    assert neighbours._ways("auto", x[:512], x[:1024], 64) == ["bf16"]
    assert neighbours._ways("auto", x[:512], x[:1024], 65) == neighbours._ways("auto", x[:511], x[:1024], 1) == []
    assert neighbours._ways("faiss", x, x, 4) == [] and neighbours._ways("int8", x, x, 99) == ["int8"]
    monkeypatch.undo()
    integers.int8_gain.cache_clear()
    right = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: right(a, b).clamp(max=2**22))
    assert integers.int8_gain() == 0, "sums that overflow are found out"
    assert neighbours._ways("int8", x, x, 4) == [], "and not made"
    integers.int8_gain.cache_clear()


def test_memory_maps_and_float16(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for dtype in (np.float32, np.float16):
        x, y = (generator.normal(size=(200, 16)).astype(dtype) for _ in range(2))
        for name, values in (("x", x), ("y", y)):
            np.save(tmp_path / name, values)
        mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"]
        for method in ("faiss", "bf16", "int8"):
            same(search(*mapped, 3, method), oracle(x, y, 3))


def test_where_memory_is_short_for_a_scan_float32_goes_on(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    released: list[int] = []
    monkeypatch.setattr(neighbours, "release", lambda: released.append(1))
    for way, module in (("bf16", certified), ("int8", integers)):

        def short(*_: Any, **__: Any) -> Any:
            raise MemoryError

        monkeypatch.setattr(module, "scan", short)
        same(search(x, x, 3, way), oracle(x, x, 3))  # type: ignore[arg-type]
        assert f"search: out of memory for the scan in {way}, going on without it" in capsys.readouterr().err
        for found in both_directions(x, x, 3, way):  # type: ignore[arg-type]
            same(found, oracle(x, x, 3))
    assert len(released) == 4

    def wrong(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(certified, "scan", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        search(x, x, 3, "bf16")


def test_a_search_one_way_scans_one_way(monkeypatch: Any) -> None:
    x = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    asked: list[bool] = []
    for module in (certified, integers):
        original = module.scan
        monkeypatch.setattr(module, "scan", lambda *of, scan=original: asked.append(of[3]) or scan(*of))
    for method in ("bf16", "int8"):
        search(x, x, 3, method)  # type: ignore[arg-type]
        both_directions(x, x, 3, method)  # type: ignore[arg-type]
    assert asked == [False, True] * 2
    search(x, x, 3)
    assert len(asked) == 4, "float32 unless another way is asked for"


def test_auto_takes_bf16_only_where_it_pays(monkeypatch: Any) -> None:
    ran: list[str] = []
    original = certified.scan
    monkeypatch.setattr(certified, "scan", lambda *a, **k: (ran.append("bf16"), original(*a, **k))[1])
    x = np.random.default_rng(2).normal(size=(1100, 8)).astype(np.float32)
    for gain in (1.0, 5.0):
        monkeypatch.setattr("effstilts.model.packed.bf16_gain", lambda gain=gain: gain)
        search(x, x, 1, "auto")
        assert ran == (["bf16"] if gain > 2 else [])
    search(x[:100], x[:100], 1, "auto")
    assert ran == ["bf16"], "small sets stay with faiss"


def test_bad_vectors_and_counts() -> None:
    good = np.random.default_rng(3).normal(size=(70, 4)).astype(np.float32)
    broken = good.copy()
    broken[37, 2] = np.nan
    for method in ("faiss", "bf16", "int8"):
        for pair in ((good, broken), (broken, good)):
            sides = ("query", "database") if method == "faiss" else ("source", "target")
            name = sides[pair[1] is broken]
            with pytest.raises(DataError, match=rf"^{name} vector 37 \(from 0\) has numbers that are not finite$"):
                search(*pair, 2, method)
        for count in (0, 71):
            with pytest.raises(DataError, match="the database has 70 vectors"):
                search(good, good, count, method)
    forward, backward = both_directions(good, good[:3], 5)
    same(forward, oracle(good, good[:3], 3))
    same(backward, oracle(good[:3], good, 5))
    with pytest.raises(DataError, match="dimensions"):
        both_directions(good, good[:, :3], 1)
    with pytest.raises(DataError, match="two axes"):
        search(good[0], good, 1)
    with pytest.raises(DataError, match="up to 128 neighbours"):
        search(np.tile(good, (4, 1)), np.tile(good, (4, 1)), 200, "bf16")


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "sq", "pq"])
def test_approximate_indexes_find_most_and_survive_the_disk(kind: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    rows = 250 if kind == "pq" else 600  # below 256 vectors pq has 4-bit codes, which train at once
    database = normalise(generator.normal(size=(rows, 16)).astype(np.float32))
    queries = normalise(database[:200] + 0.1 * generator.normal(size=(200, 16)).astype(np.float32))
    index = Index.build(database, IndexSpec(kind, lists=20, probe=20, effort=200, codes=4))
    facts = recall(index, queries, database, 4, sample=150)
    assert facts["queries"] == 150 and facts["recall"] > (0.3 if kind == "pq" else 0.95)
    index.save(tmp_path / "index")
    again = Index.load(tmp_path / "index", index.spec)
    assert np.array_equal(again.search(queries, 4)[1], index.search(queries, 4)[1])
    if kind != "hnsw":
        again.look(probe=1)
        assert recall(again, queries, database, 4)["recall"] < facts["recall"]
    (tmp_path / "text").write_text("no index")
    with pytest.raises(DataError, match="no faiss index"):
        Index.load(tmp_path / "text", index.spec)


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "sq", "pq"])
def test_what_an_index_cannot_be_made_of_or_asked_is_one_line(kind: Any, tmp_path: Path) -> None:
    database = normalise(np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32))
    broken = database.copy()
    broken[7, 3] = np.nan
    with pytest.raises(DataError, match=r"database vector 7 \(from 0\) has numbers that are not finite"):
        Index.build(broken, IndexSpec(kind, codes=4))
    index = Index.build(database, IndexSpec(kind, codes=4))
    with pytest.raises(DataError, match=r"query vector 7 \(from 0\) has numbers that are not finite"):
        index.search(broken, 2)
    with pytest.raises(DataError, match=r"has vectors of 16 dimensions, the queries are \(40, 15\)"):
        index.search(database[:, :15], 2)
    with pytest.raises(DataError, match="0 neighbours are asked"):
        index.search(database, 0)
    scores, found = index.search(database[:0], 3)
    assert scores.shape == found.shape == (0, 3)
    with pytest.raises(DataError, match="no file .*nowhere"):
        Index.load(tmp_path / "nowhere", index.spec)
    with pytest.raises(DataError, match="no index 'flat'; there are ivf, hnsw, sq, pq"):
        IndexSpec("flat")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="pq needs 16 vectors or more, there are 15"):
        Index.build(database[:15], IndexSpec("pq", codes=4))


def test_an_index_is_what_was_asked_for() -> None:
    assert IndexSpec().factory(2500, 64) == "IVF200,Flat"
    assert IndexSpec("ivf", lists=7).factory(2500, 64) == "IVF7,Flat" and IndexSpec("ivf", 9).cells(3) == 3
    assert IndexSpec("sq").factory(3, 64) == "IVF3,SQ8" and IndexSpec("hnsw", links=5).factory(9, 8) == "HNSW5"
    assert [IndexSpec("pq", 1).factory(rows, 64) for rows in (255, 256)] == ["IVF1,PQ8x4", "IVF1,PQ8x8"]
    assert IndexSpec("pq", 1, codes=4).factory(300, 64) == "IVF1,PQ4x8"
    assert IndexSpec("pq", 1).factory(300, 7) == "IVF1,PQ1x8"
    assert (IndexSpec().kind, IndexSpec().probe, IndexSpec().links, IndexSpec().effort) == ("ivf", 16, 32, 64)
    for shape in ((4,), (0, 4)):
        with pytest.raises(DataError, match="an index needs vectors"):
            Index.build(np.zeros(shape, np.float32), IndexSpec())


def test_an_index_is_trained_on_every_vector_once_where_they_are_few() -> None:
    faiss = neighbours.faiss_module()
    database = normalise(np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32))
    plain = faiss.index_factory(8, "IVF20,Flat", faiss.METRIC_INNER_PRODUCT)
    plain.cp.min_points_per_centroid = 1
    plain.train(database)
    made = Index.build(database, IndexSpec("ivf", lists=20, probe=3))
    cells = [faiss.downcast_index(of.quantizer) for of in (plain, made.index)]
    assert np.array_equal(*(faiss.vector_to_array(cell.codes) for cell in cells))
    assert made.index.nprobe == 3
    made.look(probe=5)
    made.look(effort=9)
    made.look()
    assert made.index.nprobe == 5
    beam = Index.build(database, IndexSpec("hnsw", effort=33))
    assert faiss.downcast_index(beam.index).hnsw.efSearch == 33
    beam.look(effort=50)
    beam.look(probe=7)
    assert faiss.downcast_index(beam.index).hnsw.efSearch == 50
    coded = Index.build(database, IndexSpec("pq", lists=2, codes=4))
    assert not faiss.downcast_index(coded.index).do_polysemous_training


def test_an_exhaustive_probe_is_exact() -> None:
    generator = np.random.default_rng(5)
    vectors = normalise(generator.normal(size=(400, 8)).astype(np.float32))
    facts = recall(Index.build(vectors, IndexSpec("ivf", lists=10, probe=10)), vectors, vectors, 5)
    assert facts == {
        "recall": 1.0, "first": 1.0, "count": 5, "queries": 400, "kind": "ivf", "lists": 10, "probe": 10, "links": 32,
        "effort": 64, "codes": 0,
    }  # fmt: skip
    assert facts["recall"] == facts["first"] == 1.0 and facts["queries"] == 400
    swapped = SimpleNamespace(
        search=lambda asked, count: (None, search(asked, vectors, count)[1][:, [1, 0, 2]]), spec=IndexSpec("ivf")
    )
    half = recall(swapped, vectors, vectors, 3, sample=20)  # type: ignore[arg-type]
    assert (half["recall"], half["first"], half["queries"]) == (1.0, 0.0, 20)
    asked: list[Any] = []
    every = SimpleNamespace(
        search=lambda queries, count: asked.append(queries) or search(queries, vectors, count), spec=IndexSpec("ivf")
    )
    recall(every, vectors[:50], vectors, 3, sample=50)  # type: ignore[arg-type]
    assert np.array_equal(asked[0], vectors[:50]), "each query once"
    with pytest.raises(DataError, match="do not divide"):
        Index.build(vectors, IndexSpec("pq", codes=3))
