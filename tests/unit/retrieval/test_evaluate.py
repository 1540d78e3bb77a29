"""The path from a recipe to the table for tasks that need no training, on the synthetic BUCC with known gold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from effstilts.cli import main
from effstilts.errors import DataError, ModelError, RecipeError
from effstilts.model.opening import create, save
from effstilts.recipe import Retrieval
from effstilts.retrieval import bucc as bucc_scores
from effstilts.retrieval import sides
from effstilts.retrieval.embed import Pooling, embed
from effstilts.retrieval.evaluate import (
    EVALUATORS,
    Trial,
    aligned,
    evaluator_of,
    mined,
    passed_over,
    poolings,
    searched,
)
from effstilts.store import Store
from effstilts.synthetic import bucc
from effstilts.tasks.registry import get
from tests.conftest import TINY_CONFIG

RECIPE = """
name: mined
model: FOLDER/encoder
retrieval: {tasks: [corpora], languages: [qaa]}
tasks:
  corpora:
    kind: mining
    files: {SPLITS}
    columns: {id: id, text: text}
    languages: [qaa, qab]
    format: bucc
    score: f1
"""


def write_corpora(folder: Path, splits: tuple[str, ...], sentences: int = 120, pairs: int = 40) -> str:
    """Synthetic corpora in the official form; the text of a recipe's `files`."""
    paths = []
    for split in splits:
        made = bucc("qaa", split=split, sentences=sentences, pairs=pairs)
        for name, rows in made.items():
            lines = "".join(f"{a}\t{b}\n" for a, b in rows)
            (folder / f"qaa.{split}.{name}").write_text(lines, encoding="utf-8")
        names = ", ".join(f'"{folder}/{{lang}}.{split}.{name}"' for name in ("source", "target", "gold"))
        paths.append(f"{split}: [{names}]")
    return ", ".join(paths)


def bucc_rows(sentences: int, pairs: int) -> list[dict[str, Any]]:
    made = bucc("qaa", sentences=sentences, pairs=pairs)
    partner = dict(made["gold"])
    rows = [{"id": i, "text": t, "side": "source", "gold": [partner[i]] if i in partner else []}
            for i, t in made["source"]]  # fmt: skip
    return rows + [{"id": i, "text": t, "side": "target", "gold": []} for i, t in made["target"]]


def run(tmp_path: Path, encoder: Any, splits: tuple[str, ...], *sets: str) -> tuple[dict[str, Any], Store]:
    save(encoder, tmp_path / "encoder")
    text = RECIPE.replace("SPLITS", write_corpora(tmp_path, splits)).replace("FOLDER", str(tmp_path))
    (tmp_path / "mined.yaml").write_text(text, encoding="utf-8")
    words = ["run", str(tmp_path / "mined.yaml"), "--store", str(tmp_path / "store"), "--quiet", "--offline"]
    for setting in sets:
        words += ["--set", setting]
    assert main(words) == 0
    store = Store(tmp_path / "store")
    (cell,) = store.read_run("mined")["cells"]
    return cell, store


def test_mining_is_a_step_with_the_threshold_of_dev(
    tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, store = run(tmp_path, encoder, ("dev", "test"))
    assert (cell["split"], cell["metric"]) == ("test", "f1") and cell["score"] == cell["metrics"]["f1"]
    assert "corpora: f1, test set" in capsys.readouterr().out
    kind, _, key = cell["step"].partition("-")
    artefact = store.open(kind, key)
    assert artefact.facts["threshold_from"] == "best on dev" and artefact.facts["margin"] == "ratio"
    assert artefact.facts["sentences"] == [120, 120] and artefact.facts["gold"] == 40
    lines = (artefact.folder / "test-qaa.tsv").read_text(encoding="utf-8").splitlines()
    gold = (tmp_path / "qaa.test.gold").read_text(encoding="utf-8").splitlines()
    hits = len(set(lines) & set(gold))
    assert len(lines) == artefact.facts["extracted"]
    assert cell["score"] == pytest.approx(200 * hits / (len(lines) + len(gold)))
    # Above chance, even with random weights: a pair drawn at random is gold with 40 in 120 x 120.
    assert hits > 20 * len(lines) * 40 / 120**2
    again, _ = run(tmp_path, encoder, ("dev", "test"), "retrieval.margin=distance", "retrieval.space=centre")
    assert again["step"] != cell["step"]


def test_mining_on_dev_alone_is_cross_fitted_by_name(
    tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, _ = run(tmp_path, encoder, ("dev",))
    assert (cell["split"], cell["metric"]) == ("dev", "f1_cross_fitted") and "f1" not in cell["metrics"]
    assert cell["metrics"]["f1_in_sample"] >= cell["score"] - 1e-9
    assert "corpora: f1_cross_fitted, dev set" in capsys.readouterr().out


def test_a_gold_pair_of_an_unknown_id_is_one_line(
    tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, encoder, ("dev",))
    capsys.readouterr()
    with (tmp_path / "qaa.dev.gold").open("a", encoding="utf-8") as file:
        file.write("qaa-000000001\ten-999999999\n")
    words = ["run", str(tmp_path / "mined.yaml"), "--store", str(tmp_path / "store"), "--quiet", "--offline"]
    assert main(words) == 3
    error = capsys.readouterr().err
    assert "en-999999999" in error and "qaa.dev.gold:41" in error and error.count("\n") == 1


def test_a_layer_outside_the_model_is_told_with_the_convention(encoder: Any) -> None:
    assert poolings(encoder, Retrieval(), [0, 3, 3]) == [Pooling(0), Pooling(3)]
    assert poolings(encoder, Retrieval(layer=0)) == [Pooling(0)] and poolings(encoder, Retrieval(layer=3)) == [
        Pooling(3)
    ]
    assert poolings(encoder, Retrieval()) == [Pooling(2)], "two thirds of three"
    assert poolings(encoder, Retrieval(layer=1), [], ["mean", "cls"]) == [Pooling(1), Pooling(1, "cls")]
    with pytest.raises(ModelError, match="layer 4 does not exist: .* 0 to 3, where 0 is the embedding output"):
        poolings(encoder, Retrieval(layer=4))


def test_sentences_over_the_length_are_counted(encoder: Any) -> None:
    texts = ["a", "word " * 200, "", "x" * 30]
    lengths = np.array([len(encoder.tokenizer(text)["input_ids"]) for text in texts])
    for limit in (2, 3, 20, 128, 1000):
        over = lengths > min(limit, encoder.max_length)
        trial = Trial(encoder, lambda _: [], "test", Retrieval(), limit, [Pooling(0), Pooling(1)])
        assert [made.over_length for made in trial.sides(texts, texts[1:2])] == [over.sum() + over[1]] * 2
        for _ in range(2):
            (made,) = replace(trial, over=[Pooling(1)]).sides(["a"], texts, shared=True)
            assert made.over_length == over.sum() + over[0]


def test_a_sweep_of_one_is_the_single_run_and_choices_come_from_dev(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors are planted: layer 2 is perfect on dev and random on test, layer 1 the other way round."""
    generator = np.random.default_rng(0)
    count = 30
    same = generator.normal(size=(count, 16)).astype(np.float32)
    other = generator.normal(size=(count, 16)).astype(np.float32)

    class Planted:
        precision = "fp32"

        def __init__(self, _: Any, over: list[Pooling], *__: Any) -> None:
            self.over = over

        def __enter__(self) -> Planted:
            return self

        def __exit__(self, *_: Any) -> None: ...

        def __call__(self, texts: list[str], name: Any) -> Any:
            split, side = texts[0].split()[:2]
            places = [int(text.split()[2]) for text in texts]
            aligned = [side == "s" or (pooling.layer == 2) == (split == "dev") for pooling in self.over]
            vectors = [(same if here else other)[places] for here in aligned]
            return SimpleNamespace(vectors=vectors, truncated=0, lengths=np.full(len(texts), 3))

    monkeypatch.setattr(sides, "Embedder", Planted)

    def examples(split: str) -> list[dict[str, Any]]:
        marks = {"source": "s", "target": "t"}
        return [
            {"id": f"{mark}{i}", "text": f"{split} {mark} {i}", "side": side, "gold": [f"t{i}"] if mark == "s" else []}
            for side, mark in marks.items()
            for i in range(count)
        ]

    layers = [Pooling(1), Pooling(2)]
    sweep = mined(Trial(encoder, examples, "test", Retrieval(), 64, layers, tune=True))  # type: ignore[arg-type]
    assert sweep.outcomes[Pooling(1)].score > 95 > sweep.outcomes[Pooling(2)].score
    assert sweep.chosen is not None and sweep.chosen.facts["chosen"] == [[2, "mean"]]
    assert sweep.chosen.score == sweep.outcomes[Pooling(2)].score
    crossed = mined(Trial(encoder, examples, "dev", Retrieval(), 64, layers))  # type: ignore[arg-type]
    assert crossed.chosen is not None and crossed.chosen.metric == "f1_cross_fitted"
    assert crossed.chosen.facts["chosen"] == [[2, "mean"]] * 5 and crossed.chosen.score > 95


def test_the_layer_that_most_folds_choose_is_the_one_named(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bucc_rows(sentences=30, pairs=20)
    original = bucc_scores.cross_fitted
    for folds, layer in (((0, 0, 1, 0, 1), 1), ((0, 1, 1, 0, 1), 2)):
        monkeypatch.setattr(
            bucc_scores,
            "cross_fitted",
            lambda here, folds=folds: replace(original(here), **({"choices": folds} if len(here) > 1 else {})),
        )
        sweep = mined(Trial(encoder, lambda _: made, "test", Retrieval(), 64, [Pooling(1), Pooling(2)]))
        assert sweep.chosen is not None and sweep.chosen.facts["layer"] == layer


def test_aligned_sentences_choose_nothing(encoder: Any) -> None:
    rows = [{"source": text, "target": text} for _, text in bucc("qaa", sentences=9, pairs=3)["source"]]
    sweep = aligned(Trial(encoder, lambda _: rows, "test", Retrieval(), 64, [Pooling(0), Pooling(1)]))
    assert sweep.chosen is None and all(o.score == 100.0 for o in sweep.outcomes.values())
    csls = aligned(Trial(encoder, lambda _: rows, "test", Retrieval(margin="csls"), 64, [Pooling(1)]))
    assert csls.outcomes[Pooling(1)].facts["margin"] == "csls"


def test_a_result_says_how_it_was_made(encoder: Any) -> None:
    own = Retrieval(space="centre", special_tokens=False, neighbours=3)
    rows = [{"source": text, "target": text} for _, text in bucc("qaa", sentences=9, pairs=3)["source"]]
    one = aligned(Trial(encoder, lambda _: rows, "test", own, 64, [Pooling(1, "mean", False)]))
    (outcome,) = one.outcomes.values()
    settings = {"layer": 1, "pooling": "mean", "special_tokens": False, "space": "centre", "margin": "absolute"}
    assert {**settings, "neighbours": 3}.items() <= outcome.facts.items()
    alone = mined(Trial(encoder, lambda _: bucc_rows(30, 20), "test", Retrieval(), 64, [Pooling(1)]))
    (outcome,) = alone.outcomes.values()
    assert "chosen" not in outcome.facts and outcome.facts["margin"] == "ratio" and outcome.facts["special_tokens"]


def test_odd_sentences_are_counted_and_said(encoder: Any) -> None:
    rows = [{"source": s, "target": t} for s, t in (("a b", "x"), ("", "x"), ("word " * 99, "y"), ("c", " "))]
    (outcome,) = aligned(Trial(encoder, lambda _: rows, "test", Retrieval(), 64, [Pooling(1)])).outcomes.values()
    assert outcome.facts["repeated"] == [0, 1]
    assert outcome.facts["direction"] == "query English, index foreign (XTREME); reverse beside it"
    odd = "1 sentences are longer than 64 tokens and cut; 2 sentences are blank, which all have one vector"
    assert passed_over(outcome, 64, Retrieval(neighbours=9)) == odd  # by cosine there is no neighbourhood
    ratio = Retrieval(margin="ratio", neighbours=9)
    (outcome,) = aligned(Trial(encoder, lambda _: rows, "test", ratio, 64, [Pooling(1)])).outcomes.values()
    assert outcome.facts["neighbours"] == 4
    assert passed_over(outcome, 64, ratio) == f"{odd}; 9 neighbours are asked, of a side's 4: all count"
    assert passed_over(outcome, 64, Retrieval(margin="ratio", neighbours=4)) == odd


def test_what_retrieves_nothing_is_told_what_does() -> None:
    assert evaluator_of(get("tatoeba"), "retrieval.tasks") is EVALUATORS["bitext"]
    with pytest.raises(RecipeError) as caught:
        evaluator_of(get("xnli"), "retrieval.tasks.0")
    assert str(caught.value) == (
        "retrieval.tasks.0: 'xnli' is of kind classification; retrieval needs aligned sentences (bitext) or comparable "
        "corpora with gold pairs (mining) or queries and candidates (candidates)"
    )


def test_mining_says_what_it_looked_through(encoder: Any) -> None:
    rows = bucc_rows(30, 20)
    for row in rows[:2]:
        row["text"] = "twice"
    rows[-1] |= {"text": " "}
    rows[2] |= {"text": "word " * 99}
    (outcome,) = mined(Trial(encoder, lambda _: rows, "test", Retrieval(), 64, [Pooling(1)])).outcomes.values()
    facts = outcome.facts
    assert (facts["sentences"], facts["repeated"], facts["blank"], facts["over_length"]) == ([30, 30], [2, 0], 1, 1)
    gold_only = outcome.metrics["gold_only_accuracy"]
    near = bucc_scores.corpora(rows)
    vectors = [embed(encoder, side.texts, Pooling(1)) for side in (near.source, near.target)]
    assert gold_only == bucc_scores.gold_only_accuracy(near, *vectors)
    assert mined(Trial(encoder, lambda _: rows, "test", Retrieval(), 64, [Pooling(1)])).chosen is None
    assert facts["gold"] == 20 and facts["extracted"] == len(outcome.predictions) and facts["mode"] == "max"


def test_names_stay_readable_in_what_is_predicted(encoder: Any) -> None:
    rows = [
        {"id": "frågå", "text": "a", "side": "query", "gold": ["c"]},
        {"id": "c", "text": "b", "side": "candidate", "gold": []},
    ]
    (outcome,) = searched(Trial(encoder, lambda _: rows, "test", Retrieval(), 64, [Pooling(1)])).outcomes.values()
    assert outcome.predictions == ['{"frågå": ["c"]}']


def test_texts_are_embedded_again_unless_they_are_said_to_be_shared(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = sides.Embedder.__call__
    monkeypatch.setattr(
        sides.Embedder,
        "__call__",
        lambda self, texts, **more: calls.append(len(texts)) or original(self, texts, **more),
    )
    for shared, expected in (({}, [1, 2, 1, 2]), ({"shared": True}, [1, 2, 1])):
        calls.clear()
        for query in ("a", "b"):
            list(sides.sides(encoder, [query], ["c", "d"], [Pooling(1)], 64, Retrieval(), **shared))
        assert calls == expected


def test_shared_texts_are_those_of_one_encoder(encoder: Any, tokenizer: Any) -> None:
    other = create(TINY_CONFIG, tokenizer, seed=9)
    made = [
        next(sides.sides(model, ["a"], ["c", "d"], [Pooling(1)], 64, Retrieval(), shared=True)).target
        for model in (encoder, other, encoder)
    ]
    assert np.array_equal(made[0], made[2]) and not np.allclose(made[0], made[1])


def test_a_search_says_what_it_looked_through(encoder: Any) -> None:
    """Of the rows a limit leaves fewer queries, and every candidate."""
    rows = [{"id": f"q{i}", "text": text, "side": "query", "gold": [f"c{i}"]} for i, text in enumerate("abc")]
    rows += [
        {"id": f"c{i}", "text": text, "side": "candidate", "gold": []}
        for i, text in enumerate(["a", "b", "c", "", "d " * 99])
    ]
    for limit, queries in ((0, 3), (2, 2)):
        sweep = searched(Trial(encoder, lambda _: rows, "test", Retrieval(rows=limit), 64, [Pooling(1)]))
        (outcome,) = sweep.outcomes.values()
        assert outcome.metric == "map_at_20" and outcome.score == outcome.metrics["map_at_20"] == 100.0
        assert {
            "queries": queries, "candidates": 5, "blank": 1, "over_length": 1, "margin": "absolute", "layer": 1,
            "pooling": "mean",
        }.items() <= outcome.facts.items()  # fmt: skip
        (text,) = outcome.predictions
        assert outcome.form == "json" and list(json.loads(text)) == ["q0", "q1", "q2"][:queries]
    flags = {name: (of.tunes_on_dev, of.limits_rows) for name, of in EVALUATORS.items()}
    assert flags == {"bitext": (False, False), "mining": (True, True), "candidates": (False, True)}


def test_poolings_share_a_pass_while_their_vectors_fit(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[list[int]] = []
    original = sides.Embedder
    monkeypatch.setattr(
        sides,
        "Embedder",
        lambda encoder, over, *more: passes.append([p.layer for p in over]) or original(encoder, over, *more),
    )
    trial = Trial(encoder, lambda _: [], "test", Retrieval(), 64, [Pooling(layer) for layer in range(4)])
    row = 4 * encoder.hidden_size * 5
    for room, expected in ((1, [[0], [1], [2], [3]]), (2 * row, [[0, 1], [2, 3]]), (4 * row, [[0, 1, 2, 3]])):
        passes.clear()
        monkeypatch.setattr(sides, "_VECTOR_BYTES", room)
        made = list(trial.sides(["a", "b"], ["c", "d", "e"]))
        assert passes == expected and [side.pooling.layer for side in made] == [0, 1, 2, 3]
        assert all((len(side.source), len(side.target)) == (2, 3) for side in made)


def test_too_few_rows_have_no_gold(encoder: Any) -> None:
    rows = bucc_rows(sentences=50, pairs=5)
    with pytest.raises(DataError, match="take more rows"):
        mined(Trial(encoder, lambda _: rows, "test", Retrieval(rows=1), 64, [Pooling(1)]))


def official_corpora(folder: Path, names: dict[Any, str]) -> None:
    """Synthetic corpora by official files' names: of each split what it is called there; `qaa` stands in for `zh`."""
    folder.mkdir(parents=True)
    write_corpora(folder, tuple(names))
    for split, official in names.items():
        for ours, end in (("source", "zh"), ("target", "en"), ("gold", "gold")):
            (folder / f"qaa.{split}.{ours}").rename(folder / f"zh-en.{official}.{end}")


def test_the_retrieve_command_sweeps_mining_and_chooses_elsewhere(
    tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The declared BUCC task on synthetic corpora in the official layout, `qaa` standing in for `zh`."""
    save(encoder, tmp_path / "encoder")
    folder = tmp_path / "data" / "xtreme" / "bucc2018"
    official_corpora(folder, {"dev": "dev"})
    words = ["retrieve", str(tmp_path / "encoder"), "--tasks", "bucc2018", "--layers", "all", "--picture", "none"]
    words += ["--data", str(tmp_path / "data"), "--store", str(tmp_path / "store"), "--offline", "--space", "centre"]
    assert main([*words, "--margin", "distance"]) == 0
    shown = capsys.readouterr().out
    assert "bucc2018: f1_cross_fitted, dev set" in shown and "(other folds chose)" in shown
    assert "by layer, zh (each layer at its own threshold)" in shown


def test_the_shared_tasks_own_files_are_found_and_its_sample_is_dev(
    tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """bucc2018/zh-en/zh-en.sample.zh and zh-en.training.zh, as they are given out; `bucc` is the task's short name."""
    save(encoder, tmp_path / "encoder")
    folder = tmp_path / "data" / "bucc2018" / "zh-en"
    official_corpora(folder, {"dev": "sample", "test": "training"})
    words = ["retrieve", str(tmp_path / "encoder"), "--tasks", "bucc", "--picture", "none", "--languages", "zh"]
    words += ["--data", str(tmp_path / "data"), "--store", str(tmp_path / "store"), "--offline"]
    assert main([*words, "--mode", "intersection", "--precision", "bf16"]) == 0
    shown = capsys.readouterr().out
    assert "bucc2018: f1, test set" in shown and "(best on dev)" in shown
    assert "mode intersection" in shown and "precision bf16" in shown


def test_tokens_are_those_that_were_read_for_a_number(encoder: Any) -> None:
    """Of dev and test where a threshold is tuned; of shared candidates for the first language alone."""
    made = bucc_rows(sentences=30, pairs=20)
    trial = Trial(encoder, lambda _: made, "test", Retrieval(), 64, [Pooling(1)])
    once = mined(trial).outcomes[Pooling(1)].tokens
    assert once == sum(len(encoder.tokenizer(row["text"])["input_ids"]) for row in made)
    assert mined(replace(trial, tune=True)).outcomes[Pooling(1)].tokens == 2 * once
    asked = {"side": "query", "id": "q", "gold": ["c0"], "text": "Anna"}
    offered = [{"side": "candidate", "id": f"c{i}", "gold": [], "text": f"Anna waited {i}."} for i in range(5)]
    search = replace(trial, examples=lambda _: [asked, *offered])
    first, second = (searched(search).outcomes[Pooling(1)].tokens for _ in range(2))
    assert second == len(encoder.tokenizer("Anna")["input_ids"]) < first
