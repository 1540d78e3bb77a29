"""What a new encoder begins with: another one's blocks under a vocabulary of its own, and pieces that translate each
other at one place.

The body of an English encoder under new embeddings learns another language sooner than random weights do (Artetxe,
Ruder and Yogatama 2020; de Vries and Nissim 2021, who also copy the pieces that both vocabularies have). Pieces that
are aligned with known ones by parallel text begin where those are (`effstilts.model.alignment`); without a body the
known ones are the random vectors of the pieces of the text that is translated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effstilts.errors import ModelError
from effstilts.model.alignment import NONE, Translations
from effstilts.model.encoder import Encoder, blocks_of

# How SentencePiece marks a word's beginning, and WordPiece the pieces that do not begin one.
_BEGINS = "▁"
_GOES_ON = "##"
_SAME_AS = {"bos_token": "cls_token", "eos_token": "sep_token", "cls_token": "bos_token", "sep_token": "eos_token"}
_SPECIALS = (*_SAME_AS, "pad_token", "unk_token", "mask_token")
# Raised when what is copied changes.
VERSION = 2
# Expected links to known pieces that it takes to place a piece among them.
_LEAST_LINKS = 0.5


class Taken(NamedTuple):
    """Pieces whose embeddings are the donor's, and pieces that began as the mean of those they translate."""

    copied: int
    translated: int


@torch.no_grad()
def transplant(donor: Encoder, encoder: Encoder, translations: Translations = NONE) -> Taken:
    """Copies the donor's blocks, embedding LayerNorm, positions, segments and known pieces into `encoder`, in place.

    A piece that the donor does not have is the mean of the known ones that it translates, by how often; where there is
    none, it is drawn from a normal distribution with the mean and spread of the donor's embeddings, by dimension, from
    `encoder`'s own random weights. ModelError if widths, depth or the blocks' parts differ, or the new encoder has more
    positions or more blocks.
    """
    theirs, ours = blocks_of(donor), blocks_of(encoder)
    if len(ours) > len(theirs):
        raise ModelError(f"model.body: {len(theirs)} blocks, {len(ours)} are needed")
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        _copy(mine.state_dict(), other.state_dict(), f"block {number}")
    norms = [{k: v for k, v in _embeddings(e).items() if "LayerNorm" in k} for e in (encoder, donor)]
    _copy(norms[0], norms[1], "the embeddings' LayerNorm")
    _copy_positions(donor, encoder)
    _copy_segments(donor, encoder)
    known = _copy_pieces(donor, encoder)
    return Taken(int(known.sum()), _translate_pieces(encoder, known, translations))


@torch.no_grad()
def begin_aligned(encoder: Encoder, translations: Translations) -> int:
    """Pieces that are expected more often in translations than in the texts that are translated begin as the mean of
    those they translate, in place; how many they are."""
    piece, source, times = translations
    other, size = piece != source, len(encoder.embedding)
    in_texts = np.bincount(source, times, size)
    in_translations = np.bincount(piece[other], times[other], size)
    return _translate_pieces(encoder, in_texts >= in_translations, translations)


def _embeddings(encoder: Encoder) -> dict[str, Tensor]:
    """Parameters of the embedding module, by their last names."""
    return {
        name.partition("embeddings.")[2]: tensor
        for name, tensor in encoder.backbone.state_dict().items()
        if name.startswith("embeddings.") and tensor.is_floating_point()
    }


def _copy(mine: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    for name, tensor in mine.items():
        if name not in other or other[name].shape != tensor.shape:
            have = list(other[name].shape) if name in other else "nothing"
            raise ModelError(f"model.body: {what}: {name} is {have}, needed {list(tensor.shape)}")
        tensor.copy_(other[name])


def _copy_positions(donor: Encoder, encoder: Encoder) -> None:
    mine, other = (_embeddings(e).get("position_embeddings.weight") for e in (encoder, donor))
    if mine is None or other is None:
        return
    if encoder.max_length > donor.max_length:
        raise ModelError(f"model.body: {donor.max_length} positions, {encoder.max_length} are needed")
    there, here = (e.first_position for e in (donor, encoder))
    mine[here:] = other[there : there + len(mine) - here]


def _copy_segments(donor: Encoder, encoder: Encoder) -> None:
    """A segment's vector is added to every token."""
    mine, other = (_embeddings(e).get("token_type_embeddings.weight") for e in (encoder, donor))
    if mine is not None and other is not None:
        mine[: len(other)] = other[: len(mine)]


def _copy_pieces(donor: Encoder, encoder: Encoder) -> NDArray[np.bool_]:
    """Which pieces were copied [vocabulary]."""
    known: Mapping[str, int] = donor.tokenizer.get_vocab()
    wordpiece, same = (any(p.startswith(_GOES_ON) for p in e.tokenizer.get_vocab()) for e in (donor, encoder))
    if same and not wordpiece:
        raise ModelError("model.body: its pieces are SentencePiece's, those of model.tokenizer are WordPiece's")
    lower = wordpiece and not any(piece != piece.lower() for piece in known if not _is_special(donor.tokenizer, piece))
    mine, other = encoder.embedding, donor.embedding
    spread, mean = other.std(0), other.mean(0)
    mine.copy_((mine - mine.mean()) / mine.std() * spread + mean)
    copied = np.zeros(len(mine), bool)
    for piece, row in encoder.tokenizer.get_vocab().items():
        found = known.get(_as_known(piece, wordpiece and not same, lower))
        if found is not None and not _is_special(encoder.tokenizer, piece):
            mine[row] = other[found]
            copied[row] = True
    for name in _SPECIALS:
        ours, theirs = (getattr(e.tokenizer, f"{name}_id", None) for e in (encoder, donor))
        if theirs is None:
            theirs = getattr(donor.tokenizer, f"{_SAME_AS.get(name, name)}_id", None)
        if ours is not None and theirs is not None:
            mine[ours] = other[theirs]
    return copied


def _translate_pieces(encoder: Encoder, known: NDArray[np.bool_], translations: Translations) -> int:
    of_use = known[translations.source] & ~known[translations.piece]
    piece, source, times = (column[of_use] for column in translations)
    totals = np.bincount(piece, times, len(known))
    placed = np.flatnonzero(totals >= _LEAST_LINKS)
    mean = torch.zeros_like(encoder.embedding)
    shares = torch.from_numpy(times / totals[piece]).to(mean.dtype)
    for start in range(0, len(piece), 1 << 14):
        part = slice(start, start + (1 << 14))
        rows = encoder.embedding[torch.from_numpy(source[part])] * shares[part, None]
        mean.index_add_(0, torch.from_numpy(piece[part]), rows)
    encoder.embedding[torch.from_numpy(placed)] = mean[torch.from_numpy(placed)]
    return len(placed)


def _as_known(piece: str, as_wordpiece: bool, lower: bool) -> str:
    """How the donor's vocabulary spells a piece."""
    text = piece.lower() if lower else piece
    if not as_wordpiece:
        return text
    return text.removeprefix(_BEGINS) if text.startswith(_BEGINS) and len(text) > 1 else _GOES_ON + text


def _is_special(tokenizer: Any, piece: str) -> bool:
    return piece in tokenizer.all_special_tokens
