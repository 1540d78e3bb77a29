"""XTREME-R (Ruder et al. 2021): the targets that differ from XTREME's, with its languages, and LASER's whole Tatoeba.

Its XNLI, MLQA and TyDiQA are XTREME's. Mewsli-X and LAReQA are searches in a set of candidates: rows of both sides,
each with its gold partners. From the hub neither can be had in this form (Mewsli-X's rows there are pairs, XQuAD-R's
have lost their sentence breaks), so both are read from the official files alone.
"""

from __future__ import annotations

import dataclasses

from effstilts.tasks.reasoning import xcopa
from effstilts.tasks.task import Files, Hub, Task
from effstilts.tasks.xtreme import (
    ALL_SPLITS,
    PANX_LANGUAGES,
    TATOEBA_CODES,
    UDPOS_LANGUAGES,
    UDPOS_NAMES,
    XTREME,
    english_first,
    tagging_files,
    tatoeba_files,
    tatoeba_hub,
    ud_treebanks,
)

TATOEBA_R_CODES = TATOEBA_CODES | {"az": "aze", "lt": "lit", "pl": "pol", "uk": "ukr", "ro": "ron"}
# The rest of the 112 languages of LASER's data/tatoeba/v1, by its own code where ISO 639-1 is not used above.
_LASER_ONLY = (
    "amh ang arq arz ast awa bel ber bos bre cat cbk ceb cha cor csb cym dan dsb dtp epo fao fry gla gle glg gsw hrv "
    "hsb hye ido ile ina isl kab khm kur kzj lat lfn lvs max mhr mkd mon nds nno nob nov oci orv pam pms slk slv sqi "
    "srp swe swg tat tuk tzl uig uzb war wuu xho yid yue zsm"
)
LASER_CODES = TATOEBA_R_CODES | {"cs": "ces"} | {code: code for code in _LASER_ONLY.split(" ")}
UDPOS_R_NAMES = UDPOS_NAMES | {
    "lt": "Lithuanian", "pl": "Polish", "ro": "Romanian", "uk": "Ukrainian", "wo": "Wolof",
}  # fmt: skip
MEWSLIX_LANGUAGES = english_first("ar,de,en,es,fa,ja,pl,ro,ta,tr,uk")
LAREQA_LANGUAGES = english_first("ar,de,el,en,es,hi,ru,th,tr,vi,zh")
_OF_XTREME = {task.name: task for task in XTREME}


def _tatoeba(name: str, codes: dict[str, str], description: str) -> Task:
    first = sorted(set(TATOEBA_CODES))
    return dataclasses.replace(
        _OF_XTREME["tatoeba"],
        name=name,
        languages=(*first, *(code for code in codes if code not in first)),
        hub=tatoeba_hub(codes),
        files=tatoeba_files(codes),
        description=description,
    )


XTREME_R: tuple[Task, ...] = (
    dataclasses.replace(
        _OF_XTREME["panx"],
        name="xtreme-r/panx",
        languages=(*PANX_LANGUAGES, "qu", "pl", "uk", "az", "lt", "pa", "gu", "ro"),
        hub=dataclasses.replace(_OF_XTREME["panx"].hub, mirror=None),  # type: ignore[type-var]
        description="named entities of WikiANN in XTREME-R's 48 languages",
    ),
    dataclasses.replace(
        _OF_XTREME["udpos"],
        name="xtreme-r/udpos",
        languages=(*UDPOS_LANGUAGES, "lt", "pl", "uk", "wo", "ro"),
        hub=Hub(
            "izhx/xtreme-r-udpos",
            ALL_SPLITS,
            config="{lang}",
            revision="7e002378cc5704114200c479db0c592c7f77f8f8",
            rename={"pos_tags": "tags"},
            evaluate_on="test",
        ),
        files=Files(tagging_files("udpos").paths, "conll_tsv", alternatives=(ud_treebanks("v2.7", UDPOS_R_NAMES),)),
        description="universal POS tags, UD v2.7, in XTREME-R's 38 languages",
    ),
    dataclasses.replace(
        _OF_XTREME["xquad"],
        name="xtreme-r/xquad",
        languages=(*_OF_XTREME["xquad"].languages, "ro"),
        hub=dataclasses.replace(_OF_XTREME["xquad"].hub, mirror=None),  # type: ignore[type-var]
        description="XQuAD with Romanian",
    ),
    _tatoeba("xtreme-r/tatoeba", TATOEBA_R_CODES, "Tatoeba in XTREME-R's 41 languages"),
    _tatoeba("tatoeba-laser", LASER_CODES, "Tatoeba in all 112 languages of LASER's release"),
    xcopa("xtreme-r/xcopa", "siqa", "XCOPA as XTREME-R trains it: first Social IQa, then English COPA"),
    Task(
        name="mewslix",
        kind="candidates",
        columns={"id": "id", "text": "text"},
        languages=MEWSLIX_LANGUAGES,
        files=Files(
            {
                split: (f"mewslix/wikinews_mentions-{split}.jsonl", "mewslix/candidate_set_entities.jsonl")
                for split in ("dev", "test")
            },
            "mewslix_jsonl",
        ),
        max_length=64,
        score="map_at_20",
        description="Mewsli-X: the entity, out of a million, that a mention in the news names (Ruder et al. 2021)",
    ),
    Task(
        name="lareqa",
        kind="candidates",
        columns={"id": "id", "text": "text"},
        languages=LAREQA_LANGUAGES,
        files=Files(
            {"test": "lareqa/xquad-r/{lang}.json"},
            "xquad_r_json",
            alternatives=(Files({"test": "lareqa/{lang}.json"}, "xquad_r_json"),),
        ),
        pooled=True,
        max_length=352,
        score="map_at_20",
        description="LAReQA on XQuAD-R: the sentences, in 11 languages, that answer a question (Roy et al. 2020)",
    ),
)
