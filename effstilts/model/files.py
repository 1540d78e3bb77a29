"""What stands in a model's files is checked here before any library opens them.

Refused by name: code that the files ask for, pickles, weights whose header or sizes cannot be true. What a library
would do with such a file is thereby never found out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from effstilts.errors import ModelError, said_by

MAX_DOCUMENT = 4 << 20  # bytes of a config; those that are known have a few KB
MAX_TOKENIZER = 256 << 20  # bytes of tokenizer.json; XLM-R's has 9 MB, Gemma's 33
MAX_HEADER = 4 << 20  # bytes of a safetensors header: some 30,000 tensors
MAX_POSITIONS = 1 << 20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_BITS = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16}
_BITS |= {"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
_ATTENTION = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def check_documents(find: Callable[[str], Path | None], source: str) -> None:
    """ModelError for a config that asks for code, for other weights, or is no config. find: name of a file -> where it
    is, None where the model has none."""
    for name in ("config.json", "tokenizer_config.json"):
        path = find(name)
        document = read_document(path) if path is not None else {}
        for key in ("auto_map", "custom_pipelines"):
            if document.get(key):
                raise ModelError(
                    f"{source}: {name} asks for code of its own ({key}); code of a model repository is never run"
                )
        if name == "config.json":
            _check_config(document, source)
    if find("adapter_config.json") is not None:
        raise ModelError(f"{source}: holds an adapter (adapter_config.json), not an encoder; merge it first")


def check_folder(folder: Path) -> None:
    """ModelError for a folder that `check_documents` refuses, that has weights in pickles alone, or whose safetensors
    headers do not hold."""

    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    check_documents(find, str(folder))
    tokenizer = find("tokenizer.json")
    if tokenizer is not None and tokenizer.stat().st_size > MAX_TOKENIZER:
        raise ModelError(f"{tokenizer} has {tokenizer.stat().st_size:,} bytes, at most {MAX_TOKENIZER:,} are read")
    weights = sorted(folder.glob("*.safetensors"))
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not weights and pickles:
        raise ModelError(
            f"{folder}: {pickles[0]} is a pickle, which is not read: reading one runs code; convert it to safetensors"
        )
    for path in weights:
        tensor_sizes(path)
    index = find("model.safetensors.index.json")
    if index is not None:
        parts = read_document(index, MAX_HEADER).get("weight_map")
        if not isinstance(parts, dict):
            raise ModelError(f"{index}: has no weight_map")
        for part in parts.values():
            if not isinstance(part, str) or part != Path(part).name or not (folder / part).is_file():
                raise ModelError(f"{index} names {str(part)[:100]!r}, which is no file of this folder")


def check_size(expected: int, depth: int, folder: Path) -> None:
    """ModelError where the config describes far more than the weights hold, before memory is taken for it; a few
    missing weights are named by whoever loads them.

    expected: parameters of the described model, 0: not known yet; depth: its blocks.
    """
    sizes = [size for path in folder.glob("*.safetensors") for size in tensor_sizes(path).values()]
    if depth > len(sizes) or expected > 2 * sum(sizes) + (1 << 20):
        parameters = f"{expected:,} parameters in " if expected else ""
        raise ModelError(
            f"{folder}: config.json describes {parameters}{depth:,} blocks, the weights are "
            f"{sum(sizes):,} in {len(sizes):,} tensors"
        )


def tensor_sizes(path: Path) -> dict[str, int]:
    """Elements of each tensor of a safetensors file, by its header; ModelError where that cannot be true."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ModelError(f"{path} is cut short: {size:,} bytes, its header alone says {length:,}")
        if length > MAX_HEADER:
            raise ModelError(f"{path}: a header of {length:,} bytes, at most {MAX_HEADER:,} are read")
        raw = file.read(length)
    room = size - 8 - length
    sizes: dict[str, int] = {}
    try:
        header = json.loads(raw)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shape, (begin, end) = entry["shape"], entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)) or entry["dtype"] not in _BITS:
                raise ValueError(f"{name[:60]!r} has an unreadable shape, type or place")
            sizes[name] = math.prod(shape)
            if sizes[name] * _BITS[entry["dtype"]] != 8 * (end - begin) or end > room:
                raise ValueError(f"{name[:60]!r} says shape {str(shape)[:60]} in bytes {begin} to {end} of {room}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its header does not hold ({_first_line(error)})") from error
    return sizes


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file; ModelError for one that is broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensor_sizes(path)
    try:
        tensors: dict[str, Tensor] = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({_first_line(error)})") from error
    return tensors


def _check_config(config: Mapping[str, Any], source: str) -> None:
    if config.get("quantization_config"):
        raise ModelError(f"{source}: its weights are quantised (quantization_config); effstilts reads full ones")
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"):
        if config.get(key) not in _ATTENTION:
            raise ModelError(f"{source}: config.json asks for code from elsewhere ({key} {str(config[key])[:60]!r})")
    positions = config.get("max_position_embeddings", 1)
    if positions is not None and (type(positions) is not int or not 0 < positions <= MAX_POSITIONS):
        raise ModelError(f"{source}: max_position_embeddings is {str(positions)[:60]}, at most {MAX_POSITIONS:,}")


def read_json(path: Path, most: int = MAX_DOCUMENT) -> Any:
    """A small JSON file; ModelError for one that is large or broken."""
    if path.stat().st_size > most:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes, at most {most:,} are read")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({_first_line(error)})") from error


def read_document(path: Path, most: int = MAX_DOCUMENT) -> dict[str, Any]:
    """A small JSON object; ModelError for anything else."""
    document = read_json(path, most)
    if not isinstance(document, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def _first_line(error: Exception) -> str:
    return said_by(error)[0][:200]
