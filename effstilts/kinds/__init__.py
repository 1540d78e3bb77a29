"""How each kind of task works, one file each."""

from __future__ import annotations

from effstilts.errors import RecipeError, did_you_mean
from effstilts.kinds.choice import Choice
from effstilts.kinds.classification import Classification
from effstilts.kinds.kind import Kind
from effstilts.kinds.masked_lm import MaskedLM
from effstilts.kinds.span import Span
from effstilts.kinds.tagging import Tagging
from effstilts.tasks.task import ROLES

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Classification(), Choice(), Span(), Tagging(), MaskedLM())}


def kind_of(name: str) -> Kind:
    """The kind of that name; RecipeError if there is none, or if nothing trains on it."""
    if name in ROLES and name not in KINDS:
        raise RecipeError(f"tasks of kind {name!r} are retrieval benchmarks: nothing trains on them, they have no head")
    if name not in KINDS:
        raise RecipeError(f"no kind of task {name!r}{did_you_mean(name, KINDS)}; there are {', '.join(KINDS)}")
    return KINDS[name]
