"""Scenes and clips at random: which things, what they look like, and where they have room."""

import math
from dataclasses import replace

from numpy.random import RandomState

from convrnn_utils.scene_model import (
    ACTIONS,
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    REACH,
    SHAPES,
    SIZE,
    SIZES,
    Clip,
    Scene,
    Thing,
    chance,
    choose,
)
from convrnn_utils.scene_shapes import outline

HARD_TO_SEE = {("grass", "green"), ("water", "blue"), ("paper", "white")}  # never drawn together
LEAST_VISIBLE = 0.6  # share of a thing that must stay visible behind another


def sample_scene(random: RandomState, held_out: bool = False) -> Scene:
    """Draw a scene at random: 1 to 4 things, mostly apart, sometimes one partly over another.

    Args:
        random: the source of chance.
        held_out: whether the scene has at least one (colour, shape) pair of ``HELD_OUT``, or none.
    """
    while True:  # a crowded start is thrown away and begun again
        background = choose(random, BACKGROUNDS)
        number = choose(random, (1, 1, 2, 2, 2, 3, 3, 3, 4, 4))
        special = int(random.random_sample() * number) if held_out else -1
        things: list[Thing] = []
        overlaps: tuple[tuple[int, int], ...] = ()
        for index in range(number):
            thing = _sample_thing(random, background, index == special, things)
            back = int(random.random_sample() * index)
            over = index > 0 and not overlaps and chance(random, 0.25)
            if over and things[back].colour != thing.colour:
                others = things[:back] + things[back + 1 :]
                placed = _place_over(random, thing, things[back], others)
                overlaps = ((index, back),)
            else:
                placed = _place(random, thing, things)
            if placed is None:
                break
            things.append(placed)
        if len(things) == number:
            return Scene(tuple(things), background, int(random.random_sample() * 2**31), overlaps)


def _sample_thing(
    random: RandomState, background: str, held_out: bool, earlier: list[Thing]
) -> Thing:
    """A thing with everything but its place. Now and then it shares looks with an earlier one."""
    while True:
        shape, colour = choose(random, SHAPES), choose(random, tuple(COLOURS))
        if earlier and chance(random, 0.25):
            shape = choose(random, earlier).shape
        if earlier and chance(random, 0.2):
            colour = choose(random, earlier).colour
        if (background, colour) not in HARD_TO_SEE and ((colour, shape) in HELD_OUT) == held_out:
            break
    size = choose(random, ("small", "small", "medium", "large", "large"))
    pattern = choose(random, ("plain", "plain", "striped", "dotted", "checked"))
    radius = _uniform(random, *SIZES[size])
    turn = math.floor((random.random_sample() - 0.5) * 64) / 256  # up to 14 degrees either way
    return Thing(shape, colour, size, pattern, 0.0, 0.0, radius, turn)


def _uniform(random: RandomState, low: float, high: float) -> float:
    """A number in [low, high), rounded down to sixteenths."""
    return _sixteenths(low + (high - low) * random.random_sample())


def _sixteenths(value: float) -> float:
    """The value rounded down to a multiple of 1/16, which takes few digits in a JSON file."""
    return math.floor(value * 16) / 16


# ---------------------------------------------------------------- places


def _place(random: RandomState, thing: Thing, others: list[Thing]) -> Thing | None:
    """The thing at a free place, or None where 20 tries found no room."""
    edge = REACH * thing.radius
    for _ in range(20):
        x = _uniform(random, edge, SIZE - 1 - edge)
        y = _uniform(random, edge, SIZE - 1 - edge)
        placed = replace(thing, x=x, y=y)
        if _clear_of(placed, others):
            return placed
    return None


def _place_over(
    random: RandomState, thing: Thing, back: Thing, others: list[Thing]
) -> Thing | None:
    """The thing partly over ``back`` and clear of ``others``, or None where 8 tries failed."""
    mask = outline(back)
    for _ in range(8):
        dx, dy = random.random_sample() - 0.5, random.random_sample() - 0.5
        distance = (thing.radius + back.radius) * (0.6 + 0.3 * random.random_sample())
        scale = distance / math.sqrt(dx * dx + dy * dy + 1e-9)
        x, y = _sixteenths(back.x + dx * scale), _sixteenths(back.y + dy * scale)
        placed = replace(thing, x=x, y=y)
        if _clear_of(placed, others):
            hidden = (mask & outline(placed)).sum()
            if 20 <= hidden <= (1 - LEAST_VISIBLE) * mask.sum():
                return placed
    return None


def _clear_of(thing: Thing, others: list[Thing]) -> bool:
    """True where the thing is inside the picture and touches no other."""
    edge = REACH * thing.radius
    if not (edge <= thing.x <= SIZE - 1 - edge and edge <= thing.y <= SIZE - 1 - edge):
        return False
    for other in others:
        dx, dy = thing.x - other.x, thing.y - other.y
        gap = edge + REACH * other.radius + 1
        if dx * dx + dy * dy < gap * gap:
            return False
    return True


def _apart(things: tuple[Thing, ...]) -> bool:
    """True where all things are inside the picture and none touches another."""
    return all(_clear_of(thing, things[:index]) for index, thing in enumerate(things))


# ---------------------------------------------------------------- clips


def sample_clip(random: RandomState, frames: int = 12) -> Clip:
    """Draw a clip at random, with one action out of ``ACTIONS``.

    Actions come in pairs that are each other played backwards (left and right, grow and shrink,
    meet and part), so that only the order of the frames tells them apart. Nothing overlaps.

    Args:
        random: the source of chance.
        frames: 8 to 16.

    Raises:
        ValueError: ``frames`` is out of its range.
    """
    if not 8 <= frames <= 16:
        raise ValueError(f"A clip has 8 to 16 frames, not {frames}; choose a number in that range.")
    action = choose(random, ACTIONS)
    number = 2 if action in ("meet", "part") else 1
    while True:
        scene = sample_scene(random)
        if len(scene.things) < number or scene.overlaps:
            continue
        if action in ("grow", "shrink"):
            radius = _uniform(random, 20, 24) if action == "shrink" else _uniform(random, 8, 10)
            first = replace(scene.things[0], radius=radius)
            scene = replace(scene, things=(first, *scene.things[1:]))
        ends = _ends(random, scene, action)
        if ends is None:
            continue
        scenes = [_on_the_way(scene, ends, step / (frames - 1)) for step in range(frames)]
        if action == "part":  # they were led together: play it backwards
            scenes.reverse()
        if all(_apart(scene.things) for scene in scenes):
            return Clip(tuple(scenes), action, tuple(range(number)))


def _ends(random: RandomState, scene: Scene, action: str) -> tuple[Thing, ...] | None:
    """The movers (the first one or two things) at their ends, or None where there is no room."""
    first = scene.things[0]
    if action in ("left", "right", "up", "down"):
        way = _uniform(random, 36, 56)
        dx = {"left": -way, "right": way}.get(action, 0.0)
        dy = {"up": -way, "down": way}.get(action, 0.0)
        return (replace(first, x=first.x + dx, y=first.y + dy),)
    if action in ("grow", "shrink"):
        low, high = _uniform(random, 8, 10), _uniform(random, 20, 24)
        return (replace(first, radius=high if action == "grow" else low),)
    second = scene.things[1]
    # The two end on either side of the point half-way between them, with a gap of 2 pixels.
    dx, dy = second.x - first.x, second.y - first.y
    distance = math.sqrt(dx * dx + dy * dy)
    reach = REACH * (first.radius + second.radius) + 2
    if distance < reach + 30:
        return None
    share = (1 - reach / distance) / 2
    return (
        replace(first, x=first.x + share * dx, y=first.y + share * dy),
        replace(second, x=second.x - share * dx, y=second.y - share * dy),
    )


def _on_the_way(scene: Scene, ends: tuple[Thing, ...], share: float) -> Scene:
    """The scene with its first things on the way to their ends: 0 the start, 1 the end."""

    def between(start: float, end: float) -> float:
        return math.floor((start + share * (end - start)) * 16 + 0.5) / 16

    moved = [
        replace(
            start,
            x=between(start.x, end.x),
            y=between(start.y, end.y),
            radius=between(start.radius, end.radius),
        )
        for start, end in zip(scene.things, ends, strict=False)
    ]
    return replace(scene, things=(*moved, *scene.things[len(moved) :]))
