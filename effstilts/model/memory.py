"""Memory that runs out: told from other failures, and the work done again in smaller parts."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from effstilts.errors import TrainingError
from effstilts.log import Log

_Result = TypeVar("_Result")

# glibc's malloc.h. Blocks from this size on go back to the system as soon as they are freed; left alone, glibc raises
# the threshold to 32 MB, and after a shortage the heaps hold more holes than any one block has room in.
_M_MMAP_THRESHOLD, _RETURNED_BYTES = -3, 1 << 18

# What CUDA, torch's allocator of host memory, cuBLAS and cuDNN, the C++ library and faiss call it; then oneDNN, which
# gives no reason (met under a limit of the address space).
_WORDS = (
    "out of memory", "can't allocate memory", "alloc_failed", "bad_alloc", "failed to allocate",
    "could not create a primitive", "could not create a memory", "could not execute a primitive",
)  # fmt: skip

_widths = itertools.count(3)


def is_shortage(error: BaseException) -> bool:
    """Whether an exception says that memory ran out. A collective's does not count: its peers have moved on."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and "nccl" not in text and any(word in text for word in _WORDS)


def release() -> None:
    """Gives back what nobody holds any more. Call it when the exception is gone: its frames hold tensors."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        # glibc keeps freed memory for itself, in pieces, and oneDNN needs pages of its own.
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(_M_MMAP_THRESHOLD, _RETURNED_BYTES)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    onednn: Any = torch.backends.mkldnn
    if onednn.is_available() and onednn.enabled and not _makes_primitives():
        onednn.set_flags(False)
        Log().warn("oneDNN makes no kernels in this process any more and is left out: the same command again is faster")


def _makes_primitives() -> bool:
    """Whether oneDNN still compiles kernels here. Once it has failed to for want of memory, the thread's error flag
    stays up (Xbyak's, which `jit_generator` asks before each kernel), however much memory there is later."""
    width = next(_widths)  # A shape of its own: kernels that are there already are still found.
    plain: Any = {"dtype": torch.float32, "device": "cpu"}
    try:
        with torch.autocast("cpu", enabled=False):  # which has no such kernel, whatever the state of the flag
            torch.nn.functional.linear(torch.ones(2, width, **plain).to_mkldnn(), torch.ones(4, width, **plain))
    except RuntimeError as error:
        return not is_shortage(error)
    return True


def halving(work: Callable[[int], _Result], size: int, least: int, what: str, unit: str, log: Log) -> _Result:
    """work(size), with half the size whenever memory runs out.

    least: the size below which parts do not get smaller. what, unit: for messages. TrainingError where even that is
    too much.
    """
    while True:
        try:
            return work(size)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
        release()
        if size <= least:
            raise TrainingError(f"{what}: memory does not suffice even row by row ({reason})")
        size = max(least, size // 2)
        log.warn(f"{what}: out of memory, going on with {size} {unit} at once ({reason})", size=size)
