"""A tokenizer of one's own for phase 1 from nothing: Unigram pieces in XLM-R's manner."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A `tokenizers.Tokenizer`: Unigram (Kudo 2018) over text with word borders marked, `<s> A </s>` around a text and
    `<s> A </s></s> B </s>` around a pair, ids of <s>, <pad>, </s>, <unk> 0 to 3 and <mask> last, as XLM-R's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - 1, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False
    )
    # Each text once, in a fixed order: the trainer's counts do not depend on how rows were grouped.
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    tokenizer.add_special_tokens([MASK])
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
