"""Words: what a realised sentence is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Word(NamedTuple):
    """A word with its UPOS tag, the part of the event that it belongs to (agent, patient, place, verb, ...; empty for
    function words of no part) and its entity tag ("O", "B-PER", "I-PER", ...)."""

    form: str
    upos: str
    part: str = ""
    entity: str = "O"


def named(name: str, entity: str, part: str, write: Callable[[str], str] = str) -> list[Word]:
    """The words of a name of one or more tokens. write: how the language spells a token."""
    return [
        Word(write(token), "PROPN", part, ("I-" if i else "B-") + entity) for i, token in enumerate(name.split(" "))
    ]
