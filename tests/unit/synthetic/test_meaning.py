"""Splits, labels and lexica: properties of the meanings, whatever the language."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effstilts.synthetic import DATASETS, LANGUAGES, World, bucc, rows
from effstilts.synthetic.draw import Draw
from effstilts.synthetic.inference import draw_pair
from effstilts.synthetic.language import join, language
from effstilts.synthetic.meaning import (
    CONTENT,
    FUNCTION,
    Event,
    draw_cause,
    draw_event,
    draw_named,
    draw_state,
    event_split,
)
from effstilts.synthetic.questions import Choice, Reading, question_split

FOREIGN = LANGUAGES[1:]
SPLITS = ("train", "dev", "test")
seeds = st.integers(0, 2**32)
quick = settings(max_examples=60, deadline=None)


@quick
@given(seeds, st.sampled_from(SPLITS), st.integers(0, 5))
def test_a_meaning_is_of_the_split_it_was_drawn_for(seed: int, split: str, world: int) -> None:
    draw = Draw(seed)
    events = [make(draw, world, split) for make in (draw_event, draw_state, draw_named)]
    events += draw_cause(draw, world, split)
    for label in range(3):
        events += draw_pair(draw, world, split, label)
    assert {event_split(world, event) for event in events} == {split}


@quick
@given(seeds, st.sampled_from(SPLITS))
def test_what_does_not_change_the_split(seed: int, split: str) -> None:
    """Number, attributes, place, time, negation and an exchange of roles stay inside the split."""
    event = draw_event(Draw(seed), 0, split, transitive=True)
    assert event.patient is not None
    changed = event._replace(
        agent=event.patient._replace(adjective="", number=3), patient=event.agent, place="", time="", negated=True
    )
    assert event_split(0, changed) == split


@pytest.mark.parametrize("dataset", sorted(DATASETS))
@pytest.mark.parametrize("split", SPLITS)
def test_every_sentence_of_a_row_is_of_its_split(dataset: str, split: str) -> None:
    info = DATASETS[dataset]
    if split not in info.splits:
        return
    for index in range(60):
        for event, part in statements(info.draw(Draw(0, dataset, split, index), 0, split)):
            assert (question_split(0, event, part) if part else event_split(0, event)) == split, event


def statements(meaning: Any) -> list[tuple[Event, str]]:
    """(event, part that is asked for or "") of everything that a row says."""
    if isinstance(meaning, Event):
        return [(meaning, "")]
    if isinstance(meaning, Reading):
        return [*((event, "") for event in meaning.events), (meaning.asked, meaning.part)]
    if isinstance(meaning, Choice):
        if meaning.premise in meaning.choices:  # commonsense_qa: a question and bare nouns
            return [(meaning.premise, "patient")]
        return [(event, "") for event in (meaning.premise, *meaning.choices)]
    if len(meaning) == 2 and isinstance(meaning[1], str):
        return [meaning]
    return [pair for part in meaning if not isinstance(part, int) for pair in statements(part)]


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_no_row_is_in_two_splits(dataset: str) -> None:
    info = DATASETS[dataset]
    code = "qaa" if "qaa" in info.train_languages else info.languages[0]
    found: Counter[str] = Counter()
    for split in info.splits:
        made = list(rows(dataset, split, code, 300))
        assert all(tuple(row) == info.columns for row in made)
        found.update({str({k: v for k, v in row.items() if k not in ("id", "idx", "source_id")}) for row in made})
    assert max(found.values()) == 1


def test_a_paraphrase_or_hypothesis_is_not_in_the_text() -> None:
    told = set()
    for row in rows("text", "train", "en", 6000):
        told |= {s.strip() for s in row["text"].replace("?", ".").split(".")}
    tested = {row[side] for row in rows("pawsx", "test", "en", 300) for side in ("sentence1", "sentence2")}
    tested |= {row["hypothesis"] for row in rows("xnli", "test", "en", 300)}
    tested |= {row["question"] for row in rows("tydiqa", "test", "en", 300)}
    tested |= {row[side] for row in rows("xcopa", "test", "en", 300) for side in ("premise", "choice1", "choice2")}
    assert len(tested) > 1200 and not {text.rstrip(".?") for text in tested} & told


@pytest.mark.parametrize("world", [World(), World(3), World(cognates=1.0), World(cognates=0.0)])
@pytest.mark.parametrize("code", FOREIGN)
def test_a_form_has_one_meaning(code: str, world: World) -> None:
    tongue = language(code, world)
    assert len(set(tongue.stems.values())) == len(set(CONTENT) | set(FUNCTION))
    share = {"qaa": 0.5, "qab": 0.3, "qac": 0.15, "qad": 0.0}[code] if world.cognates is None else world.cognates
    assert len(tongue.cognates) == round(share * len(set(CONTENT)))
    if code != "qad":
        alike = {concept for concept in set(CONTENT) if tongue.stem(concept)[:-1] in (concept, concept[:-1])}
        assert tongue.cognates <= alike and len(alike - tongue.cognates) <= 1


def test_the_other_script_is_another() -> None:
    for row in rows("text", "train", "qad", 200):
        assert not any("a" <= c.lower() <= "z" for c in row["text"])


@pytest.mark.parametrize("code", FOREIGN)
def test_different_meanings_read_differently(code: str) -> None:
    events = {draw_event(Draw("different", i), 0, "train", rich=0.7) for i in range(4000)}
    tongue = language(code, World())
    assert len({join(tongue.sentence(event)) for event in events}) == len(events)


def test_aligned_rows_have_one_meaning() -> None:
    made = {code: list(rows("xnli", "dev", code, 200)) for code in LANGUAGES}
    for code in FOREIGN:
        for own, english in zip(made[code], made["en"], strict=True):
            assert own["label"] == english["label"]
            for side in ("premise", "hypothesis"):
                assert digits(own[side]) == digits(english[side])


def digits(text: str) -> list[str]:
    return sorted(c for c in text if c.isdigit())


@pytest.mark.parametrize(("key", "cap"), [("length", 0.55), ("negations", 0.55), ("shorter", 0.6)])
def test_no_plain_cue_settles_inference(key: str, cap: float) -> None:
    """The accuracy of the best guess from one cue alone; chance is a third."""
    counts: dict[Any, Counter[int]] = {}
    for row in rows("mnli", "train", "en", 3000):
        premise, hypothesis = row["premise"].split(), row["hypothesis"].split()
        cue = {
            "length": len(hypothesis),
            "negations": ("not" in premise, "not" in hypothesis),
            "shorter": (len(hypothesis) > len(premise)) - (len(hypothesis) < len(premise)),
        }[key]
        counts.setdefault(cue, Counter())[row["label"]] += 1
    assert sum(max(by_label.values()) for by_label in counts.values()) / 3000 < cap


def test_negated_premises_turn_directions_round() -> None:
    labels = Counter(row["label"] for row in rows("mnli", "train", "en", 3000) if "not" in row["hypothesis"].split())
    assert min(labels[label] for label in range(3)) > 0.15 * labels.total()


@pytest.mark.parametrize(("dataset", "column"), [("hellaswag", "label"), ("commonsense_qa", "answerKey")])
def test_right_choices_stand_anywhere(dataset: str, column: str) -> None:
    info = DATASETS[dataset]
    found = Counter(row[column] for row in rows(dataset, "dev", "en", 600))
    assert set(found) == set(info.labels)
    assert all(abs(count / 600 - 1 / len(found)) < 0.07 for count in found.values())


@pytest.mark.parametrize("code", LANGUAGES)
def test_questions_have_the_kinds_they_should(code: str) -> None:
    unanswered = [not row["answers"]["text"] for row in rows("squad_v2", "dev", code, 300)]
    assert 0.25 < sum(unanswered) / 300 < 0.42
    numbers = [row["answers"]["text"][0].isdigit() for row in rows("tydiqa", "test", code, 300)]
    assert 0.15 < sum(numbers) / 300 < 0.35


@pytest.mark.parametrize("code", FOREIGN)
def test_comparable_corpora(code: str) -> None:
    corpus = bucc(code, sentences=200, pairs=50)
    source, target = dict(corpus["source"]), dict(corpus["target"])
    assert len(source) == len(target) == 200 and len(set(source.values())) == len(set(target.values())) == 200
    assert len(corpus["gold"]) == 50
    for one, other in corpus["gold"]:
        assert digits(source[one]) == digits(target[other])
    assert corpus == bucc(code, sentences=200, pairs=50) != bucc(code, split="dev", sentences=200, pairs=50)


def test_what_cannot_be_had_is_named() -> None:
    for call, words in (
        (lambda: rows("text", "train", "en", -1), "at least 0"),
        (lambda: rows("parallel", "train", "en", 1), "not in 'en'"),
        (lambda: rows("xnli", "train", "qab", 1), "English alone, as XNLI"),
        (lambda: bucc("en"), "not with 'en'"),
        (lambda: bucc("qaa", split="train"), "no split 'train'"),
        (lambda: bucc("qaa", sentences=5, pairs=6), "0 to 5 pairs"),
        (lambda: World(cognates=1.5), "share"),
        (lambda: World(word_order="french"), "own"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_all_rows_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from effstilts.synthetic import *; "
        "print(hashlib.sha256(repr([list(rows(d, i.splits[-1], c, 8, World(5))) for d, i in DATASETS.items() "
        "for c in i.languages] + [bucc('qad', sentences=9, pairs=3)]).encode()).hexdigest())"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1
