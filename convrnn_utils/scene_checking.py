"""Whether a caption is true of a scene, and how much of it: ``check`` and ``faithfulness``."""

import math
from collections.abc import Iterable, Iterator
from itertools import product

from convrnn_utils.scene_model import Scene, Thing
from convrnn_utils.scene_reading import ATTRIBUTES, Phrase, Reading, Statement, read, statements
from convrnn_utils.scene_words import RELATION_WORDS

KINDS = ("thing", *ATTRIBUTES, "relation", "count", "unique", "background")
MOST_PHRASES = 8  # the most that are read; no scene has more than four things


def check(caption: str, scene: Scene) -> list[tuple[Statement, bool]]:
    """Every statement of a caption with True or False, judged against the scene."""
    return _judge(caption, scene)[0]


def faithfulness(captions: list[str], scenes: list[Scene]) -> dict[str, dict[str, float]]:
    """How true captions are of their scenes, and how much of the scenes they tell.

    Reading. A noun phrase is a noun with the adjectives before it (or after it, up to the next
    article, relation or background). A relation joins the noun phrases on either side of it, or
    the next two when it comes first ("above the star there is a ring"). Unknown words are skipped,
    and of a very long caption only the first 8 noun phrases are read.

    Matching. Noun phrases in the singular are matched to things of the scene, each to a thing of
    its own and of the shape it names, in the way that makes the most statements true. If a phrase
    finds no such thing ("a star" when there is none, or a second star when there is only one), it
    is false, and so are all the attributes and relations stated of it. A phrase in the plural means
    all things that fit it.

    Precision is true statements / statements, over all captions together:

    - thing: a named shape is there; size, colour, pattern: the matched thing has it;
      attribute: the three together;
    - relation: holds between the matched things (see ``holds`` for the margins);
    - count: "two red stars", "three shapes", "nothing else": the number is exact;
    - unique: "the red star": there is exactly one;
    - background: it is the one named; all: everything together.

    Recall is what is told / what there is to tell:

    - thing: share of the scenes' things that some noun phrase with a shape is matched to;
    - size, colour, pattern: share of the things' attributes that are stated and true of the matched
      thing; medium sizes and plain patterns, which people leave unsaid, do not count;
      attribute: the three together;
    - background: share of the scenes whose background is named.

    Args:
        captions: one for each scene.
        scenes: in the same order.

    Returns:
        ``{"precision": {kind: ratio}, "stated": {kind: number}, "recall": {kind: ratio},
        "present": {kind: number}}``; a ratio whose denominator is 0 is nan.

    Raises:
        ValueError: the lists differ in length.
    """
    if len(captions) != len(scenes):
        raise ValueError(f"{len(captions)} captions for {len(scenes)} scenes; give one for each.")
    stated = dict.fromkeys((*KINDS, "attribute", "all"), 0)
    present = dict.fromkeys(("thing", *ATTRIBUTES, "attribute", "background"), 0)
    true, told = dict(stated), dict(present)
    for caption, scene in zip(captions, scenes, strict=True):
        verdicts, meant, reading = _judge(caption, scene)
        for statement, is_true in verdicts:
            for kind in (*_counted_as(statement.kind), "all"):
                stated[kind] += 1
                true[kind] += is_true
        for mention, is_told in _mentions(scene, meant, reading):
            for kind in _counted_as(mention):
                present[kind] += 1
                told[kind] += is_told
    return {
        "precision": _ratios(true, stated),
        "stated": stated,
        "recall": _ratios(told, present),
        "present": present,
    }


def _counted_as(kind: str) -> tuple[str, ...]:
    """The rows of the score in which a statement counts."""
    if kind == "total":
        return ("count",)
    return (kind, "attribute") if kind in ATTRIBUTES else (kind,)


def _ratios(above: dict[str, int], below: dict[str, int]) -> dict[str, float]:
    return {kind: above[kind] / below[kind] if below[kind] else math.nan for kind in below}


def _mentions(
    scene: Scene, meant: list[tuple[int, ...]], reading: Reading
) -> Iterator[tuple[str, bool]]:
    """What a full description of the scene would tell, and whether the caption told it."""
    yield "background", scene.background in reading.backgrounds
    for number, thing in enumerate(scene.things):
        about = [
            phrase
            for phrase, things in zip(reading.phrases, meant, strict=True)
            if number in things
        ]
        yield "thing", any(phrase.shape for phrase in about)
        said = {pair for phrase in about for pair in phrase.attributes + phrase.predicates}
        for kind in ATTRIBUTES:
            value = getattr(thing, kind)
            if value not in ("medium", "plain"):
                yield kind, (kind, value) in said


# ---------------------------------------------------------------- which thing is meant


def fits(thing: Thing, shape: str | None, attributes: Iterable[tuple[str, str]] = ()) -> bool:
    """True if a thing is of the shape (None: any) and has every (kind, value) attribute."""
    return shape in (None, thing.shape) and all(getattr(thing, k) == v for k, v in attributes)


def _judge(
    caption: str, scene: Scene
) -> tuple[list[tuple[Statement, bool]], list[tuple[int, ...]], Reading]:
    """(Statement, truth) pairs, the things that each noun phrase means, and the reading."""
    reading = read(caption)
    del reading.phrases[MOST_PHRASES:]
    reading.relations = [r for r in reading.relations if max(r[1]) < len(reading.phrases)]
    said = statements(reading)
    best: list[tuple[int, ...]] = []
    best_truths: list[bool] | None = None
    for meant in _matches(reading.phrases, scene):
        truths = [_is_true(statement, reading, meant, scene) for statement in said]
        if best_truths is None or sum(truths) > sum(best_truths):
            best, best_truths = meant, truths
        if all(truths):
            break
    return list(zip(said, best_truths, strict=True)), best, reading


def _matches(
    phrases: list[Phrase], scene: Scene, taken: frozenset[int] = frozenset()
) -> Iterator[list[tuple[int, ...]]]:
    """Every way to match noun phrases to things: for each phrase the numbers of its things.

    A phrase in the plural means all the things that fit it (if none has its attributes, all those
    of its shape). A phrase in the singular means one thing of its shape that is not ``taken`` by
    another phrase, or nothing.
    """
    if not phrases:
        yield []
        return
    first, *rest = phrases
    shaped = [n for n, thing in enumerate(scene.things) if fits(thing, first.shape)]
    if first.plural:
        fitting = [n for n in shaped if fits(scene.things[n], None, first.attributes)]
        options = [tuple(fitting or shaped)]
    else:
        options = [*((n,) for n in shaped if n not in taken), ()]
    for option in options:
        for others in _matches(rest, scene, taken if first.plural else taken.union(option)):
            yield [option, *others]


# ---------------------------------------------------------------- truth


def _is_true(
    statement: Statement, reading: Reading, meant: list[tuple[int, ...]], scene: Scene
) -> bool:
    """Whether a statement is true, if noun phrase i means the things ``meant[i]``."""
    kind, value, about = statement
    if kind == "background":
        return scene.background == value
    if kind == "total":
        return len(scene.things) == value
    if kind == "relation":
        return _related(scene, value, [meant[index] for index in about])
    phrase, things = reading.phrases[about[0]], meant[about[0]]
    if kind in ("count", "unique"):
        return sum(fits(thing, phrase.shape, phrase.attributes) for thing in scene.things) == value
    if kind == "thing":
        return bool(things)
    return bool(things) and all(getattr(scene.things[number], kind) == value for number in things)


def _related(scene: Scene, relation: str, groups: list[tuple[int, ...]]) -> bool:
    """True if the relation holds for every choice of one thing from each group."""
    combinations = list(product(*groups))
    return bool(combinations) and all(
        len(set(numbers)) == len(numbers) and holds(scene, relation, *numbers)
        for numbers in combinations
    )


def holds(scene: Scene, relation: str, *numbers: int, margin: float = 12.0) -> bool:
    """True if a relation holds between things of a scene.

    - left, right, above, below: the centre of the first lies ``margin`` pixels or more to that
      side of the centre of the second;
    - beside: left or right, rather than above or below, with at most 10 pixels between the edges;
    - front: the first partly covers the second; behind: the second partly covers the first;
    - between: the centre of the first lies within 12 pixels of the line that joins the centres of
      the other two, beside the middle 70 % of that line.

    Args:
        scene: what is judged.
        relation: one of those above.
        numbers: of the things, two, or three for "between".
        margin: in pixels.

    Raises:
        ValueError: there is no such relation.
    """
    first, second = scene.things[numbers[0]], scene.things[numbers[1]]
    dx, dy = second.x - first.x, second.y - first.y
    if relation in ("left", "right"):
        return (dx if relation == "left" else -dx) >= margin
    if relation in ("above", "below"):
        return (dy if relation == "above" else -dy) >= margin
    if relation == "beside":
        gap = math.sqrt(dx * dx + dy * dy) - first.radius - second.radius
        return abs(dx) >= max(margin, abs(dy)) and gap <= 10
    if relation == "front":
        return (numbers[0], numbers[1]) in scene.overlaps
    if relation == "behind":
        return (numbers[1], numbers[0]) in scene.overlaps
    if relation == "between":
        third = scene.things[numbers[2]]
        line_x, line_y = third.x - second.x, third.y - second.y
        length = math.sqrt(line_x * line_x + line_y * line_y)
        along = (-dx * line_x - dy * line_y) / (length * length)
        return 0.15 <= along <= 0.85 and abs(dx * line_y - dy * line_x) / length <= 12
    raise ValueError(f"There is no relation {relation!r}; choose one of {list(RELATION_WORDS)}.")
