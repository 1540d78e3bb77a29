"""What is fuzzed: small real inputs of each form, and how one is tried."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effstilts.data.sources import DataConfig, load
from effstilts.data.xtreme_folders import FolderScores, _score_file
from effstilts.evaluation.xtreme import BENCHMARKS
from effstilts.recipe_reader import load_recipe, shipped_recipes
from effstilts.store import canonical_json, read_manifest, signed
from effstilts.tasks.registry import declare, declare_all, naming_dev

Attempt = Callable[[Path, bytes], object]


@dataclass(frozen=True)
class Target:
    """seeds: real inputs; words: what is put in; tree: "json" or "yaml" where the input is a tree."""

    seeds: tuple[bytes, ...]
    attempt: Attempt
    words: tuple[bytes, ...] = ()
    tree: str = ""


# What is tried


def _recipe(folder: Path, raw: bytes) -> object:
    path = folder / "recipe.yaml"
    path.write_bytes(raw)
    recipe = load_recipe(str(path))
    declare_all(recipe.tasks)
    return len(naming_dev(recipe.tasks)) + len(recipe.targets)


def _manifest(folder: Path, raw: bytes) -> object:
    (folder / "manifest.json").write_bytes(raw)
    read_manifest(folder)
    try:
        # As a forger would: the same document with the hash that fits.
        document = json.loads(raw)
        body = {k: v for k, v in document.items() if k != "sha256"}
        digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps({"sha256": digest, **body}, indent=1, ensure_ascii=False))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return 0
    return len(read_manifest(folder)["files"])


def _forged(folder: Path, raw: bytes) -> object:
    """The document is taken as the content, and signed: what is behind the hash is reached each time."""
    try:
        text = signed(json.loads(raw))
        (folder / "manifest.json").write_text(text)
    except (ValueError, AttributeError, TypeError, RecursionError):
        (folder / "manifest.json").write_bytes(raw)
    return len(read_manifest(folder)["files"])


def _rows(form: str, ending: str, spec: dict[str, Any]) -> Attempt:
    tasks: dict[Path, Any] = {}

    def attempt(folder: Path, raw: bytes) -> object:
        path = folder / f"input.{ending}"
        path.write_bytes(raw)
        if path not in tasks:
            tasks[path] = declare(
                "fuzzed", {**spec, "languages": ["en"], "format": form, "files": {"train": str(path)}}
            )
        return len(load(tasks[path], "train", "en", DataConfig(source="files")).examples)

    return attempt


def _predictions(task: str, language: str, beside: bytes, gold: bool = False) -> Attempt:
    """The input as predictions, scored against the gold that stands beside it; or as gold against predictions."""
    target = BENCHMARKS["xtreme-r" if task in BENCHMARKS["xtreme-r"].targets else "xtreme"].targets[task]

    def attempt(folder: Path, raw: bytes) -> object:
        one, other = folder / f"input.{target.suffix}", folder / f"beside.{target.suffix}"
        one.write_bytes(raw)
        other.write_bytes(beside)
        predictions, labels = (other, one) if gold else (one, other)
        return sorted(_score_file(target, language, predictions, labels, "1.x", FolderScores()))

    return attempt


# Small real inputs, in the official files' forms

XNLI = (
    "And he said, Mama, I'm home.\tHe called his mom.\tneutral\nYeah.\tNo.\tcontradiction\nÉl dijo.\tSí.\tentailment\n"
)
PAWSX = "The NBA season was his.\tHis was the season.\t1\nIt is a town.\tA town it is not.\t0\n"
PANX = "R.H.\tB-PER\nSaunders\tI-PER\n(\tO\n\nSt.\tB-LOC\nLawrence\tI-LOC\nRiver\tI-LOC\n\n"
PREFIXED = "en:R.H.\tB-PER\nen:ran\tO\n\nen:Rome\tB-LOC\n\n"
CONLLU = """# sent_id = 1
# text = They don't buy books.
1\tThey\tthey\tPRON\tPRP\tCase=Nom|Number=Plur\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tbuy\tbuy\tVERB\tVBP\t_\t0\troot\t_\t_
4.1\tlots\tlot\tNOUN\t_\t_\t_\t_\t4:obj\t_
5\tbooks\tbook\tNOUN\tNNS\t_\t4\tobj\t_\tSpaceAfter=No
6\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\t_

# sent_id = 2
1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_

"""
SQUAD = json.dumps(
    {
        "version": "1.1",
        "data": [
            {
                "title": "Super Bowl 50",
                "paragraphs": [
                    {
                        "context": "The Panthers defense gave up 308 points. Łódź lies in Poland.",
                        "qas": [
                            {"id": "q1", "question": "How many?", "answers": [{"text": "308", "answer_start": 29}]},
                            {"id": "q2", "question": "Where?", "answers": [{"text": "Poland", "answer_start": 54}]},
                        ],
                    }
                ],
            }
        ],
    }
)
COPA = json.dumps(
    {
        "premise": "The man ran.",
        "choice1": "He was late.",
        "choice2": "It rained.",
        "question": "cause",
        "label": 0,
        "idx": 1,
    }
)
CSQA = json.dumps(
    {
        "answerKey": "A",
        "id": "1a",
        "question": {
            "question_concept": "x",
            "choices": [{"label": "A", "text": "bank"}, {"label": "B", "text": "mall"}],
            "stem": "Where is a revolving door?",
        },
    }
)
LABELS, TAGS = b"neutral\nentailment\n", b"O\nB-PER\n\nI-LOC\n\n"
PAIRS, CHOICES = b"de-000001\ten-000002\nde-3\ten-4\n", b'{"label": 0}\n{"label": 1}\n'
MANIFEST = {
    "facts": {"label": "mlm", "steps": 6, "history": [{"step": 1, "score": 0.5}], "cost": {"seconds": 1.25}},
    "files": {
        "rows.arrow": {"sha256": "ab" * 32, "bytes": 10},
        "encoder/config.json": {"sha256": "cd" * 32, "bytes": 0},
    },
}
RECIPE = """
name: small
model: {name: new, vocab_size: 300, config: {model_type: xlm-roberta, hidden_size: 16}}
seeds: [1, 2]
training: {batch_size: 4, learning_rate: 1e-3, precision: fp32, checkpoint_every: 1}
method: {name: lora, rank: 8, alpha: 16, carry: merge}
mlm: {tasks: [tiny/text], training: {steps: 2}, method: {name: full}}
intermediate: {baseline: {}, nli: {tasks: [{task: synthetic/mnli, rows: 16, weight: 2}], temperature: 2}}
targets: [{task: synthetic/xnli, rows: 16, languages: [en, qaa], training: &t {epochs: 2}}, synthetic/udpos]
retrieval: {tasks: [synthetic/tatoeba], languages: [qaa], rows: 8}
engine: {name: plain}
tasks:
  tiny/text: {kind: masked_lm, files: {train: "text.{lang}.txt"}, languages: [en], max_length: 32}
  own: {kind: classification, labels: [a, b], languages: [en], columns: {text: t, text_pair: "{p} {q}", label: l},
        files: {train: {path: a.csv, format: csv}}, label_values: {x: a}}
"""
_NLI = {"extends": "xnli"}
ANSWERS = json.dumps({"q1": "308", "q2": "in Poland", "q3": ""})
RANKINGS = json.dumps({"q1": ["a", "b", "c"], "q2": ["c"]})

TARGETS: dict[str, Target] = {
    "recipes": Target(
        (RECIPE.encode(), *(path.read_bytes() for path in shipped_recipes().values())),
        _recipe,
        (
            b"&a",
            b"*a",
            b"<<: *t",
            b"!!python/name:os.system",
            b"!!set",
            b"? ",
            b"|\n",
            b">-\n",
            b"1:30",
            b"0x1F",
            b"~",
            b"yes",
            b"2020-01-01",
            b"- ",
            b"---\n",
            b"steps: 0",
            b"rank: 0",
            b"{lang}",
            b"{x.y}",
        ),
        "yaml",
    ),
    "manifests": Target(
        (signed(MANIFEST).encode(), signed({"facts": {}, "files": {}}).encode()), _manifest, (), "json"
    ),
    "forged manifests": Target((json.dumps(MANIFEST).encode(), b'{"facts": {}, "files": {}}'), _forged, (), "json"),
    "xnli tsv": Target((XNLI.encode(),), _rows("xnli_tsv", "tsv", _NLI), (b"neutral", b"contradictory")),
    "pawsx tsv": Target((PAWSX.encode(),), _rows("pawsx_tsv", "tsv", {"extends": "pawsx"}), (b"0", b"2", b"\t1")),
    "tags tsv": Target(
        (PANX.encode(), PREFIXED.encode()),
        _rows("conll_tsv", "tsv", {"extends": "panx"}),
        (b"B-LOC", b"en:", b"de:", b"\tO"),
    ),
    "headed tsv": Target(
        (b"id\tquestion1\tquestion2\tis_duplicate\n1\tWhy?\tHow?\t0\n2\tA\tB\t1\n",),
        _rows(
            "qqp_tsv",
            "tsv",
            {"extends": "qqp", "columns": {"text": "question1", "text_pair": "question2", "label": "is_duplicate"}},
        ),
    ),
    "csv": Target(
        (b'a,b\n"x, ""y""",neutral\n"two\nlines",entailment\n',),
        _rows("csv", "csv", {"extends": "xnli", "columns": {"text": "a", "text_pair": "a", "label": "b"}}),
        (b'"', b'""', b","),
    ),
    "conllu": Target(
        (CONLLU.encode(),),
        _rows("conllu", "conllu", {"extends": "udpos"}),
        (b"1-2", b"1.1", b"_", b"\tVERB\t", b"\tX", b"0", b"2-1", b"# newdoc", b"999999999999999999999"),
    ),
    "squad json": Target(
        (SQUAD.encode(),), _rows("squad_json", "json", {"extends": "xquad"}), (b'"answer_start": -1',), "json"
    ),
    "jsonl": Target(
        ((COPA.encode() + b"\n") * 2,), _rows("jsonl", "jsonl", {"extends": "xcopa"}), (b'"label": 2',), "jsonl"
    ),
    "commonsenseqa": Target(
        ((CSQA.encode() + b"\n") * 2,),
        _rows("commonsenseqa_jsonl", "jsonl", {"extends": "commonsenseqa"}),
        (b'"answerKey": "Z"',),
        "jsonl",
    ),
    "predicted labels": Target((LABELS,), _predictions("xnli", "de", LABELS), (b"neutral\n",)),
    "predicted tags": Target((TAGS,), _predictions("panx", "de", TAGS), (b"B-PER\n", b"\n", b"O\n")),
    "predicted pairs": Target((PAIRS,), _predictions("bucc2018", "de", PAIRS), (b"de-1\ten-1\n",)),
    "predicted answers": Target(
        (ANSWERS.encode(),), _predictions("xquad", "de", SQUAD.encode()), (b'"q1"', b'"data"'), "json"
    ),
    "gold answers": Target((SQUAD.encode(),), _predictions("xquad", "de", ANSWERS.encode(), gold=True), (), "json"),
    "gold tags": Target((TAGS,), _predictions("panx", "de", TAGS, gold=True), (b"B-PER\n", b"\n", b"O\n")),
    "predicted choices": Target((CHOICES,), _predictions("xcopa", "it", CHOICES), (), "jsonl"),
    "predicted rankings": Target(
        (RANKINGS.encode(),), _predictions("mewslix", "de", RANKINGS.encode()), (b'"q1"',), "json"
    ),
}
