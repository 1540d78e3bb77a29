"""Commonsense in several languages, as multiple choice: COPA, XCOPA, Social IQa, XStoryCloze, XWinograd, Belebele."""

from __future__ import annotations

from effstilts.tasks.intermediate import SQUAD_SPLITS
from effstilts.tasks.task import Files, Hub, Task

# The question that XCOPA and COPA ask, in words (Ponti et al. 2020).
COPA_QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}
COPA_COLUMNS: dict[str, str | tuple[str, ...]] = {
    "prompt": "{premise} {question}",
    "choices": ("choice1", "choice2"),
    "label": "label",
}
XCOPA_LANGUAGES = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")
ONE_OR_TWO = {"1": "0", "2": "1"}
WINOGRAD_COLUMNS: dict[str, str | tuple[str, ...]] = {
    "prompt": "sentence",
    "choices": ("option1", "option2"),
    "label": "answer",
}
STORY_RELEASE = {
    **{f"InputSentence{i}": f"input_sentence_{i}" for i in (1, 2, 3, 4)},
    "RandomFifthSentenceQuiz1": "sentence_quiz1",
    "RandomFifthSentenceQuiz2": "sentence_quiz2",
    "AnswerRightEnding": "answer_right_ending",
}
# FLORES-200 codes of XTREME-R's languages; Belebele has no Quechua.
FLORES_CODES = {
    "en": "eng_Latn", "af": "afr_Latn", "ar": "arb_Arab", "az": "azj_Latn", "bg": "bul_Cyrl", "bn": "ben_Beng",
    "de": "deu_Latn", "el": "ell_Grek", "es": "spa_Latn", "et": "est_Latn", "eu": "eus_Latn", "fa": "pes_Arab",
    "fi": "fin_Latn", "fr": "fra_Latn", "gu": "guj_Gujr", "he": "heb_Hebr", "hi": "hin_Deva", "ht": "hat_Latn",
    "hu": "hun_Latn", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "jv": "jav_Latn", "ka": "kat_Geor",
    "kk": "kaz_Cyrl", "ko": "kor_Hang", "lt": "lit_Latn", "ml": "mal_Mlym", "mr": "mar_Deva", "ms": "zsm_Latn",
    "my": "mya_Mymr", "nl": "nld_Latn", "pa": "pan_Guru", "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn",
    "ru": "rus_Cyrl", "sw": "swh_Latn", "ta": "tam_Taml", "te": "tel_Telu", "th": "tha_Thai", "tl": "tgl_Latn",
    "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn", "wo": "wol_Latn", "yo": "yor_Latn",
    "zh": "zho_Hans",
}  # fmt: skip


def xcopa(name: str, train_first: str, description: str) -> Task:
    """XCOPA, trained on COPA, with or without a task before it."""
    return Task(
        name=name,
        kind="choice",
        columns=COPA_COLUMNS,
        values={"question": COPA_QUESTIONS},
        languages=XCOPA_LANGUAGES,
        train_on="copa",
        train_first=train_first,
        hub=Hub("cambridgeltl/xcopa", {"dev": "validation", "test": "test"}, config="{lang}"),
        files=Files({"dev": "xcopa/val.{lang}.jsonl", "test": "xcopa/test.{lang}.jsonl"}, "jsonl"),
        max_length=64,
        score="accuracy",
        description=description,
    )


REASONING: tuple[Task, ...] = (
    Task(
        name="copa",
        kind="choice",
        columns=COPA_COLUMNS,
        values={"question": COPA_QUESTIONS},
        hub=Hub("aps/super_glue", SQUAD_SPLITS, config="copa", evaluate_on="dev"),
        files=Files(
            {"train": "copa/train-en.jsonl", "dev": "copa/val-en.jsonl", "test": "copa/test-en.jsonl"}, "jsonl"
        ),
        max_length=64,
        score="accuracy",
        description="choice of plausible alternatives (Roemmele et al. 2011)",
    ),
    xcopa("xcopa", "", "COPA in 11 languages (Ponti et al. 2020); trained on English COPA"),
    Task(
        name="siqa",
        kind="choice",
        columns={
            "prompt": "{context} {question}",
            "choices": ("answerA", "answerB", "answerC"),
            "label": "label",
        },
        label_values={"1": "0", "2": "1", "3": "2", "A": "0", "B": "1", "C": "2"},
        hub=Hub("lighteval/siqa", SQUAD_SPLITS),
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
        name="winogrande",
        kind="choice",
        columns=WINOGRAD_COLUMNS,
        label_values=ONE_OR_TWO,
        hub=Hub("allenai/winogrande", SQUAD_SPLITS, config="winogrande_xl"),
        files=Files({"train": "winogrande_1.1/train_xl.jsonl", "dev": "winogrande_1.1/dev.jsonl"}, "jsonl"),
        evaluate_on="dev",
        max_length=96,
        score="accuracy",
        description="which of two names fills the gap (Sakaguchi et al. 2020)",
    ),
    Task(
        name="xwinograd",
        kind="choice",
        columns=WINOGRAD_COLUMNS,
        label_values=ONE_OR_TWO,
        languages=("en", "fr", "ja", "pt", "ru", "zh"),
        train_on="winogrande",
        hub=Hub("Muennighoff/xwinograd", {"test": "test"}, config="{lang}", language_codes={"ja": "jp"}),
        files=Files({"test": "xwinograd/{file_lang}.jsonl"}, "jsonl", language_codes={"ja": "jp"}),
        max_length=96,
        score="accuracy",
        description="Winograd schemas in 6 languages (Tikhonov and Ryabinin 2021); trained on WinoGrande",
    ),
    Task(
        name="xstorycloze",
        kind="choice",
        columns={
            "prompt": "{input_sentence_1} {input_sentence_2} {input_sentence_3} {input_sentence_4}",
            "choices": ("sentence_quiz1", "sentence_quiz2"),
            "label": "answer_right_ending",
        },
        label_values=ONE_OR_TWO,
        languages=("en", "ru", "zh", "es", "ar", "hi", "id", "te", "sw", "eu", "my"),
        hub=Hub("juletxara/xstory_cloze", {"train": "train", "test": "eval"}, config="{lang}"),
        files=Files(
            {
                "train": "xstorycloze/spring2016.val.{lang}.tsv.split_20_80_train.tsv",
                "test": "xstorycloze/spring2016.val.{lang}.tsv.split_20_80_eval.tsv",
            },
            "tsv",
            rename=STORY_RELEASE,
        ),
        max_length=128,
        score="accuracy",
        description="the right ending of a story in 11 languages (Lin et al. 2022); trained on its 360 English rows, "
        "or by `train_on` on another choice task",
    ),
    Task(
        name="belebele",
        kind="choice",
        columns={
            "prompt": "{flores_passage} {question}",
            "choices": ("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"),
            "label": "correct_answer_num",
        },
        label_values={"1": "0", "2": "1", "3": "2", "4": "3"},
        languages=tuple(FLORES_CODES),
        train_on="cosmosqa",
        hub=Hub(
            "facebook/belebele",
            {"test": "test"},
            config="{lang}",
            revision="75b399394a9803252cfec289d103de462763db7c",
            language_codes=FLORES_CODES,
        ),
        files=Files({"test": "belebele/{file_lang}.jsonl"}, "jsonl", language_codes=FLORES_CODES),
        max_length=384,
        score="accuracy",
        description="reading comprehension of FLORES passages in 49 of its languages (Bandarkar et al. 2024); has no "
        "training set: by default trained on Cosmos QA",
    ),
)
