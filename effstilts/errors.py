"""The few kinds of error a user can meet, each with its exit code.

Code that finds bad input raises one of these with one line that says what is wrong, where, and what to do.
The command line prints that line and exits with the kind's code; anything else is a defect of the library.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable

INTERRUPTED = "effstilts: interrupted; run the same command again to go on"

# What would end the line, steer a terminal, or is no text: files hold such, and messages quote files.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class EffstiltsError(Exception):
    """Base of everything raised on purpose. `exit_code` is what the command line returns; `said`: the line is out."""

    exit_code = 1
    said = False

    def __str__(self) -> str:
        """The message as one line that can be printed."""
        return _CONTROL.sub(lambda found: repr(found[0])[1:-1], super().__str__())


class RecipeError(EffstiltsError):
    """The recipe or the command line asks for something that does not exist or does not fit."""

    exit_code = 2


class DataError(EffstiltsError):
    """A data set is missing, empty or broken; the message names the file and line where there is one."""

    exit_code = 3


class ModelError(EffstiltsError):
    """A checkpoint cannot be used: not an encoder, weights missing, a head that does not fit."""

    exit_code = 4


class StoreError(EffstiltsError):
    """An artefact or checkpoint is damaged, locked by another process, or cannot be written."""

    exit_code = 5


class TrainingError(EffstiltsError):
    """Training cannot go on: a loss that is not finite, memory that does not suffice."""

    exit_code = 6


class MissingDependencyError(EffstiltsError):
    """An optional package is needed; the message names the extra that brings it."""

    exit_code = 7


class Interrupted(EffstiltsError):
    """SIGTERM or SIGINT arrived; the work so far is in a checkpoint."""

    exit_code = 130


class TimeUp(Interrupted):
    """The hours of `--budget` are over; the work so far is in a checkpoint."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the nearest known name, else the empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def said_by(error: BaseException) -> list[str]:
    """What a library's error says, line by line; its type where it says nothing."""
    return str(error).strip().splitlines() or [type(error).__name__]


def say(line: str) -> None:
    """On stderr, unless another process of the launch says it."""
    rank, world = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not (rank.isdecimal() and int(rank)) or world in ("", "1"):
        print(line, file=sys.stderr)
