"""English: the meanings in real words, with English's own rules (articles, do-support, tenses)."""

from __future__ import annotations

from collections.abc import Callable

from effstilts.synthetic.meaning import ANY, SOME, TIMES, TOWNS, Event, Phrase
from effstilts.synthetic.words import Word, named

_PLURALS = {"sheep": "sheep", "knife": "knives", "shelf": "shelves", "fish": "fish", "scarf": "scarves",
            "person": "people", "furniture": "furniture", "bread": "breads"}  # fmt: skip
_PASTS = {"feed": "fed", "rob": "robbed"}
_SIBILANTS = ("sh", "ch", "x", "ss")


def english_sentence(event: Event, asked: str, phrase: Callable[[Phrase, str], list[Word]]) -> list[Word]:
    """The words of an event, or of a question for one of its parts. phrase: realises a noun phrase."""
    agent = [Word("who", "PRON", "agent")] if asked == "agent" else phrase(event.agent, "agent")
    patient = phrase(event.patient, "patient") if event.patient else []
    plural = asked != "agent" and (event.agent.number > 1 or event.agent.number == SOME)
    front: list[Word] = []
    if asked == "patient":
        front, patient = [Word("what", "PRON", "patient")], []
    elif asked == "number" and event.patient:
        counted = phrase(event.patient._replace(number=2), "patient")
        front, patient = [Word("how", "ADV", "patient"), Word("many", "ADJ", "patient"), *counted[1:]], []
    elif asked == "place":
        front = [Word("where", "ADV", "place")]
    helper, verb = _state(event, plural) if event.state else _verb(event, plural, bool(front))
    words = [*front, helper, *agent, *verb, *patient] if front and helper else [*agent, *verb, *patient]
    if helper and not front:
        words = [*agent, helper, *verb, *patient]
    if event.place and asked != "place":
        place = _place(event)
        words = place + words if event.place_moved else words + place
    if event.time:
        time = [Word(event.time, "ADV", "time")]
        words = time + words if event.time_moved else words + time
    return [*words, Word("?" if asked else ".", "PUNCT")]


def _place(event: Event) -> list[Word]:
    if event.place in TOWNS:
        return [Word(event.relation, "ADP"), *named(event.place, "LOC", "place")]
    return [Word(event.relation, "ADP"), Word("the", "DET"), Word(event.place, "NOUN", "place")]


def _state(event: Event, plural: bool) -> tuple[Word, list[Word]]:
    negation = [Word("not", "PART", "negation")] if event.negated else []
    return Word("are" if plural else "is", "AUX"), [*negation, Word(event.state, "ADJ", "state")]


def _verb(event: Event, plural: bool, fronted: bool) -> tuple[Word | None, list[Word]]:
    """(auxiliary or None, the rest)"""
    tense = TIMES.get(event.time, "past")
    negation = [Word("not", "PART", "negation")] if event.negated else []
    verb = event.verb
    if tense == "future":
        return Word("will", "AUX"), [*negation, Word(verb, "VERB", "verb")]
    if event.negated or fronted:
        helper = "did" if tense == "past" else "do" if plural else "does"
        return Word(helper, "AUX"), [*negation, Word(verb, "VERB", "verb")]
    if tense == "past":
        form = _PASTS.get(verb) or (verb[:-1] + "ied" if verb.endswith("ty") else verb.removesuffix("e") + "ed")
    else:
        form = verb if plural else _with_s(verb)
    return None, [Word(form, "VERB", "verb")]


def _with_s(word: str) -> str:
    if word.endswith("ty"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(_SIBILANTS) else "s")


def english_phrase(phrase: Phrase, part: str) -> list[Word]:
    """The words of a noun phrase: "5 big dogs", "the dog", "some dogs", "any dog", a name."""
    if phrase.entity:
        return named(phrase.noun, phrase.entity, part)
    noun = phrase.noun
    if phrase.number > 1 or phrase.number == SOME:
        noun = _PLURALS.get(noun) or _with_s(noun)
    if phrase.number > 1:
        lead = Word(str(phrase.number), "NUM", part)
    else:
        lead = Word({SOME: "some", ANY: "any"}.get(phrase.number, "the"), "DET", part)
    adjective = [Word(phrase.adjective, "ADJ", part)] if phrase.adjective else []
    return [lead, *adjective, Word(noun, "NOUN", part)]
