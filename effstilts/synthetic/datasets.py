"""Data sets of the artificial languages, each with the columns of the real one that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from effstilts.synthetic.draw import Draw
from effstilts.synthetic.language import LANGUAGES, Language, Word, World, join, language
from effstilts.synthetic.meaning import (
    ADJECTIVES,
    ANTONYM,
    CAUSATIVES,
    CAUSED_KINDS,
    COMPANIES,
    COMPANY_KINDS,
    HYPERNYM,
    NAMES,
    NOUNS,
    PLACES,
    RELATIONS,
    SURNAMES,
    TIMES,
    TOWNS,
    VERBS,
    Event,
    Phrase,
    draw_event,
    event_split,
    nouns_of,
    split_of,
)

_TRANSITIVE = tuple(verb for verb, kinds in VERBS.items() if kinds)

Make = Callable[[Draw, Language, World, str, int], dict[str, Any]]


@dataclass(frozen=True)
class DatasetInfo:
    """stands_for: the real data set with the same columns. aligned: row i has one meaning in every language."""

    stands_for: str
    make: Make
    splits: tuple[str, ...] = ("train", "dev", "test")
    aligned: bool = False
    every_language_trains: bool = False


def rows(
    dataset: str, split: str, language_code: str, count: int, world: World | None = None
) -> Iterator[dict[str, Any]]:
    """The first `count` rows of an endless stream; a longer count only adds rows.

    ValueError for an unknown data set, split or language, and for training rows of a labelled set in another language
    than English: there are none, as in the real sets.
    """
    world = world or World()
    if dataset not in DATASETS:
        raise ValueError(f"no artificial data set {dataset!r}; there are {', '.join(DATASETS)}")
    info = DATASETS[dataset]
    if split not in info.splits:
        raise ValueError(f"{dataset} has no split {split!r}; it has {', '.join(info.splits)}")
    if language_code not in LANGUAGES:
        raise ValueError(f"no artificial language {language_code!r}; there are {', '.join(LANGUAGES)}")
    if split == "train" and language_code != "en" and not info.every_language_trains:
        raise ValueError(f"{dataset} has training rows in English alone, as the real set; {language_code!r} has none")
    tongue = language(language_code, world)
    stream = "all" if info.aligned else language_code
    seen: set[str] = set()
    index = 0
    while len(seen) < count:
        made = info.make(Draw(world.seed, dataset, split, stream, index), tongue, world, split, index)
        index += 1
        # Rows are distinct; the key leaves out running numbers.
        key = str([value for name, value in made.items() if name not in ("id", "idx", "source_id")])
        if key in seen:
            if index > 50 * count + 1000:
                raise ValueError(f"{dataset} ({language_code}, {split}) has fewer than {count} distinct rows")
            continue
        seen.add(key)
        yield made


def _text(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    sentences = []
    for _ in range(1 + draw.below(2)):
        kind = draw.below(10)
        if kind < 6:
            sentences.append(tongue.sentence(draw_event(draw, world.seed, split)))
        elif kind < 8:
            sentences.append(_state(draw, tongue, world, split))
        elif kind < 9:
            sentences.append(_named(draw, tongue, world, split)[0])
        else:
            event = draw_event(draw, world.seed, split, transitive=True)
            sentences.append(tongue.sentence(event, draw.choice(("agent", "patient"))))
    return {"text": " ".join(join(words) for words in sentences)}


def _state(draw: Draw, tongue: Language, world: World, split: str) -> list[Word]:
    """Someone does something to a thing, or the thing is in a state."""
    cause, effect = _causal(draw, world, split)
    return tongue.sentence(effect if draw.chance(0.5) else cause)


def _parallel(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    event = draw_event(draw, world.seed, split)
    return {"source": join(language("en", world).sentence(event)), "target": join(tongue.sentence(event))}


def _nli(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    label = draw.below(3)
    while True:
        premise = draw_event(draw, world.seed, split, transitive=True, rich=0.6, names=0.15)
        hypothesis = (_entailed, _neutral, _contradicted)[label](draw, premise)
        if hypothesis is not None:
            break
    return {
        "premise": join(tongue.sentence(premise)),
        "hypothesis": join(tongue.sentence(hypothesis)),
        "label": label,
        "idx": index,
    }


def _entailed(draw: Draw, event: Event) -> Event | None:
    """Less is said: a modifier goes, or a noun becomes its hypernym. A negated event keeps all, in another order."""
    assert event.patient is not None
    if event.negated:
        return replace(event, time_first=not event.time_first) if event.time else None
    options: list[Event] = []
    if event.place:
        options.append(replace(event, place="", relation=""))
    if event.patient.adjective:
        options.append(replace(event, patient=replace(event.patient, adjective="")))
    if event.agent.adjective:
        options.append(replace(event, agent=replace(event.agent, adjective="")))
    if event.patient.count == 1 and not event.patient.adjective:
        options.append(replace(event, patient=Phrase(HYPERNYM[event.patient.noun])))
    return draw.choice(options) if options else None


def _neutral(draw: Draw, event: Event) -> Event | None:
    """More is said than is known."""
    assert event.patient is not None
    options: list[Event] = []
    if not event.place:
        options.append(replace(event, place=draw.choice(PLACES), relation=draw.choice(RELATIONS)))
    if not event.patient.adjective:
        options.append(replace(event, patient=replace(event.patient, adjective=draw.choice(ADJECTIVES))))
    if not event.agent.adjective and not event.agent.is_name:
        options.append(replace(event, agent=replace(event.agent, adjective=draw.choice(ADJECTIVES))))
    return draw.choice(options) if options else None


def _contradicted(draw: Draw, event: Event) -> Event | None:
    """The opposite is said: of the whole, of an attribute, of a number, of the place."""
    assert event.patient is not None
    options = [replace(event, negated=not event.negated)]
    if not event.negated:
        for side in ("agent", "patient"):
            phrase: Phrase = getattr(event, side)
            if phrase.adjective:
                changed = replace(phrase, adjective=ANTONYM[phrase.adjective])
                options.append(_with(event, side, changed))
            if phrase.count > 1:
                changed = replace(phrase, count=2 + (phrase.count - 1) % 8)
                options.append(_with(event, side, changed))
        if event.place:
            others = [place for place in PLACES if place != event.place]
            options.append(replace(event, place=draw.choice(others)))
    return draw.choice(options)


def _with(event: Event, side: str, phrase: Phrase) -> Event:
    return replace(event, agent=phrase) if side == "agent" else replace(event, patient=phrase)


def _pawsx(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    label = draw.below(2)
    while True:
        event = draw_event(draw, world.seed, split, rich=0.7, names=0.0, animate_patient=True)
        if event.time and event.patient and event_split(world.seed, event) == split:
            break
    assert event.patient is not None
    other = replace(event, time_first=not event.time_first)
    if label == 0:
        other = replace(other, agent=event.patient, patient=event.agent)
    return {
        "id": index,
        "sentence1": join(tongue.sentence(event)),
        "sentence2": join(tongue.sentence(other)),
        "label": label,
    }


def _question(draw: Draw, tongue: Language, world: World, split: str, index: int, share: float) -> dict[str, Any]:
    events: list[Event] = []
    while len(events) < 3:
        event = draw_event(draw, world.seed, split, transitive=True, rich=0.3, place=0.7)
        fresh = all(
            event.verb != e.verb and event.agent.noun != e.agent.noun and event.patient != e.patient for e in events
        )
        if fresh and not event.negated:
            events.append(event)
    chosen = draw.choice(events)
    assert chosen.patient is not None
    parts = ["agent", "patient"] + (["place"] if chosen.place else [])
    part = draw.choice(parts)
    answerable = not draw.chance(share)
    asked = chosen
    if not answerable:
        others = [verb for verb in _TRANSITIVE if all(verb != e.verb for e in events)]
        asked = replace(chosen, verb=draw.choice(others))
    context, answers = "", {"text": [], "answer_start": []}  # type: str, dict[str, list[Any]]
    for event in events:
        words = tongue.sentence(event)
        base = len(context) + (1 if context else 0)
        sentence = join(words)
        context += (" " if context else "") + sentence
        if event is chosen and answerable:
            start, end = _span(words, part)
            answers = {"text": [sentence[start:end]], "answer_start": [base + start]}
    question = tongue.sentence(replace(asked, time="") if part != "place" else asked, asked=part)
    return {
        "id": f"{tongue.code}-{split}-{index}",
        "title": "",
        "context": context,
        "question": join(question),
        "answers": answers,
    }


def _span(words: list[Word], part: str) -> tuple[int, int]:
    """Characters of the words that belong to a part, without a leading article."""
    position, start, end = 0, -1, -1
    for i, word in enumerate(words):
        if i and word.upos != "PUNCT":
            position += 1
        if word.part == part and word.upos not in ("DET", "ADP"):
            start = position if start < 0 else start
            end = position + len(word.form)
        position += len(word.form)
    return start, end


def _squad(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    return _question(draw, tongue, world, split, index, 0.0)


def _squad_v2(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    return _question(draw, tongue, world, split, index, 1 / 3)


def _unfitting(verb: str) -> list[str]:
    """Nouns of the kinds that the verb does not take as patient."""
    return [noun for kind, nouns in NOUNS.items() if kind not in VERBS[verb] for noun in nouns]


def _hellaswag(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    """Four endings with one agent and verb; the verb takes one object of the four."""
    event = draw_event(draw, world.seed, split, transitive=True, rich=0.3)
    assert event.patient is not None
    endings = [event.patient.noun, *draw.sample(_unfitting(event.verb), 3)]
    label = draw.below(4)
    endings[0], endings[label] = endings[label], endings[0]
    opening = replace(event, verb="wait", patient=None, negated=False)
    texts = [join(tongue.sentence(replace(event, patient=Phrase(n), place="", relation=""))) for n in endings]
    context = join(tongue.sentence(opening))
    return {
        "ctx_a": context,
        "ctx_b": "",
        "ctx": context,
        "endings": texts,
        "label": str(label),
        "activity_label": event.verb,
        "source_id": f"{split}-{index}",
    }


def _commonsense_qa(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    """What does someone do something to? One choice of five is of a kind that the verb takes."""
    event = draw_event(draw, world.seed, split, transitive=True)
    assert event.patient is not None
    choices = [event.patient.noun, *draw.sample(_unfitting(event.verb), 4)]
    label = draw.below(5)
    choices[0], choices[label] = choices[label], choices[0]
    return {
        "id": f"{split}-{index}",
        "question": join(tongue.sentence(event, asked="patient")),
        "question_concept": tongue.stem(event.verb),
        "choices": {"label": list("ABCDE"), "text": [tongue.stem(noun) for noun in choices]},
        "answerKey": "ABCDE"[label],
    }


def _causal(draw: Draw, world: World, split: str) -> tuple[Event, Event]:
    """A cause and its effect: someone washes the table; the table is clean."""
    while True:
        verb = draw.choice(tuple(CAUSATIVES))
        state = CAUSATIVES[verb]
        noun = draw.choice(nouns_of(CAUSED_KINDS[state]))
        agent = Phrase(draw.choice(NAMES) if draw.chance(0.5) else draw.choice(NOUNS["person"]))
        place = draw.choice(PLACES) if draw.chance(0.3) else ""
        cause = Event(verb, agent, Phrase(noun), draw.choice(RELATIONS) if place else "", place)
        if agent.noun != noun and event_split(world.seed, cause) == split:
            return cause, Event("", Phrase(noun), state=state)


def _xcopa(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    """The wrong choice is the opposite state, or an act that leads to it."""
    cause, effect = _causal(draw, world, split)
    asks_cause = draw.chance(0.5)
    opposite = ANTONYM[effect.state]
    if asks_cause:
        act = next(verb for verb, state in CAUSATIVES.items() if state == opposite)
        premise, right, wrong = effect, cause, replace(cause, verb=act)
    else:
        premise, right, wrong = cause, effect, replace(effect, state=opposite)
    label = draw.below(2)
    choices = [right, wrong] if label == 0 else [wrong, right]
    return {
        "premise": join(tongue.sentence(premise)),
        "choice1": join(tongue.sentence(choices[0])),
        "choice2": join(tongue.sentence(choices[1])),
        "question": "cause" if asks_cause else "effect",
        "label": label,
        "idx": index,
        "changed": False,
    }


def _udpos(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    words = tongue.sentence(draw_event(draw, world.seed, split, rich=0.6))
    return {"tokens": [w.form for w in words], "pos_tags": [w.upos for w in words]}


def _named(draw: Draw, tongue: Language, world: World, split: str) -> tuple[list[Word], list[str]]:
    """A sentence with names of a person, a company or a town, and its entity tags; its names decide its split."""
    while True:
        person = [draw.choice(NAMES)] + ([draw.choice(SURNAMES)] if draw.chance(0.5) else [])
        company = [draw.choice(COMPANIES)] + ([draw.choice(COMPANY_KINDS)] if draw.chance(0.5) else [])
        town = [draw.choice(TOWNS)]
        subject, kind = draw.choice(((person, "PER"), (company, "ORG")))
        target, target_kind = draw.choice(((company, "ORG"), (town, "LOC"), (person, "PER")))
        if target is subject:
            target, target_kind = town, "LOC"
        verb = draw.choice(("watch", "visit", "want", "help"))
        if split_of(world.seed, verb, " ".join(subject), " ".join(target), "") == split:
            break
    places = {"Anna": (subject, kind), "Boris": (target, target_kind)}
    frame = Event(verb, Phrase("Anna"), Phrase("Boris"), time=draw.choice(("", *TIMES)))
    words: list[Word] = []
    tags: list[str] = []
    for word in tongue.sentence(frame):
        if word.upos != "PROPN":
            words.append(word)
            tags.append("O")
            continue
        name, label = places["Anna" if word.part == "agent" else "Boris"]
        for i, part in enumerate(name):
            words.append(Word(tongue.name(part), "PROPN"))
            tags.append(("B-" if i == 0 else "I-") + label)
    return words, tags


def _panx(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    words, tags = _named(draw, tongue, world, split)
    return {"tokens": [w.form for w in words], "ner_tags": tags, "langs": [tongue.code] * len(words)}


def _tatoeba(draw: Draw, tongue: Language, world: World, split: str, index: int) -> dict[str, Any]:
    event = draw_event(draw, world.seed, split)
    return {
        "source_sentence": join(tongue.sentence(event)),
        "target_sentence": join(language("en", world).sentence(event)),
        "source_lang": tongue.code,
        "target_lang": "en",
    }


DATASETS: Mapping[str, DatasetInfo] = {
    "text": DatasetInfo("Wikipedia text", _text, ("train", "dev"), every_language_trains=True),
    "parallel": DatasetInfo("parallel text", _parallel, ("train", "dev"), every_language_trains=True),
    "mnli": DatasetInfo("MNLI", _nli, ("train", "dev")),
    "xnli": DatasetInfo("XNLI", _nli, ("dev", "test"), aligned=True),
    "pawsx": DatasetInfo("PAWS-X", _pawsx),
    "squad": DatasetInfo("SQuAD v1.1", _squad, ("train", "dev")),
    "squad_v2": DatasetInfo("SQuAD v2.0", _squad_v2, ("train", "dev")),
    "tydiqa": DatasetInfo("TyDiQA-GoldP", _squad),
    "hellaswag": DatasetInfo("HellaSwag", _hellaswag, ("train", "dev")),
    "commonsense_qa": DatasetInfo("CommonsenseQA", _commonsense_qa, ("train", "dev")),
    "xcopa": DatasetInfo("XCOPA", _xcopa),
    "udpos": DatasetInfo("UD POS", _udpos),
    "panx": DatasetInfo("PAN-X", _panx),
    "tatoeba": DatasetInfo("Tatoeba", _tatoeba, ("test",), aligned=True),
}
