"""What the name of a model stands for: a folder, this package's or another one's model, or a commit on the hub.

The hub is asked once: transformers asks for every file by itself and, where the hub does not answer, tries each for
half a minute.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

from effstilts.errors import ModelError, StoreError, did_you_mean
from effstilts.log import Log
from effstilts.recipe import Model
from effstilts.store import write_atomic

# Names of models that are neither folders nor on the hub: of this package, and of another one.
PREFIXES = ("effstilts/", "package:")
TIMEOUT = 20.0
_COMMIT = re.compile("[0-9a-f]{40}")
# (id, revision, offline) -> (commit, whether the cache alone is read).
_SETTLED: dict[tuple[str, str, bool], tuple[str, bool]] = {}


def resolve(name: str) -> str:
    """`effstilts/NAME` -> a model of our own, `package:NAME` -> the folder that the installed package carries its model
    in; other names as they are."""
    if name.startswith("effstilts/"):
        own = Path(__file__).parent / "embedded" / name.removeprefix("effstilts/")
        known = sorted(f"effstilts/{path.parent.name}" for path in own.parent.glob("*/config.json"))
        if name not in known:
            raise ModelError(f"no embedded model {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
        return str(own)
    if not name.startswith("package:"):
        return name
    module = name.removeprefix("package:").replace("-", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"the package {module!r} is not installed: pip install {module.replace('_', '-')}")
    for place in found.submodule_search_locations:
        for config in sorted(Path(place).glob("**/config.json")):
            if (config.parent / "model.safetensors").is_file():
                return str(config.parent)
    raise ModelError(f"the package {module!r} carries no model (config.json beside model.safetensors)")


def located(name: str) -> tuple[str, bool]:
    """The folder or hub id of a model, and whether it is a folder. ModelError for a path that is none."""
    source = resolve(name)
    local = Path(source).is_dir()
    if not local and (source.startswith((".", "/", "~")) or Path(source).exists()):
        raise ModelError(f"the model folder {source} does not exist or is no folder")
    return source, local


def settled(name: str, revision: str = "", offline: bool = False) -> tuple[str, bool]:
    """The commit of a hub id that is read, and whether it is read from the cache alone.

    A commit that is given and in the cache is not asked for. Else it is the newest of the branch or tag (default: main)
    or, offline and where the hub does not answer, the one that it was when it was last asked; "" where offline there is
    none. ModelError for a model or revision that the hub does not have, and where neither hub nor cache have an answer.
    """
    key = (name, revision, offline)
    if key not in _SETTLED:
        commit, cached = _SETTLED[key] = _settle(name, revision, offline)
        if commit:
            # Whoever names the commit from here on is not answered by another request.
            _SETTLED[name, commit, offline] = commit, cached
    return _SETTLED[key]


def pinned(model: Model, offline: bool) -> Model:
    """The model of a recipe with the commits of what it takes from the hub."""
    named = model.tokenizer if model.name == "new" else model.name
    if named and not located(named)[1] and not _COMMIT.fullmatch(model.revision):
        model = replace(model, revision=settled(named, model.revision, offline)[0])
    if model.body and not located(model.body)[1] and not _COMMIT.fullmatch(model.body_revision):
        model = replace(model, body_revision=settled(model.body, model.body_revision, offline)[0])
    return model


def known_file(source: str, name: str, revision: str, offline: bool) -> Path | None:
    """A file of a model folder or of a hub repository; None where it is known not to be there.

    Where the cache alone is asked and does not know, that is said, and taken for a no. ModelError where the hub was
    asked and did not answer.
    """
    if Path(source).is_dir():
        return Path(source) / name if (Path(source) / name).is_file() else None
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    revision, cached = settled(source, revision, offline)
    found = try_to_load_from_cache(source, name, revision=revision)
    if found is _CACHED_NO_EXIST or isinstance(found, str):
        return Path(found) if isinstance(found, str) else None
    if cached:
        Log().warn(f"{source}: the cache does not tell whether it has a {name}; taken as if it had none")
        return None
    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise ModelError(f"{source}: the hub does not answer for its {name}") from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise ModelError(f"{source}: the hub does not answer for its {name} ({type(error).__name__})") from error


def _settle(name: str, revision: str, offline: bool) -> tuple[str, bool]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"cannot load {name!r}: it is no folder here, and "
    try:
        held = _in_cache(name, revision)
        if offline or (held and held == revision):
            return held or revision, offline
        commit = HfApi().model_info(name, revision=revision or None, timeout=TIMEOUT).sha
    except HFValidationError as error:
        raise ModelError(f"{where}no name that the hub could have") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name}: the hub has no revision {revision!r} of it") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{where}the hub has no such model, or not for you (hf auth login)") from error
    except Exception as error:
        # Of its HTTP library, by version another one.
        why = f"the hub does not answer ({type(error).__name__})"
        if not held:
            raise ModelError(f"{where}{why}, nor does the cache hold it") from error
        if held != revision:
            Log().warn(f"{name}: {why}; taken is what the cache holds, commit {held}")
        return held, True
    if not commit:
        raise ModelError(f"{name}: the hub names no commit of it; give one as its revision")
    if commit != revision:
        _remember(name, revision, commit)
    return commit, False


def _in_cache(name: str, revision: str) -> str:
    """The commit that a revision was when the hub was last asked, if the cache has files of it; "" for none."""
    folder = _cache_folder(name)
    commit = revision
    if not _COMMIT.fullmatch(revision):
        path = folder / "refs" / (revision or "main")
        commit = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return commit if _COMMIT.fullmatch(commit) and (folder / "snapshots" / commit).is_dir() else ""


def _remember(name: str, revision: str, commit: str) -> None:
    """Where the hub's own client keeps it, which does so only for what it was not asked for by commit."""
    path = _cache_folder(name) / "refs" / (revision or "main")
    with contextlib.suppress(OSError, StoreError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, commit)


def _cache_folder(name: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
