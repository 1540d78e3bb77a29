"""Texts and questions that stand both in training rows and in evaluated rows.

Texts are compared without case, punctuation and spacing, whole: a hash of 64 bits stands for each, and short ones (a
name, a "yes") are left out, since they meet by chance. Of a training text the sentences are looked at as well: a line
of a Wikipedia may hold, among others, the very sentence that is evaluated. Where a row has several texts, they are also
hashed together (`whole`): a premise that two sets share is one thing, a pair that both have is another. A question's id
is compared as well, where it is as long as a hash: by it translations of one question are known (MLQA, XQuAD).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Digests = Mapping[str, NDArray[np.uint64]]

# Raised when the hashes of the same rows change.
VERSION = 5
WHOLE, ID, SENTENCES = "whole", "id", "sentences"
ROLES = ("text", "text_pair", "prompt", "question", "context", "source", "target", "tokens")
# Ids that no two data sets give by chance: SQuAD's, MLQA's, UUIDs.
_HASH = re.compile(r"[0-9a-f-]{24,}")
_WORDS = re.compile(r"\w+")
_ENDS = re.compile(r"(?:(?<=[.!?؟۔।])|(?<=[.!?؟۔।][\"'”’»)\]]))\s+|(?<=[。！？])|\n+")
_SHORTEST = 20
_NONE = np.uint64(0)


@dataclass(frozen=True)
class Overlap:
    """`rows` of `of` evaluated rows have a text in this role that stands somewhere in the training rows."""

    role: str
    rows: int
    of: int


def digest(text: str) -> int:
    """A hash of the text's letters and digits; 0 for fewer than 20 of them (spaces between words counted)."""
    words = " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))
    if len(words) < _SHORTEST:
        return 0
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little") or 1


def digests(examples: Iterable[Mapping[str, Any]]) -> dict[str, NDArray[np.uint64]]:
    """Role, "id" or "whole" -> the hash of each row's text in it [rows], 0 where there is none. Tags' tokens count as
    one text. "sentences": those of all texts that have several, in no row's place."""
    found: dict[str, list[int]] = {role: [] for role in (WHOLE, ID, *ROLES)}
    sentences: set[int] = set()
    for example in examples:
        texts = []
        for role in ROLES:
            value = example.get(role)
            text = value if isinstance(value, str) else " ".join(value) if value else ""
            found[role].append(digest(text) if text else 0)
            texts += [text] if text else []
            if len(parts := _ENDS.split(text)) > 1:
                sentences.update(map(digest, parts))
        own = example.get("id")
        known = isinstance(own, str) and bool(example.get("question")) and _HASH.fullmatch(own) is not None
        found[ID].append(digest(str(own)) if known else 0)
        found[WHOLE].append(digest("\n".join(texts)) if len(texts) > 1 else 0)
    found[SENTENCES] = sorted(sentences)
    arrays = {role: np.array(hashes, np.uint64) for role, hashes in found.items()}
    return {role: hashes for role, hashes in arrays.items() if hashes.any()}


def known_texts(trained: Digests) -> NDArray[np.uint64]:
    """The hashes of all texts of training rows and of their sentences, in whatever role, sorted and once each."""
    if not trained:
        return np.zeros(0, np.uint64)
    known = np.unique(np.concatenate(list(trained.values())))
    return np.asarray(known[known != _NONE])


def overlaps(known: NDArray[np.uint64], evaluated: Digests) -> list[Overlap]:
    """For each role of the evaluated rows, how many of its texts are `known_texts`; only roles with one at least."""
    if not len(known):
        return []
    found = []
    for role, hashes in evaluated.items():
        if role == SENTENCES:
            continue
        places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        rows = int((known[places] == hashes).sum())
        if rows:
            found.append(Overlap(role, rows, len(hashes)))
    return found
