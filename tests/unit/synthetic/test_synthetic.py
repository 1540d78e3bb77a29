from __future__ import annotations

import subprocess
import sys

import pytest

from effstilts.synthetic import DATASETS, LANGUAGES, World, rows
from effstilts.synthetic.language import language
from effstilts.synthetic.meaning import ADJECTIVES, HYPERNYM, VERBS

CONCEPTS = (*HYPERNYM, *VERBS, *ADJECTIVES)


def test_rows_are_the_same_in_every_process() -> None:
    code = "from effstilts.synthetic import rows; print([list(rows(d, 'dev', 'en', 5)) for d in ('xnli', 'tydiqa')])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("0", "77")
    }
    assert outputs == {str([list(rows(d, "dev", "en", 5)) for d in ("xnli", "tydiqa")]) + "\n"}


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_a_longer_stream_begins_like_a_shorter_one(dataset: str) -> None:
    split, code = DATASETS[dataset].splits[-1], DATASETS[dataset].languages[0]
    assert list(rows(dataset, split, code, 40))[:15] == list(rows(dataset, split, code, 15))
    assert (
        len({str({k: v for k, v in r.items() if k not in ("id", "idx")}) for r in rows(dataset, split, code, 40)}) == 40
    )


@pytest.mark.parametrize("code", LANGUAGES)
def test_answers_stand_where_they_say(code: str) -> None:
    unanswered = 0
    for dataset in ("tydiqa", "squad_v2"):
        for row in rows(dataset, "dev", code, 150):
            for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
                assert text and row["context"][start : start + len(text)] == text
            unanswered += not row["answers"]["text"]
    assert 20 < unanswered < 90


@pytest.mark.parametrize("code", LANGUAGES)
def test_tags_fit_their_words(code: str) -> None:
    for dataset, tags in (("udpos", "pos_tags"), ("panx", "ner_tags")):
        for row in rows(dataset, "dev", code, 100):
            assert len(row["tokens"]) == len(row[tags]) > 1
            for before, tag in zip(["O", *row[tags]], row[tags], strict=False):
                assert not tag.startswith("I-") or before[2:] == tag[2:]


def test_splits_share_no_sentence() -> None:
    """What any labelled split of one is evaluated on is in no training rows and no MLM text of the other."""
    trained = {row["text"] for row in rows("text", "train", "en", 6000)}
    sentences = {s.strip() + "." for text in trained for s in text.split(".") if s.strip() and " is " not in s}
    sentences |= {s.strip() + "." for row in rows("mnli", "train", "en", 4000) for s in [row["premise"].rstrip(".")]}
    tests = {row["premise"] for row in rows("xnli", "test", "en", 400)}
    tests |= {row["target_sentence"] for row in rows("tatoeba", "test", "qaa", 400)}
    assert not tests & sentences and len(sentences) > 5000


@pytest.mark.parametrize(
    ("dataset", "label", "shares"), [("xnli", "label", 3), ("xcopa", "label", 2), ("pawsx", "label", 2)]
)
def test_labels_are_balanced(dataset: str, label: str, shares: int) -> None:
    labels = [row[label] for row in rows(dataset, "test", "qab", 600)]
    for value in range(shares):
        assert abs(labels.count(value) / 600 - 1 / shares) < 0.08


def test_length_does_not_give_a_paraphrase_away() -> None:
    for row in rows("pawsx", "dev", "en", 100):
        assert len(row["sentence1"].split()) == len(row["sentence2"].split())


@pytest.mark.parametrize("share", [None, 0.0, 0.4, 1.0])
def test_cognates_are_as_many_as_declared(share: float | None) -> None:
    for code, own in (("qaa", 0.5), ("qab", 0.3), ("qac", 0.15)):
        tongue = language(code, World(cognates=share))
        found = sum(tongue.stem(concept).startswith(concept) for concept in CONCEPTS) / len(CONCEPTS)
        assert abs(found - (own if share is None else share)) < 0.13


def test_word_order_can_be_englishs() -> None:
    own = list(rows("udpos", "dev", "qab", 60))
    english = list(rows("udpos", "dev", "qab", 60, World(word_order="english")))
    verb_last = [r["pos_tags"].index("VERB") / len(r["pos_tags"]) for r in own if "VERB" in r["pos_tags"]]
    verb_middle = [r["pos_tags"].index("VERB") / len(r["pos_tags"]) for r in english if "VERB" in r["pos_tags"]]
    assert sum(verb_last) / len(verb_last) > sum(verb_middle) / len(verb_middle) + 0.2


def test_translations_keep_numbers_and_names() -> None:
    for row in rows("tatoeba", "test", "qaa", 200):
        digits = [sorted(c for c in row[side] if c.isdigit()) for side in ("source_sentence", "target_sentence")]
        assert digits[0] == digits[1]
        names = {w.strip(".") for w in row["target_sentence"].split() if w[0].isupper()}
        assert all(name in row["source_sentence"] for name in names)


def test_what_does_not_exist_is_named() -> None:
    for arguments, words in (
        (("nli", "train", "en"), "no artificial data set 'nli'"),
        (("mnli", "test", "en"), "no split 'test'"),
        (("xnli", "dev", "de"), "no artificial language 'de'"),
        (("mnli", "train", "qaa"), "English alone"),
    ):
        with pytest.raises(ValueError, match=words):
            list(rows(*arguments, 1))
