"""Questions: extractive answers, and choices among endings, objects, causes and effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effstilts.synthetic.draw import Draw
from effstilts.synthetic.language import Language, join
from effstilts.synthetic.meaning import (
    ANTONYM,
    CAUSE_OF,
    NAMES,
    NOUNS,
    PLACES,
    RELATIONS,
    TRANSITIVE,
    VERBS,
    Event,
    Phrase,
    draw_cause,
    draw_event,
    draw_phrase,
    nouns_of,
    patients_of,
    split_of,
)
from effstilts.synthetic.words import Word


@dataclass(frozen=True)
class Reading:
    """A text and a question. chosen: index of the event that answers it, -1 if none does; part: what is asked."""

    events: tuple[Event, ...]
    chosen: int
    asked: Event
    part: str


def question_split(seed: int, event: Event, part: str) -> str:
    """The split of what a question says: without the part that it asks for."""
    patient = event.patient.noun if event.patient else ""
    if part == "agent":
        return split_of(seed, event.verb, patient)
    return split_of(seed, event.verb, event.agent.noun, "" if part == "patient" else patient)


def draw_reading(draw: Draw, seed: int, split: str, unanswerable: float) -> Reading:
    """Two to four events with different verbs, agents and patients, and a question for a part of one of them.

    unanswerable: chance that the question asks about an act, or for a place, that the text does not tell.
    """
    part = draw.choice(("agent", "patient", "place", "number"))
    answerable = not draw.chance(unanswerable)
    asks_place = part == "place"
    while True:
        event = _told(draw, seed, split, place=1.0 if asks_place and answerable else 0.0 if asks_place else 0.6)
        patient = event.patient or event.agent
        if part == "number":
            event = event._replace(patient=patient._replace(number=2 + draw.below(8)))
        asked = event
        if not answerable and not asks_place:
            verb = draw.choice(TRANSITIVE)
            if verb == event.verb or patient.noun not in patients_of(verb):
                continue
            asked = event._replace(verb=verb)
        if question_split(seed, asked, part) == split:
            break
    events = [event]
    target = 2 + draw.below(3)
    while len(events) < target:
        other = _told(draw, seed, split, place=0.6)
        if other.verb != asked.verb and not any(_alike(other, event) for event in events):
            events.append(other)
    chosen = draw.below(target)
    events[0], events[chosen] = events[chosen], events[0]
    return Reading(tuple(events), chosen if answerable else -1, asked, part)


def _alike(one: Event, other: Event) -> bool:
    """Whether two events share verb, agent or patient."""
    assert one.patient is not None and other.patient is not None
    return one.verb == other.verb or one.agent.noun == other.agent.noun or one.patient.noun == other.patient.noun


def _told(draw: Draw, seed: int, split: str, place: float) -> Event:
    return draw_event(draw, seed, split, transitive=True, rich=0.3, place=place, negated=0.0)


def read(reading: Reading, tongue: Language) -> tuple[str, str, str, int]:
    """(context, question, answer, its first character in the context); "" and -1 without an answer."""
    context, answer, at = "", "", -1
    for i, event in enumerate(reading.events):
        words = tongue.sentence(event)
        if context:
            context += " "
        if i == reading.chosen:
            start, end = _span(words, reading.part)
            at = len(context) + start
            context += join(words)
            answer = context[at : len(context) - len(join(words)) + end]
        else:
            context += join(words)
    return context, join(tongue.sentence(reading.asked, reading.part)), answer, at


def _span(words: list[Word], part: str) -> tuple[int, int]:
    """Characters of the words that belong to a part, without a leading article or an adposition."""
    position, start, end = 0, -1, -1
    wanted = "patient" if part == "number" else part
    for word in words:
        inside = word.part == wanted and (word.upos == "NUM" if part == "number" else word.upos != "DET")
        if inside:
            start = position if start < 0 else start
            end = position + len(word.form)
        position += len(word.form) + 1
    return start, end


def squad_row(reading: Reading, tongue: Language, identity: str) -> dict[str, Any]:
    context, question, answer, at = read(reading, tongue)
    answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
    if at >= 0:
        answers = {"text": [answer], "answer_start": [at]}
    return {"id": identity, "title": "", "context": context, "question": question, "answers": answers}


@dataclass(frozen=True)
class Choice:
    """premise and choices: events; label: index of the right one; question: what is asked of the premise."""

    premise: Event
    choices: tuple[Event, ...]
    label: int
    question: str = ""


_INTRANSITIVE = tuple(verb for verb, kinds in VERBS.items() if not kinds)


def _agent(draw: Draw) -> str:
    return draw.choice(NAMES) if draw.chance(0.4) else draw.choice(NOUNS["person"])


def _unfit(verb: str) -> tuple[str, ...]:
    """Nouns that the verb does not take."""
    return nouns_of(tuple(kind for kind in NOUNS if kind not in VERBS[verb]))


def draw_ending(draw: Draw, seed: int, split: str) -> Choice:
    """Someone does something somewhere, then acts on something: of four objects the verb takes one."""
    while True:
        agent, before, verb = _agent(draw), draw.choice(_INTRANSITIVE), draw.choice(TRANSITIVE)
        if split_of(seed, before, agent) != split:
            continue
        right = [n for n in patients_of(verb) if n != agent and split_of(seed, verb, agent, n) == split]
        wrong = [n for n in _unfit(verb) if n != agent and split_of(seed, verb, agent, n) == split]
        if right and len(wrong) >= 3:
            break
    phrase = draw_phrase(draw, agent, 0.3)
    premise = Event(before, phrase, None, draw.choice(RELATIONS), draw.choice(PLACES))
    label, objects = _shuffled(draw, draw.choice(right), draw.sample(wrong, 3))
    return Choice(premise, tuple(Event(verb, phrase, Phrase(noun)) for noun in objects), label)


def draw_object(draw: Draw, seed: int, split: str) -> Choice:
    """What does someone do something to? Of five objects the verb takes one."""
    while True:
        agent, verb = _agent(draw), draw.choice(TRANSITIVE)
        if split_of(seed, verb, agent) == split:
            break
    phrase = draw_phrase(draw, agent, 0.3)
    place = draw.choice(PLACES) if draw.chance(0.6) else ""
    fits = [noun for noun in patients_of(verb) if noun != agent]
    unfit = [noun for noun in _unfit(verb) if noun != agent]
    label, objects = _shuffled(draw, draw.choice(fits), draw.sample(unfit, 4))
    relation = draw.choice(RELATIONS) if place else ""
    events = tuple(Event(verb, phrase, Phrase(noun), relation, place) for noun in objects)
    return Choice(events[label], events, label)


def draw_copa(draw: Draw, seed: int, split: str) -> Choice:
    """A cause's effect or an effect's cause; the wrong choice is the opposite state, or what leads to it."""
    cause, effect = draw_cause(draw, seed, split)
    opposite = ANTONYM[effect.state]
    if draw.chance(0.5):
        question, premise, right, wrong = "cause", effect, cause, cause._replace(verb=CAUSE_OF[opposite])
    else:
        question, premise, right, wrong = "effect", cause, effect, effect._replace(state=opposite)
    label = draw.below(2)
    return Choice(premise, (right, wrong) if label == 0 else (wrong, right), label, question)


def _shuffled(draw: Draw, right: str, wrong: list[str]) -> tuple[int, list[str]]:
    label = draw.below(len(wrong) + 1)
    return label, [*wrong[:label], right, *wrong[label:]]
