"""A grammar that writes captions of scenes and clips.

It never says anything false of its picture: it states only what the scene holds, and throws away
a caption that ``check`` would not call wholly true. Every way to word a caption is a function of
its own, ``_say_...``, which returns None if the scene gives no occasion for it.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

from numpy.random import RandomState

from convrnn_utils.scene_checking import check, fits, holds
from convrnn_utils.scene_model import Clip, Scene, Thing, chance, choose
from convrnn_utils.scene_words import (
    ACTION_WORDS,
    COLOUR_WORDS,
    NUMBER_WORDS,
    PATTERN_TAILS,
    PATTERN_WORDS,
    PLACES,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    THING_WORDS,
    plural,
)

OPENINGS = ("", "", "there is ", "here is ", "we see ", "this is ", "a picture of ", "look at ")
ATTRIBUTE_WORDS = {"size": SIZE_WORDS, "colour": COLOUR_WORDS, "pattern": PATTERN_WORDS}


def captions(scene: Scene, random: RandomState, count: int = 5) -> list[str]:
    """Write ``count`` different captions of a scene, each true of it, at random."""
    found: list[str] = []
    while len(found) < count:
        caption = choose(random, WAYS)(random, scene)
        if not caption:
            continue
        caption = _articles(caption)
        if caption not in found and all(truth for _, truth in check(caption, scene)):
            found.append(caption)
    return found


def clip_captions(clip: Clip, random: RandomState, count: int = 5) -> list[str]:
    """Write ``count`` different captions of a clip, each true of it: who does what, and where."""
    scene = _without_sizes(clip)
    others = [number for number in range(len(scene.things)) if number not in clip.movers]
    found: list[str] = []
    while len(found) < count:
        names = [_name(random, scene, number) for number in clip.movers]
        caption = f"{_listing(names)} {_word(random, ACTION_WORDS[clip.action])}"
        caption += _place(random, scene, 0.4)
        if others and chance(random, 0.35):
            still = choose(random, ("stays still", "does not move", "stays where it is"))
            link = choose(random, (" while ", " and "))
            caption += link + _name(random, scene, choose(random, others)) + " " + still
        if chance(random, 0.2):
            caption = choose(random, ("watch how ", "in this clip ", "slowly, ")) + caption
        caption = _articles(caption)
        if caption not in found:
            found.append(caption)
    return found


def _without_sizes(clip: Clip) -> Scene:
    """The first scene, with no size for the things that move: they may grow or shrink."""
    scene = clip.scenes[0]
    things = list(scene.things)
    for number in clip.movers:
        things[number] = replace(things[number], size="medium")
    return replace(scene, things=tuple(things))


def _articles(caption: str) -> str:
    """Make "a orange star" into "an orange star"."""
    return re.sub(r"\ba(?= [aeiou])", "an", caption)


# ---------------------------------------------------------------- parts of a caption


def _word(random: RandomState, words: tuple[str, ...]) -> str:
    """One of the words: the first, the usual one, more often than its synonyms."""
    return words[0] if chance(random, 0.55) else choose(random, words)


def _facts(random: RandomState, thing: Thing) -> dict[str, str]:
    """Some of the attributes of a thing: those that this caption will mention."""
    facts = {}
    if thing.size != "medium" and chance(random, 0.45):
        facts["size"] = thing.size
    if chance(random, 0.85):
        facts["colour"] = thing.colour
    if chance(random, 0.12 if thing.pattern == "plain" else 0.6):
        facts["pattern"] = thing.pattern
    return facts


def _noun(random: RandomState, shape: str | None, facts: dict[str, str], many: bool = False) -> str:
    """A noun with adjectives but no article, such as "little red stars with stripes"."""
    noun = _word(random, SHAPE_WORDS[shape] if shape else THING_WORDS)
    noun = plural(noun) if many else noun
    sizes = [_word(random, SIZE_WORDS[facts["size"]])] if "size" in facts else []
    adjectives = [_word(random, COLOUR_WORDS[facts["colour"]])] if "colour" in facts else []
    if "pattern" in facts:
        pattern = facts["pattern"]
        if pattern in PATTERN_TAILS and chance(random, 0.35):
            noun += " " + _word(random, PATTERN_TAILS[pattern])
        else:  # "red striped" or "striped red"
            at = int(random.random_sample() * 2)
            adjectives.insert(at, _word(random, PATTERN_WORDS[pattern]))
    return " ".join([*sizes, *adjectives, noun])


def _only(scene: Scene, shape: str | None, facts: dict[str, str]) -> bool:
    """True if exactly one thing of the scene fits."""
    return sum(fits(thing, shape, facts.items()) for thing in scene.things) == 1


def _name(random: RandomState, scene: Scene, number: int, definite: float = 0.25) -> str:
    """A noun phrase for a thing: "a red star", or "the red star" if there is just one.

    ``definite`` is the probability of "the" if it can be said.
    """
    thing = scene.things[number]
    facts = _facts(random, thing)
    shape = thing.shape if chance(random, 0.93) or "colour" not in facts else None
    the = _only(scene, shape, facts) and chance(random, definite)
    return ("the " if the else "a ") + _noun(random, shape, facts)


def _place(random: RandomState, scene: Scene, probability: float = 0.55) -> str:
    """The background in words, such as " on the sand", or nothing."""
    there = chance(random, probability)
    return " " + _word(random, PLACES[scene.background]) if there else ""


def _listing(parts: list[str]) -> str:
    """Join names into a list, such as "a star, a ring and another ring"."""
    seen: list[str] = []
    for part in parts:
        seen.append(_another(part) if part in seen else part)
    return seen[0] if len(seen) == 1 else ", ".join(seen[:-1]) + " and " + seen[-1]


def _another(name: str) -> str:
    return name.replace("a ", "another ", 1)


def _shuffled_numbers(random: RandomState, scene: Scene) -> list[int]:
    """The numbers of the scene's things in random order."""
    return sorted(range(len(scene.things)), key=lambda _: random.random_sample())


# ---------------------------------------------------------------- ways to put a caption


def _say_one(random: RandomState, scene: Scene) -> str:
    """A caption such as "look at a red star on the sand"."""
    number = choose(random, range(len(scene.things)))
    name = _name(random, scene, number, definite=0)
    if len(scene.things) == 1 and chance(random, 0.4):
        alone = ("nothing but {}", "{} all by itself", "{} alone", "{} and nothing else")
        return choose(random, alone).format(name) + _place(random, scene)
    verb = choose(random, (" lies", " sits", " rests", " waits", " can be seen", " shows up"))
    if chance(random, 0.4):
        return name + verb + _place(random, scene, 1)
    return choose(random, OPENINGS) + name + _place(random, scene)


def _say_about(random: RandomState, scene: Scene) -> str | None:
    """A caption such as "the big star is red and striped"."""
    thing = choose(random, scene.things)
    facts = {kind: getattr(thing, kind) for kind in ATTRIBUTE_WORDS}
    facts = {kind: value for kind, value in facts.items() if value not in ("medium", "plain")}
    shown = choose(random, tuple(facts))
    shape = thing.shape if chance(random, 0.8) else None
    known = {}  # what identifies the thing, besides its shape
    if _only(scene, shape, {shown: facts[shown]}):
        known[shown] = facts.pop(shown)
    if not facts or not _only(scene, shape, known):
        return None
    said = [_word(random, ATTRIBUTE_WORDS[kind][value]) for kind, value in facts.items()]
    only = choose(random, ("the ", "the ", "the only "))
    return only + _noun(random, shape, known) + _place(random, scene, 0.3) + " is " + _listing(said)


def _say_relation(random: RandomState, scene: Scene) -> str | None:
    """A caption such as "a red star sits above the ring"."""
    if len(scene.things) < 2:
        return None
    first, second, *others = _shuffled_numbers(random, scene)
    true = _clear_relations(scene, first, second)
    if not true:
        return None
    relation = choose(random, true)
    # "in front of" is rarer than "left of": say it when it can be said
    relation = next((name for name in true if name in ("front", "behind")), relation)
    words = _word(random, RELATION_WORDS[relation])
    one, other = _name(random, scene, first), _name(random, scene, second)
    other = _another(other) if one == other else other
    if chance(random, 0.25) and words.split()[0] not in ("hiding", "half", "partly", "peeking"):
        one = _name(random, scene, first, definite=0)
        verb = choose(random, ("there is", "is", "sits", "lies", "one can see", "we find"))
        return f"{words} {other} {verb} {one}" + _place(random, scene, 0.4)
    verbs = ("", "", " is", " is", " sits", " lies", " rests", " stands")
    if relation == "above":
        verbs += (" floats", " hovers", " hangs")
    said = f"{one}{choose(random, verbs)} {words} {other}"
    further = [(name, third) for third in others for name in _clear_relations(scene, second, third)]
    if further and chance(random, 0.4):
        relation, third = choose(random, further)
        words = choose(random, RELATION_WORDS[relation])
        return f"{said}, which is {words} {_name(random, scene, third)}"
    return said + _place(random, scene, 0.45)


def _clear_relations(scene: Scene, first: int, second: int) -> list[str]:
    """The relations that hold with room to spare: what the grammar dares to say of two things."""
    dx = abs(scene.things[second].x - scene.things[first].x)
    dy = abs(scene.things[second].y - scene.things[first].y)
    aside, upright = dx >= 1.4 * dy, dy >= 1.4 * dx
    clear = {"left": aside, "right": aside, "above": upright, "below": upright, "beside": aside}
    clear |= {"front": True, "behind": True}
    return [name for name in clear if clear[name] and holds(scene, name, first, second, margin=16)]


def _say_between(random: RandomState, scene: Scene) -> str | None:
    """A caption such as "a ring is in between a star and a moon"."""
    numbers = range(len(scene.things))
    found = [three for three in permutations(numbers, 3) if holds(scene, "between", *three)]
    if not found:
        return None
    middle, left, right = (_name(random, scene, number) for number in choose(random, found))
    forms = (
        f"{middle} between {left} and {right}",
        f"{middle} is in between {left} and {right}",
        f"between {left} and {right} there is {middle}",
    )
    return choose(random, forms) + _place(random, scene, 0.3)


def _say_all(random: RandomState, scene: Scene) -> str:
    """A caption such as "a star, a ring and a moon on the beach and nothing else"."""
    numbers = _shuffled_numbers(random, scene)
    names = _listing([_name(random, scene, number, definite=0) for number in numbers])
    closing = choose(random, ("", "", "", " and nothing else", ", that is all"))
    if chance(random, 0.3):
        place = _place(random, scene, 1).lstrip()
        verb = choose(random, (" there is ", " lies ", " one can see ", " we find "))
        return place + verb + names + closing
    return choose(random, OPENINGS) + names + _place(random, scene) + closing


def _say_total(random: RandomState, scene: Scene) -> str | None:
    """A caption such as "three shapes on the sand, one of them a red star"."""
    count = len(scene.things)
    if count < 2:
        return None
    start = _word(random, NUMBER_WORDS[count]) + " " + plural(_word(random, THING_WORDS))
    place = _place(random, scene, 0.6)
    number = choose(random, range(count))
    form = choose(random, ("one", "list", "bare", "one"))
    if form == "one":
        start = choose(random, ("there are ", "we see ", "")) + start
        return f"{start}{place}, one of them {_name(random, scene, number, definite=0)}"
    if form == "list":
        names = [_name(random, scene, number, definite=0) for number in range(count)]
        return f"{start}{place}: {_listing(names)}"
    verbs = ("lie", "are scattered", "share the space", "keep each other company", "sit")
    return f"{start} {choose(random, verbs)}{place}"


def _say_count(random: RandomState, scene: Scene) -> str | None:
    """A caption such as "two red circles and a star", or "two stars, a red one and a blue one"."""
    thing = choose(random, scene.things)
    shape = thing.shape if chance(random, 0.7) else None
    facts = _facts(random, thing)
    if chance(random, 0.5):
        facts = dict(list(facts.items())[:1])
    if shape is None and not facts:
        return None
    fitting = [one for one in scene.things if fits(one, shape, facts.items())]
    rest = [number for number, one in enumerate(scene.things) if one not in fitting]
    if len(fitting) < 2:
        return None
    counted = _word(random, NUMBER_WORDS[len(fitting)]) + " "
    counted += _noun(random, shape, facts, many=True)
    colours = [one.colour for one in fitting]
    two_colours = len(fitting) == 2 == len(set(colours))
    if shape and "colour" not in facts and two_colours and chance(random, 0.6):
        ones = [f"a {_word(random, COLOUR_WORDS[colour])} one" for colour in colours]
        return counted + _place(random, scene, 0.4) + ", " + _listing(ones)
    if rest and chance(random, 0.6):
        counted += " and " + _name(random, scene, rest[0], definite=0.2)
    opening = choose(random, ("", "", "there are ", "here are ", "we see "))
    return opening + counted + _place(random, scene)


# A way that is listed several times is taken more often.
WAYS: tuple[Callable[[RandomState, Scene], str | None], ...] = (
    _say_one,
    _say_about,
    *[_say_relation] * 3,
    _say_between,
    *[_say_all] * 2,
    _say_total,
    *[_say_count] * 2,
)
