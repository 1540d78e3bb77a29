"""Natural-language inference over events: what follows from a premise, what is open, what contradicts it.

As in SNLI and MNLI, premise and hypothesis are about the same event: another place, number or kind of the same patient
contradicts it. Where the premise is negated the directions turn round: "did not chase the dog" entails "did not chase
the dog in the garden", and a hypothesis that says less is open. So neither length nor a negation settles a label.
"""

from __future__ import annotations

from collections.abc import Callable

from effstilts.synthetic.draw import Draw
from effstilts.synthetic.meaning import (
    ANTONYM,
    ANY,
    HYPERNYM,
    NOUNS,
    PLACES,
    RELATIONS,
    SOME,
    VERBS,
    Event,
    Phrase,
    adjectives_of,
    draw_core,
    draw_event,
    draw_state,
    event_split,
)

ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)
# A change of the premise; None where it does not apply.
Change = Callable[[Draw, Event], Event | None]


def draw_pair(draw: Draw, seed: int, split: str, label: int) -> tuple[Event, Event]:
    """(premise, hypothesis) of a label, both of that split.

    The premise's form and the kind of change are drawn before the nouns: which changes occur does not depend on the
    split, and which premises occur hardly on the label.
    """
    while True:
        if draw.chance(0.15):
            premise, changes = draw_state(draw, seed, split, rich=0.5), _STATE[label]
        else:
            premise = _tidy(
                draw_event(draw, seed, split, transitive=True, rich=0.6, names=0.15, place=0.6, negated=0.3)
            )
            changes = (_NEGATED if premise.negated else _AFFIRMED)[label]
        fitting = [change for change in changes if change(draw, premise) is not None]
        if not fitting:
            continue
        change = draw.choice(fitting)
        for _ in range(60):
            hypothesis = change(draw, premise)
            if hypothesis is not None and event_split(seed, hypothesis) == split:
                if hypothesis.time and draw.chance(0.3):
                    hypothesis = hypothesis._replace(time_moved=not hypothesis.time_moved)
                if hypothesis != premise:
                    return premise, hypothesis
            premise = _other_nouns(draw, seed, split, premise)


def _tidy(event: Event) -> Event:
    """Under negation the patient is bare ("not chase any animal", "not chase the dog") and the agent not "some", so
    that scope is clear."""
    assert event.patient is not None
    if not event.negated:
        return event
    agent = event.agent._replace(number=1) if event.agent.number == SOME else event.agent
    patient = Phrase(event.patient.noun, number=ANY if event.patient.noun in NOUNS else 1)
    return event._replace(agent=agent, patient=patient)


def _other_nouns(draw: Draw, seed: int, split: str, event: Event) -> Event:
    """The same form with other words."""
    if event.state:
        return draw_state(draw, seed, split, rich=1.0 if event.agent.adjective else 0.0)
    agent, patient, verb = draw_core(draw, seed, split, tuple(v for v in VERBS if VERBS[v]), bool(event.agent.entity))
    assert event.patient is not None
    made = event._replace(
        verb=verb, agent=_reworded(draw, event.agent, agent), patient=_reworded(draw, event.patient, patient)
    )
    return _tidy(made)


def _reworded(draw: Draw, phrase: Phrase, noun: str) -> Phrase:
    adjective = draw.choice(adjectives_of(noun)) if phrase.adjective else ""
    return Phrase(noun, adjective, phrase.number, phrase.entity)


def _with(event: Event, side: str, phrase: Phrase) -> Event:
    return event._replace(agent=phrase) if side == "agent" else event._replace(patient=phrase)


def _phrase(event: Event, side: str) -> Phrase:
    return event.agent if side == "agent" or event.patient is None else event.patient


def _nouns(event: Event) -> tuple[str, str]:
    return event.agent.noun, event.patient.noun if event.patient else ""


def _reorder(draw: Draw, event: Event) -> Event | None:
    if event.time:
        return event._replace(time_moved=True)
    return event._replace(place_moved=True) if event.place else None


def _drop_place(draw: Draw, event: Event) -> Event | None:
    return event._replace(place="", relation="") if event.place else None


def _add_place(draw: Draw, event: Event) -> Event | None:
    if event.place:
        return None
    return event._replace(place=draw.choice(PLACES), relation=draw.choice(RELATIONS))


def _change_place(draw: Draw, event: Event) -> Event | None:
    others = [place for place in PLACES if place != event.place]
    return event._replace(place=draw.choice(others)) if event.place else None


def _negate(draw: Draw, event: Event) -> Event | None:
    """With the opposite sign; only where a number's scope leaves no second reading."""
    if event.agent.number == SOME or (event.patient and event.patient.number == SOME):
        return None
    if event.patient and event.patient.number == ANY:
        return event._replace(negated=False, patient=event.patient._replace(number=1))
    return event._replace(negated=not event.negated)


def _affirm_more(draw: Draw, event: Event) -> Event | None:
    affirmed = _negate(draw, event)
    return _add_place(draw, affirmed) if affirmed else None


def _drop_adjective(side: str) -> Change:
    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        return _with(event, side, phrase._replace(adjective="")) if phrase.adjective else None

    return change


def _add_adjective(side: str) -> Change:
    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        if phrase.adjective or phrase.entity:
            return None
        known = (event.state, ANTONYM.get(event.state, ""))
        free = [a for a in adjectives_of(phrase.noun) if a not in known]
        return _with(event, side, phrase._replace(adjective=draw.choice(free))) if free else None

    return change


def _antonym(side: str) -> Change:
    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        if not phrase.adjective:
            return None
        return _with(event, side, phrase._replace(adjective=ANTONYM[phrase.adjective]))

    return change


def _forget_number(side: str) -> Change:
    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        return _with(event, side, phrase._replace(number=SOME)) if phrase.number > 1 else None

    return change


def _learn_number(side: str) -> Change:
    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        return _with(event, side, phrase._replace(number=2 + draw.below(8))) if phrase.number == SOME else None

    return change


def _change_number(side: str) -> Change:
    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        if phrase.number < 2:
            return None
        return _with(event, side, phrase._replace(number=2 + (phrase.number - 1 + draw.below(7)) % 8))

    return change


def _hypernym(side: str) -> Change:
    """The dog is an animal; its attribute goes, for a big mouse is no big animal. Under negation: any animal."""

    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        if phrase.noun not in HYPERNYM or HYPERNYM[phrase.noun] in _nouns(event):
            return None
        number = ANY if event.negated and side == "patient" else phrase.number
        return _with(event, side, Phrase(HYPERNYM[phrase.noun], number=number))

    return change


def _hyponym(side: str) -> Change:
    def change(draw: Draw, event: Event) -> Event | None:
        phrase = _phrase(event, side)
        if phrase.noun not in NOUNS:
            return None
        others = [noun for noun in NOUNS[phrase.noun] if noun not in _nouns(event)]
        number = 1 if phrase.number == ANY else phrase.number
        return _with(event, side, phrase._replace(noun=draw.choice(others), number=number))

    return change


def _affirm_hyponym(draw: Draw, event: Event) -> Event | None:
    """Against "did not chase any animal": chased the dog."""
    made = _hyponym("patient")(draw, event)
    return made._replace(negated=False) if made else None


def _co_hyponym(draw: Draw, event: Event) -> Event | None:
    phrase = _phrase(event, "patient")
    if phrase.noun not in HYPERNYM:
        return None
    others = [n for n in NOUNS[HYPERNYM[phrase.noun]] if n not in _nouns(event)]
    return _with(event, "patient", phrase._replace(noun=draw.choice(others)))


def _not_antonym(draw: Draw, event: Event) -> Event | None:
    return event._replace(state=ANTONYM[event.state], negated=True)


def _opposite_state(draw: Draw, event: Event) -> Event | None:
    return event._replace(state=ANTONYM[event.state])


def _other_state(draw: Draw, event: Event) -> Event | None:
    known = (event.state, event.agent.adjective)
    free = [a for a in adjectives_of(event.agent.noun) if a not in known and ANTONYM[a] not in known]
    return event._replace(state=draw.choice(free), negated=draw.chance(0.5)) if free else None


_AFFIRMED: tuple[tuple[Change, ...], ...] = (
    (_reorder, _drop_place, _drop_adjective("agent"), _drop_adjective("patient"), _forget_number("agent"),
     _forget_number("patient"), _hypernym("agent"), _hypernym("patient")),
    (_add_place, _add_adjective("agent"), _add_adjective("patient"), _learn_number("agent"), _learn_number("patient"),
     _hyponym("agent"), _hyponym("patient")),
    (_negate, _change_place, _antonym("agent"), _antonym("patient"), _change_number("agent"),
     _change_number("patient"), _co_hyponym),
)  # fmt: skip
_NEGATED: tuple[tuple[Change, ...], ...] = (
    (_reorder, _add_place, _hyponym("patient")),
    (_drop_place, _change_place, _co_hyponym, _hypernym("patient")),
    (_negate, _affirm_more, _affirm_hyponym),
)
_STATE: tuple[tuple[Change, ...], ...] = (
    (_not_antonym, _drop_adjective("agent")),
    (_other_state, _add_adjective("agent")),
    (_negate, _opposite_state, _antonym("agent")),
)
