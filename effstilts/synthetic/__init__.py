"""Small artificial languages: the embedded default's data, made on the spot.

    meaning.py    events and their parts; which split each belongs to
    language.py   grammars and lexica: meaning -> words      english.py  the same for English    words.py  a word
    inference.py  what follows from an event                 questions.py  questions, answers, choices
    datasets.py   the data sets: rows(...), bucc(...)

What the languages have in common with natural ones: content words with a hypernym tree, antonyms, verbs that choose
their objects and cause states; word order (SVO, SOV, VSO; adjective before or after the noun; prepositions or
postpositions; where time, negation and question words stand); morphology (plural, tense, case, by suffix, prefix or
particle); a script; a share of cognates, content words that are those of English but for an ending; digits and
punctuation in common; names shared, transliterated in another script.

What they lack: idiom, homonyms (but for those of English, as "train"), irregular and long sentences, a long tail of
rare words, Zipf's law, style, capital letters, errors. All languages say the same kinds of thing with the same
frequency, which is more alike than real corpora are. A transfer measured here says that the machinery works and how it
answers to these properties; it says nothing of any natural language.

Every row is a pure function of (world, data set, split, language, index); nothing depends on Python's hash or on
numpy's streams. All that is said with one verb about two participants, and all about a thing's being in a state or
its opposite, belongs to one split by its hash, in every data set: no sentence of an evaluation set is ever in a
training set or in the text of the masked language model, whatever is dropped, added, negated or exchanged in it. The
bare nouns among which `commonsense_qa` chooses are no sentences and occur in every split.
"""

from effstilts.synthetic.datasets import DATASETS, DatasetInfo, bucc, rows
from effstilts.synthetic.language import LANGUAGES, World

# Raised when any row changes: it is part of every key that depends on rows.
GENERATOR_VERSION = 2

__all__ = ["DATASETS", "GENERATOR_VERSION", "LANGUAGES", "DatasetInfo", "World", "bucc", "rows"]
