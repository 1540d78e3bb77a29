"""What is trained on in many languages: Wikipedia for masked LM, and machine translations of English tasks.

Phang et al. 2020 (section 5) train on both beside the English intermediate tasks. A recipe names the languages:
`{task: mlqa-translated, languages: [de, hi]}`. These are tasks of their own, so that a target that is to be tested
zero-shot never meets them under its own name.
"""

from __future__ import annotations

from effstilts.tasks.intermediate import NLI_COLUMNS, NLI_LABELS, NLI_NUMBERS, SPAN_COLUMNS, SQUAD_SPLITS
from effstilts.tasks.task import Files, Holdout, Hub, Task
from effstilts.tasks.xtreme import PANX_LANGUAGES, XTREME

_OF_XTREME = {task.name: task for task in XTREME}
_MLQA_LANGUAGES = ("ar", "de", "es", "hi", "vi", "zh")
_XNLI_LANGUAGES = _OF_XTREME["xnli"].languages
_PAWSX_LANGUAGES = _OF_XTREME["pawsx"].languages

MULTILINGUAL: tuple[Task, ...] = (
    Task(
        name="wikipedia",
        kind="masked_lm",
        columns={"text": "text"},
        languages=PANX_LANGUAGES,
        holdout=Holdout(share=0.01, by="text"),
        hub=Hub(
            "wikimedia/wikipedia",
            {"train": "train"},
            config="20231101.{lang}",
            revision="b04c8d1ceb2f5cd4588862100d08de323dccfbaa",
        ),
        files=Files(
            {"train": "mlm_text/{lang}.txt"},
            "lines",
            alternatives=(Files({"train": "mlm_text/{lang}.txt.gz"}, "lines"),),
        ),
        evaluate_on="dev",
        max_length=256,
        score="accuracy",
        description="masked LM in XTREME's 40 languages: your own text, a line each, or Wikipedia of November 2023",
    ),
    Task(
        name="mlqa-translated",
        kind="span",
        columns=SPAN_COLUMNS,
        languages=_MLQA_LANGUAGES,
        train_languages=_MLQA_LANGUAGES,
        hub=Hub("facebook/mlqa", SQUAD_SPLITS, config="mlqa-translate-train.{lang}"),
        files=Files(
            {
                split: f"mlqa-translate-train/{{lang}}_squad-translate-train-{split}-v1.1.json"
                for split in ("train", "dev")
            },
            "squad_json",
        ),
        evaluate_on="dev",
        max_length=384,
        score="f1",
        description="SQuAD v1.1 machine-translated into MLQA's other 6 languages (Lewis et al. 2020)",
    ),
    Task(
        name="xnli-translated",
        kind="classification",
        columns=NLI_COLUMNS,
        labels=NLI_LABELS,
        label_values=NLI_NUMBERS,
        languages=_XNLI_LANGUAGES,
        train_languages=_XNLI_LANGUAGES,
        hub=Hub("facebook/xnli", SQUAD_SPLITS, config="{lang}"),
        files=Files(
            {"train": "XNLI-MT-1.0/multinli/multinli.train.{lang}.tsv", "dev": "xtreme/xnli/dev-{lang}.tsv"},
            "tsv",
            formats={"dev": "xnli_tsv"},
            rename={"hypo": "hypothesis"},
        ),
        head="nli",
        evaluate_on="dev",
        score="accuracy",
        description="MNLI machine-translated into XNLI's languages (Conneau et al. 2018)",
    ),
    Task(
        name="pawsx-translated",
        kind="classification",
        columns={"text": "sentence1", "text_pair": "sentence2", "label": "label"},
        labels=("different", "paraphrase"),
        label_values={"0": "different", "1": "paraphrase"},
        languages=_PAWSX_LANGUAGES,
        train_languages=_PAWSX_LANGUAGES,
        hub=Hub("google-research-datasets/paws-x", SQUAD_SPLITS, config="{lang}"),
        files=Files({"train": "x-final/{lang}/translated_train.tsv", "dev": "x-final/{lang}/dev_2k.tsv"}, "tsv"),
        evaluate_on="dev",
        score="accuracy",
        description="PAWS machine-translated into PAWS-X's languages (Yang et al. 2019)",
    ),
)
