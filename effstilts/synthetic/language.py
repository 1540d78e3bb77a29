"""Languages: lexicon, word order, morphology, script. Meaning -> words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from effstilts.synthetic.draw import Draw, number
from effstilts.synthetic.english import english_phrase, english_sentence
from effstilts.synthetic.meaning import ANY, CONTENT, FUNCTION, SOME, TIMES, TOWNS, Event, Phrase
from effstilts.synthetic.words import Word, named

_GEORGIAN = dict(zip("abcdefghijklmnopqrstuvwxyz", "აბცდეფგჰიჯკლმნოპქრსტუვწხყზ", strict=True))


@dataclass(frozen=True)
class Grammar:
    """The properties of one language.

    order: of verb (V), agent (S) and patient (O). cognates: share of the content stems taken over from English.
    plural, accusative, past, future: affixes, empty where the language has none; prefixing: plural and tense stand
    before the stem. tense_words: past and future are words of their own instead. negation: where the particle
    stands. georgian: every letter is transliterated.
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
    tense_words: bool = False
    prefixing: bool = False
    georgian: bool = False


_GRAMMARS = {
    g.code: g
    for g in (
        Grammar("qaa", "SVO", False, True, True, "before", False, True, 0.5, "bdfglmnprstv", "aeio", "lnrs", "o",
                "s", "", "va", "ra"),
        Grammar("qab", "SOV", True, False, False, "after", True, False, 0.3, "dghjkmnstvz", "aeuy", "kmnt", "u",
                "lar", "ek", "di", "ze"),
        Grammar("qac", "VSO", False, True, True, "before", False, True, 0.15, "bcfhlmnprtw", "aiou", "dfgn", "a",
                "wi", "", "", "", tense_words=True, prefixing=True),
        Grammar("qad", "SOV", True, False, False, "final", True, False, 0.0, "bdgkmprstz", "aeiu", "bkrs", "i",
                "ebi", "ma", "da", "vo", georgian=True),
    )
}  # fmt: skip
LANGUAGES: tuple[str, ...] = ("en", *_GRAMMARS)


@dataclass(frozen=True)
class World:
    """Which artificial world: everything that the rows depend on.

    seed: of lexica and meanings. cognates: one share in [0, 1] for all languages instead of their own (in another
    script cognates are transliterated). word_order: "english" gives every language English's order of words.
    ValueError for a share outside [0, 1] or another word order.
    """

    seed: int = 0
    cognates: float | None = None
    word_order: Literal["own", "english"] = "own"

    def __post_init__(self) -> None:
        if self.cognates is not None and not 0 <= self.cognates <= 1:
            raise ValueError(f"cognates is a share in [0, 1], got {self.cognates}")
        if self.word_order not in ("own", "english"):
            raise ValueError(f'word_order is "own" or "english", got {self.word_order!r}')

    @classmethod
    def declared(cls, seed: int, cognates: float, word_order: Literal["own", "english"]) -> World:
        """As a recipe declares it, where a share below 0 stands for each language's own."""
        return cls(seed, None if cognates < 0 else cognates, word_order)


class Language:
    """Realises meanings. English has rules of its own; the others follow their Grammar."""

    def __init__(self, grammar: Grammar | None, seed: int) -> None:
        self.grammar = grammar
        self.code = grammar.code if grammar else "en"
        self.stems: dict[str, str] = {}
        self.cognates: frozenset[str] = frozenset()
        if grammar is not None:
            self.cognates = _cognates(grammar, seed)
            self.stems = _lexicon(grammar, seed, self.cognates)
        self._phrases: dict[tuple[Phrase, str], list[Word]] = {}

    def stem(self, concept: str) -> str:
        """The stem of a concept: in English the word, else the cognate or a pseudo-word of one to three syllables."""
        return self.stems[concept] if self.grammar else concept

    def sentence(self, event: Event, asked: str = "") -> list[Word]:
        """The words of an event. asked: the part that a question word stands for: agent, patient, place, or number,
        that of the patient."""
        if self.grammar is None:
            return english_sentence(event, asked, self.phrase)
        return self._sentence(self.grammar, event, asked)

    def phrase(self, phrase: Phrase, part: str) -> list[Word]:
        """The words of a noun phrase, which callers do not change."""
        key = (phrase, part)
        made = self._phrases.get(key)
        if made is None:
            make = english_phrase if self.grammar is None else self._phrase
            made = self._phrases[key] = make(phrase, part)
        return made

    def _sentence(self, g: Grammar, event: Event, asked: str) -> list[Word]:
        agent = self._question("who", "agent") if asked == "agent" else self.phrase(event.agent, "agent")
        patient: list[Word] = []
        if event.patient:
            if asked == "patient":
                patient = self._question("what", "patient")
            elif asked == "number":
                counted = self.phrase(event.patient._replace(number=2), "patient")
                patient = [Word(self.stems["how-many"], "DET", w.part) if w.upos == "NUM" else w for w in counted]
            else:
                patient = self.phrase(event.patient, "patient")
        verb = self._state(g, event) if event.state else self._verb(g, event)
        place: list[Word] = []
        if asked == "place":
            place = self._question("where", "place", "ADV")
        elif event.place:
            place = self._place(g, event)
        time = [Word(self.stems[event.time], "ADV", "time")] if event.time else []
        blocks = {"S": agent, "V": verb, "O": patient}
        front: list[Word] = []
        if g.question_first and asked in ("agent", "patient", "number"):
            side = "S" if asked == "agent" else "O"
            front, blocks[side] = blocks[side], []
        clause = [word for slot in g.order for word in blocks[slot]]
        if g.order == "SOV":
            clause = clause + place if event.place_moved else place + clause
        else:
            place_first = event.place_moved or (asked == "place" and g.question_first)
            clause = place + clause if place_first else clause + place
        clause = front + clause
        words = time + clause if g.time_first != event.time_moved else clause + time
        if event.negated and g.negation == "final":
            words = [*words, Word(self.stems["not"], "PART", "negation")]
        return [*words, Word("?" if asked else ".", "PUNCT")]

    def _question(self, word: str, part: str, upos: str = "PRON") -> list[Word]:
        return [Word(self.stems[word], upos, part)]

    def _place(self, g: Grammar, event: Event) -> list[Word]:
        if event.place in TOWNS:
            noun = named(event.place, "LOC", "place", self._name)
        else:
            article = [Word(self.stems["the"], "DET")] if g.articles else []
            noun = [*article, Word(self.stems[event.place], "NOUN", "place")]
        adposition = [Word(self.stems[event.relation], "ADP")]
        return adposition + noun if g.prepositions else noun + adposition

    def _name(self, name: str) -> str:
        return _transliterate(name.lower()) if self.grammar and self.grammar.georgian else name

    def _phrase(self, phrase: Phrase, part: str) -> list[Word]:
        g = self.grammar
        assert g is not None
        if phrase.entity:
            return named(phrase.noun, phrase.entity, part, self._name)
        many = phrase.number > 1 or phrase.number == SOME
        form = _inflect(g, self.stems[phrase.noun], g.plural if many else "")
        noun = Word(form + _written(g, g.accusative if part == "patient" else ""), "NOUN", part)
        adjective = [Word(self.stems[phrase.adjective], "ADJ", part)] if phrase.adjective else []
        lead: list[Word] = []
        if phrase.number > 1:
            lead = [Word(str(phrase.number), "NUM", part)]
        elif phrase.number in (SOME, ANY):
            lead = [Word(self.stems["some" if phrase.number == SOME else "any"], "DET", part)]
        elif g.articles:
            lead = [Word(self.stems["the"], "DET", part)]
        return [*lead, *adjective, noun] if g.adjective_first else [*lead, noun, *adjective]

    def _state(self, g: Grammar, event: Event) -> list[Word]:
        words = [Word(self.stems["be"], "AUX"), Word(self.stems[event.state], "ADJ", "state")]
        return self._negated(g, words) if event.negated else words

    def _verb(self, g: Grammar, event: Event) -> list[Word]:
        tense = TIMES.get(event.time, "past")
        form = _inflect(g, self.stems[event.verb], {"past": g.past, "future": g.future}.get(tense, ""))
        verb = [Word(form, "VERB", "verb")]
        if g.tense_words and tense != "present":
            verb = [Word(self.stems[f"tense-{tense}"], "AUX"), *verb]
        return self._negated(g, verb) if event.negated else verb

    def _negated(self, g: Grammar, words: list[Word]) -> list[Word]:
        particle = Word(self.stems["not"], "PART", "negation")
        if g.negation == "final":
            return words
        return [particle, *words] if g.negation == "before" else [*words, particle]


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


def join(words: Sequence[Word]) -> str:
    """The text of a sentence: words parted by spaces, the closing punctuation attached."""
    return " ".join([word[0] for word in words[:-1]]) + words[-1][0]


def _cognates(g: Grammar, seed: int) -> frozenset[str]:
    """The content concepts of the share, in an order of their own: a greater share contains a smaller one."""
    ranked = sorted(set(CONTENT), key=lambda concept: (number("cognate", seed, g.code, concept), concept))
    return frozenset(ranked[: round(g.cognates * len(ranked))])


def _lexicon(g: Grammar, seed: int, cognates: Iterable[str]) -> dict[str, str]:
    """Concept -> stem. No two words of the language are alike, inflected or not, and no pseudo-word is an
    English one: a form has one meaning, so that no label hangs on chance."""
    affixes = [_written(g, a) for a in ("", g.plural, g.accusative, g.plural + g.accusative, g.past, g.future)]
    taken = {_written(g, concept) for concept in (*CONTENT, *FUNCTION)}
    stems: dict[str, str] = {}
    # Cognates first: their forms are given, the others give way.
    for concept in sorted(dict.fromkeys((*CONTENT, *FUNCTION)), key=lambda c: c not in cognates):
        attempt = 0
        while True:
            stem = _cognate(g, concept) if concept in cognates else _pseudo_word(g, seed, concept, attempt)
            forms = {a + stem if g.prefixing else stem + a for a in affixes}
            if concept in cognates or not forms & taken:
                break
            attempt += 1
        taken |= forms
        stems[concept] = stem
    return stems


def _cognate(g: Grammar, concept: str) -> str:
    return _written(g, concept if concept[-1] in g.vowels else concept + g.ending)


def _pseudo_word(g: Grammar, seed: int, concept: str, attempt: int) -> str:
    draw = Draw("stem", seed, g.code, concept, attempt)
    count = 1 + (draw.below(10) < 7) + (draw.below(10) < 2)
    syllables = [draw.choice(g.onsets) + draw.choice(g.vowels) for _ in range(count)]
    return _written(g, "".join(syllables) + (draw.choice(g.codas) if count == 1 or draw.chance(0.4) else ""))


def _inflect(g: Grammar, stem: str, affix: str) -> str:
    return _written(g, affix) + stem if g.prefixing else stem + _written(g, affix)


def _written(g: Grammar, text: str) -> str:
    return _transliterate(text) if g.georgian else text


def _transliterate(text: str) -> str:
    return "".join(_GEORGIAN.get(c, c) for c in text)
