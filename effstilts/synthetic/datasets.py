"""Data sets of the artificial languages, each with the columns of the real one that it stands for.

A data set is a pair of functions: `draw` makes a meaning out of (draws, seed, split), `render` writes it in a language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from effstilts.synthetic.draw import Draw
from effstilts.synthetic.inference import draw_pair
from effstilts.synthetic.language import LANGUAGES, Language, World, join
from effstilts.synthetic.language import language as language_of
from effstilts.synthetic.meaning import (
    ANIMATE,
    NAMES,
    NOUNS,
    Event,
    draw_cause,
    draw_event,
    draw_named,
    draw_phrase,
    draw_state,
    nouns_of,
    split_of,
)
from effstilts.synthetic.questions import (
    Choice,
    Reading,
    draw_copa,
    draw_ending,
    draw_object,
    draw_reading,
    question_split,
    squad_row,
)

# A sentence to be: the event, and the part asked for, if it is a question.
Sentence = tuple[Event, str]


@dataclass(frozen=True)
class Place:
    """Where a row stands: its language, English beside it, and its running number."""

    tongue: Language
    english: Language
    split: str
    index: int


@dataclass(frozen=True)
class DatasetInfo:
    """stands_for: the real data set with the same columns. splits; languages: those of dev and test;
    train_languages: those of train, empty where there is no train split. labels: label values -> names. aligned: row
    i has one meaning in every language."""

    stands_for: str
    columns: tuple[str, ...]
    draw: Callable[[Draw, int, str], Any]
    render: Callable[[Any, Place], dict[str, Any]]
    splits: tuple[str, ...] = ("train", "dev", "test")
    languages: tuple[str, ...] = LANGUAGES
    train_languages: tuple[str, ...] = ("en",)
    labels: Mapping[Any, str] = field(default_factory=dict)
    aligned: bool = False


def rows(dataset: str, split: str, language: str, count: int, world: World | None = None) -> Iterator[dict[str, Any]]:
    """The first `count` rows of an endless stream; a longer count only adds rows. No two rows have one meaning.

    ValueError for an unknown data set, split or language, for training rows of a labelled set in another language
    than English (there are none, as in the real sets), and where there are fewer than `count` rows to be had.
    """
    world = world or World()
    _checked(dataset, split, language)
    if count < 0:
        raise ValueError(f"a count of rows is at least 0, got {count}")
    return _rows(dataset, split, language, count, world)


def _checked(dataset: str, split: str, code: str) -> None:
    if dataset not in DATASETS:
        raise ValueError(f"no artificial data set {dataset!r}; there are {', '.join(DATASETS)}")
    info = DATASETS[dataset]
    if split not in info.splits:
        raise ValueError(f"{dataset} has no split {split!r}; it has {', '.join(info.splits)}")
    if code not in LANGUAGES:
        raise ValueError(f"no artificial language {code!r}; there are {', '.join(LANGUAGES)}")
    if code not in info.languages:
        raise ValueError(f"{dataset} ({info.stands_for}) is in {', '.join(info.languages)}, not in {code!r}")
    if split == "train" and code not in info.train_languages:
        raise ValueError(f"{dataset} has training rows in English alone, as {info.stands_for}; {code!r} has none")


def _rows(dataset: str, split: str, code: str, count: int, world: World) -> Iterator[dict[str, Any]]:
    info = DATASETS[dataset]
    tongue, english = language_of(code, world), language_of("en", world)
    stream = "all" if info.aligned else code
    seen: set[Any] = set()
    index = 0
    while len(seen) < count:
        meaning = info.draw(Draw(world.seed, dataset, split, stream, index), world.seed, split)
        index += 1
        if meaning in seen:
            if index > 50 * count + 1000:
                raise ValueError(f"{dataset} ({code}, {split}) has fewer than {count} distinct rows")
            continue
        yield info.render(meaning, Place(tongue, english, split, len(seen)))
        seen.add(meaning)


def bucc(
    language: str, world: World | None = None, *, split: str = "test", sentences: int = 1000, pairs: int = 250
) -> dict[str, list[tuple[str, str]]]:
    """A comparable corpus: {"source": [(id, text)], "target": [(id, text)], "gold": [(source id, target id)]}.

    source is in the language, target in English, `sentences` each and in an order of its own; `pairs` of them
    translate each other and no others do. split: dev (to set a threshold) or test. ValueError for a language that is
    English or unknown, another split, or more pairs than sentences.
    """
    world = world or World()
    if language not in LANGUAGES[1:]:
        raise ValueError(f"bucc pairs English with {', '.join(LANGUAGES[1:])}, not with {language!r}")
    if split not in ("dev", "test"):
        raise ValueError(f"bucc has no split {split!r}; it has dev, test")
    if not 0 <= pairs <= sentences:
        raise ValueError(f"bucc takes 0 to {sentences} pairs out of {sentences} sentences, got {pairs}")
    draw = Draw(world.seed, "bucc", split, language)
    meanings: dict[Event, None] = {}
    while len(meanings) < 2 * sentences - pairs:
        meanings.setdefault(_draw_single(draw, world.seed, split))
    drawn = list(meanings)
    sides = (drawn[:sentences], drawn[:pairs] + drawn[sentences:])
    texts: list[list[tuple[str, str]]] = []
    names: list[dict[int, str]] = []
    for code, events in zip((language, "en"), sides, strict=True):
        tongue = language_of(code, world)
        order = draw.sample(range(sentences), sentences)
        ids = {item: f"{code}-{place + 1:09d}" for place, item in enumerate(order)}
        texts.append([(ids[item], join(tongue.sentence(events[item]))) for item in order])
        names.append(ids)
    gold = [(names[0][item], names[1][item]) for item in range(pairs)]
    return {"source": texts[0], "target": texts[1], "gold": sorted(gold)}


def _draw_single(draw: Draw, seed: int, split: str) -> Event:
    """One statement by itself."""
    kind = draw.below(10)
    if kind < 7:
        return draw_event(draw, seed, split)
    if kind < 8:
        return draw_state(draw, seed, split)
    return draw_cause(draw, seed, split)[0] if kind < 9 else draw_named(draw, seed, split)


def _draw_text(draw: Draw, seed: int, split: str) -> tuple[Sentence, ...]:
    """One to three sentences: statements, a question now and then, a cause and what came of it."""
    sentences: list[Sentence] = []
    target = 1 + draw.below(3)
    while len(sentences) < target:
        kind = draw.below(10)
        if kind == 0:
            sentences.append(_draw_question(draw, seed, split))
        elif kind == 1 and target > 1:
            sentences += [(event, "") for event in draw_cause(draw, seed, split)]
        else:
            sentences.append((_draw_single(draw, seed, split), ""))
    return tuple(sentences[:target])


def _draw_question(draw: Draw, seed: int, split: str) -> Sentence:
    part = draw.choice(("agent", "patient", "place", "number"))
    while True:
        event = draw_event(draw, seed, split, transitive=True, rich=0.3, negated=0.0)
        if part == "number" and event.patient:
            event = event._replace(patient=event.patient._replace(number=2))
        if question_split(seed, event, part) == split:
            return event, part


def _draw_tagged(draw: Draw, seed: int, split: str) -> Sentence:
    kind = draw.below(10)
    if kind < 6:
        return draw_event(draw, seed, split, rich=0.6), ""
    return _draw_question(draw, seed, split) if kind == 6 else (_draw_single(draw, seed, split), "")


def _draw_entities(draw: Draw, seed: int, split: str) -> Sentence:
    return (draw_named if draw.chance(0.8) else draw_event)(draw, seed, split), ""


def _draw_nli(draw: Draw, seed: int, split: str) -> tuple[Event, Event, int]:
    label = draw.below(3)
    return (*draw_pair(draw, seed, split, label), label)


_SWAPPABLE = {"watch": nouns_of(ANIMATE), "follow": nouns_of(ANIMATE), "visit": (), "help": (), "greet": ()}


def _draw_paws(draw: Draw, seed: int, split: str) -> tuple[Event, Event, int]:
    """A sentence and the same words in another order: time or place moved, and roles exchanged where label is 0."""
    label = draw.below(2)
    while True:
        verb = draw.choice(tuple(_SWAPPABLE))
        who = NAMES if draw.chance(0.3) else _SWAPPABLE[verb] or NOUNS["person"]
        one, two = draw.sample(who, 2)
        if split_of(seed, verb, one, two) == split:
            break
    base = draw_event(draw, seed, split, rich=0.7, place=1.0, negated=0.1)
    agent, patient = draw_phrase(draw, one, 0.5), draw_phrase(draw, two, 0.5)
    event = base._replace(verb=verb, agent=agent, patient=patient)
    moves_time = bool(event.time) and draw.chance(0.5)
    other = event._replace(time_moved=moves_time, place_moved=not moves_time)
    if label == 0:
        other = other._replace(agent=patient, patient=agent)
    return (event, other, label) if draw.chance(0.5) else (other, event, label)


def _say(place: Place, event: Event) -> str:
    return join(place.tongue.sentence(event))


def _text(meaning: tuple[Sentence, ...], place: Place) -> dict[str, Any]:
    return {"text": " ".join([join(place.tongue.sentence(event, asked)) for event, asked in meaning])}


def _parallel(event: Event, place: Place) -> dict[str, Any]:
    return {"source": join(place.english.sentence(event)), "target": _say(place, event)}


def _xnli(meaning: tuple[Event, Event, int], place: Place) -> dict[str, Any]:
    premise, hypothesis, label = meaning
    return {"premise": _say(place, premise), "hypothesis": _say(place, hypothesis), "label": label}


def _mnli(meaning: tuple[Event, Event, int], place: Place) -> dict[str, Any]:
    return _xnli(meaning, place) | {"idx": place.index}


def _paws(meaning: tuple[Event, Event, int], place: Place) -> dict[str, Any]:
    one, two, label = meaning
    return {"id": place.index, "sentence1": _say(place, one), "sentence2": _say(place, two), "label": label}


def _squad(reading: Reading, place: Place) -> dict[str, Any]:
    return squad_row(reading, place.tongue, f"{place.tongue.code}-{place.split}-{place.index}")


def _hellaswag(choice: Choice, place: Place) -> dict[str, Any]:
    context = _say(place, choice.premise)
    return {
        "ctx_a": context,
        "ctx_b": "",
        "ctx": context,
        "endings": [_say(place, event) for event in choice.choices],
        "label": str(choice.label),
        "activity_label": place.tongue.stem(choice.choices[0].verb),
        "source_id": f"{place.split}-{place.index}",
    }


def _commonsense_qa(choice: Choice, place: Place) -> dict[str, Any]:
    nouns = [place.tongue.stem(event.patient.noun) for event in choice.choices if event.patient]
    return {
        "id": f"{place.split}-{place.index}",
        "question": join(place.tongue.sentence(choice.premise, "patient")),
        "question_concept": place.tongue.stem(choice.premise.verb),
        "choices": {"label": list("ABCDE"), "text": nouns},
        "answerKey": "ABCDE"[choice.label],
    }


def _xcopa(choice: Choice, place: Place) -> dict[str, Any]:
    one, two = choice.choices
    return {
        "premise": _say(place, choice.premise),
        "choice1": _say(place, one),
        "choice2": _say(place, two),
        "question": choice.question,
        "label": choice.label,
        "idx": place.index,
        "changed": False,
    }


def _udpos(sentence: Sentence, place: Place) -> dict[str, Any]:
    words = place.tongue.sentence(*sentence)
    return {"tokens": [w.form for w in words], "pos_tags": [w.upos for w in words]}


def _panx(sentence: Sentence, place: Place) -> dict[str, Any]:
    words = place.tongue.sentence(*sentence)
    return {
        "tokens": [w.form for w in words],
        "ner_tags": [w.entity for w in words],
        "langs": [place.tongue.code] * len(words),
    }


def _tatoeba(event: Event, place: Place) -> dict[str, Any]:
    return {
        "source_sentence": _say(place, event),
        "target_sentence": join(place.english.sentence(event)),
        "source_lang": place.tongue.code,
        "target_lang": "en",
    }


_FOREIGN = LANGUAGES[1:]
_INTERMEDIATE = ("train", "dev")
_NLI_LABELS = {0: "entailment", 1: "neutral", 2: "contradiction"}
_NLI = ("premise", "hypothesis", "label")
_SPAN = ("id", "title", "context", "question", "answers")
_ENDINGS = ("ctx_a", "ctx_b", "ctx", "endings", "label", "activity_label", "source_id")
_OBJECTS = ("id", "question", "question_concept", "choices", "answerKey")
_COPA = ("premise", "choice1", "choice2", "question", "label", "idx", "changed")
_BITEXT = ("source_sentence", "target_sentence", "source_lang", "target_lang")


def _answerable(draw: Draw, seed: int, split: str) -> Reading:
    return draw_reading(draw, seed, split, 0.0)


def _perhaps_answerable(draw: Draw, seed: int, split: str) -> Reading:
    return draw_reading(draw, seed, split, 1 / 3)


DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({
    "text": DatasetInfo("Wikipedia text", ("text",), _draw_text, _text, ("train", "dev"), train_languages=LANGUAGES),
    "parallel": DatasetInfo("parallel text", ("source", "target"), _draw_single, _parallel, ("train", "dev"),
                            _FOREIGN, _FOREIGN),
    "mnli": DatasetInfo("MNLI", (*_NLI, "idx"), _draw_nli, _mnli, _INTERMEDIATE, labels=_NLI_LABELS),
    "xnli": DatasetInfo("XNLI", _NLI, _draw_nli, _xnli, labels=_NLI_LABELS, aligned=True),
    "pawsx": DatasetInfo("PAWS-X", ("id", "sentence1", "sentence2", "label"), _draw_paws, _paws,
                         labels={0: "different", 1: "paraphrase"}),
    "squad": DatasetInfo("SQuAD v1.1", _SPAN, _answerable, _squad, _INTERMEDIATE),
    "squad_v2": DatasetInfo("SQuAD v2.0", _SPAN, _perhaps_answerable, _squad, _INTERMEDIATE),
    "tydiqa": DatasetInfo("TyDiQA-GoldP", _SPAN, _answerable, _squad),
    "hellaswag": DatasetInfo("HellaSwag", _ENDINGS, draw_ending, _hellaswag, _INTERMEDIATE,
                             labels={str(i): f"ending {i}" for i in range(4)}),
    "commonsense_qa": DatasetInfo("CommonsenseQA", _OBJECTS, draw_object, _commonsense_qa, _INTERMEDIATE,
                                  labels={letter: f"choice {letter}" for letter in "ABCDE"}),
    "xcopa": DatasetInfo("XCOPA", _COPA, draw_copa, _xcopa, labels={0: "choice1", 1: "choice2"}),
    "udpos": DatasetInfo("UD POS", ("tokens", "pos_tags"), _draw_tagged, _udpos),
    "panx": DatasetInfo("PAN-X", ("tokens", "ner_tags", "langs"), _draw_entities, _panx),
    "tatoeba": DatasetInfo("Tatoeba", _BITEXT, _draw_single, _tatoeba, ("test",), _FOREIGN, (), aligned=True),
})  # fmt: skip
