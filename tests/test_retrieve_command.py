"""`retrieve` and `export` on what a run trained: by RUN:ARM, with the numbers of the run's own table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effstilts.cli import main
from effstilts.errors import MissingDependencyError
from effstilts.model.opening import load
from effstilts.retrieval.embed import Pooling, embed
from effstilts.store import Store
from effstilts.studies.trained import open_named

pytestmark = pytest.mark.slow


@pytest.fixture
def trained(tiny_recipe: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    store = tmp_path / "store"
    words = ["run", str(tiny_recipe), "--store", str(store), "--quiet", "--offline", "--set", "targets=[]"]
    lora = "{tasks: [synthetic/mnli], training: {steps: 4}, method: {name: lora, rank: 2}}"
    assert main([*words, "--set", f"intermediate.lora={lora}"]) == 0
    return store, Store(store).read_run("tiny")


def test_models_of_a_run_stand_side_by_side(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full, adapter and no training: the scores are those that the run itself recorded."""
    pytest.importorskip("matplotlib")
    store, record = trained
    arms = ["baseline", "nli", "lora"]
    capsys.readouterr()
    words = ["retrieve", *(f"tiny:{arm}" for arm in arms), "--tasks", "synthetic/tatoeba", "--languages", "qaa"]
    words += ["--rows", "12", "--layers", "all", "--pooling", "mean,cls", "--store", str(store), "--offline"]
    assert main([*words, "--picture", str(tmp_path / "r.svg")]) == 0
    shown = capsys.readouterr().out
    cells = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["cells"]
    expected = {cell["arm"]: cell["metrics"] for cell in record["cells"]}
    assert {cell["model"].split(":")[1]: cell["metrics"] for cell in cells} == expected
    assert "tiny:nli - tiny:baseline" in shown and "nothing is chosen by it" in shown
    every = {(layer, how) for layer in range(3) for how in ("mean", "cls")}
    assert all({(point["layer"], point["pooling"]) for point in cell["sweep"]} == every for cell in cells)
    picture = (tmp_path / "r.svg").read_text(encoding="utf-8")
    assert "</svg>" in picture and not list(tmp_path.glob(".r.*"))


def test_a_runs_own_settings_are_measured_unless_others_are_asked_for(
    trained: tuple[Path, dict[str, Any]], tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = trained
    settings = (
        "{tasks: [synthetic/tatoeba], languages: [qaa], layer: 2, layers: {synthetic/tatoeba: 0}, space: centre, "
        "margin: distance, neighbours: 3, rows: 40}"
    )
    words = ["run", str(tiny_recipe), "--store", str(store), "--quiet", "--offline", "--set", "targets=[]"]
    assert main([*words, "--set", f"retrieval={settings}", "--set", "name=own", "--set", "arms=[nli]"]) == 0
    (cell,) = Store(store).read_run("own")["cells"]
    capsys.readouterr()
    words = ["retrieve", "own:nli", "--tasks", "synthetic/tatoeba", "--languages", "qaa", "--store", str(store)]
    assert main([*words, "--offline", "--picture", "none"]) == 0
    shown = capsys.readouterr().out
    assert f"{cell['score']:.1f}" in shown
    assert "layer 0 mean, margin distance, neighbours 3, space centre, the first 40 rows alone" in shown
    assert main([*words, "--offline", "--picture", "none", "--layer", "1", "--space", "none", "--rows", "0"]) == 0
    shown = capsys.readouterr().out
    assert "layer 1 mean, margin distance, neighbours 3" in shown and "centre" not in shown and "alone" not in shown


def test_what_was_measured_is_shown_if_a_later_model_cannot_be_read(
    trained: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = trained
    capsys.readouterr()
    words = ["retrieve", "tiny:nli", "tiny:nlu", "--tasks", "synthetic/tatoeba", "--languages", "qaa"]
    assert main([*words, "--store", str(store), "--offline", "--picture", "none"]) == 2
    shown = capsys.readouterr()
    assert "tiny:nli" in shown.out and "did you mean 'nli'" in shown.err


def test_what_was_measured_is_shown_if_a_later_language_cannot_be_read(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = trained
    folder = tmp_path / "data" / "tatoeba"
    folder.mkdir(parents=True)
    for code, foreign in (("ara", "a\nb\nc\n"), ("deu", "a\nb\n")):
        (folder / f"tatoeba.{code}-eng.{code}").write_text(foreign)
        (folder / f"tatoeba.{code}-eng.eng").write_text("a\nb\nc\n")
    capsys.readouterr()
    words = ["retrieve", "tiny:nli", "--languages", "ar,de", "--store", str(store), "--data", str(tmp_path / "data")]
    words += ["--offline", "--picture", "none", "--margin", "ratio", "--k", "9"]
    assert main(words) == 3
    shown = capsys.readouterr()
    assert "tatoeba: accuracy, test set" in shown.out and "ar" in shown.out and " de" not in shown.out
    assert "tiny:nli, tatoeba de: " in shown.err and "Traceback" not in shown.err
    assert "tatoeba ar: 9 neighbours are asked, of a side's 3: all count" in shown.err


def test_an_arm_is_exported_with_its_adapter_merged(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    store, _ = trained
    words = ["export", "tiny", str(tmp_path / "out"), "--arm", "lora", "--store", str(store), "--offline"]
    assert main(words) == 0
    named = open_named("tiny:lora", Store(store), offline=True)
    plain = open_named("tiny:baseline", Store(store), offline=True)
    exported = load(str(tmp_path / "out"), offline=True)
    texts = ["one two", "three"]
    layer = exported.depth
    assert layer == 1
    assert np.allclose(embed(exported, texts, Pooling(layer)), embed(named.encoder, texts, Pooling(layer)), atol=1e-6)
    assert not np.allclose(embed(exported, texts, Pooling(layer)), embed(plain.encoder, texts, Pooling(layer)))


def test_an_arm_is_embedded_by_its_name(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    store, _ = trained
    (tmp_path / "text").write_text("one two\nthree\n")
    words = ["embed", str(tmp_path / "text"), "--model", "tiny:lora", "--store", str(store), "--offline", "--quiet"]
    assert main([*words, "--precision", "fp32", "--out", str(tmp_path / "out")]) == 0
    named = open_named("tiny:lora", Store(store), offline=True)
    (made,) = (tmp_path / "out" / "text").glob("*.npy")
    assert made.name == "layer1-mean.npy"
    assert np.allclose(np.load(made), embed(named.encoder, ["one two", "three"], Pooling(1)), atol=1e-6)


def test_mistakes_are_one_line(
    trained: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, _ = trained
    capsys.readouterr()
    for words, code, expected in (
        (["retrieve"], 2, "name a model"),
        (["retrieve", "tiny"], 2, "several arms (baseline, nli, lora)"),
        (["retrieve", "tiny:nil"], 2, "did you mean 'nli'"),
        (["retrieve", "tiny:nli:7"], 2, "no seed '7'"),
        (["retrieve", "tiny:nli", "--tasks", "xnli"], 2, "retrieval needs aligned sentences (bitext) or comparable"),
        (["retrieve", "tiny:nli", "--tasks", "tatoba"], 2, "did you mean 'tatoeba'"),
        (["retrieve", "tiny:nli", "--tasks", "synthetic/tatoeba", "--languages", "xx"], 2, "no language 'xx'"),
        (["retrieve", "tiny:nli", "--tasks", "synthetic/tatoeba", "--layers", "0,9"], 4, "layer 9 does not exist"),
        (["retrieve", "tiny:nli", "--layers", "first"], 2, "numbers from 0"),
        (["retrieve", "tiny:nli", "--pooling", "max"], 2, "mean, cls, weighted, or several"),
        (["retrieve", "tiny:nli", "--picture", "a.gif"], 2, ".png, .svg, .pdf"),
        (["export", "tiny", str(tmp_path / "x")], 2, "say which, RUN:ARM or --arm"),
    ):
        picture = ["--picture", "none"] if words[0] == "retrieve" and "--picture" not in words else []
        assert main([*words, *picture, "--store", str(store), "--offline"]) == code, words
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main(["retrieve", "tiny:nli", "--store", str(store)]) == MissingDependencyError.exit_code
    assert "effstilts[report]" in capsys.readouterr().err


def test_equal_arms_share_a_step_and_both_are_found(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    arm = "{tasks: [synthetic/mnli], training: {steps: 2}}"
    words = ["run", str(tiny_recipe), "--store", str(store), "--quiet", "--offline", "--set", "targets=[]"]
    for name in ("x", "y", "z"):
        words += ["--set", f"intermediate.{name}={arm}" if name != "z" else "arms=[x, y]"]
    assert main(words) == 0
    assert (
        open_named("tiny:x", Store(store), offline=True).identity
        == open_named("tiny:y", Store(store), offline=True).identity
    )
    capsys.readouterr()
    assert main(["export", "tiny", str(tmp_path / "out"), "--arm", "nli", "--store", str(store), "--offline"]) == 5
    assert "no encoder of the arm 'nli'" in capsys.readouterr().err
