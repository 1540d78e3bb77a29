"""`export`: a trained encoder as a folder that other libraries load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from effstilts.commands.places import Places, too_short
from effstilts.errors import ModelError, RecipeError, StoreError

if TYPE_CHECKING:
    from effstilts.store import Store

_TORCH = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass
class Export(Places):
    """Write an encoder as a sentence-transformers model or a plain transformers folder, or a target's whole model."""

    run: Annotated[str, tyro.conf.Positional] = ""
    """A run of the store; or a folder, a hub id, package:NAME."""
    out: Annotated[Path, tyro.conf.Positional] = Path()
    """The folder to write; it must not exist yet."""
    arm: str = ""
    """Arm of the run; needed where it has several."""
    seed: int = -1
    """Seed of the run; -1: its first."""
    form: Annotated[
        Literal["", "sentence-transformers", "transformers", "masked-lm"],
        tyro.conf.arg(
            name="as",
            metavar="{sentence-transformers,transformers,masked-lm}",
            help_behavior_hint="(default: sentence-transformers)",
        ),
    ] = ""
    """sentence-transformers: cut at the layer, with the pooling. transformers: whole, unless --layer cuts
    it; of a target always. masked-lm: whole, with the head of phase 1."""
    target: str = ""
    """A target task of the run: its model with its head, as transformers' class for that kind of task."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the weights that are written."""
    layer: int = -1
    """Last hidden state that is kept, 0 is the embedding output; -1: the run's retrieval layer, a
    sentence-transformers model's last, else the protocol's (transformers: all)."""
    pooling: Literal["", "mean", "cls", "weighted"] = ""
    """Default: the run's or the sentence-transformers model's, else mean."""
    max_length: int = 0
    """Tokens that a sentence-transformers model reads; 0: as many as it read before where it was one, else 512."""
    revision: str = ""
    """Commit of a hub id."""
    offline: bool = False
    """Never touch the network."""

    def execute(self) -> int:
        import torch

        from effstilts.model import export
        from effstilts.retrieval.evaluate import poolings
        from effstilts.store import Store
        from effstilts.studies.trained import open_named

        if not self.run or self.out == Path():
            raise RecipeError("say what to export and where: effstilts export RUN FOLDER [--arm ARM]")
        if self.out.exists():
            raise RecipeError(f"{self.out} exists already: give a folder that does not")
        if self.form == "masked-lm" and self.layer >= 0:
            raise RecipeError("--as masked-lm keeps the whole encoder: leave --layer out")
        of_sentences = bool(self.pooling or self.max_length)
        if self.target and (self.layer >= 0 or of_sentences or self.form not in ("", "transformers")):
            raise RecipeError(
                "--target keeps the whole model with its head: leave --layer, --pooling, --max-length and --as out"
            )
        if of_sentences and self.form in ("transformers", "masked-lm"):
            raise RecipeError(
                f"--as {self.form} has no pooling and no length of its own: leave --pooling and --max-length out, or "
                "take sentence-transformers"
            )
        self.form = self.form or ("transformers" if self.target else "sentence-transformers")
        if self.layer < -1 or too_short(self.max_length):
            raise RecipeError("--layer is counted from 0, the embedding output; --max-length is 3 or more")
        name, store = self.run, Store(self.store)
        if (self.arm or self.seed >= 0) and name not in store.run_names():
            if name.partition(":")[0] in store.run_names():
                raise RecipeError(f"{name} names the arm already: RUN:ARM:SEED, or RUN with --arm and --seed")
            raise StoreError(f"--arm and --seed are for a run: {store.no_run(name)}")
        if self.arm or self.seed >= 0:
            name += f":{self.arm}" + (f":{self.seed}" if self.seed >= 0 else "")
        if self.target:
            return self._export_target(name, store)
        named = open_named(name, store, self.revision, self.offline)
        opened = named.encoder
        whole = self.layer < 0 and self.form != "sentence-transformers"
        (pooling,) = poolings(opened, named.asked(opened.depth if whole else self.layer, self.pooling))

        dtype = getattr(torch, _TORCH[self.precision])
        head = named.masked_lm() if self.form == "masked-lm" else None
        if self.form == "masked-lm" and head is None:
            raise ModelError(f"{named.name} has no masked-LM head: neither it nor what it was trained from brought one")

        def fill(folder: Path) -> None:
            if head is not None:
                export.save_masked_lm(opened, head, folder, dtype)
            elif self.form == "transformers":
                export.save_cut(opened, folder, pooling.layer, dtype)
            else:
                special = pooling.special_tokens
                length = self.max_length or named.max_length
                export.save_sentence_transformers(opened, folder, pooling.layer, pooling.how, special, length, dtype)

        self._write(
            fill, {"from": named.name, "identity": dict(named.identity), "layer": pooling.layer, "as": self.form}
        )
        how = f", {pooling.how} pooling" if self.form == "sentence-transformers" else ""
        print(f"{named.name}: hidden state {pooling.layer} of {opened.depth}{how} as {self.form} in {self.out}")
        return 0

    def _export_target(self, name: str, store: Store) -> int:
        import torch

        from effstilts.model import export
        from effstilts.studies.trained import open_target

        tuned = open_target(name, self.target, store, self.offline)
        made: list[str] = []

        def fill(folder: Path) -> None:
            dtype = getattr(torch, _TORCH[self.precision])
            made.append(export.save_with_head(tuned.encoder, tuned.kind, tuned.head, tuned.labels, folder, dtype))

        self._write(fill, {"from": tuned.name, "identity": dict(tuned.identity), "as": "transformers"})
        print(f"{tuned.name}: {made[0]} in {self.out}")
        return 0

    def _write(self, fill: Callable[[Path], None], facts: dict[str, Any]) -> None:
        from effstilts.store import write_folder

        self.out.resolve().parent.mkdir(parents=True, exist_ok=True)
        write_folder(self.out, self.out.resolve().parent, fill, {**facts, "precision": self.precision})
