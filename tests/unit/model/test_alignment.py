"""Alignment of pieces: a planted lexicon is found, links add up, files round-trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effstilts.model.alignment import NONE, align, merged, read, write


def test_a_planted_lexicon_is_found() -> None:
    """Source pieces 10 to 59 stand for 110 to 159, in another order, beside noise on both sides."""
    draw = np.random.default_rng(0)
    sources, targets = [], []
    for _ in range(1500):
        meaning = draw.choice(50, 6, replace=False)
        sources.append(np.append(meaning + 10, draw.integers(60, 90, 2)))
        targets.append(np.append(draw.permutation(meaning) + 110, draw.integers(160, 190, 1)))
    links = align(sources, targets)
    best = {}
    for piece, source, count in zip(*links, strict=True):
        best[piece] = max(best.get(piece, (0.0, 0)), (count, source))
    assert all(best[meaning + 110][1] == meaning + 10 for meaning in range(50))
    assert all(best[meaning + 110][0] > 100 for meaning in range(50)), "some 180 rows have each"


ROWS = st.lists(st.tuples(*[st.lists(st.integers(5, 12), max_size=5).map(np.array)] * 2), max_size=8)


@given(ROWS)
def test_links_are_of_pieces_that_met_and_no_more_often_than_they_did(
    rows: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    rows = [(a.astype(np.int64), b.astype(np.int64)) for a, b in rows]
    links = align([a for a, _ in rows], [b for _, b in rows])
    for piece, source, count in zip(*links, strict=True):
        met = sum(source in a and piece in b for a, b in rows)
        assert 0 < count <= met + 1e-9


def test_several_texts_add_up_and_files_round_trip(tmp_path: Path) -> None:
    one = align([np.array([5, 6])] * 3, [np.array([7, 8])] * 3)
    both = merged([one, NONE, one])
    assert both.times.sum() == 2 * one.times.sum() and len(both.piece) == len(one.piece) == 4
    write(both, tmp_path)
    for kept, before in zip(read(tmp_path), both, strict=True):
        np.testing.assert_array_equal(kept, before)
    assert all(len(column) == 0 for column in merged([]))


def test_ids_of_a_large_vocabulary_do_not_wrap() -> None:
    """Encoded rows are int32; codes of pairs are not."""
    links = align([np.array([50_000], np.int32)] * 3, [np.array([249_999], np.int32)] * 3)
    assert links.source.tolist() == [50_000] and links.piece.tolist() == [249_999]
