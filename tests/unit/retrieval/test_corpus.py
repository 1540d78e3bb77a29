from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effstilts.cli import main
from effstilts.errors import DataError
from effstilts.log import Log
from effstilts.model.opening import save
from effstilts.retrieval import blocks, corpus
from effstilts.retrieval.corpus import embed_lines, read_lines
from effstilts.retrieval.embed import Embedded, Embedder, Pooling, embed
from effstilts.retrieval.mining import mine, neighbourhoods
from effstilts.store import write_folder
from effstilts.studies import texts as studies_texts
from effstilts.synthetic import bucc

QUIET = Log(quiet=True)


def test_lines_are_distinct_numbered_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("\ufeffone\n\n two \n\t\none\r\ntwo\nth\tree\u2028x\nlast".encode()))
    lines = read_lines(path, tmp_path / "w")
    assert [text for chunk in lines.chunks(3) for text in chunk] == ["one", "two", "th ree x", "last"]
    assert lines.numbers.tolist() == [1, 3, 7, 8] and (lines.lines, lines.blank, lines.repeated) == (8, 2, 2)
    assert list(lines.at(np.array([3, 0]))) == ["last", "one"]
    (tmp_path / "b.txt").write_text("one\ntwo\none\n\n")
    assert read_lines(tmp_path / "b.txt", tmp_path / "w").numbers.tolist() == [1, 2], "the last ones are passed over"
    assert lines.told() == f"{path}: 8 lines, 2 blank, 2 repeated"
    every = read_lines(path, tmp_path / "w", distinct=False)
    assert every.numbers.tolist() == [1, 3, 5, 6, 7, 8] and every.repeated == 0


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is empty"), (b"\n \n\t\n", "holds no text: 3 lines, all blank"), (b"a\n\xff\n", "a.txt:2: not UTF-8"),
])  # fmt: skip
def test_files_without_text_are_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_lines(tmp_path / "a.txt", tmp_path / "w")


@pytest.fixture
def texts(tmp_path: Path, encoder: Any) -> Path:
    save(encoder, tmp_path / "model")
    made = bucc("qaa", sentences=60, pairs=30)
    for name, side in (("a.txt", "source"), ("b.txt", "target")):
        (tmp_path / name).write_text("".join(f"{text}\n" for _, text in made[side]), encoding="utf-8")
    return tmp_path


def words(folder: Path, command: str, *more: str) -> list[str]:
    files = [str(folder / name) for name in ("a.txt", "b.txt", "model", "out.tsv", "store")]
    return [command, *files[:2], "--model", files[2], "--out", files[3], "--store", files[4], "--offline", *more]


def read(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_mine_writes_the_pairs_of_the_function(texts: Path, encoder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(texts, "mine", "--layer", "2", "--k", "3", "--margin", "distance", "--threshold", "0.001")) == 0
    assert "pairs in" in capsys.readouterr().out and not (texts / "out.tsv.work").exists()
    sides = [(texts / name).read_text(encoding="utf-8").splitlines() for name in ("a.txt", "b.txt")]
    x, y = (embed(encoder, side, Pooling(2)) for side in sides)
    expected = mine(neighbourhoods(x, y, 3), "distance").above(0.001)
    found = read(texts / "out.tsv")
    assert len(found) == len(expected) > 5
    assert {(int(i), int(j)) for _, i, j, *_ in found} == {
        (i + 1, j + 1) for i, j in zip(expected.source.tolist(), expected.target.tolist(), strict=True)
    }
    assert all(row[3:] == [sides[0][int(row[1]) - 1], sides[1][int(row[2]) - 1]] for row in found)
    assert [float(row[0]) for row in found] == sorted((float(row[0]) for row in found), reverse=True)


def test_search_answers_every_query(texts: Path, encoder: Any) -> None:
    lines = (texts / "b.txt").read_text(encoding="utf-8").splitlines()
    (texts / "a.txt").write_text(f"{lines[4]}\n\n{lines[9]}\n{lines[4]}\n", encoding="utf-8")
    assert main(words(texts, "search", "--k", "2", "--quiet")) == 0
    found = read(texts / "out.tsv")
    assert [row[:2] for row in found] == [["1", "1"], ["1", "2"], ["3", "1"], ["3", "2"], ["4", "1"], ["4", "2"]]
    assert [(row[3], row[4]) for row in found[::2]] == [("5", lines[4]), ("10", lines[9]), ("5", lines[4])]
    assert all(float(row[2]) == pytest.approx(1, abs=1e-5) for row in found[::2])


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "sq", "pq"])
def test_an_approximate_search_gives_exact_cosines_and_its_recall(
    texts: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main(words(texts, "search", "--k", "4", "--precision", "fp32")) == 0
    exact = {(query, line): float(score) for query, _, score, line, _ in read(texts / "out.tsv")}
    every = 4 * len({query for query, _ in exact})
    capsys.readouterr()
    assert main(words(texts, "search", "--k", "4", "--precision", "fp32", "--index", kind, "--probe", "2")) == 0
    said = capsys.readouterr()
    rows = read(texts / "out.tsv")
    found = [(query, line) for query, _, _, line, _ in rows]
    assert len(set(found)) == len(found) == every
    hits = [pair for pair in found if pair in exact]
    assert f"{kind} finds {100 * len(hits) / every:.1f} % of the exact 4 nearest" in said.err
    assert 0.2 * every < len(hits) and (kind == "hnsw" or len(hits) < every)
    by_query: dict[str, list[float]] = {}
    for query, rank, score, line, _ in rows:
        assert abs(float(score) - exact.get((query, line), float(score))) < 2e-6
        by_query.setdefault(query, []).append(float(score))
        assert int(rank) == len(by_query[query])
    assert all(scores == sorted(scores, reverse=True) for scores in by_query.values())


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "sq", "pq"])
def test_mining_by_an_approximate_index_that_looks_everywhere_is_exact(
    texts: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """And one that looks into one cell scores what it finds exactly."""
    asked = ("mine", "--precision", "fp32", "--margin", "absolute", "--index")
    assert main(words(texts, *asked, "exact")) == 0
    exact = {(i, j): score for score, i, j, *_ in read(texts / "out.tsv")}
    capsys.readouterr()
    assert main(words(texts, *asked, kind, "--probe", "999", "--effort", "999")) == 0
    said = capsys.readouterr().err
    told = re.findall(r"finds ([\d.]+) % of the exact 4 nearest (targets|sources)", said)
    assert [side for _, side in told] == ["targets", "sources"]
    whole = {(i, j): score for score, i, j, *_ in read(texts / "out.tsv")}
    if kind in ("ivf", "hnsw"):
        assert [float(share) for share, _ in told] == [100.0, 100.0] and whole == exact
    assert len(whole.keys() & exact.keys()) > len(exact) / 2
    assert main(words(texts, *asked, kind, "--probe", "1", "--effort", "1", "--quiet")) == 0
    rough = read(texts / "out.tsv")
    assert len({i for _, i, *_ in rough}) == len(rough) > 5
    both = [(score, exact[i, j]) for score, i, j, *_ in rough if (i, j) in exact]
    assert both and all(one == other for one, other in both)
    assert (
        main(words(texts, *asked, kind, "--probe", "0")) == main(words(texts, *asked, kind, "--effort", "9" * 12)) == 2
    )


def test_rows_that_an_index_leaves_short_are_searched_exactly_and_counted(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("search", "--precision", "fp32", "--k", "30", "--index")
    assert main(words(texts, *asked, "exact")) == 0
    exact = (texts / "out.tsv").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(words(texts, *asked, "ivf", "--probe", "1")) == 0
    said = capsys.readouterr().err
    assert re.search(r"the ivf index found fewer than 30 neighbours for (\d+) of \1, which were searched exactly", said)
    assert (texts / "out.tsv").read_text(encoding="utf-8") == exact


def test_an_index_that_cannot_be_made_is_refused_before_anything_is_embedded(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Embedder, "__call__", lambda *_, **__: pytest.fail("embedded"))
    (texts / "b.txt").write_text("a\nb\nc\n", encoding="utf-8")
    assert main(words(texts, "search", "--index", "pq")) == 3
    assert f"{texts / 'b.txt'}: pq needs 16 vectors or more, there are 3" in capsys.readouterr().err


def test_vectors_of_one_precision_are_not_gone_on_with_in_another(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the result says which it was."""
    monkeypatch.setattr(studies_texts, "_clear", lambda _: None)
    made = []
    original = Embedder.__call__
    monkeypatch.setattr(
        Embedder, "__call__", lambda self, *a, **k: made.append(self.precision) or original(self, *a, **k)
    )
    for expected in (["fp32"] * 2, []):
        made.clear()
        assert main(words(texts, "mine", "--precision", "fp32")) == 0
        assert made == expected and "(fp32 vectors)" in capsys.readouterr().out
    made.clear()
    assert main(words(texts, "mine", "--precision", "bf16")) == 2 and not made
    assert "holds vectors of another precision" in capsys.readouterr().err
    shutil.rmtree(texts / "out.tsv.work")
    assert main(words(texts, "mine", "--precision", "bf16")) == 0
    assert made == ["bf16"] * 2 and "(bf16 vectors)" in capsys.readouterr().out


def test_both_texts_are_read_before_one_is_embedded(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the second costs nothing, and leaves nothing."""
    monkeypatch.setattr(Embedder, "__call__", lambda *_, **__: pytest.fail("embedded"))
    for content in (b"\n \n", b"", b"a\n\xff\n"):
        (texts / "b.txt").write_bytes(content)
        for command in ("mine", "search"):
            assert main(words(texts, command)) == 3
            assert not (texts / "out.tsv.work").exists()
    assert main(words(texts, "mine", "--layer", "9")) == 4
    assert not (texts / "out.tsv.work").exists()


def test_an_interrupted_run_goes_on_where_it_was(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted in the third chunk; the old result stays, two chunks are not embedded again, the pairs are equal."""
    assert main(words(texts, "mine")) == 0
    whole = (texts / "out.tsv").read_text(encoding="utf-8")
    monkeypatch.setattr(corpus, "CHUNK", 10)
    (texts / "out.tsv").write_text("old", encoding="utf-8")
    calls: list[int] = []

    whole_call = Embedder.__call__

    def stopping(self: Any, sentences: list[str], *rest: Any) -> Any:
        calls.append(len(sentences))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole_call(self, sentences, *rest)

    monkeypatch.setattr(Embedder, "__call__", stopping)
    assert main(words(texts, "mine")) == 130
    assert (texts / "out.tsv").read_text(encoding="utf-8") == "old"
    state = json.loads((texts / "out.tsv.work" / "source" / "vectors.json").read_text(encoding="utf-8"))
    assert state["done"] == 20 and "run the same command again" in capsys.readouterr().err
    assert main(words(texts, "mine")) == 0
    assert sum(calls[3:]) == 40 + 60
    assert (texts / "out.tsv").read_text(encoding="utf-8") == whole and not (texts / "out.tsv.work").exists()


@pytest.mark.parametrize("what", ["objects", "another shape"])
def test_neighbours_that_hold_something_else_are_made_again(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """Broken off once they were all found; whole, as their hashes say."""
    command = words(texts, "mine")
    assert main(command) == 0
    whole = (texts / "out.tsv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(studies_texts, "mine", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command) == 130
    (kept,) = (path for path in texts.glob("out.tsv.work/both-*") if not path.name.endswith("so-far"))
    arrays = [np.load(kept / f"{i}.npy") for i in range(4)]
    arrays[1] = arrays[1][:3] if what == "another shape" else np.array([{}] * 3, dtype=object)
    shutil.rmtree(kept)

    def fill(into: Path) -> None:
        for i, array in enumerate(arrays):
            np.save(into / f"{i}.npy", array, allow_pickle=True)

    write_folder(kept, texts / "tmp", fill, {"arrays": 4})
    capsys.readouterr()
    assert main(command) == 0
    assert "made again: " in capsys.readouterr().err and (texts / "out.tsv").read_bytes() == whole


def test_killed_while_the_work_folder_goes(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any removal but the last the same command still knows the folder for its own."""
    command = words(texts, "mine", "--quiet")
    original, left = Path.unlink, 0

    def dies(self: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if ".work" in str(self.parent):
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
        original(self, missing_ok=missing_ok)

    for until in range(3):
        left = until
        monkeypatch.setattr(Path, "unlink", dies)
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            main(command)
        monkeypatch.setattr(Path, "unlink", original)
    assert (texts / "out.tsv.work" / "lock").is_file()
    assert main(command) == 0
    assert not (texts / "out.tsv.work").exists()


def test_a_result_behind_a_link_is_written_beside_what_it_leads_to(
    texts: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two disks, where nothing can be renamed from one to the other."""
    there = tmp_path_factory.mktemp("there")
    (texts / "out.tsv").symlink_to(there / "pairs.tsv")
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if there in target.parents and there not in self.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert main(words(texts, "mine", "--quiet")) == 0
    assert (texts / "out.tsv").is_symlink() and (there / "pairs.tsv").stat().st_size
    assert [path.name for path in there.iterdir()] == ["pairs.tsv"]


def test_what_was_kept_for_another_text_is_not_taken(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors, nor half a search."""
    for name, value in (("KEEP_SECONDS", 0.0), ("_KEEP_SHARE", 0)):
        monkeypatch.setattr(blocks, name, value)
    monkeypatch.setattr(blocks, "both_ways", functools.partial(blocks.both_ways, rows=16, target_rows=24))
    original, looks = blocks.both_directions, 0

    def stop(*sides: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 4:
            raise KeyboardInterrupt
        return original(*sides)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "both_directions", stop)
        assert main(words(texts, "mine")) == 130
    assert len(list((texts / "out.tsv.work").glob("both-*-so-far/done-000000000003"))) == 1
    lines = (texts / "a.txt").read_text(encoding="utf-8").splitlines()
    (texts / "a.txt").write_text("\n".join(reversed(lines)), encoding="utf-8")
    assert main(words(texts, "mine")) == 0
    assert main(words(texts, "mine", "--out", str(texts / "fresh.tsv"))) == 0
    assert read(texts / "out.tsv") == read(texts / "fresh.tsv")
    assert all(lines[-int(row[1])] == row[3] for row in read(texts / "out.tsv"))


def test_a_lock_that_its_holder_takes_along_is_none(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process ends between this one's opening of the lock and its holding it; then this one is broken off."""
    work = texts / "out.tsv.work"
    original, ended = fcntl.flock, False

    def flock(*how: Any) -> None:
        nonlocal ended
        if not ended:
            ended = True
            (work / "lock").unlink()
            work.rmdir()
        original(*how)

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(studies_texts.fcntl, "flock", flock)
        patch.setattr(studies_texts, "mine", stop)
        assert main(words(texts, "mine")) == 130
    assert ended and (work / "lock").is_file()
    assert main(words(texts, "mine")) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("more", "code", "expected"), [
    (["--layer", "9"], 4, "layer 9 does not exist: this encoder has hidden states 0 to 3, where 0 is the embedding"),
    (["--layer", "-3"], 2, "layers are counted from 0"),
    (["--k", "0"], 2, "at least one neighbour"),
    (["--model", "nothere:arm"], 5, "no run named 'nothere'"),
    (["--model", "./nothere"], 4, "does not exist"),
    (["--model", ""], 2, "say which model"),
    (["--out", "/nowhere/out.tsv"], 2, "its folder does not exist"),
])  # fmt: skip
def test_mistakes_are_one_line(
    texts: Path, more: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(texts, "mine", *more)) == code
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_what_was_passed_over_is_said(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (texts / "a.txt").write_text("one\n\none\n" + "word " * 300 + "\n", encoding="utf-8")
    assert main(words(texts, "mine", "--max-length", "64")) == 0
    said = capsys.readouterr().err
    assert "4 lines, 1 blank, 1 repeated" in said and "1 lines are longer than 64 tokens and were cut" in said
    assert "--k 4: " in said and "a.txt has 2 different sentences, all of them are neighbours" in said


def test_a_broken_models_vectors_name_the_line(tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("\none\ntwo\n", encoding="utf-8")
    lines = read_lines(tmp_path / "a.txt", tmp_path / "w")
    ids = [set(encoder.tokenizer(text)["input_ids"]) for text in ("one", "two")]
    (only, *_) = ids[1] - ids[0]
    table = encoder.backbone.embeddings.word_embeddings.weight
    with torch.no_grad():
        whole = table[only].clone()
        table[only] = float("nan")
    with (
        pytest.raises(DataError, match=r"a\.txt:3: the line has a vector that is not finite"),
        Embedder(encoder, [Pooling(1)], 64, 4096, "fp32") as embedder,
    ):
        embed_lines(embedder, lines, tmp_path / "w", {}, QUIET)
    with torch.no_grad():
        table[only] = whole
    made = Embedded([np.array([[1.0, 1.0], [0, 0]], np.float32)], np.ones(2, np.int64), 0)
    monkeypatch.setattr(Embedder, "__call__", lambda *_: made)
    with (
        pytest.raises(DataError, match=r"a\.txt:3: the line has a vector of zeros"),
        Embedder(encoder, [Pooling(1)], 64, 4096, "fp32") as embedder,
    ):
        embed_lines(embedder, lines, tmp_path / "w", {}, QUIET)


def test_over_long_lines_are_counted_over_chunks_and_interruptions(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the file of vectors holds what the state counts, no more."""
    monkeypatch.setattr(corpus, "CHUNK", 2)
    long = "word " * 80
    (tmp_path / "a.txt").write_text(f"{long}x\nb\n{long}y\n{long}z\ne\n", encoding="utf-8")
    lines = read_lines(tmp_path / "a.txt", tmp_path / "w")
    assert len(lines.offsets) == len(lines) + 1 == 6

    def made(identity: dict[str, Any], of: Any = lines) -> corpus.Vectors:
        with Embedder(encoder, [Pooling(1)], 16, 4096, "fp32") as embedder:
            return embed_lines(embedder, of, tmp_path / "w", identity, QUIET)

    states: list[tuple[int, int]] = []
    write = corpus.write_atomic

    def kept_after(path: Path, text: str) -> None:
        states.append((json.loads(text)["done"] * 32 * 4, (tmp_path / "w" / "vectors.f32").stat().st_size))
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "write_atomic", kept_after)
        whole = made({"a": 1})
    state = json.loads((tmp_path / "w" / "vectors.json").read_text(encoding="utf-8"))
    assert state["identity"] == {"a": 1, "rows": 5, "dim": 32} and state["done"] == 5
    assert len(states) == 3 and all(counted == there for counted, there in states)
    assert whole.over_length == 3 and whole.rows.shape == (5, 32)
    kept = whole.rows.copy()
    assert np.allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-6)
    calls: list[int] = []
    original = Embedder.__call__
    monkeypatch.setattr(
        Embedder, "__call__", lambda self, part, *more: calls.append(len(part)) or original(self, part, *more)
    )
    again = made({"a": 1})
    assert (again.over_length, calls) == (3, []) and np.array_equal(again.rows, kept)
    (tmp_path / "b.txt").write_text("b\n", encoding="utf-8")
    other = made({"a": 2}, read_lines(tmp_path / "b.txt", tmp_path / "w"))
    assert (other.over_length, calls) == (0, [1])
    assert (tmp_path / "w" / "vectors.f32").stat().st_size == 32 * 4
