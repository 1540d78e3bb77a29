"""What the name of a model stands for, and what is asked of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from effstilts.errors import ModelError
from effstilts.model import names
from effstilts.recipe import Model

OLD, NEW = "a" * 40, "b" * 40


class Hub:
    """Answers for org/model, or raises what it is given; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.error: Exception | None = None
        self.sha: str | None = NEW

    def model_info(self, name: str, revision: str | None = None, timeout: float = 0) -> Any:
        self.asked.append((name, revision))
        if self.error:
            raise self.error
        return huggingface_hub.hf_api.ModelInfo(id=name, sha=self.sha)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda _, *words, **named: made.model_info(*words, **named)
    )
    monkeypatch.setattr(names, "_SETTLED", {})
    return made


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / "models--org--model"


@pytest.fixture
def cached(cache: Path) -> None:
    """The cache as the hub's client leaves it: one commit, which main was when it was fetched."""
    (cache / "snapshots" / OLD).mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(OLD)


def test_the_newest_commit_is_asked_for_once(hub: Hub, cache: Path) -> None:
    assert names.settled("org/model") == names.settled("org/model") == (NEW, False)
    assert names.settled("org/model", NEW) == (NEW, False), "the answer itself is no new question"
    assert hub.asked == [("org/model", None)]
    assert names.settled("org/model", "v1") == (NEW, False)
    assert hub.asked[1:] == [("org/model", "v1")]


def test_a_commit_in_the_cache_is_not_asked_for(hub: Hub, cached: None) -> None:
    assert names.settled("org/model", OLD) == (OLD, False)
    assert names.settled("org/model", offline=True) == (OLD, True)
    assert not hub.asked
    assert names.settled("org/model") == (NEW, False), "main may have moved"


def test_without_an_answer_the_cache_is_read(hub: Hub, cached: None, capsys: pytest.CaptureFixture[str]) -> None:
    hub.error = OSError("no network")
    assert names.settled("org/model") == (OLD, True)
    assert f"does not answer (OSError); taken is what the cache holds, commit {OLD}" in capsys.readouterr().err
    with pytest.raises(ModelError, match=r"the hub does not answer \(OSError\), nor does the cache hold it"):
        names.settled("org/model", NEW)


@pytest.mark.parametrize("revision", ["", "v1", "branch/of/it"])
def test_what_was_read_online_is_found_offline(
    revision: str, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client writes down what a branch was only where it is asked for the branch."""
    assert names.settled("org/model", revision) == (NEW, False)
    (cache / "snapshots" / NEW).mkdir(parents=True)
    monkeypatch.setattr(names, "_SETTLED", {})
    assert names.settled("org/model", revision, offline=True) == (NEW, True)
    hub.error = OSError("no network")
    assert names.settled("org/model", revision) == (NEW, True)


def test_a_hub_that_names_no_commit_is_refused(hub: Hub, cache: Path) -> None:
    hub.sha = None
    with pytest.raises(ModelError, match="names no commit"):
        names.settled("org/model")


def test_offline_nothing_is_asked(hub: Hub, cache: Path) -> None:
    assert names.settled("org/model", offline=True) == ("", True)
    assert not hub.asked


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RepositoryNotFoundError, "the hub has no such model"),
        (RevisionNotFoundError, "no revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_have_is_said(error: Any, said: str, hub: Hub, cache: Path) -> None:
    hub.error = error("", response=MagicMock())
    with pytest.raises(ModelError, match=said):
        names.settled("org/model", "v9")


def test_no_name_of_the_hub_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no name that the hub could have"):
        names.settled("a/b/c")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(ModelError, match="does not exist or is no folder"):
            names.located(str(path))


def test_a_recipe_is_pinned_to_what_it_reads(hub: Hub, cache: Path, tmp_path: Path) -> None:
    assert names.pinned(Model("org/model"), False).revision == NEW
    assert names.pinned(Model("org/model", OLD), False).revision == OLD
    made = names.pinned(Model("new", tokenizer="org/tokenizer", body="org/body"), False)
    assert (made.revision, made.body_revision) == (NEW, NEW)
    assert hub.asked == [("org/model", None), ("org/tokenizer", None), ("org/body", None)]
    for local in (Model(str(tmp_path)), Model("effstilts/mini"), Model("new", body="effstilts/mini")):
        assert names.pinned(local, False) == local
    assert len(hub.asked) == 3


class TestAFileOfARepository:
    """Whether a repository has a file: known, known not, or not known."""

    @pytest.fixture(autouse=True)
    def kept(self, hub: Hub, cached: None, cache: Path) -> Path:
        (cache / "snapshots" / OLD / "there.json").touch()
        (cache / ".no_exist" / OLD).mkdir(parents=True)
        (cache / ".no_exist" / OLD / "never.json").touch()
        return cache

    def test_what_the_cache_knows_is_not_asked_for(self, kept: Path) -> None:
        found = names.known_file("org/model", "there.json", OLD, False)
        assert found == kept / "snapshots" / OLD / "there.json"
        assert names.known_file("org/model", "never.json", OLD, False) is None

    def test_what_it_does_not_know_is_said_offline(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert names.known_file("org/model", "else.json", "", True) is None
        assert "the cache does not tell whether it has a else.json" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("error", "refused"),
        [(EntryNotFoundError, False), (LocalEntryNotFoundError, True), (OSError, True)],
    )
    def test_no_answer_is_no_no(self, error: Any, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        def fetch(*_: Any, **__: Any) -> str:
            raise error("")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
        if not refused:
            assert names.known_file("org/model", "else.json", OLD, False) is None
            return
        with pytest.raises(ModelError, match=r"does not answer for its else.json"):
            names.known_file("org/model", "else.json", OLD, False)
