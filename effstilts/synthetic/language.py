"""Languages: lexicon, word order, morphology, script. Meaning -> words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from effstilts.synthetic.draw import Draw, number
from effstilts.synthetic.meaning import TIMES, Event, Phrase

_GEORGIAN = dict(zip("abcdefghijklmnopqrstuvwxyz", "აბცდეფგჰიჯკლმნოპქრსტუვწხყზ", strict=True))


@dataclass(frozen=True)
class Grammar:
    """The properties of one language.

    order: of verb (V), agent (S) and patient (O). cognates: share of the stems taken over from English.
    plural, accusative, past, future: endings, empty where the language has none. tense_words: past and future are
    words of their own instead. negation: where the particle stands. georgian: every letter is transliterated.
    """

    code: str
    order: Literal["SVO", "SOV", "VSO"]
    adjective_first: bool
    prepositions: bool
    articles: bool
    negation: Literal["before", "after", "final"]
    time_first: bool
    question_first: bool
    cognates: float
    onsets: str
    vowels: str
    codas: str
    ending: str
    plural: str
    accusative: str
    past: str
    future: str
    tense_words: bool
    georgian: bool = False


_GRAMMARS = {
    g.code: g
    for g in (
        Grammar("qaa", "SVO", False, True, True, "before", False, True, 0.5, "bdfglmnprstv", "aeio", "lnrs", "o",
                "s", "", "va", "ra", False),
        Grammar("qab", "SOV", True, False, False, "after", True, False, 0.3, "dghjkmnstvz", "aeuy", "kmnt", "u",
                "lar", "ek", "di", "ze", False),
        Grammar("qac", "VSO", False, True, True, "before", False, True, 0.15, "bcfhlmnprtw", "aiou", "dfgn", "a",
                "iau", "", "", "", True),
        Grammar("qad", "SOV", True, False, False, "final", True, False, 0.0, "bdgkmprstz", "aeiu", "bkrs", "i",
                "ebi", "ma", "da", "vo", False, georgian=True),
    )
}  # fmt: skip
LANGUAGES: tuple[str, ...] = ("en", *_GRAMMARS)


@dataclass(frozen=True)
class World:
    """Everything that the rows depend on.

    seed: of lexica and meanings. cognates: one share for all languages instead of their own; it does not help a
    language in another script. word_order: "english" gives every language English's order of words.
    """

    seed: int = 0
    cognates: float | None = None
    word_order: Literal["own", "english"] = "own"


@dataclass(frozen=True)
class Word:
    """A word with its UPOS tag and the part of the event that it belongs to (agent, patient, place, ...)."""

    form: str
    upos: str
    part: str = ""


class Language:
    """Realises meanings. English has rules of its own; the others follow their Grammar."""

    def __init__(self, grammar: Grammar | None, seed: int) -> None:
        self.grammar = grammar
        self.seed = seed
        self.code = grammar.code if grammar else "en"
        self._stems: dict[str, str] = {}

    def stem(self, concept: str) -> str:
        """The stem of a concept: the cognate, or a pseudo-word of one to three syllables."""
        if self.grammar is None:
            return concept
        if concept not in self._stems:
            self._stems[concept] = _stem(self.grammar, self.seed, concept)
        return self._stems[concept]

    def is_cognate(self, concept: str) -> bool:
        return self.grammar is not None and _is_cognate(self.grammar, self.seed, concept)

    def name(self, name: str) -> str:
        """A proper name: as it is, or transliterated."""
        return name if self.grammar is None or not self.grammar.georgian else _transliterate(name.lower())

    def sentence(self, event: Event, asked: str = "") -> list[Word]:
        """The words of an event; asked: the part that a question word stands for (agent, patient, place)."""
        if self.grammar is None:
            return _english(event, asked)
        return self._sentence(self.grammar, event, asked)

    def _sentence(self, g: Grammar, event: Event, asked: str) -> list[Word]:
        agent = self._asked("who", "agent") if asked == "agent" else self._phrase(g, event.agent, "agent")
        patient: list[Word] = []
        if event.patient:
            patient = self._phrase(g, event.patient, "patient")
            if asked == "patient":
                patient = self._asked("what", "patient")
        if event.state:
            verb = [Word(self.stem("be"), "AUX"), Word(self.stem(event.state), "ADJ", "state")]
        else:
            verb = self._verb(g, event)
        place: list[Word] = []
        if asked == "place":
            place = self._asked("where", "place")
        elif event.place:
            noun = [*self._article(), Word(self.stem(event.place), "NOUN", "place")]
            adposition = [Word(self.stem(event.relation), "ADP")]
            place = adposition + noun if g.prepositions else noun + adposition
        time = [Word(self.stem(event.time), "ADV", "time")] if event.time else []
        blocks = {"S": agent, "V": verb, "O": patient}
        clause = [word for slot in g.order for word in blocks[slot]]
        clause = clause + place if g.order != "SOV" else place + clause
        if g.question_first and asked == "place":
            clause = place + [word for slot in g.order for word in blocks[slot]]
        first = g.time_first != event.time_first
        words = time + clause if first else clause + time
        if event.negated and g.negation == "final":
            words = [*words, Word(self.stem("not"), "PART", "negation")]
        return [*words, Word("?" if asked else ".", "PUNCT")]

    def _asked(self, question: str, part: str) -> list[Word]:
        return [Word(self.stem(question), "PRON" if part != "place" else "ADV", part)]

    def _article(self) -> list[Word]:
        return [Word(self.stem("the"), "DET")] if self.grammar and self.grammar.articles else []

    def _phrase(self, g: Grammar, phrase: Phrase, part: str) -> list[Word]:
        if phrase.is_name:
            return [Word(self.name(phrase.noun), "PROPN", part)]
        ending = (g.plural if phrase.count > 1 else "") + (g.accusative if part == "patient" else "")
        noun = Word(self.stem(phrase.noun) + _written(g, ending), "NOUN", part)
        adjective = [Word(self.stem(phrase.adjective), "ADJ", part)] if phrase.adjective else []
        count = [Word(str(phrase.count), "NUM", part)] if phrase.count > 1 else []
        article = [replace(word, part=part) for word in self._article()] if not count else []
        core = [*adjective, noun] if g.adjective_first else [noun, *adjective]
        return article + count + core

    def _verb(self, g: Grammar, event: Event) -> list[Word]:
        tense = TIMES.get(event.time, "past")
        ending = {"past": g.past, "future": g.future}.get(tense, "")
        verb = [Word(self.stem(event.verb) + _written(g, ending), "VERB", "verb")]
        if g.tense_words and tense != "present":
            verb = [Word(self.stem(f"tense-{tense}"), "AUX"), *verb]
        if event.negated and g.negation != "final":
            particle = [Word(self.stem("not"), "PART", "negation")]
            verb = particle + verb if g.negation == "before" else verb + particle
        return verb


@lru_cache(maxsize=64)
def language(code: str, world: World) -> Language:
    """The language of that code in a world; ValueError names the known ones."""
    if code == "en":
        return Language(None, world.seed)
    if code not in _GRAMMARS:
        raise ValueError(f"no artificial language {code!r}; there are {', '.join(LANGUAGES)}")
    grammar = _GRAMMARS[code]
    if world.cognates is not None:
        grammar = replace(grammar, cognates=world.cognates)
    if world.word_order == "english":
        grammar = replace(
            grammar, order="SVO", adjective_first=True, prepositions=True, negation="before", time_first=False,
            question_first=True,
        )  # fmt: skip
    return Language(grammar, world.seed)


def join(words: Iterable[Word]) -> str:
    """The text of a sentence: words parted by spaces, punctuation attached."""
    text = ""
    for word in words:
        text += word.form if word.upos == "PUNCT" or not text else " " + word.form
    return text


def _is_cognate(g: Grammar, seed: int, concept: str) -> bool:
    return number("cognate", seed, g.code, concept) / 2**64 < g.cognates


def _stem(g: Grammar, seed: int, concept: str) -> str:
    if _is_cognate(g, seed, concept):
        bare = "".join(c for c in concept if c.isalpha())
        return _written(g, bare if bare[-1:] in g.vowels else bare + g.ending)
    draw = Draw("stem", seed, g.code, concept)
    count = 1 + (draw.below(10) < 7) + (draw.below(10) < 2)
    syllables = [draw.choice(g.onsets) + draw.choice(g.vowels) for _ in range(count)]
    return _written(g, "".join(syllables) + (draw.choice(g.codas) if count == 1 or draw.chance(0.4) else ""))


def _written(g: Grammar, text: str) -> str:
    return _transliterate(text) if g.georgian else text


def _transliterate(text: str) -> str:
    return "".join(_GEORGIAN.get(c, c) for c in text)


_IRREGULAR = {"feed": "fed"}


def _english(event: Event, asked: str) -> list[Word]:
    tense = TIMES.get(event.time, "past")
    agent = [Word("who", "PRON", "agent")] if asked == "agent" else _english_phrase(event.agent, "agent")
    patient: list[Word] = []
    if event.patient:
        patient = _english_phrase(event.patient, "patient")
        if asked == "patient":
            patient = [Word("what", "PRON", "patient")]
    plural = event.agent.count > 1
    if event.state:
        words = [*agent, Word("are" if plural else "is", "AUX"), Word(event.state, "ADJ", "state")]
    else:
        words = agent + _english_verb(event.verb, tense, event.negated, plural) + patient
    if asked == "place":
        words = [Word("where", "ADV", "place"), *words]
    elif event.place:
        words += [Word(event.relation, "ADP"), Word("the", "DET"), Word(event.place, "NOUN", "place")]
    if event.time:
        time = [Word(event.time, "ADV", "time")]
        words = time + words if event.time_first else words + time
    return [*words, Word("?" if asked else ".", "PUNCT")]


def _english_verb(verb: str, tense: str, negated: bool, plural: bool) -> list[Word]:
    negation = [Word("not", "PART", "negation")] if negated else []
    if tense == "future":
        return [Word("will", "AUX"), *negation, Word(verb, "VERB", "verb")]
    if negated:
        helper = "did" if tense == "past" else "do" if plural else "does"
        return [Word(helper, "AUX"), *negation, Word(verb, "VERB", "verb")]
    if tense == "past":
        form = _IRREGULAR.get(verb) or _past(verb)
    else:
        form = verb if plural else verb + ("es" if verb.endswith(("sh", "ch", "x", "ss")) else "s")
    return [Word(form, "VERB", "verb")]


def _past(verb: str) -> str:
    if verb == "rob":
        return "robbed"
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if verb.endswith("ty") else verb + "ed"


def _english_phrase(phrase: Phrase, part: str) -> list[Word]:
    if phrase.is_name:
        return [Word(phrase.noun, "PROPN", part)]
    words = [Word(phrase.adjective, "ADJ", part)] if phrase.adjective else []
    words.append(Word(_plural(phrase.noun) if phrase.count > 1 else phrase.noun, "NOUN", part))
    lead = Word(str(phrase.count), "NUM", part) if phrase.count > 1 else Word("the", "DET", part)
    return [lead, *words]


_PLURALS = {"sheep": "sheep", "knife": "knives", "shelf": "shelves", "fish": "fish", "bread": "breads"}


def _plural(noun: str) -> str:
    return _PLURALS.get(noun) or noun + ("es" if noun.endswith(("sh", "ch", "x", "ss")) else "s")
