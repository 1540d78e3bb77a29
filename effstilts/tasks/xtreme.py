"""The targets of XTREME (Hu et al. 2020), in the layout of the benchmark's own download folder.

Test labels of XNLI, PAWS-X and others are stripped by the organisers, so the files' labelled split is `dev`. Language
lists are those of the official evaluate.py (google-research/xtreme, commit 838c13b).
"""

from __future__ import annotations

from effstilts.tasks.intermediate import NLI_COLUMNS, NLI_LABELS, NLI_NUMBERS, SPAN_COLUMNS, SQUAD_SPLITS
from effstilts.tasks.task import Files, Holdout, Hub, Task


def _english_first(codes: str) -> tuple[str, ...]:
    return ("en", *(code for code in codes.split(",") if code != "en"))


UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
    "VERB", "X",
)  # fmt: skip
NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")

PANX_LANGUAGES = _english_first(
    "ar,he,vi,id,jv,ms,tl,eu,ml,ta,te,af,nl,en,de,el,bn,hi,mr,ur,fa,fr,it,pt,es,bg,ru,ja,ka,ko,th,sw,yo,my,zh,kk,"
    "tr,et,fi,hu"
)
UDPOS_LANGUAGES = _english_first(
    "af,ar,bg,de,el,en,es,et,eu,fa,fi,fr,he,hi,hu,id,it,ja,kk,ko,mr,nl,pt,ru,ta,te,th,tl,tr,ur,vi,yo,zh"
)
# LASER's codes of the 36 languages of XTREME, and of the further ones of XTREME-R and of its data folder.
TATOEBA_CODES = {
    "af": "afr", "ar": "ara", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "es": "spa", "et": "est",
    "eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind",
    "it": "ita", "ja": "jpn", "jv": "jav", "ka": "kat", "kk": "kaz", "ko": "kor", "ml": "mal", "mr": "mar",
    "nl": "nld", "pt": "por", "ru": "rus", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl",
    "tr": "tur", "ur": "urd", "vi": "vie", "zh": "cmn", "az": "aze", "lt": "lit", "pl": "pol", "uk": "ukr",
    "ro": "ron", "cs": "ces",
}  # fmt: skip
TYDIQA_NAMES = {
    "en": "english", "ar": "arabic", "bn": "bengali", "fi": "finnish", "id": "indonesian", "ko": "korean",
    "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip
# The question that XCOPA and COPA ask, in words (Ponti et al. 2020).
COPA_QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}
COPA_COLUMNS: dict[str, str | tuple[str, ...]] = {
    "prompt": "{premise} {question}",
    "choices": ("choice1", "choice2"),
    "label": "label",
}

XTREME: tuple[Task, ...] = (
    Task(
        name="xnli",
        kind="classification",
        columns=NLI_COLUMNS,
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS,
        languages=_english_first("ar,bg,de,el,en,es,fr,hi,ru,sw,th,tr,ur,vi,zh"),
        train_on="mnli",
        hub=Hub("facebook/xnli", {"dev": "validation", "test": "test"}, config="{lang}"),
        files=Files({"dev": "xtreme/xnli/dev-{lang}.tsv"}, "xnli_tsv"),
        evaluate_on="dev",
        score="accuracy",
        description="natural language inference in 15 languages (Conneau et al. 2018); trained on MNLI",
    ),
    Task(
        name="pawsx",
        kind="classification",
        columns={"text": "sentence1", "text_pair": "sentence2", "label": "label"},
        labels=("different", "paraphrase"),
        label_values={"0": "different", "1": "paraphrase"},
        languages=_english_first("de,en,es,fr,ja,ko,zh"),
        hub=Hub(
            "google-research-datasets/paws-x",
            {"train": "train", "dev": "validation", "test": "test"},
            config="{lang}",
        ),
        files=Files({"train": "xtreme/pawsx/train-{lang}.tsv", "dev": "xtreme/pawsx/dev-{lang}.tsv"}, "pawsx_tsv"),
        evaluate_on="dev",
        score="accuracy",
        description="paraphrase against word swaps in 7 languages (Yang et al. 2019)",
    ),
    Task(
        name="udpos",
        kind="tagging",
        columns={"tokens": "tokens", "tags": "tags"},
        labels=(*UPOS, "_"),
        languages=UDPOS_LANGUAGES,
        files=Files(
            {
                "train": "xtreme/udpos/train-{lang}.tsv",
                "dev": "xtreme/udpos/dev-{lang}.tsv",
                "test": "xtreme/udpos/test-{lang}.tsv",
            },
            "conll_tsv",
        ),
        evaluate_on="dev",
        score="f1",
        description="universal POS tags, UD v2.5; scored as XTREME does, by span F1 over tags",
    ),
    Task(
        name="panx",
        kind="tagging",
        columns={"tokens": "tokens", "tags": "tags"},
        labels=NER,
        languages=PANX_LANGUAGES,
        hub=Hub(
            "unimelb-nlp/wikiann",
            {"train": "train", "dev": "validation", "test": "test"},
            config="{lang}",
            rename={"ner_tags": "tags"},
        ),
        files=Files(
            {
                "train": "xtreme/panx/train-{lang}.tsv",
                "dev": "xtreme/panx/dev-{lang}.tsv",
                "test": "xtreme/panx/test-{lang}.tsv",
            },
            "conll_tsv",
        ),
        evaluate_on="dev",
        score="f1",
        description="named entities of WikiANN in 40 languages (Pan et al. 2017; Rahimi et al. 2019)",
    ),
    Task(
        name="xquad",
        kind="span",
        columns=SPAN_COLUMNS,
        languages=_english_first("en,es,de,el,ru,tr,ar,vi,th,zh,hi"),
        train_on="squad",
        hub=Hub("google/xquad", {"test": "validation"}, config="xquad.{lang}"),
        files=Files(
            {"test": "xtreme/xquad/xquad.{lang}.json"},
            "squad_json",
            alternatives=(Files({"test": "xquad/xquad.{lang}.json"}, "squad_json"),),
        ),
        evaluate_on="test",
        max_length=384,
        score="f1",
        description="SQuAD's dev questions in 11 languages (Artetxe et al. 2020); trained on SQuAD v1.1",
    ),
    Task(
        name="mlqa",
        kind="span",
        columns=SPAN_COLUMNS,
        languages=_english_first("en,es,de,ar,hi,vi,zh"),
        train_on="squad",
        hub=Hub("facebook/mlqa", {"dev": "validation", "test": "test"}, config="mlqa.{lang}.{lang}"),
        files=Files({"dev": "xtreme/mlqa/dev/dev-context-{lang}-question-{lang}.json"}, "squad_json"),
        evaluate_on="dev",
        max_length=384,
        score="f1",
        description="Wikipedia questions in 7 languages (Lewis et al. 2020); scored with SQuAD's normaliser",
    ),
    Task(
        name="tydiqa",
        kind="span",
        columns=SPAN_COLUMNS,
        languages=_english_first("en,ar,bn,fi,id,ko,ru,sw,te"),
        holdout=Holdout(share=0.1, by="context"),
        hub=Hub(
            "google-research-datasets/tydiqa",
            SQUAD_SPLITS | {"test": "validation"},
            config="secondary_task",
            language_codes=TYDIQA_NAMES,
            language_of_id=True,
            counts={"train/en": 3696},
        ),
        files=Files(
            {
                "train": "xtreme/tydiqa/tydiqa.goldp.{lang}.train.json",
                "test": "xtreme/tydiqa/tydiqa.goldp.{lang}.train.json",
            },
            "squad_json",
        ),
        evaluate_on="test",
        max_length=384,
        score="f1",
        description="TyDiQA-GoldP (Clark et al. 2020); the dev answers are stripped, so the folder's other languages "
        "are tested on their train files and English dev is a tenth of train",
    ),
    Task(
        name="copa",
        kind="choice",
        columns=COPA_COLUMNS,
        values={"question": COPA_QUESTIONS},
        hub=Hub("aps/super_glue", {"train": "train", "dev": "validation"}, config="copa"),
        files=Files(
            {"train": "copa/train-en.jsonl", "dev": "copa/val-en.jsonl", "test": "copa/test-en.jsonl"}, "jsonl"
        ),
        max_length=64,
        score="accuracy",
        description="choice of plausible alternatives (Roemmele et al. 2011)",
    ),
    Task(
        name="xcopa",
        kind="choice",
        columns=COPA_COLUMNS,
        values={"question": COPA_QUESTIONS},
        languages=("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"),
        train_on="copa",
        hub=Hub("cambridgeltl/xcopa", {"dev": "validation", "test": "test"}, config="{lang}"),
        files=Files({"dev": "xcopa/val.{lang}.jsonl", "test": "xcopa/test.{lang}.jsonl"}, "jsonl"),
        max_length=64,
        score="accuracy",
        description="COPA in 11 languages (Ponti et al. 2020); trained on English COPA",
    ),
    Task(
        name="siqa",
        kind="choice",
        columns={
            "prompt": "{context} {question}",
            "choices": ("answerA", "answerB", "answerC"),
            "label": "label",
        },
        label_values={"1": "0", "2": "1", "3": "2", "A": "0", "B": "1", "C": "2"},
        hub=Hub("lighteval/siqa", {"train": "train", "dev": "validation"}),
        files=Files(
            {
                "train": "siqa/socialIQa_v1.4_trn.jsonl",
                "dev": "siqa/socialIQa_v1.4_dev.jsonl",
                "test": "siqa/socialIQa_v1.4_tst.jsonl",
            },
            "jsonl",
            rename={"correct": "label"},
        ),
        evaluate_on="dev",
        max_length=96,
        score="accuracy",
        description="social commonsense (Sap et al. 2019)",
    ),
    Task(
        name="tatoeba",
        kind="bitext",
        columns={"source": "source", "target": "target"},
        languages=tuple(TATOEBA_CODES),
        hub=Hub(
            "mteb/tatoeba-bitext-mining",
            {"test": "test"},
            config="{lang}-eng",
            language_codes=TATOEBA_CODES,
            rename={"sentence1": "source", "sentence2": "target"},
        ),
        files=Files(
            {"test": ("tatoeba/tatoeba.{file_lang}-eng.{file_lang}", "tatoeba/tatoeba.{file_lang}-eng.eng")},
            "aligned_lines",
            language_codes=TATOEBA_CODES,
        ),
        evaluate_on="test",
        max_length=512,
        score="accuracy",
        description="translations among 1,000 sentences (Artetxe and Schwenk 2019)",
    ),
    Task(
        name="bucc2018",
        kind="mining",
        columns={"id": "id", "text": "text"},
        languages=("de", "fr", "ru", "zh"),
        files=Files(
            {"dev": tuple(f"xtreme/bucc2018/{{lang}}-en.dev.{end}" for end in ("{lang}", "en", "gold"))}, "bucc"
        ),
        evaluate_on="dev",
        score="f1",
        description="translations to be found in two comparable corpora (Zweigenbaum et al. 2017); rows and gold only, "
        "no phase scores it yet",
    ),
)
