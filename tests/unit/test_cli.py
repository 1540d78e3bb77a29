"""The command line on bad input: one line, an exit code by kind, nothing lost."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import effstilts
from effstilts.cli import COMMANDS, main
from effstilts.commands.places import DEFAULT_STORE, Places
from effstilts.store import disk_error

TEXT_TASK = (
    "tasks: {mine: {kind: classification, files: {train: t.jsonl, dev: t.jsonl}, labels: [a, b],"
    " columns: {text: x, label: y}}}\n"
)
HEAD = "model: {name: MODEL}\ntraining: {steps: 2}\n"


@pytest.fixture
def model(encoder: Any, tmp_path: Path) -> Path:
    from effstilts.model.opening import save

    save(encoder, tmp_path / "model")
    return tmp_path / "model"


def run(folder: Path, recipe: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    path = folder / "r.yaml"
    path.write_text(recipe.replace("MODEL", str(folder / "model")), encoding="utf-8")
    code = main(
        ["run", str(path), "--store", str(folder / "store"), "--quiet", "--offline", "--data", str(folder), *more]
    )
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "rows", "code", "words"),
    [
        (HEAD + "target: []", None, 2, ["unknown key 'target'", "'targets'"]),
        (HEAD + "targets: [xnly]", None, 2, ["no task 'xnly'", "did you mean 'xnli'"]),
        (HEAD + "targets: [{task: udpos, languages: [xx]}]", None, 2, ["no language 'xx'"]),
        (HEAD + "targets: [udpos]", None, 3, ["dev-en.tsv does not exist", "not in the cache"]),
        (HEAD + TEXT_TASK + "targets: [{task: mine}]", "", 3, ["t.jsonl holds no rows"]),
        (HEAD + TEXT_TASK + "targets: [mine]", '{"x": "t", "y": "c"}\n', 3, ["t.jsonl:1", "'c'", "a, b"]),
        (HEAD + TEXT_TASK + "targets: [mine]", '{"x": "t", "y": "a"}\n{"x": \n', 3, ["t.jsonl:2", "not valid JSON"]),
        (HEAD + TEXT_TASK + "targets: [mine]", '{"z": "t", "y": "a"}\n', 3, ["needs a column 'x'", "z, y"]),
        ("model: {name: ./nothing}\ntargets: [synthetic/udpos]", None, 4, ["does not exist"]),
        (
            HEAD + "targets: [{task: xquad, train_on: udpos}]",
            None,
            2,
            ["cannot be evaluated by a model trained on udpos"],
        ),
        (HEAD + "retrieval: {tasks: [udpos]}", None, 2, ["aligned sentences"]),
        (HEAD + "retrieval: {tasks: [synthetic/tatoeba], layer: 9}", None, 4, ["hidden states 0 to 3"]),
        (HEAD + "intermediate: {a: {tasks: [tatoeba]}}", None, 2, ["nothing trains on it"]),
        (HEAD + "mlm: {tasks: [synthetic/mnli]}", None, 2, ["phase 1 trains masked_lm"]),
        ("model: x\n  y: 1", None, 2, ["line 2", "not valid YAML"]),
    ],
)
def test_one_clear_line(
    model: Path, capsys: pytest.CaptureFixture[str], recipe: str, rows: str | None, code: int, words: list[str]
) -> None:
    folder = model.parent
    if rows is not None:
        (folder / "t.jsonl").write_text(rows, encoding="utf-8")
        recipe = recipe.replace("labels: [a, b],", "labels: [a, b], evaluate_on: dev,")
    got, error = run(folder, recipe, capsys)
    assert got == code, error
    lines = [line for line in error.splitlines() if line.startswith("effstilts: ")]
    assert len(lines) == 1 and "Traceback" not in error
    for word in words:
        assert word in lines[0]


def test_a_model_that_is_no_encoder(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = model / "config.json"
    config.write_text(config.read_text().replace('"xlm-roberta"', '"gpt2"'))
    code, error = run(model.parent, HEAD + "targets: [{task: synthetic/udpos, languages: [qaa]}]", capsys)
    assert code == 4 and "not an encoder" in error


def test_unknown_recipes_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstrt"]) == 2
    assert "did you mean 'quickstart'" in capsys.readouterr().err
    assert main(["plan", "--data", str(tmp_path / "none")]) == 2
    assert main(["show", "x", "--store", str(tmp_path)]) == 5
    assert main(["show", "--store", str(tmp_path)]) == 0
    assert main(["tasks", "--kind", "tagging"]) == 0
    assert "udpos" in capsys.readouterr().out
    assert main(["tasks", "--kind", "tag"]) == 2
    assert main(["doctor"]) == 0
    assert "torch" in capsys.readouterr().out
    assert main(["run", "--no-such-flag"]) == 2


def test_a_full_disk_is_one_line_and_loses_nothing(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from effstilts import store

    recipe = HEAD + "targets: [{task: synthetic/udpos, rows: 32, languages: [qaa]}]"
    real, count = store.sync_file, 0

    def full(path: Path) -> None:
        nonlocal count
        count += 1
        if count > 6:
            raise OSError(28, "No space left on device")
        real(path)

    monkeypatch.setattr(store, "sync_file", full)
    code, error = run(model.parent, recipe, capsys)
    assert code == 5 and "the disk is full" in error and "Traceback" not in error
    monkeypatch.undo()
    assert run(model.parent, recipe, capsys)[0] == 0


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, effstilts.cli as c; c.main(['--help']);"
        "print(sorted({'torch', 'transformers', 'numpy', 'peft'} & set(sys.modules)))"
    )
    began = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip().endswith("[]")
    assert all(f"• {name} " in result.stdout for name in COMMANDS)
    assert time.monotonic() - began < 5


def test_python_dash_m_and_the_launchers_argument() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "effstilts", "run", "nothing", "--local_rank", "0"], capture_output=True, text=True
    )
    assert result.returncode == 2 and "no recipe 'nothing'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"effstilts {effstilts.__version__}\n"


def test_an_empty_variable_names_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFSTILTS_STORE", "")
    assert Places().store == Path(DEFAULT_STORE)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_is_not_allowed_is_not_to_be_tried_again(number: int) -> None:
    known = disk_error(OSError(number, "no", "a/b"))
    assert "allow it, or choose another path" in str(known) and "again" not in str(known) and "a/b" in str(known)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("embd x", "no command 'embd' (did you mean 'embed'?); there are run, plan"),
        (
            "run --budgett=3",
            "no such option or argument: --budgett=3 (did you mean '--budget'?); see effstilts run --help",
        ),
        ("run --budget", "Missing value for argument '--budget'"),
        (f"run --budget /{'x' * 200}", f"cannot read --budget: could not convert string to float: '/{'x' * 200}'; see"),
        ("run --budget x", "cannot read --budget: could not convert string to float: 'x'; see effstilts run --help"),
        ("mine a b --margin foo", "invalid choice 'foo' for argument '--margin'. Expected one of ('ratio', 'distance'"),
        ("plan a b c", "no such option or argument: b, c; see effstilts plan --help"),
        ("xtreme foo", "no such option or argument: foo; see effstilts xtreme --help"),
        ("xtreme score", "Missing from effstilts xtreme score: PATH"),
        ("run --model m --offline", "no such option or argument: --model, m; see effstilts run --help"),
        ("run --zzzz 1 --budgett=3", "no such option or argument: --zzzz, 1, --budgett=3 (did you mean '--budget'?)"),
        ("plan --recip x", "no such option or argument: --recip, x; see effstilts plan --help"),
        ("xtreme score --frmat x", "Missing value for argument 'predictions'"),
        ("--hlp", "no such option or argument: --hlp; see effstilts --help"),
    ],
)
def test_words_that_are_not_understood_are_one_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for frames in (True, False):
        monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda frames=frames: frames)
        assert main(words.split()) == 2
        found = capsys.readouterr()
        assert found.out == "" and found.err.count("\n") == 1, found
        assert found.err.startswith(f"effstilts: {said}")


def test_no_words_at_all_are_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main([]), main(["--help"])) == (2, 0)
    said = capsys.readouterr()
    assert "retrieve" in said.out and not said.err
