"""The nine targets of XTREME (Hu et al. 2020), in the layout of the benchmark's own download folder.

Test labels of XNLI, PAWS-X and others are stripped by the organisers, so the files' labelled split is `dev`; the hub's
sets keep their test labels and are evaluated on `test`. Language lists are those of the official evaluate.py
(google-research/xtreme, commit 838c13b). `google/xtreme` at XTREME_COMMIT is script-free: where the original set is
not, or is not to be had, it stands in as mirror.
"""

from __future__ import annotations

from effstilts.tasks.intermediate import NLI_COLUMNS, NLI_LABELS, NLI_NUMBERS, SPAN_COLUMNS, SQUAD_SPLITS
from effstilts.tasks.task import Files, Holdout, Hub, Task

XTREME_COMMIT = "ec5f1f46e9af79639a90684a7a70a956c4998f04"
ALL_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def english_first(codes: str) -> tuple[str, ...]:
    """Language codes parted by commas, English, the training language, moved or put to the front."""
    return ("en", *(code for code in codes.split(",") if code != "en"))


UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
    "VERB", "X",
)  # fmt: skip
NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")

PANX_LANGUAGES = english_first(
    "ar,he,vi,id,jv,ms,tl,eu,ml,ta,te,af,nl,en,de,el,bn,hi,mr,ur,fa,fr,it,pt,es,bg,ru,ja,ka,ko,th,sw,yo,my,zh,kk,"
    "tr,et,fi,hu"
)
UDPOS_LANGUAGES = english_first(
    "af,ar,bg,de,el,en,es,et,eu,fa,fi,fr,he,hi,hu,id,it,ja,kk,ko,mr,nl,pt,ru,ta,te,th,tl,tr,ur,vi,yo,zh"
)
UDPOS_NAMES = {
    "af": "Afrikaans", "ar": "Arabic", "bg": "Bulgarian", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "kk": "Kazakh", "ko": "Korean", "mr": "Marathi", "nl": "Dutch", "pt": "Portuguese", "ru": "Russian", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "ur": "Urdu", "vi": "Vietnamese", "yo": "Yoruba",
    "zh": "Chinese",
}  # fmt: skip
# LASER's codes of the 36 languages of XTREME.
TATOEBA_CODES = {
    "ar": "ara", "he": "heb", "vi": "vie", "id": "ind", "jv": "jav", "tl": "tgl", "eu": "eus", "ml": "mal",
    "ta": "tam", "te": "tel", "af": "afr", "nl": "nld", "de": "deu", "el": "ell", "bn": "ben", "hi": "hin",
    "mr": "mar", "ur": "urd", "fa": "pes", "fr": "fra", "it": "ita", "pt": "por", "es": "spa", "bg": "bul",
    "ru": "rus", "ja": "jpn", "ka": "kat", "ko": "kor", "th": "tha", "sw": "swh", "zh": "cmn", "kk": "kaz",
    "tr": "tur", "et": "est", "fi": "fin", "hu": "hun",
}  # fmt: skip
TYDIQA_NAMES = {
    "en": "english", "ar": "arabic", "bn": "bengali", "fi": "finnish", "id": "indonesian", "ko": "korean",
    "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip


def tagging_files(folder: str) -> Files:
    """The benchmark's tagging layout: `{folder}/{split}-{lang}.tsv`."""
    return Files(
        {split: f"xtreme/{folder}/{split}-{{lang}}.tsv" for split in ("train", "dev", "test")},
        "conll_tsv",
    )


def ud_treebanks(release: str, language_names: dict[str, str]) -> Files:
    """The treebanks of a UD release as they are unpacked, all of a language one after another."""
    return Files(
        {split: f"ud-treebanks-{release}/UD_{{file_lang}}-*/*-ud-{split}.conllu" for split in ("train", "dev", "test")},
        "conllu",
        language_codes=language_names,
    )


def tatoeba_hub(codes: dict[str, str]) -> Hub:
    return Hub(
        "mteb/tatoeba-bitext-mining",
        {"test": "test"},
        config="{lang}-eng",
        revision="69e8f12da6e31d59addadda9a9c8a2e601a0e282",
        language_codes=codes,
        rename={"sentence1": "source", "sentence2": "target"},
    )


def tatoeba_files(codes: dict[str, str]) -> Files:
    paths = ("tatoeba/tatoeba.{file_lang}-eng.{file_lang}", "tatoeba/tatoeba.{file_lang}-eng.eng")
    return Files({"test": paths}, "aligned_lines", language_codes=codes)


XTREME: tuple[Task, ...] = (
    Task(
        name="xnli",
        kind="classification",
        columns=NLI_COLUMNS,
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS,
        languages=english_first("ar,bg,de,el,en,es,fr,hi,ru,sw,th,tr,ur,vi,zh"),
        train_on="mnli",
        hub=Hub("facebook/xnli", {"dev": "validation", "test": "test"}, config="{lang}", evaluate_on="test"),
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
        languages=english_first("de,en,es,fr,ja,ko,zh"),
        hub=Hub(
            "google-research-datasets/paws-x",
            ALL_SPLITS,
            config="{lang}",
            evaluate_on="test",
            mirror=Hub("google/xtreme", ALL_SPLITS, config="PAWS-X.{lang}", revision=XTREME_COMMIT, evaluate_on="test"),
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
        hub=Hub(
            "google/xtreme",
            ALL_SPLITS,
            config="udpos.{lang}",
            revision=XTREME_COMMIT,
            language_codes=UDPOS_NAMES,
            rename={"pos_tags": "tags"},
            evaluate_on="test",
            absent={"dev": ("kk", "th", "tl", "yo"), "train": ("th", "tl", "yo")},
        ),
        files=Files(tagging_files("udpos").paths, "conll_tsv", alternatives=(ud_treebanks("v2.5", UDPOS_NAMES),)),
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
            ALL_SPLITS,
            config="{lang}",
            rename={"ner_tags": "tags"},
            evaluate_on="test",
            mirror=Hub(
                "google/xtreme",
                ALL_SPLITS,
                config="PAN-X.{lang}",
                revision=XTREME_COMMIT,
                rename={"ner_tags": "tags"},
                evaluate_on="test",
            ),
        ),
        files=tagging_files("panx"),
        evaluate_on="dev",
        score="f1",
        description="named entities of WikiANN in 40 languages (Pan et al. 2017; Rahimi et al. 2019)",
    ),
    Task(
        name="xquad",
        kind="span",
        columns=SPAN_COLUMNS,
        languages=english_first("en,es,de,el,ru,tr,ar,vi,th,zh,hi"),
        train_on="squad",
        hub=Hub(
            "google/xquad",
            {"test": "validation"},
            config="xquad.{lang}",
            revision="51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
            mirror=Hub("google/xtreme", {"test": "validation"}, config="XQuAD.{lang}", revision=XTREME_COMMIT),
        ),
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
        languages=english_first("en,es,de,ar,hi,vi,zh"),
        train_on="squad",
        hub=Hub(
            "facebook/mlqa",
            {"dev": "validation", "test": "test"},
            config="mlqa.{lang}.{lang}",
            evaluate_on="test",
            mirror=Hub(
                "google/xtreme",
                {"dev": "validation", "test": "test"},
                config="MLQA.{lang}.{lang}",
                revision=XTREME_COMMIT,
                evaluate_on="test",
            ),
        ),
        files=Files({"dev": "xtreme/mlqa/dev/dev-context-{lang}-question-{lang}.json"}, "squad_json"),
        evaluate_on="dev",
        max_length=384,
        normaliser="mlqa",
        score="f1",
        description="Wikipedia questions in 7 languages (Lewis et al. 2020); scored with each language's normaliser",
    ),
    Task(
        name="tydiqa",
        kind="span",
        columns=SPAN_COLUMNS,
        languages=english_first("en,ar,bn,fi,id,ko,ru,sw,te"),
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
        name="tatoeba",
        kind="bitext",
        columns={"source": "source", "target": "target"},
        languages=tuple(sorted(TATOEBA_CODES)),
        hub=tatoeba_hub(TATOEBA_CODES),
        files=tatoeba_files(TATOEBA_CODES),
        evaluate_on="test",
        max_length=512,
        score="accuracy",
        description="translations among 1,000 sentences in XTREME's 36 languages (Artetxe and Schwenk 2019)",
    ),
    Task(
        name="bucc2018",
        kind="mining",
        columns={"id": "id", "text": "text"},
        languages=("de", "fr", "ru", "zh"),
        hub=Hub(
            "mteb/BUCC",
            {"test": "test"},
            config="{lang}-en",
            revision="414572247440f0ccacf7eb0bb70a31533a0e5443",
            evaluate_on="test",
            unfold="comparable_corpora",
        ),
        files=Files(
            {
                split: tuple(f"xtreme/bucc2018/{{lang}}-en.{split}.{end}" for end in ("{lang}", "en", "gold"))
                for split in ("dev", "test")
            },
            "bucc",
            # As the shared task gives it out; XTREME takes the sample for dev, and the training corpora to test on.
            alternatives=(
                Files(
                    {
                        split: tuple(f"bucc2018/{{lang}}-en/{{lang}}-en.{own}.{e}" for e in ("{lang}", "en", "gold"))
                        for split, own in (("dev", "sample"), ("test", "training"))
                    },
                    "bucc",
                ),
            ),
        ),
        evaluate_on="dev",
        score="f1",
        description="translations to be found in two comparable corpora (Zweigenbaum et al. 2017)",
    ),
)
