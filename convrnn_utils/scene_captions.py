"""Captions of drawn scenes: a grammar that writes them, a reader that understands them, and a
score that tells how much of what a caption says is true.

The grammar never says anything false of its picture: `captions` states only what the scene
holds, and throws away a caption that `check` would not call wholly true. The reader is not tied
to the grammar: it looks for noun phrases and for relations between them, in whatever order the
words of a trained model may come.

A scene is used here only through its fields, so this module needs nothing but Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import NamedTuple

# ---------------------------------------------------------------- words
# The first word of each row is the usual one; the others say the same.

SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid", "wedge"),
    "star": ("star",),
    "heart": ("heart", "love heart"),
    "cross": ("cross", "plus sign", "plus"),
    "diamond": ("diamond", "rhombus"),
    "ring": ("ring", "hoop", "doughnut"),
    "moon": ("moon", "crescent", "crescent moon"),
}
COLOUR_WORDS = {
    "red": ("red", "scarlet"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "lemon"),
    "green": ("green", "emerald"),
    "blue": ("blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "white": ("white", "snowy"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("big", "large", "huge")}
PATTERN_WORDS = {
    "plain": ("plain", "unpatterned"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted", "spotty"),
    "checked": ("checked", "chequered"),
}
PATTERN_TAILS = {
    "striped": ("with stripes", "covered in stripes"),
    "dotted": ("with dots", "with spots", "covered in polka dots"),
    "checked": ("with a checked pattern", "with checks"),
}
THING_WORDS = ("shape", "thing", "object", "figure")
NUMBER_WORDS = {2: ("two", "two", "a pair of", "a couple of"), 3: ("three", "three", "a trio of"),
                4: ("four",)}
PLACES = {
    "sand": ("on the sand", "on the beach", "on a sandy beach", "in the desert"),
    "grass": ("on the grass", "on a lawn", "in a meadow", "on a grassy field"),
    "water": ("on the water", "in the sea", "on rippling water", "on the waves"),
    "night": ("in the night sky", "at night", "against a starry sky", "in the dark"),
    "brick": ("on a brick wall", "against a wall of bricks", "on the bricks"),
    "wood": ("on a wooden table", "on the planks", "on wooden boards", "on a wooden floor"),
    "paper": ("on a sheet of paper", "on squared paper", "on a page of an exercise book"),
}
PLACE_KEYS = {  # any of these words names the background
    "sand": "sand sandy beach desert",
    "grass": "grass grassy lawn meadow",
    "water": "water sea waves",
    "night": "night sky starry dark",
    "brick": "brick bricks",
    "wood": "wood wooden planks boards table floor",
    "paper": "paper page book",
}
RELATION_WORDS = {  # the first thing is ... the second
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath", "underneath", "lower than"),
    "beside": ("next to", "beside", "alongside"),
    "front": ("in front of", "partly covering", "hiding part of"),
    "behind": ("behind", "partly covered by", "half hidden by", "peeking out from behind"),
    "between": ("between", "in between"),
}
ACTION_WORDS = {
    "left": ("moves to the left", "slides left", "drifts leftwards", "goes from right to left"),
    "right": ("moves to the right", "slides right", "drifts rightwards", "goes from left to right"),
    "up": ("moves up", "rises", "climbs slowly", "goes upwards"),
    "down": ("moves down", "sinks", "falls slowly", "goes downwards"),
    "grow": ("grows", "gets bigger", "swells", "becomes larger and larger"),
    "shrink": ("shrinks", "gets smaller", "dwindles", "becomes smaller and smaller"),
    "meet": ("meet", "come together", "approach each other", "get closer"),
    "part": ("part", "move apart", "separate", "drift away from each other"),
}


def _plural(noun: str) -> str:
    if noun.endswith(("x", "s")):
        return noun + "es"
    return noun + "s"


def _lexicon() -> dict[tuple[str, ...], tuple[str, object]]:
    """What every word, or run of words, means to the reader: (kind, value)."""
    table: dict[tuple[str, ...], tuple[str, object]] = {}

    def add(phrase: str, kind: str, value: object) -> None:
        table[tuple(phrase.split())] = (kind, value)

    for shape, nouns in SHAPE_WORDS.items():
        for noun in nouns:
            add(noun, "noun", (shape, False))
            add(_plural(noun), "noun", (shape, True))
    for noun in THING_WORDS:
        add(noun, "noun", (None, False))
        add(_plural(noun), "noun", (None, True))
    for kind, rows in (("colour", COLOUR_WORDS), ("size", SIZE_WORDS), ("pattern", PATTERN_WORDS)):
        for value, words in rows.items():
            for word in words:
                add(word, kind, value)
    for value, tails in PATTERN_TAILS.items():
        for tail in tails:
            add(tail, "tail", value)
            if "checked" not in tail:
                add(tail.split()[-1], "tail", value)
    for relation, words in RELATION_WORDS.items():
        for word in words:
            add(word, "relation", relation)
    for background, words in PLACE_KEYS.items():
        for word in words.split():
            add(word, "background", background)
    numbers = {"one": 1, "single": 1, "two": 2, "pair": 2, "couple": 2, "three": 3, "trio": 3,
               "four": 4}
    for word, number in numbers.items():
        add(word, "number", number)
    for word in ("a", "an", "another", "some", "and"):
        add(word, "article", word)
    add("the", "the", None)
    for phrase in ("one of them", "one can see"):  # here "one" is no number
        add(phrase, "skip", None)
    for phrase in ("nothing else", "nothing but", "all by itself", "alone", "lone", "that is all"):
        add(phrase, "total", None)
    return table


LEXICON = _lexicon()
LONGEST = {first: max(len(p) for p in LEXICON if p[0] == first) for first, *_ in LEXICON}

# ---------------------------------------------------------------- truth


def _fits(thing, shape: str | None, attributes: dict[str, str] | list) -> bool:
    """True where a thing is of the shape (None: any) and has every (kind, value) attribute."""
    pairs = attributes.items() if isinstance(attributes, dict) else attributes
    return shape in (None, thing.shape) and all(getattr(thing, k) == v for k, v in pairs)


def holds(scene, relation: str, *numbers: int, margin: float = 12.0) -> bool:
    """True where the relation holds between things of the scene, given by their numbers.

    left, right, above, below: the centres differ that way by `margin` pixels or more.
    beside: left or right, rather than above or below, with at most 10 pixels between the edges.
    front, behind: the one partly covers the other. between (first thing, two others): its centre
    lies within 12 pixels of the line that joins theirs, in the middle 70 % of it.
    """
    first, second = scene.things[numbers[0]], scene.things[numbers[1]]
    dx, dy = second.x - first.x, second.y - first.y
    if relation in ("left", "right"):
        return (dx if relation == "left" else -dx) >= margin
    if relation in ("above", "below"):
        return (dy if relation == "above" else -dy) >= margin
    if relation == "beside":
        gap = sqrt(dx * dx + dy * dy) - first.radius - second.radius
        return abs(dx) >= max(margin, abs(dy)) and gap <= 10
    if relation in ("front", "behind"):
        pair = numbers[:2] if relation == "front" else numbers[1::-1]
        return tuple(pair) in scene.overlaps
    if relation == "between":
        third = scene.things[numbers[2]]
        ax, ay = third.x - second.x, third.y - second.y
        length = sqrt(ax * ax + ay * ay)
        along = (-dx * ax - dy * ay) / (length * length)
        return 0.15 <= along <= 0.85 and abs(dx * ay - dy * ax) / length <= 12
    raise ValueError(f"There is no relation {relation!r}; choose one of {list(RELATION_WORDS)}.")


def _clearly(scene, relation: str, *numbers: int) -> bool:
    """`holds` with room to spare: what the grammar dares to say."""
    if not holds(scene, relation, *numbers, margin=16):
        return False
    first, second = scene.things[numbers[0]], scene.things[numbers[1]]
    dx, dy = abs(second.x - first.x), abs(second.y - first.y)
    if relation in ("left", "right", "beside"):
        return dx >= 1.4 * dy
    return dy >= 1.4 * dx if relation in ("above", "below") else True


# ---------------------------------------------------------------- reading


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

    `attributes` tell which things are meant; `predicates` are said of them afterwards, as "red"
    in "the star is red".
    """

    shape: str | None
    attributes: list[tuple[str, str]] = field(default_factory=list)
    predicates: list[tuple[str, str]] = field(default_factory=list)
    number: int | None = None
    plural: bool = False
    definite: bool = False


@dataclass
class _Reading:
    phrases: list[Phrase] = field(default_factory=list)
    relations: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    backgrounds: list[str] = field(default_factory=list)
    total: bool = False


def _meanings(caption: str) -> Iterator[tuple[str, object]]:
    """The known words of a caption as (kind, value), the longest run of words first."""
    words = re.findall(r"[a-z]+", caption.lower())
    at = 0
    while at < len(words):
        for length in range(LONGEST.get(words[at], 1), 0, -1):
            meaning = LEXICON.get(tuple(words[at : at + length]))
            if meaning:
                yield meaning
                break
        at += length


def _read(caption: str) -> _Reading:
    """Noun phrases and what joins them, in one pass from left to right.

    Adjectives wait for the next noun. Where an article, a relation, a background or the end
    comes first they belong to the noun before ("the star is red and the ...").
    """
    reading = _Reading()
    phrases = reading.phrases
    waiting: list[tuple[str, str]] = []  # adjectives that have met no noun yet
    number, definite = None, False
    joins: list[tuple[str, int]] = []  # relation, and how many noun phrases came before it

    def settle() -> None:
        nonlocal waiting
        if phrases:
            phrases[-1].predicates += dict.fromkeys(waiting)
            waiting = []

    def add(shape: str | None, plural: bool) -> None:
        nonlocal waiting, number, definite
        plural = plural or number not in (None, 1)
        attributes = list(dict.fromkeys(waiting))
        phrases.append(Phrase(shape, attributes, [], number, plural, definite))
        waiting, number, definite = [], None, False

    article = False
    for kind, value in _meanings(caption):
        if kind in ("size", "colour", "pattern"):
            waiting.append((kind, value))
        elif kind == "noun":
            add(*value)
        elif kind == "tail" and phrases:
            phrases[-1].attributes.append(("pattern", value))
        elif (kind, value) == ("number", 1) and waiting and article:  # "a red one"
            last = next((p.shape for p in reversed(phrases) if p.plural), None)
            add(last, False)
        elif kind == "number":
            settle()
            number = value
        elif kind == "article" and value == "and":
            continue
        elif kind in ("article", "the"):
            settle()
            definite = kind == "the"
        elif kind == "relation":
            settle()
            number, definite = None, False
            joins.append((value, len(phrases)))
        elif kind == "background":
            settle()
            number, definite = None, False
            if value not in reading.backgrounds:
                reading.backgrounds.append(value)
        elif kind == "total":
            reading.total = True
        article = kind == "article" or (article and kind in ("size", "colour", "pattern"))
    settle()
    reading.relations = _join(joins, len(phrases))
    return reading


def _join(joins: list[tuple[str, int]], count: int) -> list[tuple[str, tuple[int, ...]]]:
    """Give each relation its noun phrases: "A above B", or turned round, "above B there is A".

    It is read turned round where no noun phrase comes before it. A relation without enough
    noun phrases after it says nothing and is left out.
    """
    relations = []
    for relation, before in joins:
        needed = 2 if relation == "between" else 1
        others = tuple(range(before, before + needed))
        first = before - 1 if before else needed
        if max(first, *others) < count:
            relations.append((relation, (first, *others)))
    return relations


def parse(caption: str) -> list[Statement]:
    """Everything a caption states, noun phrase by noun phrase; unknown words are passed over."""
    return _statements(_read(caption))


def _statements(reading: _Reading) -> list[Statement]:
    statements = []
    for index, phrase in enumerate(reading.phrases):
        if phrase.shape:
            statements.append(Statement("thing", phrase.shape, (index,)))
        said = dict.fromkeys(phrase.attributes + phrase.predicates)
        statements += [Statement(kind, value, (index,)) for kind, value in said]
        if phrase.number is not None:
            statements.append(Statement("count", phrase.number, (index,)))
        if phrase.definite and not phrase.plural:
            statements.append(Statement("unique", 1, (index,)))
    statements += [Statement("relation", name, about) for name, about in reading.relations]
    statements += [Statement("background", name) for name in reading.backgrounds]
    if reading.total and reading.phrases:
        listed = [phrase for phrase in reading.phrases if phrase.shape or not phrase.plural]
        number = sum(phrase.number or 1 for phrase in listed or reading.phrases)
        statements.append(Statement("total", number))
    return statements


# ---------------------------------------------------------------- checking


def _assignments(options: list[list[int]]) -> Iterator[tuple[int | None, ...]]:
    """Every way to give each noun phrase a thing of its own, or None."""
    if not options:
        yield ()
        return
    for choice in [*options[0], None]:
        rest = [[thing for thing in option if thing != choice] for option in options[1:]]
        for others in _assignments(rest):
            yield (choice, *others)


def _true(statement: Statement, reading: _Reading, meant: list[tuple[int, ...]], scene) -> bool:
    """Is one statement true, where noun phrase i means the things meant[i]?"""
    kind, value, about = statement
    if kind == "background":
        return scene.background == value
    if kind == "total":
        return len(scene.things) == value
    if kind == "relation":
        return _related(scene, value, [meant[index] for index in about])
    phrase = reading.phrases[about[0]]
    if kind in ("count", "unique"):
        return sum(_fits(t, phrase.shape, phrase.attributes) for t in scene.things) == value
    if kind == "thing":
        return bool(meant[about[0]])
    return any(getattr(scene.things[thing], kind) == value for thing in meant[about[0]])


def _related(scene, relation: str, groups: list[tuple[int, ...]]) -> bool:
    """True where every thing of the first group is so related to every thing of the others."""
    combinations: list[tuple[int, ...]] = [()]
    for group in groups:
        combinations = [(*some, thing) for some in combinations for thing in group]
    distinct = [some for some in combinations if len(set(some)) == len(some)]
    return bool(combinations) and len(distinct) == len(combinations) and all(
        holds(scene, relation, *some) for some in combinations
    )


def _judge(caption: str, scene) -> tuple[list, list[tuple[int, ...]], _Reading]:
    """(Statement, truth) pairs, the things that each noun phrase means, and the reading.

    A noun phrase in the plural means all the things that fit it (its shape alone, where none has
    the attributes too). Those in the singular mean one thing each, all different, of the shape
    they name; of all ways to deal them out the one that makes most statements true is taken.
    """
    reading = _read(caption)
    del reading.phrases[8:]  # no scene has more than four things: ramblings end here
    reading.relations = [r for r in reading.relations if max(r[1]) < len(reading.phrases)]
    statements = _statements(reading)
    numbers = range(len(scene.things))
    meant: list[tuple[int, ...]] = [()] * len(reading.phrases)
    singular, options = [], []
    for index, phrase in enumerate(reading.phrases):
        shaped = [n for n in numbers if _fits(scene.things[n], phrase.shape, [])]
        if phrase.plural:
            fitting = [n for n in shaped if _fits(scene.things[n], None, phrase.attributes)]
            meant[index] = tuple(fitting or shaped)
        else:
            singular.append(index)
            options.append(shaped)
    best, verdicts = meant, None
    for choice in _assignments(options):
        trial = list(meant)
        for index, thing in zip(singular, choice, strict=True):
            trial[index] = () if thing is None else (thing,)
        answers = [_true(statement, reading, trial, scene) for statement in statements]
        if verdicts is None or sum(answers) > sum(verdicts):
            best, verdicts = trial, answers
        if all(answers):
            break
    return list(zip(statements, verdicts or [], strict=True)), best, reading


def check(caption: str, scene) -> list[tuple[Statement, bool]]:
    """Every statement of a caption with True or False, judged against the scene."""
    return _judge(caption, scene)[0]


ATTRIBUTES = ("size", "colour", "pattern")
KINDS = ("thing", *ATTRIBUTES, "relation", "count", "unique", "background")


def faithfulness(captions: list[str], scenes: list) -> dict:
    """How true captions are of their scenes, and how much of the scenes they tell.

    Reading. A noun phrase is a noun with the adjectives before it (or after it, up to the next
    article, relation or background). A relation joins the noun phrases on either side of it, or
    the next two when it comes first ("above the star there is a ring"). Unknown words are passed
    over, and of very long captions the first 8 noun phrases are read.

    Matching. Noun phrases in the singular are matched to things of the scene, each to a thing of
    its own and of the shape it names, in the way that makes most statements true. A phrase that
    finds no such thing ("a star" where there is none, or a second star where there is one) is
    false with all the attributes and relations stated of it. A phrase in the plural means all
    things that fit it.

    Precision, for each kind: true statements / statements, over all captions together.
    - thing: a named shape is there; size, colour, pattern: the matched thing has it;
      attribute: the three together;
    - relation: holds between the matched things (see `holds` for the margins);
    - count: "two red stars", "three shapes", "nothing else": the number is exact;
      unique: "the red star": there is exactly one; background; all: everything together.
    Recall: thing: share of the scenes' things that some noun phrase with a shape is matched to;
    size, colour, pattern: share of the things' attributes stated and true of the matched thing,
    where medium sizes and plain things, which people leave unsaid, do not count; attribute: the
    three together; background: share of the scenes whose background is named.

    Arguments: one caption for each scene, in the same order.
    Returns {"precision": {kind: ratio}, "stated": {kind: number}, "recall": {kind: ratio},
    "present": {kind: number}}; a ratio with nothing below the line is nan.
    Raises ValueError where the lists differ in length.
    """
    if len(captions) != len(scenes):
        raise ValueError(f"{len(captions)} captions for {len(scenes)} scenes; give one for each.")
    stated = dict.fromkeys((*KINDS, "attribute", "all"), 0)
    true = dict(stated)
    present = dict.fromkeys(("thing", *ATTRIBUTES, "attribute", "background"), 0)
    told = dict(present)
    for caption, scene in zip(captions, scenes, strict=True):
        verdicts, meant, reading = _judge(caption, scene)
        for (kind, _, _), verdict in verdicts:
            kind = "count" if kind == "total" else kind
            for key in (kind, "attribute" if kind in ATTRIBUTES else None, "all"):
                if key:
                    stated[key] += 1
                    true[key] += verdict
        for key, is_told in _mentions(scene, meant, reading):
            for name in (key, "attribute" if key in ATTRIBUTES else None):
                if name:
                    present[name] += 1
                    told[name] += is_told

    def ratios(above: dict, below: dict) -> dict:
        return {key: above[key] / below[key] if below[key] else float("nan") for key in below}

    return {"precision": ratios(true, stated), "stated": stated,
            "recall": ratios(told, present), "present": present}


def _mentions(scene, meant: list[tuple[int, ...]], reading: _Reading) -> Iterator[tuple[str, bool]]:
    """What a full description of the scene would tell, and whether the caption told it."""
    yield "background", scene.background in reading.backgrounds
    for number, thing in enumerate(scene.things):
        about = [p for p, things in zip(reading.phrases, meant, strict=True) if number in things]
        yield "thing", any(phrase.shape for phrase in about)
        said = {pair for phrase in about for pair in phrase.attributes + phrase.predicates}
        for kind in ATTRIBUTES:
            value = getattr(thing, kind)
            if value not in ("medium", "plain"):
                yield kind, (kind, value) in said


# ---------------------------------------------------------------- writing


def choose(random, options):
    """One of the options by lot (only random_sample is used: its stream never changes)."""
    return options[int(random.random_sample() * len(options))]


def _word(random, words: tuple[str, ...]) -> str:
    """The usual word more often than its synonyms."""
    return words[0] if random.random_sample() < 0.55 else choose(random, words)


def _chance(random, probability: float) -> bool:
    return random.random_sample() < probability


def _facts(random, thing) -> dict[str, str]:
    """Some of the attributes of a thing: those that this caption will mention."""
    facts = {}
    if thing.size != "medium" and _chance(random, 0.45):
        facts["size"] = thing.size
    if _chance(random, 0.85):
        facts["colour"] = thing.colour
    if _chance(random, 0.12 if thing.pattern == "plain" else 0.6):
        facts["pattern"] = thing.pattern
    return facts


def _noun(random, shape: str | None, facts: dict[str, str], plural: bool = False) -> str:
    """A noun with adjectives, as "little red stars with stripes", and no article."""
    noun = _word(random, SHAPE_WORDS[shape] if shape else THING_WORDS)
    words = [_word(random, SIZE_WORDS[facts["size"]])] if "size" in facts else []
    rest = [_word(random, COLOUR_WORDS[facts["colour"]])] if "colour" in facts else []
    tail = ""
    if facts.get("pattern") in PATTERN_TAILS and _chance(random, 0.35):
        tail = " " + _word(random, PATTERN_TAILS[facts["pattern"]])
    elif "pattern" in facts:
        rest.insert(int(random.random_sample() * 2), _word(random, PATTERN_WORDS[facts["pattern"]]))
    return " ".join([*words, *rest, _plural(noun) if plural else noun]) + tail


def _only(scene, shape: str | None, facts: dict[str, str]) -> bool:
    return sum(_fits(thing, shape, facts) for thing in scene.things) == 1


def _name(random, scene, number: int, definite: float = 0.25) -> str:
    """A noun phrase for a thing: "a red star", or "the red star" where there is just one."""
    thing = scene.things[number]
    facts = _facts(random, thing)
    shape = thing.shape if _chance(random, 0.93) or "colour" not in facts else None
    the = _only(scene, shape, facts) and _chance(random, definite)
    return ("the " if the else "a ") + _noun(random, shape, facts)


def _place(random, scene, probability: float = 0.55) -> str:
    """Where it is, as " on the sand", or nothing."""
    there = _chance(random, probability)
    return " " + _word(random, PLACES[scene.background]) if there else ""


def _listing(parts: list[str]) -> str:
    """As "a star, a ring and another ring"."""
    seen: list[str] = []
    for part in parts:
        seen.append(part.replace("a ", "another ", 1) if part in seen else part)
    return seen[0] if len(seen) == 1 else ", ".join(seen[:-1]) + " and " + seen[-1]


OPENINGS = ("", "", "there is ", "here is ", "we see ", "this is ", "a picture of ", "look at ")


def _say_one(random, scene) -> str:
    number = int(random.random_sample() * len(scene.things))
    name = _name(random, scene, number, definite=0)
    if len(scene.things) == 1 and _chance(random, 0.4):
        lone = ("nothing but {}", "{} all by itself", "{} alone", "{} and nothing else")
        return choose(random, lone).format(name) + _place(random, scene)
    verb = choose(random, (" lies", " sits", " rests", " waits", " can be seen", " shows up"))
    if _chance(random, 0.4):
        return name + verb + _place(random, scene, 1)
    return choose(random, OPENINGS) + name + _place(random, scene)


def _say_about(random, scene) -> str | None:
    """As "the big star is red and striped"."""
    number = int(random.random_sample() * len(scene.things))
    thing = scene.things[number]
    facts = {k: getattr(thing, k) for k in ("size", "colour", "pattern")}
    facts = {k: v for k, v in facts.items() if v not in ("medium", "plain")}
    shown = choose(random, tuple(facts))
    shape = thing.shape if _chance(random, 0.8) else None
    if not _only(scene, shape, {shown: facts[shown]}):
        shown = None
    known = {} if shown is None else {shown: facts.pop(shown)}
    if not facts or not _only(scene, shape, known):
        return None
    words = {"size": SIZE_WORDS, "colour": COLOUR_WORDS, "pattern": PATTERN_WORDS}
    said = [_word(random, words[kind][value]) for kind, value in facts.items()]
    only = choose(random, ("the ", "the ", "the only "))
    return only + _noun(random, shape, known) + _place(random, scene, 0.3) + " is " + _listing(said)


def _say_relation(random, scene) -> str | None:
    if len(scene.things) < 2:
        return None
    order = sorted(range(len(scene.things)), key=lambda _: random.random_sample())
    first, second = order[:2]
    true = [r for r in RELATION_WORDS if r != "between" and _clearly(scene, r, first, second)]
    if not true:
        return None
    # "in front of" is rarer than "left of": say it when it can be said
    relation = next((r for r in true if r in ("front", "behind")), choose(random, true))
    words = _word(random, RELATION_WORDS[relation])
    a, b = _name(random, scene, first), _name(random, scene, second)
    b = b.replace("a ", "another ", 1) if a == b else b
    if _chance(random, 0.25) and words.split()[0] not in ("hiding", "half", "partly", "peeking"):
        a = _name(random, scene, first, definite=0)
        verb = choose(random, ("there is", "is", "sits", "lies", "one can see", "we find"))
        return f"{words} {b} {verb} {a}" + _place(random, scene, 0.4)
    verbs = ("", "", " is", " is", " sits", " lies", " rests", " stands")
    verbs = (*verbs, " floats", " hovers", " hangs") if relation == "above" else verbs
    said = a + choose(random, verbs) + f" {words} {b}"
    further = [(r, n) for n in order[2:] for r in RELATION_WORDS if r != "between"
               and _clearly(scene, r, second, n)]
    if further and _chance(random, 0.4):
        relation, third = choose(random, further)
        more = choose(random, RELATION_WORDS[relation])
        return f"{said}, which is {more} {_name(random, scene, third)}"
    return said + _place(random, scene, 0.45)


def _say_between(random, scene) -> str | None:
    numbers = range(len(scene.things))
    found = [(a, b, c) for a in numbers for b in numbers for c in numbers
             if len({a, b, c}) == 3 and holds(scene, "between", a, b, c)]
    if not found:
        return None
    a, b, c = (_name(random, scene, number) for number in choose(random, found))
    form = choose(random, ("{a} between {b} and {c}", "{a} is in between {b} and {c}",
                           "between {b} and {c} there is {a}"))
    return form.format(a=a, b=b, c=c) + _place(random, scene, 0.3)


def _say_all(random, scene) -> str:
    order = sorted(range(len(scene.things)), key=lambda _: random.random_sample())
    names = _listing([_name(random, scene, number, definite=0) for number in order])
    closing = choose(random, ("", "", "", " and nothing else", ", that is all"))
    if _chance(random, 0.3):
        place = _place(random, scene, 1)[1:]
        verb = choose(random, (" there is ", " lies ", " one can see ", " we find "))
        return place + verb + names + closing
    return choose(random, OPENINGS) + names + _place(random, scene) + closing


def _say_total(random, scene) -> str | None:
    count = len(scene.things)
    if count < 2:
        return None
    number = _word(random, NUMBER_WORDS[count])
    start = f"{number} {_plural(_word(random, THING_WORDS))}"
    place = _place(random, scene, 0.6)
    pick = int(random.random_sample() * count)
    form = choose(random, ("one", "list", "bare", "one"))
    if form == "one":
        start = choose(random, ("there are ", "we see ", "")) + start
        return f"{start}{place}, one of them {_name(random, scene, pick, definite=0)}"
    if form == "list":
        names = [_name(random, scene, n, definite=0) for n in range(count)]
        return f"{start}{place}: {_listing(names)}"
    verbs = ("lie", "are scattered", "share the space", "keep each other company", "sit")
    return f"{start} {choose(random, verbs)}{place}"


def _say_count(random, scene) -> str | None:
    """As "two red circles and a star" or "two stars, a red one and a blue one"."""
    thing = choose(random, scene.things)
    shape = thing.shape if _chance(random, 0.7) else None
    facts = _facts(random, thing)
    if _chance(random, 0.5):
        facts = {key: facts[key] for key in list(facts)[:1]}
    if shape is None and not facts:
        return None
    fitting = [t for t in scene.things if _fits(t, shape, facts)]
    rest = [n for n, t in enumerate(scene.things) if not _fits(t, shape, facts)]
    if len(fitting) < 2:
        return None
    counted = _word(random, NUMBER_WORDS[len(fitting)]) + " "
    counted += _noun(random, shape, facts, plural=True)
    colours = [t.colour for t in fitting]
    two_colours = shape and "colour" not in facts and len(set(colours)) == 2 == len(fitting)
    if two_colours and _chance(random, 0.6):
        ones = [f"a {_word(random, COLOUR_WORDS[colour])} one" for colour in colours]
        return counted + _place(random, scene, 0.4) + ", " + _listing(ones)
    if rest and _chance(random, 0.6):
        counted += " and " + _name(random, scene, rest[0], definite=0.2)
    opening = choose(random, ("", "", "there are ", "here are ", "we see "))
    return opening + counted + _place(random, scene)


WAYS = (_say_one, _say_about, _say_relation, _say_relation, _say_relation, _say_between, _say_all,
        _say_all, _say_total, _say_count, _say_count)


def _articles(caption: str) -> str:
    """Make "a orange star" into "an orange star"."""
    return re.sub(r"\ba(?= [aeiou])", "an", caption)


def captions(scene, random, count: int = 5) -> list[str]:
    """`count` different captions of a scene, each true of it, by lot.

    random: a numpy.random.RandomState.
    """
    found: list[str] = []
    while len(found) < count:
        caption = choose(random, WAYS)(random, scene)
        if not caption:
            continue
        caption = _articles(caption)
        if caption not in found and all(truth for _, truth in check(caption, scene)):
            found.append(caption)
    return found


def _without_size(clip):
    """The first scene, with no size for the things that move: they may grow or shrink."""
    things = list(clip.scenes[0].things)
    for number in clip.movers:
        things[number] = replace(things[number], size="medium")
    return replace(clip.scenes[0], things=tuple(things))


def clip_captions(clip, random, count: int = 5) -> list[str]:
    """`count` different captions of a clip, each true of it: who does what, and where."""
    scene, found = clip.scenes[0], []
    steady = _without_size(clip)
    others = [n for n in range(len(scene.things)) if n not in clip.movers]
    while len(found) < count:
        names = [_name(random, steady, number) for number in clip.movers]
        caption = f"{_listing(names)} {_word(random, ACTION_WORDS[clip.action])}"
        caption += _place(random, scene, 0.4)
        if others and _chance(random, 0.35):
            still = choose(random, ("stays still", "does not move", "stays where it is"))
            link = choose(random, (" while ", " and "))
            caption += link + _name(random, steady, choose(random, others)) + " " + still
        if _chance(random, 0.2):
            caption = choose(random, ("watch how ", "in this clip ", "slowly, ")) + caption
        caption = _articles(caption)
        if caption not in found:
            found.append(caption)
    return found
