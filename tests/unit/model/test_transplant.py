"""A body under a new vocabulary: what is copied, what is drawn, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from effstilts.errors import ModelError
from effstilts.model.alignment import NONE, Translations
from effstilts.model.encoder import blocks_of
from effstilts.model.opening import create
from effstilts.model.transplant import begin_aligned, transplant
from tests.conftest import TINY_CONFIG


@pytest.fixture
def donor(tmp_path: Any) -> Any:
    """A BERT of the tiny size with an uncased WordPiece vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "##a", "##the", "##e", "s", "##s"]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    return create(TINY_CONFIG | {"model_type": "bert", "max_position_embeddings": 128}, fast, seed=3)


def test_blocks_norm_and_positions_are_the_donors(donor: Any, encoder: Any) -> None:
    transplant(donor, encoder)
    for mine, other in zip(blocks_of(encoder), blocks_of(donor), strict=True):
        for name, tensor in other.state_dict().items():
            assert torch.equal(mine.state_dict()[name], tensor), name
    ours, theirs = encoder.backbone.embeddings, donor.backbone.embeddings
    assert torch.equal(ours.LayerNorm.weight, theirs.LayerNorm.weight)
    assert encoder.first_position == 2
    assert torch.equal(ours.position_embeddings.weight[2:], theirs.position_embeddings.weight[:128])
    assert torch.equal(ours.token_type_embeddings.weight[:1], theirs.token_type_embeddings.weight[:1])


def test_a_piece_of_both_vocabularies_is_copied_and_the_others_are_drawn_like_them(donor: Any, encoder: Any) -> None:
    ours, theirs = encoder.tokenizer.get_vocab(), donor.tokenizer.get_vocab()
    copied = transplant(donor, encoder)
    begins = {"▁the": "the", "▁a": "a", "▁s": "s"} | {"a": "##a", "the": "##the", "e": "##e", "s": "##s"}
    both = {mine: other for mine, other in begins.items() if mine in ours}
    assert both
    for mine, other in both.items():
        assert torch.equal(encoder.embedding[ours[mine]], donor.embedding[theirs[other]]), mine
    assert copied.copied >= len(both) and copied.translated == 0
    for mine, other in {"<s>": "[CLS]", "</s>": "[SEP]", "<pad>": "[PAD]", "<mask>": "[MASK]"}.items():
        assert torch.equal(encoder.embedding[ours[mine]], donor.embedding[theirs[other]]), mine
    drawn = [
        row for piece, row in ours.items() if piece not in both and piece not in encoder.tokenizer.all_special_tokens
    ]
    ratio = float((encoder.embedding[drawn].std() / donor.embedding.std()).detach())
    assert 0.7 < ratio < 1.4


def test_the_same_tokenizer_copies_every_piece(encoder: Any) -> None:
    other = create(TINY_CONFIG, encoder.tokenizer, seed=9)
    assert not torch.equal(other.embedding, encoder.embedding)
    transplant(encoder, other)
    for (name, mine), theirs in zip(
        other.backbone.state_dict().items(), encoder.backbone.state_dict().values(), strict=True
    ):
        if "position" not in name:
            assert torch.equal(mine, theirs), name


def test_fewer_blocks_take_the_lowest(encoder: Any) -> None:
    small = create(TINY_CONFIG | {"num_hidden_layers": 2}, encoder.tokenizer, seed=9)
    transplant(encoder, small)
    assert torch.equal(
        blocks_of(small)[1].attention.self.query.weight, blocks_of(encoder)[1].attention.self.query.weight
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 4}, "3 blocks, 4 are needed"),
        ({"hidden_size": 16}, r"block 0: .* is \[32, 32\], needed \[16, 16\]"),
        ({"max_position_embeddings": 140}, "128 positions, 138 are needed"),
    ],
)
def test_a_body_that_does_not_fit_is_refused(encoder: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        transplant(encoder, create(TINY_CONFIG | change, encoder.tokenizer, seed=9))


def test_a_piece_that_translates_known_ones_begins_among_them(donor: Any, encoder: Any) -> None:
    """By how often it does; known pieces and pieces with too few links stay as they are."""
    ours = encoder.tokenizer.get_vocab()
    known = [ours["a"], ours["e"]]
    piece, rare, other = [row for name, row in ours.items() if len(name) > 3 and name.isalpha()][:3]
    plain = create(TINY_CONFIG, encoder.tokenizer, seed=0)
    transplant(donor, plain)
    links = Translations(
        np.array([piece, piece, rare, known[0], other]),
        np.array([known[0], known[1], known[0], known[1], rare]),
        np.array([3.0, 1.0, 0.1, 9.0, 9.0]),
    )
    taken = transplant(donor, encoder, links)
    assert taken.translated == 1
    a, e = (encoder.embedding[row] for row in known)
    torch.testing.assert_close(encoder.embedding[piece], 0.75 * a + 0.25 * e)
    for row in (rare, other, *known):
        assert torch.equal(encoder.embedding[row], plain.embedding[row])


def test_without_a_body_a_piece_of_translations_begins_among_those_of_the_texts(encoder: Any) -> None:
    """A piece that texts have as often as translations keeps its random vector, and lends it."""
    before = encoder.embedding.detach().clone()
    text, shared, foreign, rare = range(10, 14)
    links = Translations(
        np.array([text, shared, shared, foreign, foreign, rare, text]),
        np.array([text, shared, text, text, shared, text, foreign]),
        np.array([9.0, 5.0, 4.0, 3.0, 1.0, 0.1, 1.0]),
    )
    assert begin_aligned(encoder, links) == 1
    torch.testing.assert_close(encoder.embedding[foreign], 0.75 * before[text] + 0.25 * before[shared])
    others = [row for row in range(len(before)) if row != foreign]
    assert torch.equal(encoder.embedding[others], before[others])
    assert begin_aligned(encoder, NONE) == 0


def test_wordpieces_over_wordpieces_are_copied_by_name(donor: Any) -> None:
    other = create(TINY_CONFIG | {"model_type": "bert", "max_position_embeddings": 128}, donor.tokenizer, seed=9)
    taken = transplant(donor, other)
    assert torch.equal(other.embedding, donor.embedding)
    assert taken.copied == len(donor.tokenizer) - len(donor.tokenizer.all_special_tokens)


def test_wordpieces_over_a_body_of_sentencepieces_are_refused(donor: Any, encoder: Any) -> None:
    with pytest.raises(ModelError, match="WordPiece"):
        transplant(encoder, donor)
