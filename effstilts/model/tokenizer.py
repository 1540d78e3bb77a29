"""A tokenizer of one's own for phase 1 from nothing: Unigram pieces in XLM-R's manner."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from effstilts.errors import ModelError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"


def train_tokenizer(texts: Iterable[str], vocab_size: int, character_coverage: float = 1.0) -> Any:
    """A `tokenizers.Tokenizer`: Unigram (Kudo 2018) over text with word borders marked, `<s> A </s>` around a text and
    `<s> A </s></s> B </s>` around a pair, ids of <s>, <pad>, </s>, <unk> 0 to 3 and <mask> last, as XLM-R's.

    SentencePiece trains the pieces on one thread: the trainer of `tokenizers` gives another vocabulary each time.
    A small text may have fewer than `vocab_size` pieces. character_coverage: share of the characters with a piece.
    ModelError where the pieces are fewer than the characters.
    """
    import sentencepiece
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # Each text once, in a fixed order: the pieces do not depend on how rows were grouped.
            sentence_iterator=iter(sorted(set(texts))),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size - len(SPECIALS) + 2,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            normalization_rule_name="nmt_nfkc",
            num_threads=1,
            max_sentence_length=1 << 20,
            minloglevel=2,
        )
    except RuntimeError as error:
        said = " ".join(str(error).split())[-200:]
        raise ModelError(f"no tokenizer of {vocab_size} pieces can be made of these texts: {said}") from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [
        (trained.id_to_piece(i), trained.get_score(i))
        for i in range(trained.get_piece_size())
        if not (trained.is_control(i) or trained.is_unknown(i))
    ]
    tokenizer = Tokenizer(models.Unigram([*((name, 0.0) for name in SPECIALS), *pieces], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*SPECIALS, MASK])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def as_transformers(tokenizer: Any) -> Any:
    """The tokenizer as transformers' fast tokenizer, to be saved and loaded with AutoTokenizer."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=MASK,
        model_max_length=512,
    )
