"""R3: every cut and every flipped bit in any file that effstilts keeps is found before the file is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effstilts.cli import main
from effstilts.engine.checkpoint import Checkpoints, Progress, Snapshot
from effstilts.errors import StoreError
from effstilts.log import Log
from effstilts.retrieval import corpus
from effstilts.retrieval.embed import Embedder, Pooling
from effstilts.retrieval.vectors import Vectors, _shard_facts, embed_to
from effstilts.store import Damaged, Store
from effstilts.synthetic import rows
from tests.faults.damage import damaged

Amount = Callable[[int, int], int]
CUTS = (12, 64)
RECIPE = """
name: small
model:
  name: new
  vocab_size: 300
  config: {model_type: xlm-roberta, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
           intermediate_size: 16, max_position_embeddings: 66}
training: {batch_size: 4, learning_rate: 1e-3, evaluate_every: 2, evaluate_examples: 8, checkpoint_every: 1}
data: {evaluation_rows: 8}
mlm: {tasks: [tiny/text], training: {steps: 2}}
intermediate: {baseline: {}, nli: {tasks: [{task: synthetic/mnli, rows: 16}], training: {steps: 2}}}
targets:
  - {task: synthetic/xnli, rows: 16, languages: [en, qaa], training: {steps: 2}}
  - {task: synthetic/udpos, rows: 16, languages: [qaa], training: {steps: 1}, method: {name: lora, rank: 2}}
retrieval: {tasks: [synthetic/tatoeba], languages: [qaa], rows: 8}
tasks:
  tiny/text: {kind: masked_lm, files: {train: "FOLDER/text.{lang}.txt"}, languages: [en], max_length: 32}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    lines = [row["text"] for row in rows("text", "train", "en", 60)]
    (folder / "text.en.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "small.yaml").write_text(RECIPE.replace("FOLDER", str(folder)), encoding="utf-8")
    return folder / "small.yaml"


def run(recipe: Path, store: Path) -> dict[str, Any]:
    assert main(["run", str(recipe), "--store", str(store), "--quiet", "--offline"]) == 0
    return Store(store).read_run("small")


@pytest.fixture(scope="module")
def made(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a run of all phases filled."""
    store = tmp_path_factory.mktemp("made") / "store"
    run(recipe, store)
    return store


def files_by_kind(store: Path) -> Iterator[Path]:
    """One file of each name from one artefact of each kind."""
    seen = set()
    for folder in sorted((store / "artefacts").iterdir()):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = (folder.name.split("-")[0], path.relative_to(folder).as_posix())
            if name not in seen:
                seen.add(name)
                yield path


def test_every_kind_of_file_of_every_kind_of_artefact(made: Path, amount: Amount, figures: dict[str, Any]) -> None:
    flips, count, kinds = amount(30, 1000), 0, []
    for number, path in enumerate(files_by_kind(made)):
        folder = next(p for p in path.parents if p.parent.name == "artefacts")
        kind, _, key = folder.name.rpartition("-")
        whole = path.read_bytes()
        for what, content in damaged(whole, amount(*CUTS), flips, number):
            path.write_bytes(content)
            with pytest.raises(Damaged):
                Store(made).open(kind, key)
                pytest.fail(f"{path}: {what} was not seen")
            count += 1
        path.write_bytes(whole)
        assert Store(made).open(kind, key)
        kinds.append(f"{kind}/{path.relative_to(folder)}")
    assert any("adapter_model.safetensors" in name for name in kinds)
    assert {name.split("/")[0] for name in kinds} >= {
        "tokenizer", "mlm", "intermediate", "target", "evaluate", "retrieve", "rows", "digests",
    }  # fmt: skip
    figures.update(kinds_of_files=len(kinds), damages=count, detected=count)


def test_a_file_too_many_or_too_few_or_a_link(made: Path, tmp_path: Path) -> None:
    source = next((made / "artefacts").glob("rows-*"))
    store = Store(tmp_path)
    for spoil in (
        lambda f: (f / "rows.arrow").unlink(),
        lambda f: (f / "extra.txt").write_text("x"),
        lambda f: (f / "rows.arrow").rename(f / "other") and (f / "rows.arrow").symlink_to(f / "other"),
        lambda f: (f / "rows.arrow").unlink() or (f / "rows.arrow").symlink_to(source / "rows.arrow"),
    ):
        shutil.rmtree(tmp_path / "artefacts", ignore_errors=True)
        shutil.copytree(source, tmp_path / "artefacts" / source.name)
        spoil(tmp_path / "artefacts" / source.name)
        with pytest.raises(Damaged):
            store.open(*source.name.split("-"))


def test_of_checkpoints_the_newest_whole_one_is_used(tmp_path: Path, amount: Amount, figures: dict[str, Any]) -> None:
    """Damage to any file of the newest gives the one before it, to the last bit; damage to both gives none."""
    warned: list[str] = []
    log = Log(quiet=True)
    log.warn = warned.append  # type: ignore[method-assign,assignment]

    def snapshot(step: int) -> Snapshot:
        draw = torch.Generator().manual_seed(step)
        tensors = [{"a.weight": torch.randn(7, 3, generator=draw), "b": torch.randn(5, generator=draw)} for _ in "123"]
        history = [{"step": step, "score": 0.5}]
        return Snapshot(*tensors, Progress(step=step, best_step=1, best_score=0.5, history=history))

    def same(one: Snapshot, other: Snapshot) -> bool:
        return one.progress == other.progress and all(
            a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
            for a, b in ((one.weights, other.weights), (one.moments, other.moments), (one.best, other.best))
        )

    pristine = tmp_path / "pristine"
    for step in (1, 2):
        Checkpoints(pristine, log).write(snapshot(step))
    newest, before = pristine / "checkpoint-00000002", snapshot(1)
    victims, count = sorted(newest.iterdir()), 0
    for number, victim in enumerate(victims):
        for what, content in damaged(victim.read_bytes(), amount(*CUTS), amount(20, 1000), number):
            work = tmp_path / "work"
            shutil.copytree(pristine, work)
            (work / newest.name / victim.name).write_bytes(content)
            warned.clear()
            found = Checkpoints(work, log).read_newest()
            assert found is not None and same(found, before), f"{victim.name}: {what}"
            assert len(warned) == 1 and newest.name in warned[0]
            if count % 50 == 0:
                (work / "checkpoint-00000001" / victim.name).write_bytes(content)
                assert Checkpoints(work, log).read_newest() is None
            shutil.rmtree(work)
            count += 1
    found = Checkpoints(pristine, log).read_newest()
    assert len(victims) == 5 and found is not None and same(found, snapshot(2))
    figures.update(kinds_of_files=len(victims), damages=count, detected=count)


def test_run_records(made: Path, amount: Amount, figures: dict[str, Any], capsys: Any) -> None:
    path, count = made / "runs" / "small.json", 0
    whole = path.read_bytes()
    for what, content in damaged(whole, amount(*CUTS), amount(100, 1000), 0):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="damaged"):
            Store(made).read_run("small")
            pytest.fail(what)
        count += 1
    assert main(["show", "small", "--store", str(made)]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    path.write_bytes(whole)
    figures.update(kinds_of_files=1, damages=count, detected=count)


def test_vectors_and_their_shards(encoder: Any, tmp_path: Path, amount: Amount, figures: dict[str, Any]) -> None:
    sentences = [row["text"] for row in rows("text", "dev", "en", 6)]
    folder, whole_shard, count = tmp_path / "v", b"", 0

    def embed() -> Any:
        with Embedder(encoder, [Pooling(1)], precision="fp32") as embedder:
            return embed_to(folder, iter(sentences), embedder, {"files": {}}, shard_rows=6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("effstilts.retrieval.vectors._merge", lambda *_: None)
        embed()
    shard = folder / "shards" / "00000000.safetensors"
    whole_shard, facts = shard.read_bytes(), _shard_facts(shard)
    for what, content in damaged(whole_shard, amount(*CUTS), amount(60, 1000), 0):
        shard.write_bytes(content)
        assert _shard_facts(shard) == {}, what
        count += 1
    made = embed()  # makes the shard again
    assert made.manifest["text"] and facts["rows"] == 6
    expected = np.array(made.load())
    for number, name in enumerate(("manifest.json", "layer1-mean.npy")):
        whole = (folder / name).read_bytes()
        for what, content in damaged(whole, amount(*CUTS), amount(60, 1000), number):
            (folder / name).write_bytes(content)
            with pytest.raises(StoreError):
                Vectors.open(folder).load()
                pytest.fail(f"{name}: {what}")
            count += 1
        (folder / name).write_bytes(whole)
    whole = (folder / "job.json").read_bytes()
    for what, content in damaged(whole, amount(*CUTS), amount(20, 1000), 0):
        (folder / "job.json").write_bytes(content)
        with pytest.raises(StoreError):
            embed()
            pytest.fail(what)
        count += 1
    (folder / "job.json").write_bytes(whole)
    assert np.array_equal(embed().load(), expected)
    figures.update(kinds_of_files=4, damages=count, detected=count)


def test_what_mine_and_search_keep(encoder: Any, tmp_path: Path, amount: Amount, figures: dict[str, Any]) -> None:
    """Damaged vectors and their state are made again: the vectors are always those of an undisturbed run."""
    (tmp_path / "text").write_text("\n".join(row["text"] for row in rows("text", "dev", "en", 5)), encoding="utf-8")
    folder, made = tmp_path / "work", []
    lines = corpus.read_lines(tmp_path / "text", folder)

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return original(*arguments)

    def vectors() -> Any:
        made.clear()
        log = Log(quiet=True)
        with corpus.Embedder(encoder, [Pooling(1)], 64, 512, "fp32") as embedder:
            return np.array(corpus.embed_lines(embedder, lines, folder, {"text": 1}, log).rows)

    original, count = corpus.Embedder.__call__, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus.Embedder, "__call__", counted)
        expected = vectors()
        assert made and np.array_equal(vectors(), expected) and not made
        for number, name in enumerate(("vectors.f32", "vectors.json")):
            whole = (folder / name).read_bytes()
            for what, content in damaged(whole, amount(*CUTS), amount(12, 1000), number):
                (folder / name).write_bytes(content)
                assert np.array_equal(vectors(), expected) and made, f"{name}: {what}"
                count += 1
    figures.update(kinds_of_files=2, damages=count, detected=count)


@pytest.mark.slow
def test_a_run_makes_again_what_it_finds_damaged(
    made: Path, recipe: Path, tmp_path: Path, amount: Amount, figures: dict[str, Any]
) -> None:
    """One file of every artefact damaged, other ones each round: the same command gives the same numbers, and what
    was damaged is kept aside."""
    expected = run(recipe, made)["cells"]
    count = 0
    for round_ in range(amount(1, 10)):
        store = tmp_path / f"store{round_}"
        shutil.copytree(made, store)
        for number, folder in enumerate(sorted((store / "artefacts").iterdir())):
            files = sorted(p for p in folder.rglob("*") if p.is_file())
            path = files[(round_ + number) % len(files)] if round_ else folder / "manifest.json"
            content = [c for _, c in damaged(path.read_bytes(), 4, 4, number)][round_ % 7]
            path.write_bytes(content)
            count += 1
        cells = run(recipe, store)["cells"]
        assert json.dumps(cells, sort_keys=True) == json.dumps(expected, sort_keys=True)
        assert any((store / "damaged").iterdir())
    figures.update(runs=round_ + 1, artefacts_damaged=count)
