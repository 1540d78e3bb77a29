"""Meanings: concepts, noun phrases and events, without any language."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from effstilts.synthetic.draw import Draw, number

# Hypernym -> hyponyms.
NOUNS: dict[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "horse", "bird", "cow", "sheep", "rabbit", "fox", "goat", "duck"),
    "person": ("doctor", "teacher", "farmer", "baker", "singer", "soldier", "student", "driver", "king", "nurse"),
    "food": ("apple", "bread", "cake", "soup", "cheese", "rice", "egg", "fish"),
    "tool": ("hammer", "knife", "spoon", "key", "ladder", "rope", "needle", "brush"),
    "vehicle": ("car", "boat", "train", "bicycle", "cart", "truck"),
    "furniture": ("chair", "table", "lamp", "bed", "shelf", "mirror"),
}
HYPERNYM = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns}
ANIMATE = ("animal", "person")
THINGS = ("food", "tool", "vehicle", "furniture")

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
    "borrow": ("tool", "vehicle"),
    "watch": (*ANIMATE, "vehicle"),
    "want": THINGS,
    "visit": ("person",),
    "push": ("vehicle", "furniture"),
    "use": ("tool",),
    "rest": (),
    "wait": (),
    "laugh": (),
}
# Verb -> the state its patient is in afterwards: what causes what.
CAUSATIVES = {
    "wash": "clean", "soil": "dirty", "heat": "hot", "cool": "cold", "praise": "happy", "scold": "sad",
    "reward": "rich", "rob": "poor", "train": "strong", "tire": "weak", "load": "heavy", "empty": "light",
}  # fmt: skip
CAUSED_KINDS: dict[str, tuple[str, ...]] = {
    "clean": ("tool", "furniture", "vehicle"), "dirty": ("tool", "furniture", "vehicle"),
    "hot": ("food", "tool"), "cold": ("food", "tool"), "happy": ANIMATE, "sad": ANIMATE,
    "rich": ("person",), "poor": ("person",), "strong": ANIMATE, "weak": ANIMATE,
    "heavy": ("vehicle", "furniture"), "light": ("vehicle", "furniture"),
}  # fmt: skip
_PAIRS = (
    ("big", "small"), ("old", "young"), ("happy", "sad"), ("fast", "slow"), ("clean", "dirty"), ("rich", "poor"),
    ("hot", "cold"), ("heavy", "light"), ("strong", "weak"), ("tall", "short"), ("quiet", "loud"), ("bright", "dark"),
)  # fmt: skip
ANTONYM = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
ADJECTIVES = tuple(ANTONYM)
PLACES = (
    "garden", "kitchen", "market", "river", "forest", "school", "street", "house", "field", "station", "mountain",
    "village",
)  # fmt: skip
RELATIONS = ("in", "near", "behind")
TIMES = {"yesterday": "past", "today": "present", "tomorrow": "future"}
NAMES = (
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karla", "Lukas",
    "Maria", "Nina", "Oskar", "Paula", "Rosa", "Simon", "Tania", "Viktor",
)  # fmt: skip
SURNAMES = ("Almar", "Bendix", "Corvo", "Dulan", "Ertov", "Fanelli", "Garvik", "Holm", "Ivers", "Jorik")
TOWNS = ("Arvenport", "Belmora", "Cantara", "Dorvik", "Elsbury", "Fontana", "Granvik", "Harlow")
COMPANIES = ("Nortex", "Volpina", "Zentra", "Kelmar", "Ostrom", "Primor")
COMPANY_KINDS = ("Bank", "Motors", "Press")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase. noun: a concept, or a name; count: 1 is singular without a number."""

    noun: str
    adjective: str = ""
    count: int = 1

    @property
    def is_name(self) -> bool:
        return self.noun in NAMES


@dataclass(frozen=True)
class Event:
    """What happens: who does what to whom, where, when. state: instead of a verb, an adjective the agent has."""

    verb: str
    agent: Phrase
    patient: Phrase | None = None
    relation: str = ""
    place: str = ""
    time: str = ""
    negated: bool = False
    state: str = ""
    time_first: bool = False


@lru_cache(maxsize=1 << 16)
def split_of(world_seed: int, verb: str, agent: str, patient: str, place: str) -> str:
    """The one split that a meaning belongs to: a tenth test, a tenth dev, the rest train."""
    bucket = number("split", world_seed, verb, agent, patient, place) % 10
    return {0: "test", 1: "dev"}.get(bucket, "train")


def event_split(world_seed: int, event: Event) -> str:
    patient = event.patient.noun if event.patient else ""
    return split_of(world_seed, event.verb, event.agent.noun, patient, event.place)


def nouns_of(kinds: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(noun for kind in kinds for noun in NOUNS[kind])


_ACTORS = nouns_of(ANIMATE)
_TRANSITIVE = tuple(verb for verb, kinds in VERBS.items() if kinds)
_ALL_VERBS = tuple(VERBS)
_PATIENTS = {verb: nouns_of(kinds) for verb, kinds in VERBS.items() if kinds}


def draw_event(
    draw: Draw,
    world_seed: int,
    split: str,
    *,
    transitive: bool = False,
    rich: float = 0.5,
    names: float = 0.25,
    place: float = 0.6,
    animate_patient: bool = False,
) -> Event:
    """An event of that split. rich: chance of each modifier; names: chance that the agent is a name."""
    while True:
        verbs = _TRANSITIVE if transitive else _ALL_VERBS
        verb = draw.choice(("watch", "follow", "visit", "help", "greet")) if animate_patient else draw.choice(verbs)
        agent = draw.choice(NAMES) if draw.chance(names) else draw.choice(_ACTORS)
        patient = ""
        if animate_patient:
            patient = draw.choice(NOUNS["person"])
        elif VERBS[verb]:
            patient = draw.choice(_PATIENTS[verb])
        where = draw.choice(PLACES) if draw.chance(place) else ""
        if agent != patient and split_of(world_seed, verb, agent, patient, where) == split:
            break
    return Event(
        verb,
        _phrase(draw, agent, rich),
        _phrase(draw, patient, rich) if patient else None,
        draw.choice(RELATIONS) if where else "",
        where,
        draw.choice(tuple(TIMES)) if draw.chance(rich) else "",
        draw.chance(0.2),
    )


def _phrase(draw: Draw, noun: str, rich: float) -> Phrase:
    if noun in NAMES:
        return Phrase(noun)
    adjective = draw.choice(ADJECTIVES) if draw.chance(rich) else ""
    return Phrase(noun, adjective, 2 + draw.below(8) if draw.chance(rich / 3) else 1)
