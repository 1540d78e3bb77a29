"""Encoders and tokenizers: opened and checked, made anew, written. The only file that calls from_pretrained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effstilts.errors import ModelError, said_by
from effstilts.model.configs import check_encoder, check_runs, config_of, untrained
from effstilts.model.encoder import Encoder
from effstilts.model.files import check_documents, check_folder, check_size, tensor_sizes
from effstilts.model.names import known_file, located, resolve, settled
from effstilts.model.quiet import quiet_transformers

# Where each architecture keeps its masked-LM head: prefixes of (dense, norm) and the names of the output bias.
LM_HEADS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("lm_head.dense", "lm_head.layer_norm", ("lm_head.bias", "lm_head.decoder.bias")),
    (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        ("cls.predictions.bias", "cls.predictions.decoder.bias"),
    ),
    ("vocab_transform", "vocab_layer_norm", ("vocab_projector.bias",)),
    ("lm_predictions.lm_head.dense", "lm_predictions.lm_head.LayerNorm", ("lm_predictions.lm_head.bias",)),
    ("generator_predictions.dense", "generator_predictions.LayerNorm", ("generator_lm_head.bias",)),
)


def load(name: str, revision: str = "", offline: bool = False) -> Encoder:
    """Loads an encoder and its tokenizer in float32.

    ModelError if the checkpoint is not an encoder, has no safetensors, or lacks weights: nothing is ever newly
    initialised here.
    """
    import transformers
    from transformers import AutoModel, AutoTokenizer

    config, source, options = _checked_config(name, revision, offline)
    local = Path(source).is_dir()
    with quiet_transformers():
        try:
            kind = transformers.MODEL_MAPPING[type(config)]
            extra: dict[str, Any] = {}
            if "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
                extra["add_pooling_layer"] = False
            if local:
                _check_size(config, extra, Path(source))
            backbone, info = AutoModel.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **options,
                **extra,
            )
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
        except ModelError:
            raise
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(_cannot_load(source, error, local, offline)) from error
        except Exception as error:
            # safetensors raises an exception type of its own for a broken file, transformers for a misfit shape.
            raise ModelError(f"cannot load {source}: {said_by(error)[0]}") from error
    missing = sorted(k for k in info["missing_keys"] if "pooler" not in k and "position_ids" not in k)
    if missing or info.get("mismatched_keys"):
        names = missing or sorted(str(k) for k in info["mismatched_keys"])
        raise ModelError(
            f"{source}: {len(names)} weights of the encoder are missing or misshapen, the first is {names[0]}"
        )
    check_tokenizer(tokenizer, backbone.config.vocab_size, source)
    return Encoder(backbone, tokenizer)


def _check_size(config: Any, extra: Mapping[str, Any], folder: Path) -> None:
    """ModelError where the config's model has more parameters than the folder's weights: on the meta device, where
    they take no memory."""
    from transformers import AutoModel

    with torch.device("meta"):
        described = AutoModel.from_config(config, **extra)
    check_size(sum(p.numel() for p in described.parameters()), int(config.num_hidden_layers), folder)


def check_tokenizer(tokenizer: Any, vocabulary: int, source: str) -> None:
    """ModelError unless the tokenizer is a fast one, pads, and fits the embedding."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{source}: needs a fast tokenizer (a tokenizer.json), for offsets into the text")
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ModelError(f"{source}: no tokenizer's files (tokenizer.json) are there, or one without any pieces")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{source}: the tokenizer has no padding token")
    if len(tokenizer) > vocabulary:
        raise ModelError(f"{source}: the tokenizer has {len(tokenizer)} pieces, the embedding {vocabulary} rows")


def create(config: Mapping[str, Any], tokenizer: Any, seed: int) -> Encoder:
    """An encoder with random weights. config: `model_type` and fields of that architecture's config. ModelError for one
    that makes no encoder."""
    defaults = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    built = config_of({"vocab_size": len(tokenizer), **config}, defaults)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = untrained(built)
    check_tokenizer(tokenizer, backbone.config.vocab_size, "model.config")
    encoder = Encoder(backbone.float(), tokenizer)
    check_runs(encoder)
    return encoder


def skeleton(name: str, revision: str = "", offline: bool = False, config: Mapping[str, Any] | None = None) -> Encoder:
    """The modules of a checkpoint, or of `new` with this config, without memory for weights and without a tokenizer.

    ModelError if there is no such architecture.
    """
    built = config_of(config or {}) if name == "new" else _checked_config(name, revision, offline)[0]
    with quiet_transformers(), torch.device("meta"):
        return Encoder(untrained(built), None)


def _checked_config(name: str, revision: str, offline: bool) -> tuple[Any, str, dict[str, Any]]:
    """The config of a checkpoint that is an encoder, its folder or hub id, and the options that open it; ModelError for
    what must not be opened, before a library sees it."""
    from transformers import AutoConfig

    source, local, options = _opened_by(name, revision, offline)
    with quiet_transformers():
        if local:
            check_folder(Path(source))
        else:
            check_documents(lambda name: _file_of(source, name, revision, offline), source)
        try:
            config = AutoConfig.from_pretrained(source, **options)
        except Exception as error:
            # Beside OSError and ValueError what a library's own checks of a field raise.
            raise ModelError(_cannot_load(source, error, local, offline)) from error
    check_encoder(config, source)
    if local:
        check_size(0, int(config.num_hidden_layers), Path(source))
    return config, source, options


def _opened_by(name: str, revision: str, offline: bool) -> tuple[str, bool, dict[str, Any]]:
    """The folder or hub id of a model, whether it is a folder, and the options of from_pretrained that open it."""
    source, local = located(name)
    if local:
        return source, True, {"local_files_only": True, "trust_remote_code": False}
    commit, cached = settled(source, revision, offline)
    options = {"local_files_only": cached, "trust_remote_code": False}
    return source, False, {**options, "revision": commit} if commit else options


def load_tokenizer(source: str, revision: str = "", offline: bool = False) -> Any:
    """A tokenizer alone, from a folder or the hub."""
    from transformers import AutoTokenizer

    place, local, options = _opened_by(source, revision, offline)
    with quiet_transformers():
        check_documents(lambda name: _file_of(place, name, revision, offline), place)
        try:
            return AutoTokenizer.from_pretrained(place, **options)
        except Exception as error:
            # A broken tokenizer.json raises Exception itself.
            raise ModelError(_cannot_load(place, error, local, offline)) from error


def save(encoder: Encoder, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes the encoder so that plain transformers' AutoModel and AutoTokenizer load it."""
    write_model(encoder, folder, type(encoder.backbone).__name__, encoder.backbone.state_dict(), dtype)


def write_model(
    encoder: Encoder, folder: Path, architecture: str, state: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Writes config, tokenizer and tensors in transformers' form. Not by its own save_pretrained: that imports
    deepspeed, where installed, for seconds and with a warning."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    before, longest = encoder.config.dtype, encoder.tokenizer.model_max_length
    encoder.config.architectures = [architecture]
    try:
        encoder.config.dtype = dtype
        # By it other libraries cut.
        encoder.tokenizer.model_max_length = min(longest, encoder.max_length)
        with quiet_transformers():
            encoder.config.save_pretrained(folder)
            encoder.tokenizer.save_pretrained(folder)
    finally:
        encoder.config.dtype, encoder.tokenizer.model_max_length = before, longest
    found = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in state.items()
    }
    weights = folder / "model.safetensors"
    save_file(found, str(weights), metadata={"format": "pt"})
    # safetensors writes for the owner alone.
    weights.chmod((folder / "config.json").stat().st_mode)


def masked_lm_head(source: str, revision: str = "", offline: bool = False) -> dict[str, Tensor] | None:
    """The pretrained masked-LM head of a checkpoint as dense/norm/bias tensors; None if it carries none."""
    path = known_file(resolve(source), "model.safetensors", revision, offline)
    if path is None:
        return None
    from safetensors import safe_open

    names = set(tensor_sizes(path))
    with safe_open(str(path), framework="pt") as file:
        for dense, norm, biases in LM_HEADS:
            bias = next((name for name in biases if name in names), None)
            scale = next((f"{norm}.{n}" for n in ("weight", "gamma") if f"{norm}.{n}" in names), None)
            shift = next((f"{norm}.{n}" for n in ("bias", "beta") if f"{norm}.{n}" in names), None)
            if bias is None or scale is None or shift is None or f"{dense}.weight" not in names:
                continue
            wanted = {
                "dense.weight": f"{dense}.weight",
                "dense.bias": f"{dense}.bias",
                "norm.weight": scale,
                "norm.bias": shift,
                "bias": bias,
            }
            return {ours: file.get_tensor(theirs).float() for ours, theirs in wanted.items()}
    return None


def _file_of(source: str, name: str, revision: str, offline: bool) -> Path | None:
    """A file of a model folder or of a hub repository; None where it is not there, or cannot be had."""
    if Path(source).is_dir():
        return Path(source) / name if (Path(source) / name).is_file() else None
    from transformers.utils import cached_file

    revision, offline = settled(source, revision, offline)
    try:
        found = cached_file(source, name, revision=revision or None, local_files_only=offline)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def fingerprint(name: str, revision: str = "") -> dict[str, Any]:
    """What identifies a checkpoint: the hashes of a folder's files, or hub id and commit."""
    from effstilts.store import file_hash

    source, local = located(name)
    if not local:
        return {"hub": source, "revision": revision}
    folder = Path(source)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{folder} holds no .safetensors file; other weight formats are pickles and are not read")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json")
    return {
        "files": {path.name: file_hash(path) for path in [*weights, folder / "config.json", *_of_tokenizer(folder)]}
    }


def tokenizer_fingerprint(name: str, revision: str = "") -> dict[str, Any]:
    """What identifies a tokenizer: the hashes of a folder's files, or hub id and revision."""
    from effstilts.store import file_hash

    source, local = located(name)
    if not local:
        return {"name": name, "revision": revision}
    return {"files": {path.name: file_hash(path) for path in _of_tokenizer(Path(source))}}


def _of_tokenizer(folder: Path) -> list[Path]:
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json",
             "special_tokens_map.json", "sentencepiece.bpe.model", "spm.model")  # fmt: skip
    return [folder / name for name in names if (folder / name).is_file()]


def _cannot_load(source: str, error: Exception, local: bool, offline: bool) -> str:
    if local:
        return f"cannot load the model folder {source}: {said_by(error)[0]}"
    why = "this run is offline and it is not in the cache" if offline else said_by(error)[0]
    return f"cannot load {source!r}: it is no folder here, and as a hub id: {why}"
