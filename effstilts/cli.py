"""The command line: parse, call, show. Nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from effstilts.errors import INTERRUPTED, EffstiltsError, RecipeError, did_you_mean, say
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
    if not words:
        main(["--help"])
        return 2
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
    name = words[0]
    if not name.startswith("-") and name not in COMMANDS:
        raise RecipeError(f"no command {name!r}{did_you_mean(name, COMMANDS)}; there are {', '.join(COMMANDS)}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _unwrapped() if not {"-h", "--help"} & {*words} else nullcontext():
            command: Command = tyro.cli(
                union,
                prog="effstilts",
                description="Efficient cross-lingual transfer through English intermediate-task training.",
                args=words,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise RecipeError(_one_line(said.getvalue(), name)) from None
    return command


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Lines as long as they come: a message's long words would be cut at the terminal's width."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _one_line(box: str, command: str) -> str:
    """What tyro says of words that it does not understand, without its frame and what it repeats of the help."""
    # A title in the frame, or where the terminal has no such characters a title and a rule; the message; a rule.
    framed = box.startswith("╭")
    lines = [line.strip("│ ") for line in box.splitlines()[1 if framed else 2 :]]
    message = itertools.takewhile(lambda line: not line.startswith(("───", "---", "╰")), lines)
    # What follows an empty line is advice on the order of words.
    text = " ".join(itertools.takewhile(bool, message)) or " ".join(box.split())
    form = COMMANDS.get(command)
    options: list[str] = []
    if dataclasses.is_dataclass(form):
        fields = [field.name for field in dataclasses.fields(form) if "Positional" not in str(field.type)]
        options = [f"--{name.replace('_', '-')}" for name in fields]
    near = [did_you_mean(word, options) for word in re.findall(r"--[\w-]+", text) if word not in options]
    text = re.sub(r" \(applied to [^)]*\)", ",", text).rstrip(",").replace("'action.", "'")
    text = re.sub(r"^Error parsing", "cannot read", text)
    text = re.sub(r"^Unrecognized( or misplaced)? options", "no such option or argument", text)
    place = f"effstilts {command} --help" if form else "effstilts --help"
    return f"{text.rstrip('.')}{next(filter(None, near), '')}; see {place}"


if __name__ == "__main__":
    sys.exit(main())
