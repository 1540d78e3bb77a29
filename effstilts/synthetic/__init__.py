"""Small artificial languages: the embedded default's data, made on the spot.

What they have in common with natural languages: a lexicon with a hypernym tree, antonyms and verbs that choose their
objects; word order (SVO, SOV, VSO; adjective before or after the noun; prepositions or postpositions; where time and
negation stand); morphology (plural, tense, case, by suffix or particle); a script; a share of cognates, words that are
those of English but for an ending; digits and punctuation in common; names shared, transliterated in another script.

What they lack: idiom, long sentences, a long tail of rare words, style, errors; ambiguity but for the homonyms that
chance makes. A transfer measured here says that the machinery works and how it answers to these properties; it says
nothing of any natural language.

Every row is a pure function of (world, data set, split, language, index); nothing depends on Python's hash or on
numpy's streams. A meaning (verb, agent, patient, place) belongs to one split alone, by its hash, in every data set:
no test meaning is seen in training or in the text of the masked language model. Sentences that merely name a state
("the shelf is dirty"), which carry no label by themselves, are the one thing that splits share.
"""

from effstilts.synthetic.datasets import DATASETS, rows
from effstilts.synthetic.language import LANGUAGES, World

# Raised when any row changes: it is part of every key that depends on rows.
GENERATOR_VERSION = 1

__all__ = ["DATASETS", "GENERATOR_VERSION", "LANGUAGES", "World", "rows"]
