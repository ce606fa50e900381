"""A reader of captions: it turns any words into statements that are true or false of a scene.

The reader is not tied to the grammar of ``scene_captions``: it looks for noun phrases and for
relations between them, in whatever order the words of a trained model may come.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from convrnn_utils.scene_words import (
    COLOUR_WORDS,
    PATTERN_TAILS,
    PATTERN_WORDS,
    PLACE_KEYS,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    THING_WORDS,
    plural,
)

ATTRIBUTES = ("size", "colour", "pattern")


class Statement(NamedTuple):
    """One thing said: its kind, the value, and the numbers of the noun phrases it is about.

    Kinds: thing (a shape), size, colour, pattern, count (exactly so many), unique ("the"),
    relation, background, total (so many things and nothing else).
    """

    kind: str
    value: object
    phrases: tuple[int, ...] = ()


@dataclass
class Phrase:
    """A noun phrase: "two small red stars" is star, [size small, colour red], number 2.

    ``attributes`` tell which things are meant; ``predicates`` are said of them afterwards, as
    "red" in "the star is red".
    """

    shape: str | None
    attributes: list[tuple[str, str]] = field(default_factory=list)
    predicates: list[tuple[str, str]] = field(default_factory=list)
    number: int | None = None
    plural: bool = False
    definite: bool = False


@dataclass
class Reading:
    """A caption as the reader understands it.

    Attributes:
        phrases: its noun phrases.
        relations: a relation, and the numbers of the noun phrases that it joins.
        backgrounds: those that are named.
        total: whether it says that there is nothing else.
    """

    phrases: list[Phrase] = field(default_factory=list)
    relations: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    backgrounds: list[str] = field(default_factory=list)
    total: bool = False


def parse(caption: str) -> list[Statement]:
    """Everything a caption states, noun phrase by noun phrase; unknown words are skipped."""
    return statements(read(caption))


def statements(reading: Reading) -> list[Statement]:
    """The statements that a reading makes."""
    found = []
    for index, phrase in enumerate(reading.phrases):
        if phrase.shape:
            found.append(Statement("thing", phrase.shape, (index,)))
        said = dict.fromkeys(phrase.attributes + phrase.predicates)
        found += [Statement(kind, value, (index,)) for kind, value in said]
        if phrase.number is not None:
            found.append(Statement("count", phrase.number, (index,)))
        if phrase.definite and not phrase.plural:
            found.append(Statement("unique", 1, (index,)))
    found += [Statement("relation", name, about) for name, about in reading.relations]
    found += [Statement("background", name) for name in reading.backgrounds]
    if reading.total and reading.phrases:
        listed = [phrase for phrase in reading.phrases if phrase.shape or not phrase.plural]
        number = sum(phrase.number or 1 for phrase in listed or reading.phrases)
        found.append(Statement("total", number))
    return found


# ---------------------------------------------------------------- words and their meanings


def _lexicon() -> dict[tuple[str, ...], tuple[str, object]]:
    """What every word, or run of words, means to the reader: (kind, value)."""
    table: dict[tuple[str, ...], tuple[str, object]] = {}

    def add(phrase: str, kind: str, value: object = None) -> None:
        table[tuple(phrase.split())] = (kind, value)

    for shape, nouns in {**SHAPE_WORDS, None: THING_WORDS}.items():
        for noun in nouns:
            add(noun, "noun", (shape, False))
            add(plural(noun), "noun", (shape, True))
    for kind, rows in (
        ("colour", COLOUR_WORDS),
        ("size", SIZE_WORDS),
        ("pattern", PATTERN_WORDS),
        ("tail", PATTERN_TAILS),
        ("relation", RELATION_WORDS),
        ("background", PLACE_KEYS),
    ):
        for value, phrases in rows.items():
            for phrase in phrases:
                add(phrase, kind, value)
    for word, value in (("stripes", "striped"), ("dots", "dotted"), ("spots", "dotted")):
        add(word, "tail", value)
    add("checks", "tail", "checked")
    for number, words in enumerate(("one single", "two pair couple", "three trio", "four"), 1):
        for word in words.split():
            add(word, "number", number)
    for word in ("a", "an", "another", "some", "and"):
        add(word, "article", word)
    add("the", "the")
    for phrase in ("one of them", "one can see"):  # here "one" is not a number
        add(phrase, "skip")
    for phrase in ("nothing else", "nothing but", "all by itself", "alone", "lone", "that is all"):
        add(phrase, "total")
    return table


LEXICON = _lexicon()
LONGEST = max(len(words) for words in LEXICON)


def _meanings(caption: str) -> Iterator[tuple[str, object]]:
    """The known words of a caption as (kind, value), the longest run of words first."""
    words = re.findall(r"[a-z]+", caption.lower())
    start = 0
    while start < len(words):
        for length in range(LONGEST, 0, -1):
            meaning = LEXICON.get(tuple(words[start : start + length]))
            if meaning:
                yield meaning
                break
        start += length


# ---------------------------------------------------------------- words to noun phrases


def read(caption: str) -> Reading:
    """Noun phrases and what joins them, in one pass from left to right."""
    reader = _Reader()
    for kind, value in _meanings(caption):
        reader.take(kind, value)
    return reader.finish()


class _Reader:
    """What is known after each word.

    Adjectives wait for the next noun. If an article, a relation, a background or the end of the
    caption comes first, they belong to the noun before them ("the star is red and the ...").
    """

    def __init__(self):
        self.reading = Reading()
        self.waiting: list[tuple[str, str]] = []  # adjectives that have met no noun yet
        self.number: int | None = None  # of the noun to come
        self.definite = False  # whether "the" stands before it
        self.article = False  # whether all words since the last article are adjectives
        self.joins: list[tuple[str, int]] = []  # relation, how many noun phrases came before it

    def take(self, kind: str, value) -> None:
        """Take in the next meaning."""
        phrases = self.reading.phrases
        if (kind, value) == ("article", "and"):
            return
        if kind in ATTRIBUTES:
            self.waiting.append((kind, value))
        elif kind == "noun":
            self.add_phrase(*value)
        elif kind == "tail" and phrases:
            phrases[-1].attributes.append(("pattern", value))
        elif (kind, value) == ("number", 1) and self.waiting and self.article:  # "a red one"
            self.add_phrase(next((p.shape for p in reversed(phrases) if p.plural), None), False)
        elif kind == "number":
            self.settle()
            self.number = value
        elif kind in ("article", "the"):
            self.settle()
            self.definite = kind == "the"
        elif kind in ("relation", "background"):
            self.settle()
            self.number, self.definite = None, False
            if kind == "relation":
                self.joins.append((value, len(phrases)))
            elif value not in self.reading.backgrounds:
                self.reading.backgrounds.append(value)
        elif kind == "total":
            self.reading.total = True
        self.article = kind == "article" or (self.article and kind in ATTRIBUTES)

    def add_phrase(self, shape: str | None, plural: bool) -> None:
        """A noun has come: with the words that waited for it, it is a noun phrase."""
        attributes = list(dict.fromkeys(self.waiting))
        plural = plural or self.number not in (None, 1)
        phrase = Phrase(shape, attributes, [], self.number, plural, self.definite)
        self.reading.phrases.append(phrase)
        self.waiting, self.number, self.definite = [], None, False

    def settle(self) -> None:
        """No noun has come: give the adjectives that waited to the noun before them."""
        if self.reading.phrases:
            self.reading.phrases[-1].predicates += dict.fromkeys(self.waiting)
            self.waiting = []

    def finish(self) -> Reading:
        """Give each relation its noun phrases: "A above B", or "above B there is A".

        The second form is assumed if no noun phrase comes before the relation. A relation without
        enough noun phrases after it says nothing and is left out.
        """
        self.settle()
        for relation, before in self.joins:
            needed = 2 if relation == "between" else 1
            others = range(before, before + needed)
            first = before - 1 if before else needed
            if max(first, *others) < len(self.reading.phrases):
                self.reading.relations.append((relation, (first, *others)))
        return self.reading
