"""Meanings: concepts, noun phrases and events, without any language; and the split that each belongs to."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from effstilts.synthetic.draw import Draw, number

# Hypernym -> hyponyms.
NOUNS: dict[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "horse", "bird", "cow", "sheep", "rabbit", "fox", "goat", "duck"),
    "person": ("doctor", "teacher", "farmer", "baker", "singer", "soldier", "student", "driver", "king", "nurse"),
    "food": ("apple", "bread", "cake", "soup", "cheese", "rice", "egg", "fish"),
    "tool": ("hammer", "knife", "spoon", "key", "ladder", "rope", "needle", "brush"),
    "vehicle": ("car", "boat", "train", "bicycle", "cart", "truck"),
    "furniture": ("chair", "table", "lamp", "bed", "shelf", "mirror"),
    "garment": ("shirt", "coat", "hat", "shoe", "belt", "scarf"),
}
HYPERNYM = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns}
ANIMATE = ("animal", "person")
THINGS = ("food", "tool", "vehicle", "furniture", "garment")

# Verb -> the kinds of noun it takes as patient; none: intransitive.
VERBS: dict[str, tuple[str, ...]] = {
    "chase": ("animal",),
    "follow": ANIMATE,
    "help": ("person",),
    "greet": ("person",),
    "feed": ("animal",),
    "cook": ("food",),
    "taste": ("food",),
    "repair": ("vehicle", "furniture", "tool"),
    "paint": ("furniture", "vehicle"),
    "move": ("furniture",),
    "park": ("vehicle",),
    "borrow": ("tool", "vehicle", "garment"),
    "watch": (*ANIMATE, "vehicle"),
    "want": THINGS,
    "visit": ("person",),
    "push": ("vehicle", "furniture"),
    "use": ("tool",),
    "fold": ("garment",),
    "rest": (),
    "wait": (),
    "laugh": (),
}
# Verb -> the state its patient is in afterwards: what causes what.
CAUSATIVES = {
    "wash": "clean", "soil": "dirty", "heat": "hot", "cool": "cold", "praise": "happy", "scold": "sad",
    "reward": "rich", "rob": "poor", "train": "strong", "tire": "weak", "load": "heavy", "empty": "light",
}  # fmt: skip
CAUSE_OF = {state: verb for verb, state in CAUSATIVES.items()}
_PAIRS = (
    ("big", "small"), ("old", "young"), ("happy", "sad"), ("fast", "slow"), ("clean", "dirty"), ("rich", "poor"),
    ("hot", "cold"), ("heavy", "light"), ("strong", "weak"), ("tall", "short"), ("quiet", "loud"), ("bright", "dark"),
)  # fmt: skip
ANTONYM = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
ADJECTIVES = tuple(ANTONYM)
# One of an antonym pair -> the kinds of noun that the pair is said of.
_SAID_OF: dict[str, tuple[str, ...]] = {
    "big": tuple(NOUNS), "old": ANIMATE, "happy": ANIMATE, "fast": (*ANIMATE, "vehicle"),
    "clean": ("tool", "furniture", "vehicle", "garment"), "rich": ("person",), "hot": ("food", "tool"),
    "heavy": ("vehicle", "furniture"), "strong": ANIMATE, "tall": (*ANIMATE, "furniture"),
    "quiet": (*ANIMATE, "vehicle"), "bright": ("furniture", "vehicle", "garment"),
}  # fmt: skip
_FIRST = {adjective: pair[0] for pair in _PAIRS for adjective in pair}
PLACES = (
    "garden", "kitchen", "market", "river", "forest", "school", "street", "house", "field", "station", "mountain",
    "village",
)  # fmt: skip
RELATIONS = ("in", "near", "behind")
TIMES = {"yesterday": "past", "today": "present", "tomorrow": "future"}
NAMES = (
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karla", "Lukas",
    "Maria", "Nina", "Oskar", "Paula", "Rosa", "Simon", "Tania", "Viktor", "Adam", "Berta", "Daria", "Emil",
    "Fiona", "Gregor", "Ida", "Julia", "Konrad", "Livia",
)  # fmt: skip
SURNAMES = ("Almar", "Bendix", "Corvo", "Dulan", "Ertov", "Fanelli", "Garvik", "Holm", "Ivers", "Jorik")
TOWNS = ("Arvenport", "Belmora", "Cantara", "Dorvik", "Elsbury", "Fontana", "Granvik", "Harlow")
COMPANIES = ("Nortex", "Volpina", "Zentra", "Kelmar", "Ostrom", "Primor")
COMPANY_KINDS = ("Bank", "Motors", "Press")
SOME, ANY = 0, -1


class Phrase(NamedTuple):
    """A noun phrase. noun: a concept, or a name where entity ("PER", "ORG", "LOC") is set; number: 1 is singular
    without a number, SOME a plural without one, ANY the object of a negated verb."""

    noun: str
    adjective: str = ""
    number: int = 1
    entity: str = ""


class Event(NamedTuple):
    """What happens: who does what to whom, where, when. state: instead of a verb, an adjective the agent has.
    time_moved, place_moved: stand at the other end of the sentence, without a change in meaning."""

    verb: str
    agent: Phrase
    patient: Phrase | None = None
    relation: str = ""
    place: str = ""
    time: str = ""
    negated: bool = False
    state: str = ""
    time_moved: bool = False
    place_moved: bool = False


@lru_cache(maxsize=1 << 18)
def split_of(seed: int, what: str, one: str, other: str = "") -> str:
    """The one split of all that is said with this verb (or state) about these two, whoever does it to whom:
    a tenth each is test and dev. Number, attributes, place, time, negation and order do not change the split.

    What causes a state, the state and its opposite are one, whoever caused it: `_core` and `state_split` see to it.
    """
    low, high = sorted((one, other))
    bucket = number("split", seed, what, low, high) % 10
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


def event_split(seed: int, event: Event) -> str:
    """The split of an event or of what a question says of it."""
    state = event.state or CAUSATIVES.get(event.verb, "")
    if event.state:
        return state_split(seed, event.state, event.agent.noun)
    patient = event.patient.noun if event.patient else ""
    if state:
        return state_split(seed, state, patient)
    return split_of(seed, event.verb, event.agent.noun, patient)


def state_split(seed: int, state: str, noun: str) -> str:
    return split_of(seed, "is " + _FIRST[state], noun)


@lru_cache(maxsize=256)
def nouns_of(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds' nouns, and the names of the kinds themselves."""
    return tuple(noun for kind in kinds for noun in (*NOUNS[kind], kind))


def kind_of(noun: str) -> str:
    return HYPERNYM.get(noun, noun)


@lru_cache(maxsize=256)
def adjectives_of(noun: str) -> tuple[str, ...]:
    """The attributes that a noun can have."""
    return tuple(a for a in ADJECTIVES if kind_of(noun) in _SAID_OF[_FIRST[a]])


@lru_cache(maxsize=256)
def patients_of(verb: str) -> tuple[str, ...]:
    return nouns_of(VERBS[verb])


_ACTORS = nouns_of(ANIMATE)
TRANSITIVE = tuple(verb for verb, kinds in VERBS.items() if kinds)
_ALL_VERBS = tuple(VERBS)
_TIMES = tuple(TIMES)


@lru_cache(maxsize=64)
def cores(seed: int, split: str) -> dict[tuple[str, bool], list[tuple[str, str]]]:
    """(verb, whether the agent is a name) -> every (agent, patient) of that split."""
    table = {}
    for verb in VERBS:
        for named, agents in ((True, NAMES), (False, _ACTORS)):
            table[verb, named] = [
                (agent, patient)
                for agent in agents
                for patient in patients_of(verb) or ("",)
                if agent != patient and split_of(seed, verb, agent, patient) == split
            ]
    return table


@lru_cache(maxsize=64)
def state_cores(seed: int, split: str) -> dict[str, list[str]]:
    """One of an antonym pair -> the nouns of which the pair is said in that split."""
    return {
        first: [noun for noun in nouns_of(kinds) if state_split(seed, first, noun) == split]
        for first, kinds in _SAID_OF.items()
    }


def draw_event(
    draw: Draw,
    seed: int,
    split: str,
    *,
    transitive: bool = False,
    rich: float = 0.5,
    names: float = 0.25,
    place: float = 0.6,
    negated: float = 0.2,
) -> Event:
    """An event of that split. rich: chance of each modifier; names: chance that the agent is a name."""
    agent, patient, verb = draw_core(draw, seed, split, TRANSITIVE if transitive else _ALL_VERBS, draw.chance(names))
    where = draw.choice(PLACES) if draw.chance(place) else ""
    return Event(
        verb,
        draw_phrase(draw, agent, rich),
        draw_phrase(draw, patient, rich) if patient else None,
        draw.choice(RELATIONS) if where else "",
        where,
        draw.choice(_TIMES) if draw.chance(rich) else "",
        draw.chance(negated),
    )


def draw_core(draw: Draw, seed: int, split: str, verbs: tuple[str, ...], named: bool) -> tuple[str, str, str]:
    """(agent, patient or "", verb) of that split."""
    table = cores(seed, split)
    while True:
        verb = draw.choice(verbs)
        pairs = table[verb, named]
        if pairs:
            agent, patient = draw.choice(pairs)
            return agent, patient, verb


def draw_phrase(draw: Draw, noun: str, rich: float) -> Phrase:
    """A noun phrase about a noun or a person's name. rich: chance of an attribute; a third of it, of a number."""
    if noun in _NAMES:
        return Phrase(noun, entity="PER")
    adjective = draw.choice(adjectives_of(noun)) if draw.chance(rich) else ""
    if not draw.chance(rich / 2):
        return Phrase(noun, adjective)
    return Phrase(noun, adjective, SOME if draw.chance(0.3) else 2 + draw.below(8))


def draw_state(draw: Draw, seed: int, split: str, rich: float = 0.3) -> Event:
    """Something is in a state. rich: chance of an attribute beside it."""
    table = state_cores(seed, split)
    state = draw.choice(ADJECTIVES)
    while not table[_FIRST[state]]:
        state = draw.choice(ADJECTIVES)
    noun = draw.choice(table[_FIRST[state]])
    others = [a for a in adjectives_of(noun) if _FIRST[a] != _FIRST[state]]
    return Event("", Phrase(noun, draw.choice(others) if others and draw.chance(rich) else ""), state=state)


def draw_cause(draw: Draw, seed: int, split: str) -> tuple[Event, Event]:
    """A cause and its effect: someone washed the table; the table is clean."""
    table = state_cores(seed, split)
    while True:
        verb = draw.choice(_CAUSATIVES)
        nouns = table[_FIRST[CAUSATIVES[verb]]]
        agent = draw.choice(NAMES if draw.chance(0.5) else NOUNS["person"])
        noun = draw.choice(nouns) if nouns else agent
        if noun != agent:
            break
    place = draw.choice(PLACES) if draw.chance(0.3) else ""
    patient = Phrase(noun)
    cause = Event(verb, draw_phrase(draw, agent, 0.0), patient, draw.choice(RELATIONS) if place else "", place)
    return cause, Event("", patient, state=CAUSATIVES[verb])


def draw_named(draw: Draw, seed: int, split: str) -> Event:
    """An event of a person or a company, to one of them or in a town; its names decide its split."""
    while True:
        verb = draw.choice(("watch", "visit", "want", "help", "follow"))
        agent = _entity(draw, ("PER", "ORG"))
        patient = _entity(draw, ("PER", "ORG", "LOC"))
        if agent != patient and split_of(seed, verb, agent.noun, patient.noun) == split:
            break
    place = draw.choice(TOWNS if draw.chance(0.5) else PLACES) if draw.chance(0.4) else ""
    time = draw.choice(_TIMES) if draw.chance(0.4) else ""
    return Event(verb, agent, patient, draw.choice(RELATIONS) if place else "", place, time, draw.chance(0.1))


def _entity(draw: Draw, kinds: tuple[str, ...]) -> Phrase:
    kind = draw.choice(kinds)
    if kind == "LOC":
        return Phrase(draw.choice(TOWNS), entity=kind)
    first, second = (NAMES, SURNAMES) if kind == "PER" else (COMPANIES, COMPANY_KINDS)
    name = draw.choice(first)
    return Phrase(f"{name} {draw.choice(second)}" if draw.chance(0.5) else name, entity=kind)


_NAMES = frozenset(NAMES)
_CAUSATIVES = tuple(CAUSATIVES)
# Every content concept, in a fixed order: the lexicon.
CONTENT: tuple[str, ...] = (
    *HYPERNYM, *NOUNS, *(v for v in VERBS if v not in HYPERNYM), *(v for v in CAUSATIVES if v not in HYPERNYM),
    *ADJECTIVES, *PLACES, "yesterday", "today", "tomorrow",
)  # fmt: skip
FUNCTION: tuple[str, ...] = (
    "the", "some", "any", "not", "be", "who", "what", "where", "how-many", "tense-past", "tense-future", *RELATIONS,
)  # fmt: skip
