from __future__ import annotations

import importlib.metadata
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effstilts.data.layouts import declares
from effstilts.data.readers import READERS
from effstilts.errors import RecipeError
from effstilts.tasks import registry
from effstilts.tasks.registry import all_tasks, declare, declare_all, get, known_tasks, names, naming_dev
from effstilts.tasks.task import ROLES, SPLITS, Files, Task
from effstilts.tasks.xtreme import PANX_LANGUAGES, TATOEBA_CODES, UDPOS_LANGUAGES

MINE = {"kind": "masked_lm", "files": {"train": "a.txt"}}


def test_every_task_of_the_mission_is_known() -> None:
    intermediate = {"anli+", "mnli", "qqp", "squad-v2", "squad", "hellaswag", "ccg", "cosmosqa", "commonsenseqa"}
    multilingual = {"wikipedia", "mlqa-translated", "xnli-translated", "pawsx-translated"}
    xtreme = {"xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa", "bucc2018", "tatoeba"}
    xtreme_r = {f"xtreme-r/{name}" for name in ("panx", "udpos", "xquad", "tatoeba", "xcopa")} | {"mewslix", "lareqa"}
    reasoning = {"copa", "xcopa", "siqa", "xstorycloze", "xwinograd", "belebele"}
    assert intermediate | multilingual | xtreme | xtreme_r | reasoning <= set(names())
    # Two sources each; the licence of CCGbank and the form of the two retrieval sets leave the files alone.
    for name in intermediate | multilingual | xtreme | xtreme_r | reasoning:
        sources = get(name).parts or (get(name),)
        assert all(task.files is not None for task in sources)
        assert all(task.hub is not None for task in sources) or name in ("ccg", "mewslix", "lareqa")


def test_hub_sets_are_pinned_to_whole_commits() -> None:
    for task in known_tasks().values():
        for hub in (task.hub, task.hub.mirror) if task.hub else ():
            assert hub is None or not hub.revision or re.fullmatch("[0-9a-f]{40}", hub.revision), task.name


def test_language_lists_are_xtremes() -> None:
    """Counts of google-research/xtreme, evaluate.py, commit 838c13b."""
    assert len(set(PANX_LANGUAGES)) == len(PANX_LANGUAGES) == 40
    assert len(set(UDPOS_LANGUAGES)) == len(UDPOS_LANGUAGES) == 33
    counts = {"xnli": 15, "pawsx": 7, "xquad": 11, "mlqa": 7, "tydiqa": 9, "xcopa": 11}
    assert {name: len(set(get(name).languages)) for name in counts} == counts
    assert set(TATOEBA_CODES) == set(PANX_LANGUAGES) - {"en", "ms", "my", "yo"}
    further = {"xtreme-r/panx": 48, "xtreme-r/udpos": 38, "xtreme-r/xquad": 12, "xtreme-r/tatoeba": 41, "mewslix": 11}
    further |= {"tatoeba": 36, "tatoeba-laser": 112, "lareqa": 11, "xtreme-r/xcopa": 11, "xstorycloze": 11}
    assert {name: len(set(get(name).languages)) for name in further} == further
    for name in ("tatoeba", "xtreme-r/tatoeba", "tatoeba-laser"):
        files = get(name).files
        assert files is not None and len(set(files.language_codes.values())) == len(get(name).languages)


@pytest.mark.parametrize("name", sorted(known_tasks()))
def test_a_known_task_is_sound(name: str) -> None:
    task = get(name)
    needed = {role for role in ROLES[task.kind] if not role.endswith("?")}
    assert needed <= set(task.columns) <= {role.rstrip("?") for role in ROLES[task.kind]}
    assert task.description and task.score
    assert task.files or task.hub or task.synthetic or task.parts
    assert set(task.label_values.values()) <= set(task.labels) | set("01234")
    if task.train_on:
        assert get(task.train_on).kind == task.kind and get(task.train_on).labels == task.labels
    for files in _layouts(task):
        assert set(files.paths) <= set(SPLITS) and {files.format, *files.formats.values()} <= set(READERS)
        for paths in files.paths.values():
            for path in (paths,) if isinstance(paths, str) else paths:
                assert {field for _, field, _, _ in string.Formatter().parse(path) if field} <= {"lang", "file_lang"}
    if task.hub is not None:
        assert set(task.hub.splits) <= set(SPLITS)
    splits = {s for files in _layouts(task) for s in files.paths} | set(task.hub.splits if task.hub else ())
    splits |= set(task.synthetic.counts if task.synthetic else ())
    splits |= {"train", "dev"} if task.parts or task.holdout else set()
    assert task.evaluate_on in splits or task.kind == "masked_lm"


def _layouts(task: Task) -> Iterator[Files]:
    if task.files is not None:
        yield from (task.files, *task.files.alternatives)


def test_artificial_tasks_have_the_columns_of_the_real_ones() -> None:
    pairs = {"mnli": "mnli", "pawsx": "pawsx", "squad": "squad", "squad-v2": "squad-v2", "tydiqa": "tydiqa"}
    pairs |= {name: name for name in ("xnli", "hellaswag", "commonsenseqa", "xcopa")}
    for artificial, real in pairs.items():
        assert get(f"synthetic/{artificial}").columns == get(real).columns
        assert get(f"synthetic/{artificial}").kind == get(real).kind
        assert get(f"synthetic/{artificial}").no_answer == get(real).no_answer


def test_a_declared_task_may_take_a_known_ones_place() -> None:
    mine = declare("xnli", {"extends": "xnli", "max_length": 64})
    assert get("xnli", {"xnli": mine}).max_length == 64 and get("xnli").max_length == 128
    assert all_tasks({"xnli": mine})["xnli"] is mine and "new" in names({"new": declare("new", MINE)})
    with pytest.raises(RecipeError, match="no task 'xnly'.*did you mean 'xnli'"):
        get("xnly")


def test_the_tasks_of_a_recipe_may_be_made_of_each_other_in_any_order() -> None:
    specs = {
        "both": {"extends": "mnli", "parts": ["short", "qqp-like"]},
        "short": {"extends": "mnli", "max_length": 20},
        "qqp-like": {"extends": "short", "files": {"train": "x.jsonl"}},
        "mnli": {"extends": "mnli", "score": "accuracy", "max_length": 32},
    }
    made = declare_all(specs)
    assert list(made) == list(specs) and made["mnli"].max_length == 32 != get("mnli").max_length
    assert [part.max_length for part in made["both"].parts] == [20, 20]
    # What a recipe says of a known task does not change what extends it; parts are the recipe's own.
    assert made["both"].max_length == get("mnli").max_length
    pair = declare_all(
        {"mnli": {"extends": "mnli", "parts": ["a", "b"]}, "a": {"extends": "mnli"}, "b": {"extends": "a"}}
    )
    assert [part.name for part in pair["mnli"].parts] == ["a", "b"]
    with pytest.raises(RecipeError, match="tasks: a needs b needs a: no task can be made of itself"):
        declare_all({"x": {"extends": "a"}, "a": {"extends": "b"}, "b": {"extends": "a"}})
    with pytest.raises(RecipeError, match="tasks.x: no task 'shorter'.*did you mean 'short'"):
        declare_all({"x": {"extends": "shorter"}, **specs})
    with pytest.raises(RecipeError, match="tasks.x: its rows are those of its parts: `files`"):
        declare_all({"x": {"extends": "mnli", "parts": ["mnli", "anli"], "files": {"train": "x.jsonl"}}})
    with pytest.raises(RecipeError, match=r"tasks\.x"):
        declare_all({"x": ["extends"]})  # type: ignore[list-item]


def test_which_tasks_dev_files_a_recipe_names() -> None:
    files = {"train": "a.jsonl", "dev": "b.jsonl"}
    specs: dict[str, Any] = {
        "own": {"extends": "mnli", "files": files},
        "of-own": {"extends": "own", "max_length": 64},
        "other": {"extends": "own", "files": {"train": "c.jsonl"}},
        "parts": {"extends": "mnli", "parts": ["other", "of-own"]},
        "mnli": {"extends": "mnli", "max_length": 64},
    }
    assert naming_dev(specs) == {"own", "of-own", "parts"}
    assert declares(declare_all(specs)["parts"], "dev") and not declares(declare_all(specs)["parts"], "test")


@pytest.mark.parametrize(
    ("path", "form"),
    [("a.jsonl", "jsonl"), ("b/a.txt.gz", "lines"), ("a.v2.tsv.bz2", "tsv"), ("a.json", "json_list")],
)
def test_the_ending_tells_the_format(path: str, form: str) -> None:
    task = declare("x", {"extends": "udpos", "files": {"train": path, "dev": {"path": "d", "format": "conll_tsv"}}})
    assert task.files is not None and task.files.formats == {"train": form, "dev": "conll_tsv"}


def test_the_tag_set_of_ccg_comes_from_a_file(tmp_path: Path) -> None:
    numbered = tmp_path / "tags_to_id.json"
    numbered.write_text(json.dumps({"N/N": 1, "N": 0, ",": 2}))
    lines = tmp_path / "tags.txt"
    lines.write_text("N\nN/N\n,\n")
    for path in (numbered, lines):
        assert declare("ccg", {"extends": "ccg", "labels": {"file": str(path)}}).labels == ("N", "N/N", ",")
    with pytest.raises(RecipeError, match="at least two labels"):
        declare("ccg", {"extends": "ccg"})
    for text in ("3", '{"a": "x", "b": 1}', "[[]]", "{"):
        numbered.write_text(text)
        with pytest.raises(RecipeError, match=r"ccg\.labels"):
            declare("ccg", {"extends": "ccg", "labels": {"file": str(numbered)}})


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that puts one entry point into the group."""

    def put(load: Any) -> None:
        entry = type("Entry", (), {"name": "mine", "value": "mine:TASKS", "load": staticmethod(load)})
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if "effstilts" in group else [])
        registry.known_tasks.cache_clear()

    yield put
    registry.known_tasks.cache_clear()


def test_plug_ins(plug_in: Any) -> None:
    task = declare("mine/one", MINE)
    plug_in(lambda: task)
    assert get("mine/one") is task
    plug_in(lambda: [task])
    assert get("mine/one") is task
    plug_in(lambda: [get])
    with pytest.raises(RecipeError, match="plug-in mine gave"):
        known_tasks()
    plug_in(lambda: declare("mnli", {"extends": "xnli"}) if False else Task(name="mnli", kind="masked_lm", columns={}))
    with pytest.raises(RecipeError, match="'mnli', which exists already"):
        known_tasks()

    def broken() -> Any:
        raise ImportError("no module named mine")

    plug_in(broken)
    with pytest.raises(RecipeError, match=r"plug-in mine \(mine:TASKS\) cannot be loaded.*no module named mine"):
        known_tasks()


def test_a_holdout_is_not_by_a_role_of_several_columns() -> None:
    with pytest.raises(RecipeError, match="made of several columns; name one of them"):
        declare("mine", {"extends": "cosmosqa", "holdout": {"share": 0.1, "by": "prompt"}})


@pytest.mark.parametrize("spec", [{"extends": "xnli", "name": "other"}, {"kind": "classification", "name": "other"}])
def test_a_task_is_named_by_its_key_alone(spec: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"tasks.mine: unknown key 'name'"):
        declare("mine", spec)


@pytest.mark.parametrize(
    ("part", "spec", "words"),
    [
        ("holdout", {"by": {"x": "context"}}, "holdout: by: expected str"),
        ("holdout", {"share": "much"}, "holdout: share: expected float"),
        ("hub", {"id": "a/b", "splits": {"train": ["x"]}}, r"hub: splits.train: expected str"),
        ("hub", {"id": "a/b"}, "hub: the key 'splits' is missing"),
        ("hub", {"id": "a/b", "splits": {"train": "t"}, "mirror": {"id": 1.5}}, "hub: mirror: the key 'splits'"),
        ("values", {"question": "cause"}, "values: question: expected a mapping"),
        ("pooled", "yes please", "pooled: expected bool"),
    ],
)
def test_what_stands_in_a_declaration_has_its_type(part: str, spec: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=f"tasks.mine.{words}"):
        declare("mine", {"extends": "xnli", part: spec})
