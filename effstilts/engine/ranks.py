"""The processes of a launch as the rest of the library sees them.

Rank 0 alone writes the store, the logs and the screen; the others learn what it decides and read what it wrote. Waits
go through the launch's key-value store and end only with the work or a failure; collectives are few, and each has the
timeout. One process alone is the same object with nothing to wait for.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effstilts.engine.launchers import followed
from effstilts.engine.watch import Watch
from effstilts.errors import EffstiltsError, RecipeError, TrainingError

RENDEZVOUS_SECONDS = 300.0
_BUCKET = 1 << 25


@dataclass(frozen=True)
class Launch:
    """What a launcher says of this process."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


def launch_of(environment: Mapping[str, str], local_rank: int = -1, connects: bool = True) -> Launch:
    """Reads RANK, WORLD_SIZE and LOCAL_RANK, as torchrun and deepspeed set them; `--local_rank` wins where given.
    connects: the processes are to talk to each other; those of a job array only share the work.
    RecipeError if they are no whole numbers or do not fit together."""
    try:
        rank, world = int(environment.get("RANK") or 0), int(environment.get("WORLD_SIZE") or 1)
        local = local_rank if local_rank >= 0 else int(environment.get("LOCAL_RANK") or (rank if connects else 0))
    except ValueError as error:
        raise RecipeError(f"RANK, WORLD_SIZE or LOCAL_RANK of the launcher is no whole number: {error}") from error
    if not 0 <= rank < world:
        raise RecipeError(f"the launcher's RANK={rank} and WORLD_SIZE={world} do not fit together")
    if connects and world > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(environment):
        raise RecipeError("WORLD_SIZE is set, but not MASTER_ADDR and MASTER_PORT: start with torchrun or deepspeed")
    return Launch(rank, world, local)


class Ranks:
    """This process among those that train together."""

    def __init__(self, launch: Launch = Launch(), store: Any = None) -> None:
        self.rank, self.world, self.local_rank = launch.rank, launch.world, launch.local_rank
        self.watch = Watch(store.clone(), launch.rank, launch.world) if store is not None else None
        self._store = store
        self._told = 0
        self._gathered = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def connect(self, timeout: float) -> None:
        """Makes the process group: gloo, and NCCL beside it where there are GPUs. `timeout` bounds every collective."""
        if self.world == 1:
            return
        import torch.distributed as dist

        assert self.watch is not None
        self.watch.timeout = timeout
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=self._store, rank=self.rank, world_size=self.world, timeout=timedelta(seconds=timeout)
        )

    def tell(self, make: Callable[[], Any]) -> Any:
        """Rank 0 calls `make`; every rank returns its value, plain JSON data. However long it takes, the others wait,
        as long as rank 0 is alive."""
        if self.world == 1:
            return make()
        name = f"told/{self._told}"
        self._told += 1
        if self.leads:
            value = make()
            self._store.set(name, json.dumps(value))
            return value
        self.wait(lambda: bool(self._store.check([name])))
        return json.loads(self._store.get(name))

    def wait(self, done: Callable[[], bool], seconds: float = float("inf"), what: str = "") -> None:
        """Waits for `done`, and no longer than every process lives. TrainingError after `seconds`."""
        until = time.monotonic() + seconds
        while not done():
            if self.watch is not None:
                self.watch.check()
            if time.monotonic() > until:
                raise TrainingError(f"rank {self.rank} waited {seconds:.0f} s for {what}")
            time.sleep(0.02)

    def require_same(self, value: str, what: str) -> None:
        """RecipeError on every rank unless all have the same value."""
        if self.world == 1:
            return
        self._store.set(f"same/{what}/{self.rank}", value)
        for other in range(self.world):
            name = f"same/{what}/{other}"
            self.wait(lambda name=name: bool(self._store.check([name])))  # type: ignore[misc]
            if self._store.get(name).decode() != value:
                first, second = sorted((self.rank, other))
                raise RecipeError(
                    f"ranks {first} and {second} have different {what}: every machine needs the same recipe, "
                    "data, checkpoint and version of the library"
                )

    def totals(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks, in float64."""
        if self.world == 1:
            return list(values)
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def highest(self, values: Sequence[int]) -> list[int]:
        """The highest of each value over the ranks."""
        if self.world == 1:
            return list(values)
        import torch.distributed as dist

        tops = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tops, op=dist.ReduceOp.MAX)
        found: list[int] = tops.tolist()
        return found

    def gather(self, arrays: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
        """Rank 0 gets every rank's arrays, by rank; the others nothing. A rank's arrays have one type and number of
        dimensions. However long a rank takes until it calls, the others wait, as long as all live."""
        if self.world == 1:
            return [list(arrays)]
        import torch.distributed as dist

        name = f"gathered/{self._gathered}"
        self._gathered += 1
        self._store.set(f"{name}/{self.rank}", "")
        everyone = [f"{name}/{rank}" for rank in range(self.world)]
        self.wait(lambda: bool(self._store.check(everyone)))
        if not self.leads:
            packed = torch.from_numpy(_pack(arrays))
            dist.send(torch.tensor([packed.numel()]), 0)
            dist.send(packed, 0)
            return []
        found = [list(arrays)]
        for rank in range(1, self.world):
            size = torch.zeros(1, dtype=torch.int64)
            dist.recv(size, rank)
            packed = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(packed, rank)
            found.append(_unpack(packed.numpy()))
        return found

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sums the gradients over the ranks, in flat buckets. Every rank must have gradients of the same parameters."""
        if self.world == 1:
            return
        import torch.distributed as dist

        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


ALONE = Ranks()


def _pack(arrays: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """Arrays as bytes, without pickle: their shapes, and their numbers one after the other."""
    shapes = np.array([array.shape for array in arrays], np.int64).reshape(len(arrays), arrays[0].ndim if arrays else 0)
    flat = np.concatenate([array.reshape(-1) for array in arrays]) if arrays else np.zeros(0)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, shapes=shapes, flat=flat)
    packed: NDArray[np.uint8] = np.frombuffer(buffer.getbuffer(), np.uint8).copy()
    return packed


def _unpack(packed: NDArray[np.uint8]) -> list[NDArray[Any]]:
    with np.load(io.BytesIO(packed.tobytes()), allow_pickle=False) as saved:
        shapes, flat = saved["shapes"], saved["flat"]
    ends = np.cumsum(shapes.prod(1))[:-1]
    return (
        [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True)] if len(shapes) else []
    )


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type, some tens of millions of numbers at a time."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in sorted(gradients, key=lambda g: str(g.dtype)):
        if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket


@contextmanager
def joined(local_rank: int = -1) -> Iterator[Ranks]:
    """This process's place in the launch. A failure inside is told to the other processes before it leaves here."""
    launch = launch_of(os.environ, local_rank)
    with followed():
        yield from _joined(launch)


def _joined(launch: Launch) -> Iterator[Ranks]:
    if torch.cuda.is_available():
        if launch.local_rank >= torch.cuda.device_count():
            raise RecipeError(
                f"local rank {launch.local_rank} has no GPU: this machine has {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(launch.local_rank)
    if launch.world == 1:
        yield ALONE
        return
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=RENDEZVOUS_SECONDS)))
    except (RuntimeError, ValueError) as error:
        raise EffstiltsError(
            f"rank {launch.rank} could not meet the others at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']}: {str(error).splitlines()[0]}"
        ) from error
    ranks = Ranks(launch, store)
    assert ranks.watch is not None
    with ranks.watch:
        yield ranks
        ranks.watch.leave()
        # Rank 0 may hold the store: it leaves last.
        if ranks.leads:
            ranks.wait(lambda: bool(store.check([f"left/{r}" for r in range(ranks.world)])))
    if dist.is_initialized():
        dist.destroy_process_group()
