"""A DeepSpeed file and the recipe made one: "auto" values filled in, contradictions refused by name.

The file says how the work is spread (ZeRO stage, offload, buckets); the recipe says what is computed (batch,
precision, clipping, optimizer, schedule). Where the file speaks of the second, it must agree. So the same files serve
the Hugging Face Trainer, which fills in "auto" from its own arguments.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effstilts.errors import MissingDependencyError, RecipeError, did_you_mean
from effstilts.recipe import Spread, Training

FOLDER = Path(__file__).parent.parent / "ds_configs"
DEFAULT = "zero2"
# What a file may say: how the work is spread, and what is reported. Anything else changes the numbers, which no step's
# key would know, or is a slip of the pen that DeepSpeed passes over.
_AGREED = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
_REPORTED = (
    "steps_per_print", "wall_clock_breakdown", "memory_breakdown", "dump_state", "comms_logger", "flops_profiler",
    "tensorboard", "wandb", "comet", "csv_monitor", "aio", "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer", "activation_checkpointing", "timers", "checkpoint", "disable_allgather",
)  # fmt: skip
_KNOWN = (*_AGREED, *_REPORTED, "fp16", "bf16", "zero_optimization")
_OF_THE_RECIPE = {"optimizer": "training.learning_rate and its neighbours", "scheduler": "training.warmup"}
_LOSSY = (
    "zero_quantized_weights",
    "zero_quantized_nontrainable_weights",
    "zero_quantized_gradients",
    "zeropp_loco_param",
    "zenflow",
)


def shipped() -> dict[str, Path]:
    """Name -> path of the DeepSpeed files that come with the package."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def read(spread: Spread) -> tuple[str, dict[str, Any]]:
    """The file that the recipe names, and what to call it. RecipeError if it is none."""
    name = spread.config or DEFAULT
    path = shipped().get(name, Path(name))
    if not path.is_file():
        raise RecipeError(
            f"engine.config: no file {name!r}{did_you_mean(name, shipped())}; shipped are {', '.join(shipped())}"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"engine.config: {path} is not valid JSON: {error}") from error
    except OSError as error:
        raise RecipeError(f"engine.config: {path}: cannot be read ({error.strerror or error})") from error
    if not isinstance(config, dict):
        raise RecipeError(f"engine.config: {path} is no JSON object")
    return str(name), config


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError for a key that stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def resolve(spread: Spread, training: Training, world: int, hidden_size: int) -> dict[str, Any]:
    """What DeepSpeed is given. RecipeError names a key of the file that contradicts the recipe,
    MissingDependencyError where DeepSpeed is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError("engine zero needs DeepSpeed: pip install 'effstilts[zero]'")
    name, config = read(spread)
    zero = _section(config, "zero_optimization", name)
    stage = zero.get("stage")
    if isinstance(stage, bool) or stage not in (1, 2, 3):
        raise RecipeError(f"engine.config: {name}: zero_optimization.stage is {stage!r}; it must be 1, 2 or 3")
    _check_keys(name, config, zero)
    if _section(config, "fp16", name).get("enabled") not in (None, False, "auto"):
        raise RecipeError(f"engine.config: {name}: fp16.enabled is not supported; use training.precision: bf16")
    bf16 = training.precision == "bf16"
    _agree(name, "bf16.enabled", _section(config, "bf16", name).get("enabled"), bf16, "training.precision")
    _agree(name, "gradient_clipping", config.get("gradient_clipping"), training.clip_norm, "training.clip_norm")
    _agree(name, "train_batch_size", config.get("train_batch_size"), training.batch_size, "training.batch_size")
    for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        if config.get(key) not in (None, "auto"):
            raise RecipeError(
                f"engine.config: {name}: {key} is {config[key]!r}, but micro-batches are cut by training.micro_tokens; "
                'write "auto"'
            )
    for part in ("offload_optimizer", "offload_param"):
        if _section(zero, part, name).get("device") == "nvme":
            raise RecipeError(f"engine.config: {name}: {part} to nvme is not supported; use cpu")
        if _section(zero, part, name).get("super_offload"):
            raise RecipeError(f"engine.config: {name}: {part}.super_offload is not supported")
    # As the Trainer of transformers fills them in.
    automatic = {
        "reduce_bucket_size": max(hidden_size**2, 1 << 20),
        "stage3_prefetch_bucket_size": int(0.9 * hidden_size**2),
        "stage3_param_persistence_threshold": 10 * hidden_size,
    }
    known = {key: automatic.get(key, value) if value == "auto" else value for key, value in zero.items()}
    for key, value in known.items():
        if value == "auto":
            raise RecipeError(f'engine.config: {name}: zero_optimization.{key} cannot be "auto" here')
    return {
        **{key: value for key, value in config.items() if key not in ("fp16", "bf16", "zero_optimization")},
        "zero_optimization": known,
        "bf16": {**_section(config, "bf16", name), "enabled": bf16},
        # The loop says where a step ends, so DeepSpeed counts one micro-batch a step.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world,
        "gradient_clipping": training.clip_norm,
        # torch's fused AdamW runs on the CPU as well; DeepSpeed's own needs a compiler and differs in the 4th digit.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


def _check_keys(name: str, config: Mapping[str, Any], zero: Mapping[str, Any]) -> None:
    """RecipeError for a key that is the recipe's, that changes the numbers, or that nobody knows."""
    for key, value in config.items():
        if key in _OF_THE_RECIPE:
            raise RecipeError(
                f"engine.config: {name}: {key!r} is the recipe's ({_OF_THE_RECIPE[key]}); take it out of the file"
            )
        if key not in _KNOWN and not _is_off(key, value):
            raise RecipeError(
                f"engine.config: {name}: {key!r} is not supported{did_you_mean(key, _KNOWN)}: what is computed is the "
                "recipe's; take it out of the file"
            )
        if key in _REPORTED and value == "auto":
            raise RecipeError(f'engine.config: {name}: {key} cannot be "auto"')
    for key in _LOSSY:
        if zero.get(key):
            raise RecipeError(f"engine.config: {name}: zero_optimization.{key} changes the numbers: not supported")
    for key in _section(config, "bf16", name):
        if key != "enabled":
            raise RecipeError(f"engine.config: {name}: bf16.{key} is not supported; training.precision decides")


def _is_off(key: str, value: Any) -> bool:
    """Whether a key asks for nothing."""
    if key == "communication_data_type":
        return value in (None, "fp32")
    return value is None or value is False or (isinstance(value, dict) and value.get("enabled") is False)


def _section(config: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise RecipeError(f"engine.config: {name}: {key} is no JSON object")
    return dict(value)


def _agree(name: str, key: str, found: Any, wanted: Any, ours: str) -> None:
    if found not in (None, "auto") and found != wanted:
        raise RecipeError(
            f"engine.config: {name}: {key} is {found!r}, but the recipe's {ours} asks for {wanted!r}; "
            'make them agree, or write "auto"'
        )
