"""Vectors on the disk: interrupted, shared over ranks, refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effstilts.cli import main
from effstilts.errors import DataError, StoreError
from effstilts.model.opening import save
from effstilts.retrieval.embed import Embedder, Pooling, embed
from effstilts.retrieval.vectors import Rank, Vectors, embed_to
from effstilts.synthetic import rows

SENTENCES = [row["text"] for row in rows("text", "dev", "en", 23)] + [""]
POOLINGS = [Pooling(1), Pooling(3, "cls")]
MODEL = {"files": {"model.safetensors": "0"}}


def store(folder: Path, encoder: Any, sentences: Any = SENTENCES, **options: Any) -> Vectors | None:
    poolings = options.pop("poolings", POOLINGS)
    with Embedder(encoder, poolings, precision="fp32") as embedder:
        return embed_to(folder, iter(sentences), embedder, MODEL, **{"shard_rows": 5, **options})


def check(made: Vectors | None, encoder: Any) -> None:
    assert made is not None
    made.verify()
    for pooling in POOLINGS:
        assert np.allclose(made.load(pooling.name), embed(encoder, SENTENCES, pooling), atol=1e-5)


def test_a_stream_becomes_memory_maps(encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import effstilts.retrieval.vectors as module

    made = store(tmp_path / "v", encoder)
    check(made, encoder)
    made = Vectors.open(tmp_path / "v")
    assert isinstance(made.load("layer1-mean"), np.memmap)
    chunks = [module._text_hash(SENTENCES[start : start + 5]) for start in range(0, 24, 5)]
    job = {
        "model": MODEL, "poolings": [asdict(pooling) for pooling in POOLINGS], "precision": "fp32", "unpadded": True,
        "max_length": encoder.max_length, "dtype": "float32", "shard_rows": 5,
    }  # fmt: skip
    assert made.manifest["job"] == json.loads(json.dumps(job))
    assert made.manifest["text"] == hashlib.sha256("".join(chunks).encode()).hexdigest()
    assert made.manifest["tokens"] == sum(len(encoder.tokenizer(text)["input_ids"]) for text in SENTENCES)
    assert capsys.readouterr().err == "", "who gives no log is told nothing"
    assert made.manifest["sentences"] == 24 and made.manifest["blank"] == 1 and made.manifest["truncated"] == 0
    assert sorted(p.name for p in (tmp_path / "v").iterdir() if p.name[0] != ".") == [
        "job.json", "layer1-mean.npy", "layer3-cls.npy", "manifest.json",
    ]  # fmt: skip


def test_an_interrupted_run_makes_only_what_is_missing(encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Stopped within every shard and before every rename in turn: the vectors are those of an undisturbed run."""
    embedded: list[int] = []
    original = Embedder.__call__

    def dies(limit: int) -> Any:
        def call(self: Any, sentences: Any, *more: Any) -> Any:
            if len(embedded) >= limit:
                raise KeyboardInterrupt
            embedded.append(len(sentences))
            return original(self, sentences, *more)

        return call

    for limit in range(1, 5):
        monkeypatch.setattr(Embedder, "__call__", dies(limit))
        with pytest.raises(KeyboardInterrupt):
            store(tmp_path / "v", encoder)
        assert not (tmp_path / "v" / "manifest.json").exists()
        with pytest.raises(StoreError, match="again to finish"):
            Vectors.open(tmp_path / "v")
    shard = tmp_path / "v" / "shards" / "00000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:50])
    monkeypatch.setattr(Embedder, "__call__", dies(99))
    made = store(tmp_path / "v", encoder)
    assert embedded == [5, 5, 5, 5, 5, 4], "each shard once, the damaged one twice"
    assert store(tmp_path / "v", encoder) == made
    assert len(embedded) == 6, "a finished folder is not made again"
    check(made, encoder)


def test_killed_while_merging(encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import effstilts.retrieval.vectors as module

    original = module.write_atomic

    def dies(path: Path, text: str) -> None:
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        original(path, text)

    monkeypatch.setattr(module, "write_atomic", dies)
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "v", encoder)
    monkeypatch.undo()
    check(store(tmp_path / "v", encoder), encoder)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_ranks_share_the_shards_and_the_last_one_merges(encoder: Any, tmp_path: Path, order: tuple[int, ...]) -> None:
    made = [store(tmp_path / "v", encoder, rank=Rank(index, 3)) for index in order]
    assert made[:2] == [None, None]
    check(made[2], encoder)
    check(store(tmp_path / "v", encoder, rank=Rank(0, 3)), encoder)


def test_the_shards_stay_while_a_rank_is_at_them(encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Every shard is there, and the merge was killed: others merge and end while this rank looks through its own."""
    import effstilts.retrieval.vectors as vectors

    folder = tmp_path / "v"
    with monkeypatch.context() as patch:
        patch.setattr(vectors, "_merge", lambda *_: None)
        store(folder, encoder)
    original, others = vectors._shard_facts, [Rank(0, 3), Rank(2, 3)]

    def facts(path: Path) -> Any:
        while others:
            assert store(folder, encoder, rank=others.pop()) is not None
            assert (folder / "shards").is_dir()
        return original(path)

    monkeypatch.setattr(vectors, "_shard_facts", facts)
    check(store(folder, encoder, rank=Rank(1, 3)), encoder)
    assert not (folder / "shards").exists() and not others


def test_other_settings_and_other_sentences_are_refused(encoder: Any, tmp_path: Path) -> None:
    store(tmp_path / "v", encoder)
    with pytest.raises(StoreError, match="dtype 'float32' there, 'float16' asked"):
        store(tmp_path / "v", encoder, dtype="float16")
    with pytest.raises(StoreError, match="poolings layer1-mean, .* there, layer2-mean asked"):
        store(tmp_path / "v", encoder, poolings=[Pooling(2)])
    both = "dtype 'float32' there, 'float16' asked, shard_rows 5 there, 6 asked: choose another"
    with pytest.raises(StoreError, match=both):
        store(tmp_path / "v", encoder, dtype="float16", shard_rows=6)
    with (
        pytest.raises(StoreError, match="v holds vectors of another model: choose another folder or delete it"),
        Embedder(encoder, POOLINGS, precision="fp32") as embedder,
    ):
        embed_to(tmp_path / "v", iter(SENTENCES), embedder, {"files": {}}, shard_rows=5)
    with pytest.raises(StoreError, match="other sentences"):
        store(tmp_path / "v", encoder, SENTENCES[1:])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        store(tmp_path / "mine", encoder)
    with pytest.raises(DataError, match="no sentence"):
        store(tmp_path / "none", encoder, [])


def test_a_start_that_made_nothing_is_told_from_vectors(
    encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not taken over: another rank of it may be at its first shard."""
    save(encoder, tmp_path / "model")
    text = tmp_path / "a.txt"
    text.write_bytes(b"one\n\xff\n")
    words = ["embed", str(text), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--offline"]
    assert main(words) == 3 and "a.txt:2: not UTF-8" in capsys.readouterr().err
    text.write_text("one\ntwo\n")
    capsys.readouterr()
    assert main([*words, "--layers", "1"]) == 5
    said = capsys.readouterr().err
    assert "was begun, without any vectors yet, as that of poolings layer2-mean there, layer1-mean asked" in said
    assert main(words) == 0 and Vectors.open(tmp_path / "out" / "a.txt").names == ["layer2-mean"]


def test_vectors_that_no_search_can_use_are_told(
    encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    (tmp_path / "a.txt").write_text("one\ntwo\n\n")
    words = ["embed", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--offline", "--layers", "0", "1"]
    with torch.no_grad():
        for weight in encoder.backbone.encoder.layer[0].output.LayerNorm.parameters():
            weight.zero_()
    save(encoder, tmp_path / "zero")
    assert main([*words, "--model", str(tmp_path / "zero")]) == 0
    assert "1 blank, 3 with a vector of zeros, which has no direction" in capsys.readouterr().out
    assert Vectors.open(tmp_path / "out" / "a.txt").manifest["zero"] == 3
    with torch.no_grad():
        for weight in encoder.backbone.encoder.layer[0].output.LayerNorm.parameters():
            weight.fill_(float("nan"))
    save(encoder, tmp_path / "nan")
    assert main([*words, "--model", str(tmp_path / "nan"), "--out", str(tmp_path / "other")]) == 3
    assert "a.txt:1: the line has a vector that is not finite (layer1-mean)" in capsys.readouterr().err


def test_a_shard_of_other_sentences_never_enters(encoder: Any, tmp_path: Path) -> None:
    changed = [*SENTENCES[:7], "other", *SENTENCES[8:]]
    assert store(tmp_path / "v", encoder, changed, rank=Rank(1, 2)) is None
    assert store(tmp_path / "v", encoder, rank=Rank(0, 2)) is None, "shard 1 is there, of other sentences"
    check(store(tmp_path / "v", encoder, rank=Rank(1, 2)), encoder)


def test_float16(encoder: Any, tmp_path: Path) -> None:
    made = store(tmp_path / "v", encoder, dtype="float16")
    assert made is not None and made.load("layer1-mean").dtype == np.float16
    assert np.allclose(made.load("layer1-mean"), embed(encoder, SENTENCES, Pooling(1)), atol=1e-2)
    import torch

    with torch.no_grad():
        encoder.backbone.encoder.layer[0].output.LayerNorm.weight.fill_(1e6)
    with pytest.raises(DataError, match="65504"):
        store(tmp_path / "w", encoder, dtype="float16")


def test_the_command(encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(encoder, tmp_path / "model")
    text = tmp_path / "a.txt"
    text.write_text("\n".join([*SENTENCES, "a " * 500]), encoding="utf-8")
    common = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--offline", "--quiet"]
    assert main(["embed", str(text), *common, "--layers", "1", "3", "--precision", "fp32"]) == 0
    assert "25 x 32 float32, fp32, 1 blank, 1 truncated" in capsys.readouterr().out
    made = Vectors.open(tmp_path / "out" / "a.txt")
    assert made.names == ["layer1-mean", "layer3-mean"]
    assert np.allclose(made.load("layer1-mean")[:24], embed(encoder, SENTENCES, Pooling(1)), atol=1e-5)
    with pytest.raises(DataError, match="name one"):
        made.load()
    (tmp_path / "empty.txt").write_text("")
    for words, code, message in [
        ([str(text), *common, "--layers", "4"], 4, "hidden states 0 to 3"),
        ([str(tmp_path / "no.txt"), *common], 3, "cannot open"),
        ([str(tmp_path / "empty.txt"), *common], 3, "holds no line"),
        ([str(text), str(text), *common], 2, "one name"),
        ([str(text), *common, "--shard-rows", "0"], 2, "--shard-rows"),
        ([str(text), *common, "--layers", "2"], 5, "holds vectors of"),
    ]:
        assert main(["embed", *words]) == code
        err = capsys.readouterr().err
        assert message in err and "Traceback" not in err


def test_the_command_takes_its_share_from_the_launcher(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(encoder, tmp_path / "model")
    text = tmp_path / "a.txt"
    text.write_text("\n".join(SENTENCES[:10]), encoding="utf-8")
    words = ["embed", str(text), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--offline"]
    words += ["--shard-rows", "5", "--layers", "1", "--quiet"]
    # As in a job array: the processes share the work and do not talk to each other.
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, shards, arrays in ((1, ["00000001.safetensors"], 0), (0, [], 1)):
        monkeypatch.setenv("RANK", str(rank))
        assert main(words) == 0
        folder = tmp_path / "out" / "a.txt"
        assert sorted(path.name for path in folder.glob("shards/*")) == shards
        assert len(list(folder.glob("*.npy"))) == arrays
    monkeypatch.setenv("RANK", "2")
    capsys.readouterr()
    assert main(words) == 2


def test_damage_is_found_before_an_array_is_given(encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import effstilts.retrieval.vectors as module

    store(tmp_path / "v", encoder)
    read: list[str] = []
    original = module.file_hash
    monkeypatch.setattr(module, "file_hash", lambda path: read.append(path.name) or original(path))
    made = Vectors.open(tmp_path / "v")
    made.load("layer1-mean")
    made.load("layer1-mean")
    assert read == ["layer1-mean.npy"], "once"
    made.verify()
    assert read == ["layer1-mean.npy", "layer1-mean.npy", "layer3-cls.npy"], "verify reads again"
    path = tmp_path / "v" / "layer1-mean.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StoreError, match=r"layer1-mean.npy is damaged: its hash does not match; delete .*v and embed"):
        made.verify()
    with pytest.raises(StoreError, match="is damaged"):
        made.load("layer1-mean")
    assert made.load("layer3-cls").shape == (24, encoder.hidden_size)
    path.unlink()
    with pytest.raises(StoreError, match="is damaged"):
        Vectors.open(tmp_path / "v").load("layer1-mean")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    from effstilts.store import file_hash, signed

    path = tmp_path / "a.npy"
    for content in (np.array([{}, {}], dtype=object), np.zeros(0)):
        np.save(path, content, allow_pickle=True)
        if not len(content):
            path.write_bytes(b"no array")
        facts = {"arrays": {"a": {"sha256": file_hash(path)}}, "sentences": 2}
        (tmp_path / "manifest.json").write_text(signed(facts))
        with pytest.raises(StoreError, match="it holds no array of numbers"):
            Vectors.open(tmp_path).load()


@pytest.mark.parametrize("part", ["manifest.json", "job.json"])
def test_damaged_documents_are_named(encoder: Any, tmp_path: Path, part: str) -> None:
    store(tmp_path / "v", encoder)
    path = tmp_path / "v" / part
    path.write_text(path.read_text().replace("float32", "float16"))
    with pytest.raises(StoreError, match=f"{part} is damaged .*hash does not match.*delete"):
        store(tmp_path / "v", encoder)


def test_a_shard_with_other_numbers_is_made_again(encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from safetensors.numpy import load_file, save_file

    import effstilts.retrieval.vectors as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "_merge", lambda *_: None)
        store(tmp_path / "v", encoder)
    shards = sorted((tmp_path / "v" / "shards").iterdir())
    assert len(shards) == 5
    for path, change in zip(shards, ("numbers", "a name", "a dtype", "one array", "no facts"), strict=True):
        from safetensors import safe_open

        with safe_open(str(path), framework="numpy") as file:
            facts = dict(file.metadata())
        arrays = load_file(str(path))
        if change == "numbers":
            arrays["layer1-mean"] = arrays["layer1-mean"] + 1
        elif change == "a name":
            arrays["layer9-mean"] = arrays.pop("layer1-mean")
        elif change == "a dtype":
            arrays["layer1-mean"] = arrays["layer1-mean"].view(np.int32)
        elif change == "one array":
            del arrays["layer3-cls"]
        else:
            facts = {}
        save_file(arrays, str(path), facts)
        assert module._shard_facts(path) == {}, change
    check(store(tmp_path / "v", encoder), encoder)


def test_a_finished_folder_that_is_damaged_is_not_done(encoder: Any, tmp_path: Path) -> None:
    store(tmp_path / "v", encoder)
    array = tmp_path / "v" / "layer1-mean.npy"
    array.write_bytes(array.read_bytes()[:-1])
    with pytest.raises(StoreError, match="layer1-mean.npy is damaged"):
        store(tmp_path / "v", encoder)
    array.unlink()
    with pytest.raises(StoreError, match="layer1-mean.npy is damaged"):
        store(tmp_path / "v", encoder)


def test_auto_goes_on_in_the_precision_that_was_begun(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The processor is timed anew at each start, and a shared machine answers now this way and now that."""
    save(encoder, tmp_path / "model")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    command = ["embed", str(tmp_path / "a.txt"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "v")]
    for gain in (1.31, 1.29):
        monkeypatch.setattr("effstilts.model.packed.bf16_gain", lambda gain=gain: gain)
        assert main([*command, "--quiet"]) == 0
        assert "bf16" in capsys.readouterr().out
    assert main([*command, "--quiet", "--precision", "fp32"]) == 5


def test_a_damaged_archive_is_one_line(encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(encoder, tmp_path / "model")
    packed = bytearray(gzip.compress(b"one two three\n" * 50))
    packed[14] ^= 0xFF
    (tmp_path / "a.txt.gz").write_bytes(packed)
    assert main(["embed", str(tmp_path / "a.txt.gz"), "--model", "x", "--out", str(tmp_path / "v")]) == 3
    assert "a.txt.gz: cannot be read" in capsys.readouterr().err


def test_a_sentence_is_named_by_its_place_in_the_whole(encoder: Any, tmp_path: Path) -> None:
    import torch

    with torch.no_grad():
        table = encoder.backbone.embeddings.word_embeddings.weight
        used = {piece for sentence in SENTENCES for piece in encoder.tokenizer(sentence)["input_ids"]}
        table[[piece for piece in range(len(table)) if piece not in used]] = float("nan")
    others = (row["text"] for row in rows("text", "train", "en", 99))
    other = next(text for text in others if not used.issuperset(encoder.tokenizer(text)["input_ids"]))
    sentences = [*SENTENCES[:12], other, *SENTENCES[12:]]
    with pytest.raises(DataError, match=r"sentence 12 \(from 0\) has a vector that is not finite"):
        store(tmp_path / "v", encoder, sentences)


def test_arrays_are_on_the_disk_before_the_manifest_names_them(encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import effstilts.retrieval.vectors as module

    folder, happened = tmp_path / "v", []
    original = module.write_atomic
    monkeypatch.setattr(module, "sync_folder", lambda path: happened.append((path, sorted(path.glob("*.npy")))))
    monkeypatch.setattr(
        module, "write_atomic", lambda path, text: happened.append((path, None)) or original(path, text)
    )
    store(folder, encoder)
    arrays = [folder / "layer1-mean.npy", folder / "layer3-cls.npy"]
    assert happened == [(folder / "job.json", None), (folder, arrays), (folder / "manifest.json", None)]


def test_what_killed_processes_had_begun_to_write_goes(encoder: Any, tmp_path: Path) -> None:
    store(tmp_path / "v", encoder)
    left = [tmp_path / "v" / name for name in ("layer9-mean.tmp", ".manifest.json.1.tmp")]
    for path in left:
        path.write_bytes(b"half")
    (tmp_path / "v" / "own.tmp").mkdir()
    store(tmp_path / "v", encoder)
    assert not any(path.exists() for path in left) and (tmp_path / "v" / "own.tmp").is_dir()


def test_a_hidden_file_makes_no_folder_anothers(encoder: Any, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / ".DS_Store").write_text("x")
    check(store(tmp_path / "v", encoder), encoder)


@pytest.mark.parametrize(("total", "world"), [(23, 1), (23, 2), (23, 3), (4, 3), (20, 4), (0, 2)])
def test_ranks_know_how_many_rows_are_theirs(total: int, world: int) -> None:
    import effstilts.retrieval.vectors as module

    rows_of = [row // 5 % world for row in range(total)]
    assert [module._own_rows(total, 5, Rank(index, world)) for index in range(world)] == [
        rows_of.count(index) for index in range(world)
    ]


def test_a_finished_folder_is_announced_by_one_rank(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(encoder, tmp_path / "model")
    (tmp_path / "a.txt").write_text("\n".join(SENTENCES[:10]), encoding="utf-8")
    words = ["embed", str(tmp_path / "a.txt"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    words += ["--shard-rows", "5", "--layers", "1", "--quiet", "--offline", "--precision", "fp32"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in (0, 1, 1, 0):
        monkeypatch.setenv("RANK", str(rank))
        assert main(words) == 0
        said.append(capsys.readouterr().out.count("layer1-mean"))
    assert said == [0, 1, 0, 1], "the rank that merges, and of a finished folder rank 0"


def test_texts_are_told_apart_by_their_lines_too() -> None:
    """Also those with halves of a surrogate pair, as JSON can hold them."""
    import effstilts.retrieval.vectors as module

    texts: list[list[str]] = [["ab"], ["a", "b"], ["a", "b", ""], ["\ud800"], ["\udc00"], ["é"]]
    assert len({module._text_hash(text) for text in texts}) == len(texts)
    assert module._text_hash(["a", "b"]) == module._text_hash(["a", "b"])
