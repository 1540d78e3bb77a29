"""What the name of a model stands for, and what is asked of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from effstilts.errors import ModelError
from effstilts.model import names
from effstilts.recipe import Model

OLD, NEW = "a" * 40, "b" * 40


class Hub:
    """Answers for org/model, or raises what it is given; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.error: Exception | None = None

    def model_info(self, name: str, revision: str | None = None, timeout: float = 0) -> Any:
        self.asked.append((name, revision))
        if self.error:
            raise self.error
        return huggingface_hub.hf_api.ModelInfo(id=name, sha=NEW)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda _, *words, **named: made.model_info(*words, **named)
    )
    monkeypatch.setattr(names, "_SETTLED", {})
    return made


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds one commit, which main was when it was fetched."""

    def found(name: str, file: str, revision: str | None = None) -> str | None:
        return f"/cache/snapshots/{OLD}/{file}" if revision in (None, OLD) else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", found)


def test_the_newest_commit_is_asked_for_once(hub: Hub) -> None:
    assert names.settled("org/model") == names.settled("org/model") == (NEW, False)
    assert hub.asked == [("org/model", None)]
    assert names.settled("org/model", "v1") == (NEW, False)
    assert hub.asked[1:] == [("org/model", "v1")]


def test_a_commit_in_the_cache_is_not_asked_for(hub: Hub, cached: None) -> None:
    assert names.settled("org/model", OLD) == (OLD, False)
    assert names.settled("org/model", offline=True) == (OLD, True)
    assert not hub.asked
    assert names.settled("org/model") == (NEW, False), "main may have moved"


def test_without_an_answer_the_cache_is_read(hub: Hub, cached: None) -> None:
    hub.error = OSError("no network")
    assert names.settled("org/model") == (OLD, True)
    with pytest.raises(ModelError, match=r"the hub does not answer \(OSError\), nor does the cache hold it"):
        names.settled("org/model", NEW)


def test_offline_nothing_is_asked(hub: Hub) -> None:
    assert names.settled("org/model", offline=True) == ("", True)
    assert not hub.asked


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RepositoryNotFoundError, "the hub has no such model"),
        (RevisionNotFoundError, "no revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_have_is_said(error: Any, said: str, hub: Hub) -> None:
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


def test_a_recipe_is_pinned_to_what_it_reads(hub: Hub, tmp_path: Path) -> None:
    assert names.pinned(Model("org/model"), False).revision == NEW
    assert names.pinned(Model("org/model", OLD), False).revision == OLD
    made = names.pinned(Model("new", tokenizer="org/tokenizer", body="org/body"), False)
    assert (made.revision, made.body_revision) == (NEW, NEW)
    assert hub.asked == [("org/model", None), ("org/tokenizer", None), ("org/body", None)]
    for local in (Model(str(tmp_path)), Model("effstilts/mini"), Model("new", body="effstilts/mini")):
        assert names.pinned(local, False) == local
    assert len(hub.asked) == 3
