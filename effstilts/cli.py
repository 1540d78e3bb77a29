"""The command line: parse, call, show. Nothing else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro

from effstilts import __version__
from effstilts.commands import Command
from effstilts.commands.about import Doctor, Tasks
from effstilts.commands.data import Data
from effstilts.commands.embed import Embed
from effstilts.commands.export import Export
from effstilts.commands.retrieval import Mine, Retrieve, Search
from effstilts.commands.runs import Plan, Run, Show
from effstilts.commands.xtreme import Xtreme
from effstilts.errors import INTERRUPTED, EffstiltsError, say
from effstilts.store import disk_error

COMMANDS: dict[str, type[Command]] = {
    "run": Run,
    "plan": Plan,
    "show": Show,
    "xtreme": Xtreme,
    "export": Export,
    "embed": Embed,
    "retrieve": Retrieve,
    "mine": Mine,
    "search": Search,
    "tasks": Tasks,
    "data": Data,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. A user's mistake is one line on stderr."""
    words = _without_local_rank(list(sys.argv[1:] if arguments is None else arguments))
    if words == ["--version"]:
        print(f"effstilts {__version__}")
        return 0
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # a hub that does not answer is one line, ours
    try:
        return _parse(words).execute()
    except SystemExit as stop:
        return int(stop.code or 0)
    except EffstiltsError as error:
        if not error.said:
            say(f"effstilts: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say(INTERRUPTED)
        return 130
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        known = disk_error(error)
        if known is None:
            raise
        say(f"effstilts: {known}")
        return known.exit_code


def _without_local_rank(words: list[str]) -> list[str]:
    """DeepSpeed's launcher puts --local_rank before the command; it goes where torchrun puts it."""
    if words and words[0].replace("-", "_").startswith("__local_rank="):
        os.environ.setdefault("LOCAL_RANK", words[0].partition("=")[2])
        return words[1:]
    return words


def _parse(words: list[str]) -> Command:
    named = [Annotated[form, tyro.conf.subcommand(name)] for name, form in COMMANDS.items()]
    union: Any = reduce(or_, named)
    command: Command = tyro.cli(
        union,
        prog="effstilts",
        description="Efficient cross-lingual transfer through English intermediate-task training.",
        args=words,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return command


if __name__ == "__main__":
    sys.exit(main())
