"""Hostile files, each given to a command under an audit hook: `python -m tests.faults.hostile FOLDER` prints JSON.

A payload that is run leaves a mark: it raises the audit event `hostile.ran` and asks for a process and a socket. Armed
after a harmless run of the same commands, so that the libraries' own imports are over, the hook keeps every event of
code, processes, sockets and pickles, and every file written outside the case's folder.
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import io
import json
import os
import pickle
import shutil
import sys
import sysconfig
import tarfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAYLOAD = (
    "import sys, os, socket; sys.audit('hostile.ran'); os.system('true'); socket.socket().connect(('192.0.2.1', 80))"
)
MB = 1 << 20
CASES: dict[str, tuple[Callable[[Path, Path], list[str]], tuple[str, ...] | None]] = {}
# Where code may come from; what `exec` runs from elsewhere is a finding.
TRUSTED = tuple(
    os.path.realpath(place)
    for place in (*sysconfig.get_paths().values(), *sys.path, Path(__file__).parents[2])
    if str(place) not in ("", ".")
)
FORBIDDEN = (
    "hostile.ran", "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn",
    "subprocess.Popen", "pty.spawn", "socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto",
    "urllib.Request", "shutil.unpack_archive", "ctypes.dlopen", "os.symlink", "os.link",
)  # fmt: skip


class Evil:
    """Unpickled, it runs the payload."""

    def __reduce__(self) -> Any:
        return exec, (PAYLOAD,)


def case(name: str, *words: str, harmless: bool = False) -> Any:
    """A case: (folder, a good model's folder) -> words of a command. words: what the refusal must say; harmless: it
    may also be read, as data."""

    def add(build: Callable[[Path, Path], list[str]]) -> Any:
        CASES[name] = (build, None if harmless else words)
        return build

    return add


def embed(folder: Path, model: Path) -> list[str]:
    (folder / "text.txt").write_text("Anna waited.\n")
    return ["embed", str(folder / "text.txt"), "--model", str(model), "--out", str(folder / "out"), "--layers", "1",
            "--offline", "--quiet"]  # fmt: skip


def copied(folder: Path, model: Path) -> Path:
    return Path(shutil.copytree(model, folder / "model"))


def changed(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# Weights


def _pickled(name: str) -> Any:
    def build(folder: Path, model: Path) -> list[str]:
        place = copied(folder, model)
        (place / "model.safetensors").unlink()
        (place / name).write_bytes(pickle.dumps(Evil()))
        return embed(folder, place)

    return build


for _name in ("pytorch_model.bin", "model.pt", "model.pth", "weights.ckpt", "model.pkl"):
    case(f"a pickle as {_name}", _name, "is a pickle")(_pickled(_name))


@case("a zip of torch.save as pytorch_model.bin", "pytorch_model.bin", "is a pickle")
def _torch_zip(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    (place / "model.safetensors").unlink()
    with zipfile.ZipFile(place / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Evil()))
        file.writestr("../../escaped.txt", "x")
    return embed(folder, place)


@case("a pickle named model.safetensors", "model.safetensors", "header")
def _disguised(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    (place / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    return embed(folder, place)


def _header(length: int, header: bytes, size: int) -> Any:
    def build(folder: Path, model: Path) -> list[str]:
        place = copied(folder, model)
        with (place / "model.safetensors").open("wb") as file:
            file.write(length.to_bytes(8, "little") + header)
            file.truncate(max(size, 8 + len(header)))
        return embed(folder, place)

    return build


def _tensors(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


_HUGE = _tensors(a={"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]})
_OVER = _tensors(a={"dtype": "F32", "shape": [4], "data_offsets": [1 << 62, (1 << 62) + 16]})
_NEGATIVE = _tensors(a={"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]})
case("a header of 100 MB", "model.safetensors", "header of 104,857,600")(_header(100 * MB, b"{", 200 * MB))
case("a header longer than the file", "model.safetensors", "cut short")(_header(1 << 62, b"{}", 64))
case("a shape of 2^80", "model.safetensors", "does not hold")(_header(len(_HUGE), _HUGE, 4096))
case("offsets beyond the file", "model.safetensors", "does not hold")(_header(len(_OVER), _OVER, 4096))
case("a negative shape", "model.safetensors", "does not hold")(_header(len(_NEGATIVE), _NEGATIVE, 4096))
case("a header nested 50,000 deep", "model.safetensors", "does not hold")(
    _header(100_000, b'{"a":' + b"[" * 99_995, 200_000)
)


@case("an index that leaves the folder", "index.json", "no file of this folder")
def _index(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    (place / "model.safetensors").rename(folder / "outside.safetensors")
    (place / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": "../outside.safetensors", "b": "/etc/passwd"}})
    )
    return embed(folder, place)


@case("weights that are a link to /dev/zero", "model.safetensors")
def _device(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to("/dev/zero")
    return embed(folder, place)


# Configs and tokenizers


def _config(code: str = "", name: str = "config.json", **keys: Any) -> Any:
    def build(folder: Path, model: Path) -> list[str]:
        place = copied(folder, model)
        if code:
            (place / code).write_text(PAYLOAD + "\nclass Model: pass\nclass Config: pass\nclass Tokenizer: pass\n")
        changed(place / name, **keys)
        return embed(folder, place)

    return build


_MAP = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
case("auto_map in the config", "config.json", "auto_map", "never run")(_config("evil.py", auto_map=_MAP))
case("auto_map to another repository", "config.json", "auto_map")(
    _config(auto_map={"AutoModel": "someone/else--evil.Model"}, model_type="evil")
)
case("auto_map in the tokenizer's config", "tokenizer_config.json", "auto_map")(
    _config("evil.py", "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Tokenizer"]})
)
case("a custom pipeline", "config.json", "custom_pipelines")(
    _config("evil.py", custom_pipelines={"x": {"impl": "evil.Model"}})
)
case("a model type that nobody knows", "evil")(_config("modeling_evil.py", model_type="evil"))
case("an attention kernel from the hub", "config.json", "attn_implementation")(
    _config(attn_implementation="someone/evil-kernel")
)
case("a quantised checkpoint", "quantization_config")(_config(quantization_config={"quant_method": "bitsandbytes"}))
case("more parameters than any memory", "config.json")(_config(hidden_size=1 << 20, intermediate_size=1 << 30))
case("a billion layers", "config.json")(_config(num_hidden_layers=10**9))
case("a billion positions", "max_position_embeddings")(_config(max_position_embeddings=10**9))
case("numbers as texts", "cannot load", "hidden_size")(_config(hidden_size="32; import os", num_attention_heads="2"))
case("a path for an activation", "model")(_config(hidden_act="../../evil"))
case("a tokenizer class that nobody knows", harmless=True)(
    _config("tokenization_evil.py", "tokenizer_config.json", tokenizer_class="EvilTokenizer")
)
case("a template that calls the system", harmless=True)(
    _config(name="tokenizer_config.json", chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}")
)


@case("a config nested 50,000 deep", "config.json", "not valid JSON")
def _deep(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    (place / "config.json").write_text('{"a":' + "[" * 50_000)
    return embed(folder, place)


@case("a config of 1 GB", "config.json", "bytes")
def _long_config(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    os.truncate(place / "config.json", 1 << 30)
    return embed(folder, place)


@case("a tokenizer of 1 GB", "tokenizer.json", "bytes")
def _long_tokenizer(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    os.truncate(place / "tokenizer.json", 1 << 30)
    return embed(folder, place)


@case("a tokenizer of nonsense", "cannot load the model folder")
def _nonsense(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    (place / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "WordLevel", "vocab": "x"}}')
    return embed(folder, place)


@case("an adapter whose base is elsewhere", "adapter_config.json")
def _adapter(folder: Path, model: Path) -> list[str]:
    place = copied(folder, model)
    (place / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/else", "auto_mapping": _MAP})
    )
    return embed(folder, place)


# Recipes


def _recipe(text: str) -> Any:
    def build(folder: Path, model: Path) -> list[str]:
        (folder / "evil.yaml").write_text(text.replace("MODEL", str(model)).replace("FOLDER", str(folder)))
        return ["plan", str(folder / "evil.yaml"), "--offline", "--store", str(folder / "store")]

    return build


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
for _tag, _value in {
    "a tag that runs a command": "!!python/object/apply:os.system ['true']",
    "a tag that names a function": "!!python/name:os.system",
    "a tag that imports": "!!python/module:antigravity",
    "a tag for a new object": "!!python/object/new:tests.faults.hostile.Evil []",
    "a tag of its own": "!evil {a: b}",
    "a binary tag": "!!binary aGVsbG8=",
    "a set": "!!set {a}",
}.items():
    case(_tag, "evil.yaml", "not valid YAML")(_recipe(f"name: x\nmodel: {_value}\n"))
case("an alias bomb", "evil.yaml", "values")(_recipe(_BOMB))
case("an alias to itself", "evil.yaml")(_recipe("name: x\nmodel: &a {name: *a}\n"))
case("a list that holds itself", "evil.yaml")(_recipe("seeds: &a [1, *a]\n"))
case("merge keys", "evil.yaml", "merge")(_recipe("a: &a {x: 1}\nmodel: {<<: *a}\n"))
case("nesting of 50,000", "evil.yaml")(_recipe("seeds: " + "[" * 50_000))
case("a recipe of 10 MB", "evil.yaml", "bytes")(_recipe("#" * (10 * MB)))
case("a number of 200,000 digits", "evil.yaml")(_recipe("seeds: [" + "9" * 200_000 + "]"))
case("a base-60 number", "evil.yaml")(_recipe("seeds: [" + ":".join(["59"] * 50_000) + "]"))
case("a name that leaves the store", "evil.yaml", "file name")(_recipe("name: ../../escaped\nmodel: MODEL\n"))
case("a name with a zero byte", "evil.yaml")(_recipe('name: "a\\0b"\nmodel: MODEL\n'))


# Data files


def _data(name: str, content: bytes | Callable[[Path], Any], form: str = "tsv") -> Any:
    def build(folder: Path, model: Path) -> list[str]:
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content)
        task = {
            "kind": "classification",
            "labels": ["a", "b"],
            "languages": ["en"],
            "columns": {"text": "t", "label": "l"},
        }
        (folder / "test.tsv").write_text("t\tl\nx\ta\n")
        files = {"train": name, "dev": name, "test": {"path": str(folder / "test.tsv"), "format": "tsv"}}
        task |= {"format": form, "files": {s: f if isinstance(f, dict) else str(folder / f) for s, f in files.items()}}
        recipe = {
            "name": "x", "model": {"name": str(model)}, "training": {"steps": 1}, "targets": [{"task": "evil"}],
            "tasks": {"evil": task},
        }  # fmt: skip
        (folder / "evil.yaml").write_text(json.dumps(recipe))
        return ["plan", str(folder / "evil.yaml"), "--overlap", "--offline", "--store", str(folder / "store")]

    return build


def _tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, kind in (("../escaped.txt", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            file.addfile(entry, io.BytesIO(b""))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../escaped.txt", "x")


case("a gzip bomb", "evil.tsv.gz")(
    _data("evil.tsv.gz", lambda path: path.write_bytes(gzip.compress(b"t\tl\n" + (b"x" * 9999 + b"\ta\n") * 8000, 9)))
)
case("a bzip2 bomb of one line", "evil.tsv.bz2", "a line of more than")(
    _data("evil.tsv.bz2", lambda path: path.write_bytes(bz2.compress(b"\0" * (40 * MB))))
)
case("a JSON bomb", "evil.json.gz", "unpacks to")(
    _data("evil.json.gz", lambda path: path.write_bytes(gzip.compress(b"[" + b"0," * (20 * MB) + b"0]")), "json_list")
)
case("JSON nested 100,000 deep", "evil.json")(_data("evil.json", b"[" * 100_000, "json_list"))
case("a JSON number of a million digits", "evil.json")(_data("evil.json", b"[" + b"9" * MB + b"]", "json_list"))
case("an archive that leaves the folder", "evil.tsv.gz")(_data("evil.tsv.gz", _tar))
case("a zip where text was expected", "evil.tsv")(_data("evil.tsv", _zip))
case("a pickle where text was expected", "evil.tsv")(_data("evil.tsv", pickle.dumps(Evil())))
case("a link to /dev/zero", "evil.tsv")(_data("evil.tsv", lambda path: path.symlink_to("/dev/zero")))
case("a link to itself", "evil.tsv")(_data("evil.tsv", lambda path: path.symlink_to(path)))
case("a pipe that nobody writes", "evil.tsv")(_data("evil.tsv", lambda path: os.mkfifo(path)))
case("a formula for a spreadsheet", harmless=True)(
    _data("evil.tsv", b"t\tl\n=cmd|' /C calc'!A0\ta\n<script>alert(1)</script>\tb\n")
)


# Data repositories


def _repository(files: dict[str, bytes], readme: str = "") -> Any:
    def build(folder: Path, model: Path) -> list[str]:
        place = folder / "set"
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        (place / "README.md").write_text(readme)
        return ["SET", str(place)]

    return build


def _webdataset() -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as file:
        for number in range(3):
            for end, content in (("pkl", pickle.dumps(Evil())), ("pt", pickle.dumps(Evil())), ("txt", b"x")):
                entry = tarfile.TarInfo(f"{number}.{end}")
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))
    return into.getvalue()


def _zipped() -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as file:
        file.writestr("../../../escaped.csv", "premise,hypothesis,label\na,b,0\n")
        file.writestr("train.pkl", pickle.dumps(Evil()))
    return into.getvalue()


case("a data set with a loading script", "set")(_repository({"set.py": PAYLOAD.encode(), "evil.py": PAYLOAD.encode()}))
case("a data set of pickles", "set")(_repository({"train.pkl": pickle.dumps(Evil())}))
case("a web data set of pickles", "set")(_repository({"train.tar": _webdataset()}))
case("a zipped data set", "set")(_repository({"train.zip": _zipped()}))
case("a data set of Python literals", "set")(_repository({"train.xml": PAYLOAD.encode()}))
case("a data set whose files leave it", "set")(
    _repository({"a.txt": b"x"}, "---\nconfigs:\n- config_name: default\n  data_files: ../../../*.json\n---\n")
)
case("a data set that names a builder", "set")(
    _repository(
        {"a.pkl": pickle.dumps(Evil())},
        "---\nconfigs:\n- config_name: default\n  data_files: a.pkl\n  builder_name: pickle\n---\n",
    )
)


# Stores, predictions, vectors


@case("a manifest whose files lie elsewhere", "manifest.json", "is none of a file in this folder")
def _manifest(folder: Path, model: Path) -> list[str]:
    from effstilts.store import signed

    (folder / "a").mkdir()
    facts = {"../../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}}
    (folder / "a" / "manifest.json").write_text(signed({"facts": {}, "files": facts}))
    return ["STORE", str(folder / "a")]


@case("vectors of objects", "layer1-mean.npy", "damaged")
def _objects(folder: Path, model: Path) -> list[str]:
    import numpy as np

    from effstilts.store import file_hash, signed

    array = np.array([Evil(), Evil()], dtype=object)
    np.save(folder / "layer1-mean.npy", array, allow_pickle=True)
    facts = {"layer1-mean": {"sha256": file_hash(folder / "layer1-mean.npy")}}
    (folder / "manifest.json").write_text(signed({"arrays": facts, "sentences": 2, "text": "", "job": {}}))
    return ["VECTORS", str(folder)]


@case("vectors of 2^60 rows", "layer1-mean.npy", "damaged")
def _rows(folder: Path, model: Path) -> list[str]:
    from effstilts.store import file_hash, signed

    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976, 4), }"
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    (folder / "layer1-mean.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    facts = {"layer1-mean": {"sha256": file_hash(folder / "layer1-mean.npy")}}
    (folder / "manifest.json").write_text(signed({"arrays": facts, "sentences": 2, "text": "", "job": {}}))
    return ["VECTORS", str(folder)]


@case("an adapter in a pickle", "adapter_model.safetensors", "pickles, not read")
def _adapter_pickle(folder: Path, model: Path) -> list[str]:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "target_modules": ["query"]}))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Evil()))
    return ["ADAPTER", str(folder), str(model)]


@case("predictions in a pickle", "test-de.tsv")
def _predictions(folder: Path, model: Path) -> list[str]:
    for side in ("predictions", "labels"):
        (folder / side / "xnli").mkdir(parents=True)
        (folder / side / "xnli" / "test-de.tsv").write_bytes(pickle.dumps(Evil()) * 3)
    return ["xtreme", "score", str(folder / "predictions"), str(folder / "labels"), "--partial"]


def perform(words: list[str]) -> int:
    """A command of the command line, or an inner door that has none."""
    from effstilts.cli import main
    from effstilts.errors import EffstiltsError

    try:
        if words[0] == "SET":
            from effstilts.data.sources import DataConfig, load
            from effstilts.tasks.registry import get

            task = get("mnli")
            assert task.hub is not None
            hub = dataclasses.replace(task.hub, id=words[1], revision="", counts={}, hashes={}, mirror=None, config="")
            load(dataclasses.replace(task, hub=hub), "train", "en", DataConfig(source="hub", offline=True))
        elif words[0] == "STORE":
            from effstilts.store import verify_folder

            verify_folder(Path(words[1]))
        elif words[0] == "VECTORS":
            from effstilts.retrieval.vectors import Vectors

            Vectors.open(Path(words[1])).load()
        elif words[0] == "ADAPTER":
            from effstilts.model import adapters, opening

            adapters.load_merged(opening.load(words[2], offline=True), Path(words[1]))
        else:
            return main(words)
    except EffstiltsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _harmless(folder: Path, model: Path) -> None:
    """Every door once, so that what libraries import and start on first use is over before the hook is armed."""
    doors = [
        embed(folder, model),
        _recipe("name: x\nmodel: MODEL\ntargets: [synthetic/xnli]\n")(folder, model),
        _data("good.tsv", b"t\tl\nx\ta\ny\tb\n")(folder, model),
        _repository({"train.csv": b"premise,hypothesis,label\na,b,0\n"})(folder, model),
    ]
    for words in doors:
        perform(words)
    import peft  # noqa: F401


def main_(root: Path, names: list[str]) -> dict[str, Any]:
    """Performs the cases; name -> exit code, what was said, seconds, findings."""
    model = root / "good"
    found: list[str] = []
    armed = [False]
    home: list[str] = [""]

    def trusted(filename: str) -> bool:
        return filename.startswith(("<frozen", "<__array_function__", "<string>")) or os.path.realpath(
            filename
        ).startswith(TRUSTED)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not armed[0]:
            return
        if event in FORBIDDEN or event.startswith(FORBIDDEN[2:4]):
            armed[0] = False
            found.append(f"{event} {str(arguments)[:150]} at {[f.name for f in traceback.extract_stack()[-7:-1]]}")
            armed[0] = True
        elif event == "exec" and not trusted(arguments[0].co_filename):
            found.append(f"exec of {arguments[0].co_filename}")
        elif event == "import" and str(arguments[0]).rpartition(".")[2] in (
            "evil",
            "modeling_evil",
            "tokenization_evil",
        ):
            found.append(f"import of {arguments[0]}")
        elif event == "open" and isinstance(arguments[0], str) and any(c in str(arguments[1]) for c in "wax+"):
            path = os.path.realpath(arguments[0])
            if not path.startswith((home[0], "/dev/null")):
                found.append(f"wrote {path}")

    _harmless(Path(root / "warm"), model)
    sys.addaudithook(hook)
    results = {}
    for number, name in enumerate(names):
        folder = root / f"case{number}"
        folder.mkdir()
        words = CASES[name][0](folder, model)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        out, err = io.StringIO(), io.StringIO()
        home[0] = os.path.realpath(folder)
        found.clear()
        began = time.perf_counter()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            armed[0] = True
            try:
                code: int | str = perform(words)
            except BaseException as error:
                code = f"{type(error).__name__}: {error}"
            armed[0] = False
        results[name] = {
            "code": code,
            "said": err.getvalue()[-3000:],
            "seconds": time.perf_counter() - began,
            "findings": list(found),
            "escaped": [str(p) for p in root.parent.glob("escaped*")] + [str(p) for p in root.glob("escaped*")],
        }
    return results


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "warm").mkdir()
    print(json.dumps(main_(place, sys.argv[2:] or list(CASES))))
