"""What the certified searches promise beside their result: their bounds term by term, how much they keep, who fails."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import effstilts.retrieval.certified as certified
import effstilts.retrieval.codes as codes
import effstilts.retrieval.integers as integers
from effstilts.errors import DataError
from effstilts.retrieval.exact import Found, best, tensor
from effstilts.retrieval.neighbours import normalise


def around(share: float, length: float, rows: int = 40) -> np.ndarray:
    """Vectors [rows, 3] of one length whose mean is `share` of it."""
    other = np.sqrt(1 - share**2) * np.where(np.arange(rows) % 2, 1, -1)
    return (length * np.stack([np.full(rows, share), other, np.zeros(rows)], 1)).astype(np.float32)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rounded", [True, False])
def test_the_bf16_bound_is_cauchy_schwarz_and_the_sums_own_rounding(centred: bool, rounded: bool) -> None:
    """|xy - x'y'| <= |x - x'| |y| + |x'| |y - y'|, and 2 n u sum |x_i y_i| for a sum of n products in float32; vectors
    that bf16 holds have the second alone."""
    generator = np.random.default_rng(0)
    x, y = (generator.integers(-9, 9, (rows, 24)).astype(np.float32) for rows in (30, 20))
    if not rounded:
        x, y = x + generator.normal(size=x.shape).astype(np.float32), y * np.float32(1.1)
    c, d = (generator.integers(-9, 9, 24).astype(np.float32) * centred for _ in range(2))
    sides = [
        certified._Side(x, "x", *map(torch.from_numpy, (c, d)), centred, True),
        certified._Side(y, "y", *map(torch.from_numpy, (d, c)), centred, False),
    ]
    size, error, cross = [], [], []
    for vectors, own, other in ((x, c, d), (y, d, c)):
        exact = (vectors - own).astype(np.float64)
        near = torch.from_numpy(vectors - own).bfloat16().double().numpy()
        size.append(np.linalg.norm(near, axis=1))
        error.append(np.linalg.norm(exact - near, axis=1))
        cross.append(np.abs(exact @ other.astype(np.float64)))
    assert rounded == (not any(map(np.any, error)))
    for one, other_ in ((0, 1), (1, 0)):
        longest, furthest = size[other_].max(), error[other_].max()
        products = error[one] * (longest + furthest) + size[one] * furthest
        summing = 2 * (24 + 32) * 2.0**-24 * (size[one] * longest + cross[one] + cross[other_].max())
        found = certified._bounds(sides[one], sides[other_]).double().numpy()
        assert np.allclose(found, products + summing, rtol=2e-4, atol=0)
        assert (found >= products + summing).all()
    nothing = certified._Side(0 * x, "x", torch.zeros(24), torch.zeros(24), False, True)
    assert 0 < certified._bounds(nothing, nothing).max() < 1e-20


def test_a_common_direction_is_taken_out_where_it_is_worth_its_columns() -> None:
    for share, centred in ((0.31, False), (0.33, True)):
        for length in (1, 10):
            left, right = certified._sides(around(share, length), around(share, length))
            assert left.centred is right.centred is centred
            assert left.rounded(3, 5).shape == (2, 35 if centred else 3)
    # Of the cross term three parts are left after one another: bf16 alone would lose 16 bits of it.
    rows = left.rounded(0, 40)[:, 3:].double()
    assert torch.allclose(rows[:, :3].sum(1), left.cross.double(), rtol=2.0**-22)
    assert rows[:, 3:6].eq(1).all() and rows[:, 6:].eq(0).all()
    assert right.rounded(0, 40)[:, 3:6].eq(1).all()


@pytest.mark.parametrize(("of", "most"), [(certified, 1024), (codes, 512)])
def test_a_centre_is_the_mean_of_a_sample_from_the_whole(of: Any, most: int) -> None:
    numbers = np.arange(4 * most + 40, dtype=np.float16)[:, None] % 2048
    assert of._sample(numbers)[:, 0].tolist() == numbers[::4, 0].tolist()[:most]
    assert of._sample(numbers).dtype == np.float32
    assert of._sample(numbers[:most])[:, 0].tolist() == numbers[:most, 0].tolist()
    few = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert np.allclose(of._centre(few).numpy(), few.astype(np.float64).mean(0), rtol=1e-6)
    assert of._typical_length(few) == pytest.approx(np.linalg.norm(few, axis=1).mean(), rel=1e-6)


def test_groups_grow_with_the_neighbours_asked_for() -> None:
    assert [certified._slots(count) for count in (1, 8, 9, 16, 17, 64, 65, 128)] == [
        64, 64, 128, 128, 256, 512, 1024, 1024,
    ]  # fmt: skip
    with pytest.raises(DataError, match="129 are asked"):
        certified._slots(129)


def test_float32_sums_are_asked_of_a_gpu_during_a_scan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = torch.backends.cuda.matmul
    seen: list[bool] = []
    monkeypatch.setattr(
        certified, "_scan", lambda *_: seen.append(flags.allow_bf16_reduced_precision_reduction) or (None, None)
    )
    x = np.zeros((2, 2), np.float32)
    for before in (True, False):
        flags.allow_bf16_reduced_precision_reduction = before
        certified.scan(x, x, 1)
        assert flags.allow_bf16_reduced_precision_reduction is before
    flags.allow_bf16_reduced_precision_reduction = True
    assert seen == [False, False]


class Tile:
    """Scores [3, 128] of three queries, offered in 64 groups of two entries each."""

    def __init__(self, **rows: Any) -> None:
        self.scores = torch.full((3, 128), float("-inf"), dtype=torch.bfloat16)
        for row, values in rows.items():
            self.scores[int(row[1:]), : len(values)] = torch.tensor(values, dtype=torch.bfloat16)

    def offer(self, to: certified._Best) -> None:
        def places(who: Any, slot: Any) -> Any:
            entries = slot[:, None] + np.array([0, 64])
            return who[:, None] * 128 + entries, 1000 + entries

        to.offer(to.maxima(self.scores.view(3, 2, 64)), places, self.scores)


def block(count: int = 2, bound: float = 0.0) -> certified._Best:
    return certified._Best(0, torch.full((3,), bound), count, 64)


def test_thresholds_are_raised_when_what_was_seen_has_grown_by_half(monkeypatch: pytest.MonkeyPatch) -> None:
    raises = sorted(step for step in certified._RAISES if step < 1e9)
    assert raises[:8] == [1, 2, 3, 4, 6, 8, 12, 16] and raises[-1] > 5e8
    assert all(later <= 1.5 * earlier for earlier, later in itertools.pairwise(raises[1:]))
    rows = block()
    at: list[int] = []
    monkeypatch.setattr(rows, "_prune", lambda: at.append(rows.visits))
    for _ in range(17):
        Tile().offer(rows)
    assert at == [1, 2, 3, 4, 6, 8, 12, 16] and not rows.counts.any()


def test_a_threshold_is_what_rounding_leaves_of_the_last_of_the_best() -> None:
    rows = block(count=2, bound=0.25)
    rows.slots[:, :3] = torch.tensor([[3.0, 2.0, 1.0], [-1.0, -2.0, -3.0], [5.0, 4.0, 0.0]]).bfloat16()
    rows.failed[2] = True
    rows._raise_threshold()
    half = 2.0**-8 * 1.01
    true = [2 - half * 2 - 0.5, -2 - half * 2 - 0.5]
    assert rows.threshold[:2] == pytest.approx([t - half * abs(t) for t in true], rel=1e-6)
    assert rows.threshold[2] == np.inf and rows.threshold.dtype == np.float32


@pytest.mark.parametrize(("count", "limit"), [(1, 64), (4, 64), (5, 80)])
def test_a_query_with_more_candidates_than_the_limit_has_failed_alone(count: int, limit: int) -> None:
    for extra in (0, 1):
        rows = block(count)
        Tile(r0=[1.0] * (limit + extra), r2=[2.0, 1.0, 2.0, 2.0, 2.0, 2.0]).offer(rows)
        rows._prune()
        assert rows.failed.tolist() == [bool(extra), False, False]
        assert np.isposinf(rows.threshold).tolist() == [bool(extra), False, False]
        ((who, columns, values),) = rows.kept
        assert who.tolist() == [0] * limit * (not extra) + [2] * 5
        assert sorted(columns[who == 2]) == [1000, 1002, 1003, 1004, 1005] and set(values[who == 2]) == {2.0}
        assert rows.counts.tolist() == [0 if extra else limit, 0, 5]


def test_a_score_at_the_threshold_is_kept_and_one_below_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = block()
    rows.visits = 4
    rows.threshold[:] = 1.0
    pruned: list[int] = []
    monkeypatch.setattr(rows, "_prune", lambda: pruned.append(1))
    Tile(r0=[1.0, 0.99], r1=[0.5], r2=[0.5] * 64 + [1.0, -3.0]).offer(rows)
    ((who, columns, _),) = rows.kept
    assert (who.tolist(), columns.tolist()) == ([0, 2], [1000, 1064])
    assert rows.counts.tolist() == [1, 0, 1] and not pruned
    rows.visits = 4
    Tile(r1=[2.0] * 64).offer(rows)
    assert not pruned, "at the limit"
    rows.visits = 4
    Tile(r1=[2.0]).offer(rows)
    assert pruned == [1]


def test_maxima_as_integers_are_right_where_a_threshold_is_above_nothing() -> None:
    rows = block()
    groups = torch.randn(3, 2, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(rows.maxima(groups), groups.amax(1)), "negative ones too"
    rows.threshold[:] = [0.1, 0.2, 0.0]
    assert torch.equal(rows.maxima(groups), groups.amax(1))
    rows.threshold[:] = 0.1
    found, right = rows.maxima(groups), groups.amax(1)
    assert torch.equal(found[right > 0], right[right > 0]) and (found[right <= 0] <= 0).all()


@pytest.mark.parametrize("shift", [0.0, 0.04])
def test_the_int8_bound_holds_for_every_pair_and_is_made_of_its_terms(shift: float) -> None:
    """Error times length on either side, the cross terms, and what float32 takes; the same factors stand in `encode`,
    so the bound itself is held against products in float64 first."""
    generator = np.random.default_rng(0)
    x, y = (normalise(generator.normal(size=(n, 768)).astype(np.float32) * 0.04 + shift) for n in (60, 50))
    x *= np.linspace(0.9, 1.1, 60, dtype=np.float32)[:, None]
    made = codes.encode(x, y)
    assert made is not None
    if shift:
        c, d = (side.mean(0, dtype=np.float64).astype(np.float32) for side in (x, y))
    else:
        c, d = np.zeros((2, 768), np.float32)
    products = made.left(0, 60).double() @ made.right.T.double()
    over = products.numpy() * made.unit + made.offset - x.astype(np.float64) @ y.astype(np.float64).T
    assert over.min() >= 0 and over.max() < 0.05
    left = made._source
    steps = (left.step, made.unit / left.step)
    kept, error, size, cross = [], [], [], []
    for vectors, own, other, step in ((x, c, d, steps[0]), (y, d, c, steps[1])):
        exact = vectors - own
        rounded = np.clip(np.rint(exact / np.float32(step)), -127, 127).astype(np.float64) * step
        kept.append(1.0001 * np.linalg.norm(rounded, axis=1))
        error.append(1.0001 * np.linalg.norm(exact - rounded, axis=1))
        size.append(1.0001 * np.linalg.norm(exact, axis=1))
        cross.append(exact.astype(np.float64) @ other.astype(np.float64))
    share = 4 * (768 + 8) * 2.0**-24
    terms = (
        error[0] * size[1].max() + share * size[0] * size[1].max() + cross[0],
        error[1] * kept[0].max() + share * size[1] * size[0].max() + cross[1],
    )
    middle = [(own.min() + own.max()) / 2 for own in terms]
    lengths = np.linalg.norm(c), np.linalg.norm(d)
    spare = 2.0**-22 * (size[0].max() * lengths[1] + size[1].max() * lengths[0])
    assert made.offset == pytest.approx(c.astype(np.float64) @ d + sum(middle) + spare, abs=2e-8)
    numbers = [np.ceil((own - at) / (made.unit * 127)) + 1 for own, at in zip(terms, middle, strict=True)]
    assert (made._own.numpy() == numbers[0]).mean() > 0.9
    # The columns beside those of the vectors: 127 against digits, none larger, that add up to the numbers.
    places, ones = made._places, made._ones
    assert (places.start, places.stop, ones.stop) == (768, ones.start, ones.start + ones.stop - places.stop)
    assert made.right.shape[1] == -(-ones.stop // 16) * 16
    rows = made.left(10, 30)
    assert rows[:, ones].eq(127).all() and made.right[:, places].eq(127).all()
    assert torch.equal(rows[:, places].sum(1).double(), made._own[10:30])
    assert (made.right[:, ones].double().sum(1).numpy() == numbers[1]).mean() > 0.9
    assert rows[:, ones.stop :].eq(0).all() and made.right[:, ones.stop :].eq(0).all()
    for width, own in ((places.stop - places.start, made._own), (ones.stop - ones.start, torch.tensor(numbers[1]))):
        assert width == max(1, -(-int(own.abs().max()) // 127))
    assert np.allclose(made.left_length, 1.0001 * (size[0] + lengths[0]), rtol=1e-6)
    assert np.allclose(made.right_length, 1.0001 * (size[1] + lengths[1]), rtol=1e-6)


def test_the_step_is_the_one_that_loses_the_least() -> None:
    generator = np.random.default_rng(0)
    for spread in (0.0, 1.0, 2.0):
        sample = torch.from_numpy(generator.normal(size=(64, 32)) * np.exp(spread * generator.normal(size=(64, 32))))
        root = float(sample.square().mean().sqrt())
        lost = {}
        for reach in (3.0, 3.5, 4.0, 5.0, 7.0, 10.0, 16.0):
            step = root * reach / 127
            back = (sample / step).round().clamp(-127, 127) * step
            lost[step] = float((back - sample).norm(dim=1).mean())
        assert codes._step(sample) == min(lost, key=lambda step: lost[step])
    assert codes._step(torch.zeros(3, 4)) == codes._step(torch.full((3, 4), float("inf"))) == 1.0
    assert codes._step(torch.full((1, 4), 0.5)) == pytest.approx(0.5 * 3 / 127)


@pytest.mark.parametrize(("share", "taken"), [(0.14, False), (0.15, True)])
def test_int8_takes_a_centre_out_from_a_fiftieth_of_the_lengths_on(share: float, taken: bool) -> None:
    made = codes.encode(around(share, 10), around(share, 10))
    assert made is not None and (made._source.centre is not None) is taken


def test_vectors_of_very_unlike_lengths_have_too_many_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is longer, outside the sample that the step is set by."""
    x = np.random.default_rng(0).normal(size=(2048, 256)).astype(np.float32)
    digits = []
    for factor in (1, 4, 10):
        longer = x.copy()
        longer[1] *= factor
        made = codes.encode(x, longer)
        assert made is not None
        digits.append(made._ones.stop - 256)
    assert 2 <= digits[0] < digits[1] < digits[2] <= 96
    longer[1] *= 4
    assert codes.encode(x, longer) is None
    longer[1] /= 4
    for most in (digits[2], digits[2] - 1):
        monkeypatch.setattr(codes, "_MOST_DIGITS", most)
        assert (codes.encode(x, longer) is None) == (most < digits[2])


def test_a_pair_fits_into_63_bits_or_there_are_no_keys() -> None:
    of = integers._Keys.of
    assert of(1 << 15, 1023, 1023) == (127**2 << 15, 30, 10)
    assert of(66_000, 1023, (1 << 22) - 1) == (66_000 * 127**2, 31, 22)
    assert of(66_000, 1023, 1 << 22) is of(66_000, 1024, (1 << 22) - 1) is None
    assert of(67_000, 1, 1) is None


def numbers(count: int, queries: int = 1, rows: int = 256) -> integers._Best:
    """A block of queries [1], to which row r of the database [rows, 1] has the product r, exactly."""
    database = np.arange(rows, dtype=np.float32)[:, None]
    exact: Any = SimpleNamespace(offset=0.0, unit=1.0)
    keys = integers._Keys(4096, 14, 12)
    ones = np.ones(queries, np.float32)
    return integers._Best(0, ones[:, None], database, ones, float(rows), count, exact, keys)


def test_a_float32_score_errs_by_the_textbooks_bound_at_most() -> None:
    lengths = np.array([1, 2, 0], np.float32)
    queries, database = np.ones((3, 7), np.float32), np.ones((5, 7), np.float32)
    made = integers._Best(0, queries, database, lengths, 3.0, 2, None, None)  # type: ignore[arg-type]
    assert np.allclose(made.slack, 2 * (7 + 4) * 2.0**-24 * 3 * lengths, rtol=1e-6, atol=1e-29)
    assert made.slack.dtype == made.cut.dtype == np.float32 and (made.slack > 0).all()
    assert np.isneginf(made.cut).all() and not made.failed.any()


def test_the_smallest_product_there_is_stays_while_nothing_is_known() -> None:
    kept = numbers(300)
    kept.keys = integers._Keys(10, 5, 12)
    kept.offer(np.full((1, 8), -10, np.int32), True, 0)
    assert kept.held == kept.offered == 8


def tile(first: int, rows: int, queries: int = 1, by_row: bool = True) -> np.ndarray:
    made = np.tile(np.arange(first, first + rows, dtype=np.int32), (queries, 1))
    return made if by_row else np.ascontiguousarray(made.T)


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("queries", [1, 3])
def test_the_first_tile_sets_a_level_from_the_maxima_of_its_groups(by_row: bool, queries: int) -> None:
    """64 rows are 8 groups, as many as 2 neighbours need: the second largest maximum is 62. Its score is known, and
    a product below 62 less what float32 may err cannot be of the best."""
    kept = numbers(2, queries)
    kept.offer(tile(0, 64, queries, by_row), by_row, 0)
    assert kept.offered == kept.held == 3 * queries
    assert kept.level.tolist() == [61] * queries and kept.level.dtype == np.int32
    assert np.allclose(kept.cut, 62, rtol=1e-5) and (kept.cut < 62).all()
    into = Found.empty(queries, 2)
    kept.finish(into)
    assert into.indices.tolist() == [[63, 62]] * queries and into.scores.tolist() == [[63, 62]] * queries
    assert not len(into.failed)
    few = numbers(3, queries)
    few.offer(tile(0, 64, queries, by_row), by_row, 0)
    assert few.level.tolist() == [60] * queries, "8 groups are too few for 3: the entries themselves are looked at"
    less = numbers(3, queries)
    less.offer(tile(0, 2, queries, by_row), by_row, 0)
    assert less.level.tolist() == [np.iinfo(np.int32).min] * queries and less.held == 2 * queries


def test_levels_are_raised_each_time_that_what_was_seen_has_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = numbers(2)
    at: list[int] = []
    original = kept.prune
    monkeypatch.setattr(kept, "prune", lambda: (at.append(kept._visits), original()))
    for visit in range(9):
        kept.offer(tile(8 * visit, 8), True, 8 * visit)
    assert at == [0, 1, 2, 4, 8] and kept.level.tolist() == [61]
    assert kept.offered == 3 + 8 * 8, "of the first tile those that its level lets through, then all: they rise"
    assert kept.held == 3 + 8
    into = Found.empty(1, 2)
    kept.finish(into)
    assert into.indices.tolist() == [[71, 70]] and kept.held == 3, "pruned again, with what came last"


def test_a_score_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = integers._products
    monkeypatch.setattr(integers, "_products", lambda *of: made.append(len(of[2])) or original(*of))
    kept = numbers(2)
    for _ in range(8):
        kept.offer(tile(0, 8), True, 0)
    assert made[0] == 2 and sum(made) == 2, "the leaders stay the same"


@pytest.mark.parametrize(("count", "limit"), [(2, 1024), (17, 1088)])
def test_a_query_with_too_many_pairs_fails_and_the_others_do_not(count: int, limit: int) -> None:
    for extra in (0, 1):
        kept = numbers(count, 2, 2048)
        products = np.zeros((2, 2048), np.int32)
        products[0, : limit + extra] = products[1, :count] = 10
        kept.queries, kept.database = np.eye(2, dtype=np.float32), products.T.astype(np.float32)
        kept.offer(products, True, 0)
        into = Found.empty(2, count)
        into.indices[:] = -1
        kept.finish(into)
        assert into.failed.tolist() == [0] * extra
        assert into.indices[1].tolist() == list(range(count))
        assert into.indices[0].tolist() == ([-1] * count if extra else list(range(count)))
        # Nothing of a query that has failed is taken any more.
        assert kept.keys.who(kept._reaching(products, True, 0)).tolist().count(0) == (0 if extra else limit)


@pytest.mark.parametrize(
    ("rows", "both", "fine"), [(64, True, 5120), (64, False, 9216), (128, True, 3072), (128, False, 5120)]
)
def test_a_search_that_keeps_too_much_is_given_up(
    monkeypatch: pytest.MonkeyPatch, rows: int, both: bool, fine: int
) -> None:
    """A quarter of the pairs that were looked at here, and 64 for a neighbour of each query of a panel and tile."""
    monkeypatch.setattr(integers, "PANEL_ROWS", 64)
    monkeypatch.setattr(integers, "TILE_ROWS", 64)
    monkeypatch.setattr(integers, "_TOO_MANY", 0.25)
    x = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)
    for offered in (fine, fine + 1):
        monkeypatch.setattr(
            integers._Best, "offer", lambda self, *_, n=offered: setattr(self, "offered", self.offered + n)
        )
        monkeypatch.setattr(integers._Best, "finish", lambda *_: None)
        assert (integers.scan(x, x[:64], 1, both) is None) == (offered > fine)


def test_a_search_that_holds_too_much_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    monkeypatch.setattr(integers._Best, "offer", lambda *_: None)
    monkeypatch.setattr(integers._Best, "finish", lambda *_: None)
    for held in (2 * 32 * 64, 2 * 32 * 64 + 1):
        monkeypatch.setattr(integers._Best, "held", property(lambda _, held=held: held))
        assert (integers.scan(x, x, 2) is None) == (held > 2 * 32 * 64)
        assert integers.scan(x, x, 2, both=False) is not None, "no column holds anything"


def test_what_int8_products_gain_is_taken_of_the_faster_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "int8_gain", integers.int8_gain.__wrapped__)
    # Right on every processor.
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.double() @ b.double()).int())
    for seconds, gain in (((4.0, 6.0, 2.0), 2.0), ((6.0, 3.0, 2.0), 1.5)):
        made: list[torch.Tensor] = []
        given = iter(seconds)
        monkeypatch.setattr(
            integers, "_quickest", lambda run, given=given, made=made: made.append(run()) or next(given)
        )
        assert integers.int8_gain() == gain
        assert [product.dtype for product in made] == [torch.float32, torch.bfloat16, torch.int32]
        assert all(product.shape == (512, 512) for product in made)
        assert made[0][0, 0] == pytest.approx(768 * 0.01**2, rel=1e-4) and made[2].eq(768).all()
    monkeypatch.setattr(integers, "_quickest", lambda _: 1.0)
    right = torch._int_mm
    for sign in (1, -1):
        monkeypatch.setattr(torch, "_int_mm", lambda a, b, sign=sign: right(a, b) + (right(a, b) * sign > 0).int())
        assert integers.int8_gain() == 0.0, "sums of either sign"


def test_the_quickest_of_six_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, takes = 0.0, iter([5.0, 3.0, 4.0, 2.5, 9.0, 7.0])
    monkeypatch.setattr(integers.time, "process_time", lambda: now)

    def run() -> None:
        nonlocal now
        now += next(takes)

    assert integers._quickest(run) == 2.5 and next(takes, None) is None


def test_products_of_pairs_by_any_way(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    queries, database = (generator.normal(size=(n, 5)).astype(np.float32) for n in (4, 9))
    who, places = np.array([0, 0, 2, 3, 3, 3]), np.array([8, 1, 0, 2, 7, 3])
    wanted = (queries[who].astype(np.float64) * database[places]).sum(1)
    slow: list[int] = []
    original = integers.pair_scores
    monkeypatch.setattr(integers, "pair_scores", lambda *of: slow.append(len(of[2])) or original(*of))
    assert np.allclose(integers._products(queries, database, who, places), wanted, atol=1e-6) and not slow
    for other in ((queries.astype(np.float64), database), (queries, np.asfortranarray(database))):
        assert np.allclose(integers._products(*other, who, places), wanted, atol=1e-6)
    assert slow == [6, 6]


def test_what_torch_may_share_is_not_copied() -> None:
    values = np.ones((3, 2), np.float32)
    assert tensor(values).data_ptr() == values.ctypes.data
    values.flags.writeable = False
    assert tensor(values).data_ptr() != values.ctypes.data and tensor(values).eq(1).all()
    assert tensor(values.astype(np.float16)).dtype == torch.float32


def test_the_best_of_pairs_in_any_order() -> None:
    rows, columns = np.array([1, 0, 1, 0, 1, 0]), np.array([5, 4, 3, 9, 8, 2])
    scores = np.array([1, 7, 1, 7, 3, 8], np.float32)
    found = best(rows, columns, scores, 2, 2)
    assert found[0].tolist() == [[8, 7], [3, 1]] and found[1].tolist() == [[2, 4], [8, 3]]
