"""The embedded data set: drawn scenes with captions, boxes, masks and short clips.

A scene is one to four things over a background. A thing has a shape, a colour, a size and a
pattern. Everything comes from a seed and is the same, byte for byte, on every machine:

- the only source of chance is ``numpy.random.RandomState(...).random_sample``, whose stream
  NumPy promises never to change (NEP 19);
- the drawing uses only ``+ - * / sqrt min max floor``, which IEEE 754 defines to the last bit
  (no sine, power or floating-point sum, whose last bit depends on the library);
- pictures are PNG files without compression, because two builds of zlib may compress alike
  pictures to different bytes.

The words are in :mod:`convrnn_utils.scene_captions`; its functions can be imported from here.
Coordinates are pixels: x to the right, y down, the middle of the top left pixel is (0, 0).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from .scene_captions import captions, check, choose, clip_captions, faithfulness, parse

__all__ = [
    "ACTIONS", "BACKGROUNDS", "COLOURS", "HELD_OUT", "PATTERNS", "SHAPES", "SIZE", "SIZES",
    "Clip", "Scene", "Thing", "captions", "check", "clip_captions", "draw", "draw_clip",
    "faithfulness", "masks", "parse", "sample_clip", "sample_scene", "write", "write_clips",
]

SIZE = 96  # width and height of a picture in pixels

# Colour of a thing, and colour of the stripes or checks on it: red, green, blue in 0..1. Dots
# are pale, as on a toadstool, except on the two light colours, where they would not show.
COLOURS = {
    "red": ((0.88, 0.13, 0.13), (0.50, 0.02, 0.07)),
    "orange": ((0.98, 0.52, 0.08), (0.68, 0.27, 0.00)),
    "yellow": ((0.99, 0.86, 0.16), (0.74, 0.55, 0.02)),
    "green": ((0.13, 0.62, 0.24), (0.02, 0.32, 0.12)),
    "blue": ((0.15, 0.38, 0.90), (0.03, 0.12, 0.48)),
    "purple": ((0.52, 0.22, 0.72), (0.27, 0.05, 0.42)),
    "pink": ((0.98, 0.55, 0.73), (0.80, 0.23, 0.48)),
    "white": ((0.97, 0.97, 0.97), (0.56, 0.58, 0.62)),
}
PALE, LIGHT_COLOURS = (0.98, 0.97, 0.92), ("yellow", "white")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring", "moon")
PATTERNS = ("plain", "striped", "dotted", "checked")
SIZES = {"small": (9.0, 10.5), "medium": (12.5, 13.5), "large": (16.0, 19.0)}  # radius in pixels
BACKGROUNDS = ("sand", "grass", "water", "night", "brick", "wood", "paper")
ACTIONS = ("left", "right", "up", "down", "grow", "shrink", "meet", "part")

# (colour, shape) pairs that training, validation and test pictures never show: one per colour.
HELD_OUT = frozenset({
    ("red", "ring"), ("orange", "star"), ("yellow", "square"), ("green", "moon"),
    ("blue", "triangle"), ("purple", "circle"), ("pink", "diamond"), ("white", "cross"),
})
HARD_TO_SEE = {("grass", "green"), ("water", "blue"), ("paper", "white")}  # never drawn together

REACH = 1.2  # no shape reaches further from its centre than REACH times its radius
LEAST_VISIBLE = 0.6  # share of a thing that must stay visible behind another


@dataclass(frozen=True)
class Thing:
    """One thing: what it is and where. `turn` is the tangent of half its angle of rotation."""

    shape: str
    colour: str
    size: str
    pattern: str
    x: float
    y: float
    radius: float
    turn: float


@dataclass(frozen=True)
class Scene:
    """Things from back to front, a background, and the seed of texture, clutter and light.

    `overlaps` lists the pairs (i, j) in which thing i partly covers thing j.
    """

    things: tuple[Thing, ...]
    background: str
    seed: int
    overlaps: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict:
        """The scene as a dictionary that `json` can write."""
        things = [asdict(thing) for thing in self.things]
        overlaps = [list(pair) for pair in self.overlaps]
        return {"things": things, "background": self.background, "seed": self.seed,
                "overlaps": overlaps}

    @classmethod
    def from_json(cls, record: dict) -> Scene:
        """The scene that `to_json` wrote."""
        things = tuple(Thing(**thing) for thing in record["things"])
        overlaps = tuple((front, back) for front, back in record["overlaps"])
        return cls(things, record["background"], record["seed"], overlaps)


@dataclass(frozen=True)
class Clip:
    """A short film: one scene per frame (same things, same texture), and the action's label.

    `movers` are the numbers of the things that move or change size, in every frame the same.
    """

    scenes: tuple[Scene, ...]
    action: str
    movers: tuple[int, ...]

    def to_json(self) -> dict:
        """The clip as a dictionary that `json` can write."""
        scenes = [scene.to_json() for scene in self.scenes]
        return {"scenes": scenes, "action": self.action, "movers": list(self.movers)}

    @classmethod
    def from_json(cls, record: dict) -> Clip:
        """The clip that `to_json` wrote."""
        scenes = tuple(Scene.from_json(scene) for scene in record["scenes"])
        return cls(scenes, record["action"], tuple(record["movers"]))


# ---------------------------------------------------------------- sampling


def uniform(random: np.random.RandomState, low: float, high: float) -> float:
    """A number in [low, high), a multiple of 1/16 so that JSON files stay short."""
    return math.floor((low + (high - low) * random.random_sample()) * 16) / 16


def _sample_thing(random, background: str, held_out: bool, earlier: list[Thing]) -> Thing:
    """A thing with everything but its place. Now and then it shares looks with an earlier one."""
    while True:
        shape, colour = choose(random, SHAPES), choose(random, tuple(COLOURS))
        if earlier and random.random_sample() < 0.25:
            shape = choose(random, earlier).shape
        if earlier and random.random_sample() < 0.2:
            colour = choose(random, earlier).colour
        if (background, colour) not in HARD_TO_SEE and ((colour, shape) in HELD_OUT) == held_out:
            break
    size = choose(random, ("small", "small", "medium", "large", "large"))
    pattern = choose(random, ("plain", "plain", "striped", "dotted", "checked"))
    radius = uniform(random, *SIZES[size])
    turn = math.floor((random.random_sample() - 0.5) * 64) / 256  # up to 14 degrees either way
    return Thing(shape, colour, size, pattern, 0.0, 0.0, radius, turn)


def _clear_of(thing: Thing, others: list[Thing]) -> bool:
    """True where the thing is inside the picture and touches no other."""
    edge = REACH * thing.radius
    if not (edge <= thing.x <= SIZE - 1 - edge and edge <= thing.y <= SIZE - 1 - edge):
        return False
    for other in others:
        dx, dy, gap = thing.x - other.x, thing.y - other.y, edge + REACH * other.radius + 1
        if dx * dx + dy * dy < gap * gap:
            return False
    return True


def _place(random, thing: Thing, others: list[Thing]) -> Thing | None:
    """The thing at a free place, or None where 20 tries found no room."""
    edge = REACH * thing.radius
    for _ in range(20):
        x = uniform(random, edge, SIZE - 1 - edge)
        y = uniform(random, edge, SIZE - 1 - edge)
        placed = replace(thing, x=x, y=y)
        if _clear_of(placed, others):
            return placed
    return None


def _place_over(random, thing: Thing, back: Thing, others: list[Thing]) -> Thing | None:
    """The thing partly over `back` and clear of `others`, or None where that failed."""
    for _ in range(8):
        dx, dy = random.random_sample() - 0.5, random.random_sample() - 0.5
        distance = (thing.radius + back.radius) * (0.6 + 0.3 * random.random_sample())
        scale = distance / math.sqrt(dx * dx + dy * dy + 1e-9)
        x = math.floor((back.x + dx * scale) * 16) / 16
        y = math.floor((back.y + dy * scale) * 16) / 16
        placed = replace(thing, x=x, y=y)
        if not _clear_of(placed, others):
            continue
        full = [_outline(one)[1] for one in (back, placed)]
        hidden, area = int((full[0] & full[1]).sum()), int(full[0].sum())
        if 20 <= hidden <= (1 - LEAST_VISIBLE) * area:
            return placed
    return None


def sample_scene(random: np.random.RandomState, held_out: bool = False) -> Scene:
    """Draw a scene by lot: 1 to 4 things, mostly apart, sometimes one partly over another.

    With `held_out`, the scene has at least one (colour, shape) pair of HELD_OUT, else none.
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
            over = index > 0 and not overlaps and random.random_sample() < 0.25
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


# ---------------------------------------------------------------- shapes

ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """About how many pixels a point lies outside the shape's edge (inside: negative).

    x, y: coordinates from the shape's centre, already rotated; r: its radius, all in pixels.
    """
    if shape == "circle":
        return np.sqrt(x * x + y * y) - 0.93 * r
    if shape == "ring":
        return np.abs(np.sqrt(x * x + y * y) - 0.68 * r) - 0.28 * r
    if shape == "moon":  # a disc out of which another disc is bitten
        x = x - 0.10 * r
        bite_x, bite_y = x - 0.50 * r, y + 0.20 * r
        disc = np.sqrt(x * x + y * y) - r
        return np.maximum(disc, 0.72 * r - np.sqrt(bite_x * bite_x + bite_y * bite_y))
    if shape == "triangle":
        y = y - 0.25 * r
        return np.maximum(y - 0.52 * r, 0.8660254037844386 * np.abs(x) - 0.5 * y - 0.52 * r)
    x = np.abs(x)  # the rest are the same left and right
    if shape == "square":
        return np.maximum(x, np.abs(y)) - 0.80 * r
    if shape == "cross":
        y = np.abs(y)
        return np.maximum(np.maximum(x, y) - 0.95 * r, np.minimum(x, y) - 0.33 * r)
    if shape == "diamond":  # higher than wide: no turned square
        return 0.8126967 * x + 0.5826882 * np.abs(y) - 0.6176495 * r
    if shape == "heart":  # a square on its corner, and a disc on each of its upper sides
        y, a = y - 0.09 * r, 0.6 * r
        half = 0.7071067811865476 * a
        dx, dy = x - half, y + half
        return np.minimum((x + np.abs(y)) * 0.7071067811865476, np.sqrt(dx * dx + dy * dy)) - a
    if shape == "star":  # fold the plane onto a tenth of the star, leaving one straight edge
        y = 0.07 * r - y
        for kx in (0.8090169943749475, -0.8090169943749475):
            fold = 2 * np.maximum(kx * x - 0.5877852522924731 * y, 0)
            x, y = x - fold * kx, y + fold * 0.5877852522924731
        return 0.8967393 * np.abs(x) + 0.4425656 * (y - 1.1 * r)
    raise ValueError(f"There is no shape {shape!r}; choose one of {', '.join(SHAPES)}.")


def _local(thing: Thing, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of pixels from the thing's centre, turned with it."""
    t = thing.turn
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)  # exact, needs no cos()
    x, y = columns - thing.x, rows - thing.y
    return cosine * x + sine * y, cosine * y - sine * x


def _window(thing: Thing, margin: int) -> tuple[slice, slice]:
    """The part of the picture that the thing can touch, with a margin in pixels."""
    reach = REACH * thing.radius + margin
    top, left = max(math.floor(thing.y - reach), 0), max(math.floor(thing.x - reach), 0)
    bottom, right = math.floor(thing.y + reach) + 2, math.floor(thing.x + reach) + 2
    return slice(top, min(bottom, SIZE)), slice(left, min(right, SIZE))


def _outline(thing: Thing) -> tuple[tuple[slice, slice], np.ndarray]:
    """Where the thing is when nothing hides it: its window, and a (96, 96) mask."""
    window = _window(thing, 1)
    x, y = _local(thing, ROWS[window], COLUMNS[window])
    full = np.zeros((SIZE, SIZE), dtype=bool)
    full[window] = _distance(thing.shape, x, y, thing.radius) < 0
    return window, full


def masks(scene: Scene) -> np.ndarray:
    """The visible part of every thing: bool, shape (number of things, 96, 96)."""
    visible = np.zeros((len(scene.things), SIZE, SIZE), dtype=bool)
    for index, thing in enumerate(scene.things):
        window, full = _outline(thing)
        visible[:index, window[0], window[1]] &= ~full[window]
        visible[index] = full
    return visible


# ---------------------------------------------------------------- drawing


def _soft(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and a smooth step between."""
    value = np.minimum(np.maximum(value, 0), 1)
    return value * value * (3 - 2 * value)


def _wave(value: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 between 0 and 1."""
    return np.abs(2 * (value - np.floor(value)) - 1)


def _noise(random, rows: int, columns: int) -> np.ndarray:
    """A smooth random field (96, 96) in 0..1, with about rows x columns blobs."""
    grid = random.random_sample((rows + 2, columns + 2))
    y, x = np.arange(SIZE) * (rows / SIZE), np.arange(SIZE) * (columns / SIZE)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = _soft(y - top)[:, None], _soft(x - left)
    grid = grid[top] + fy * (grid[top + 1] - grid[top])
    return grid[:, left] + fx * (grid[:, left + 1] - grid[:, left])


def _mix(first, second, share: np.ndarray) -> np.ndarray:
    """Colours between two, (3, height, width): share 0 is the first colour, 1 the second."""
    first, second = np.array(first)[:, None, None], np.array(second)[:, None, None]
    return first + (second - first) * share


def _paint_background(kind: str, random) -> np.ndarray:
    """The textured background without clutter: (3, 96, 96) in 0..1."""
    grain = random.random_sample((SIZE, SIZE))
    start = random.random_sample() * 64
    if kind == "sand":  # wind ripples
        ripple = _wave((ROWS + 16 * _noise(random, 3, 3) + start) / 11)
        return _mix((0.80, 0.69, 0.50), (0.93, 0.84, 0.66), 0.55 * ripple + 0.45 * grain)
    if kind == "grass":  # upright blades
        share = 0.45 * _noise(random, 16, 64) + 0.2 * grain + 0.35 * _noise(random, 4, 4)
        return _mix((0.42, 0.58, 0.28), (0.72, 0.84, 0.47), share)
    if kind == "water":  # bright crests on waves
        wave = _wave((ROWS + 22 * _noise(random, 4, 5) + start) / 13)
        share = 0.55 * wave * wave + 0.1 * grain + 0.45 * _soft((wave - 0.75) * 5)
        return _mix((0.34, 0.62, 0.74), (0.74, 0.90, 0.93), share)
    if kind == "night":  # clouds of light
        cloud = _noise(random, 3, 3) * _noise(random, 6, 6)
        share = 0.9 * cloud + 0.25 * ROWS / SIZE + 0.05 * grain
        return _mix((0.04, 0.05, 0.15), (0.26, 0.26, 0.50), share)
    if kind == "brick":  # rows of bricks, each with its own tone
        rows = ROWS + math.floor(start)
        row = np.floor(rows / 12)
        columns = COLUMNS + 11 * row + math.floor(random.random_sample() * 22)
        column = np.floor(columns / 22)
        tones = random.random_sample(64)[(row * 7 + column * 3).astype(int) % 64]
        edge = np.minimum(rows - 12 * row, columns - 22 * column)
        brick = _mix((0.58, 0.38, 0.33), (0.74, 0.53, 0.45), 0.6 * tones + 0.4 * grain)
        mortar = _soft((2.2 - edge) / 1.5)
        return brick + (0.80 - 0.08 * grain - brick) * mortar
    if kind == "wood":  # planks with grain along them
        rows = ROWS + math.floor(start)
        plank = np.floor(rows / 24)
        tones = random.random_sample(8)[plank.astype(int) % 8]
        rings = _wave((ROWS + 10 * _noise(random, 12, 2) + 40 * tones) / 7)
        share = 0.4 * rings + 0.35 * tones + 0.25 * _noise(random, 64, 10)
        wood = _mix((0.42, 0.27, 0.17), (0.62, 0.43, 0.28), share)
        return wood * (1 - 0.5 * _soft(1.6 - (rows - 24 * plank)))
    if kind == "paper":  # faint squares of an exercise book
        lines = np.minimum((ROWS + math.floor(start)) % 12, (COLUMNS + math.floor(start)) % 12)
        share = 0.5 * _noise(random, 5, 5) + 0.5 * grain
        paper = _mix((0.90, 0.88, 0.82), (0.98, 0.97, 0.93), share)
        return np.where(lines < 1, _mix((0.70, 0.80, 0.90), (0.74, 0.84, 0.94), grain), paper)
    raise ValueError(f"There is no background {kind!r}; choose one of {', '.join(BACKGROUNDS)}.")


# Clutter: how many marks at most, half their length and half their width in pixels, colours.
CLUTTER = {
    "sand": (9, 2.6, 1.6, ((0.55, 0.48, 0.40), (0.72, 0.66, 0.60), (0.97, 0.93, 0.86))),
    "grass": (9, 2.8, 1.3, ((0.25, 0.42, 0.16), (0.93, 0.93, 0.80), (0.64, 0.56, 0.30))),
    "water": (8, 4.2, 0.9, ((0.90, 0.97, 0.98), (0.24, 0.50, 0.63))),
    "night": (34, 1.1, 1.0, ((0.95, 0.93, 0.80), (0.70, 0.78, 0.95))),
    "brick": (6, 3.0, 0.9, ((0.45, 0.29, 0.26), (0.82, 0.74, 0.68))),
    "wood": (5, 3.4, 1.6, ((0.30, 0.18, 0.11), (0.36, 0.22, 0.13))),
    "paper": (8, 4.0, 0.7, ((0.45, 0.47, 0.55), (0.70, 0.70, 0.72))),
}
MARK = np.arange(-6, 7, dtype=np.float64)  # offsets of the pixels around a mark


def _scatter(canvas: np.ndarray, kind: str, random) -> None:
    """Small marks that no caption names: pebbles, leaves, glints, stars, scratches."""
    most, length, width, colours = CLUTTER[kind]
    chances = random.random_sample((most, 6))
    chances = chances[: 1 + math.floor(random.random_sample() * most)]
    tangent = (2 * chances[:, 2] - 1)[:, None, None]
    cosine = (1 - tangent * tangent) / (1 + tangent * tangent)
    sine = 2 * tangent / (1 + tangent * tangent)
    scale = (0.6 + 0.6 * chances[:, 3])[:, None, None]
    x = (cosine * MARK + sine * MARK[:, None]) / (length * scale)
    y = (cosine * MARK[:, None] - sine * MARK) / (width * scale)
    cover = np.minimum(np.maximum((1 - np.sqrt(x * x + y * y)) * width + 0.5, 0), 1) * 0.85
    for mark, chance in zip(cover, chances, strict=True):
        row, column = (6 + math.floor(c * (SIZE - 13)) for c in chance[:2])
        colour = np.array(colours[math.floor(chance[4] * len(colours))])[:, None, None]
        patch = canvas[:, row - 6 : row + 7, column - 6 : column + 7]
        patch += (colour - patch) * mark


def _pattern(pattern: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """How much of the second colour shows at each pixel, 0..1."""
    period = 3.4 + 0.22 * radius
    if pattern == "striped":
        across = (x + y) * 0.7071067811865476 / period
        return np.minimum(np.maximum((_wave(across) - 0.5) * period + 0.5, 0), 1)
    if pattern == "dotted":
        row = np.floor(y / period)
        x = x + 0.5 * period * (row - 2 * np.floor(row / 2))  # every other row half a step on
        dx, dy = x - period * (np.floor(x / period) + 0.5), y - period * (row + 0.5)
        return np.minimum(np.maximum(0.31 * period - np.sqrt(dx * dx + dy * dy) + 0.5, 0), 1)
    if pattern == "checked":
        period = 1.5 * period
        one = np.minimum(np.maximum((_wave(x / period) - 0.5) * period + 0.5, 0), 1)
        two = np.minimum(np.maximum((_wave(y / period) - 0.5) * period + 0.5, 0), 1)
        return one + two - 2 * one * two
    return np.zeros_like(x)


def _paint_thing(canvas: np.ndarray, thing: Thing, light: np.ndarray) -> None:
    """Paint one thing and its shadow onto the canvas (3, 96, 96), inside its window only."""
    rows, columns = _window(thing, 6)
    r = thing.radius
    x, y = _local(thing, ROWS[rows, columns], COLUMNS[rows, columns])
    distance = _distance(thing.shape, x, y, r)
    patch = canvas[:, rows, columns]

    shadow = _soft(0.5 - distance[:-3, :-2] / 5)  # the same outline, softer, 3 down and 2 right
    patch[:, 3:, 2:] *= 1 - 0.42 * shadow

    colour, second = COLOURS[thing.colour]
    if thing.pattern == "dotted" and thing.colour not in LIGHT_COLOURS:
        second = PALE
    share = _pattern(thing.pattern, x, y, r)
    paint = _mix(np.array(colour) * light, np.array(second) * light, share)
    rim = np.minimum(np.maximum(1 + distance / (0.30 * r), 0), 1)
    shade = 1.04 - 0.10 * (x + y) / r - 0.22 * rim * rim  # lit from the top left, darker rim
    dx, dy = x / r + 0.35, y / r + 0.42
    shine = np.maximum(1 - (dx * dx + dy * dy) / 0.12, 0)
    paint = paint * shade
    paint += (1 - paint) * (0.30 * shine * (1 - rim))
    cover = np.minimum(np.maximum(0.5 - distance, 0), 1)
    patch += (paint - patch) * cover


def _stage(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The background with clutter, (3, 96, 96), and the colour of the light, (3,)."""
    random = np.random.RandomState(scene.seed)
    light = 0.93 + 0.10 * random.random_sample() + 0.04 * random.random_sample(3)
    canvas = _paint_background(scene.background, random)
    _scatter(canvas, scene.background, random)
    canvas *= light[:, None, None]
    return canvas, light


def _finish(canvas: np.ndarray) -> np.ndarray:
    """Round once, at the very end: (3, 96, 96) in 0..1 to uint8 (96, 96, 3)."""
    levels = np.minimum(np.maximum(canvas * 255 + 0.5, 0), 255).astype(np.uint8)  # cuts decimals
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene: uint8, shape (96, 96, 3)."""
    canvas, light = _stage(scene)
    for thing in scene.things:
        _paint_thing(canvas, thing, light)
    return _finish(canvas)


# ---------------------------------------------------------------- clips


def _travel(random, scene: Scene, action: str) -> tuple[Thing, ...] | None:
    """Where the movers (the first one or two things) end, or None where there is no room."""
    first = scene.things[0]
    if action in ("left", "right", "up", "down"):
        way = uniform(random, 36, 56)
        dx = {"left": -way, "right": way}.get(action, 0.0)
        dy = {"up": -way, "down": way}.get(action, 0.0)
        return (replace(first, x=first.x + dx, y=first.y + dy),)
    if action in ("grow", "shrink"):
        low, high = uniform(random, 8, 10), uniform(random, 20, 24)
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


def sample_clip(random: np.random.RandomState, frames: int = 12, held_out: bool = False) -> Clip:
    """Draw a clip of 8 to 16 frames by lot, with one action out of ACTIONS.

    Actions come in pairs that are each other played backwards (left and right, grow and shrink,
    meet and part), so that only the order of the frames tells them apart. Nothing overlaps.
    """
    if not 8 <= frames <= 16:
        raise ValueError(f"A clip has 8 to 16 frames, not {frames}; choose a number in that range.")
    action = choose(random, ACTIONS)
    number = 2 if action in ("meet", "part") else 1
    while True:
        scene = sample_scene(random, held_out)
        if len(scene.things) < number or scene.overlaps:
            continue
        if action in ("grow", "shrink"):
            radius = uniform(random, 20, 24) if action == "shrink" else uniform(random, 8, 10)
            first = replace(scene.things[0], radius=radius)
            scene = replace(scene, things=(first, *scene.things[1:]))
        ends = _travel(random, scene, action)
        if ends is None:
            continue
        scenes = [_on_the_way(scene, ends, step / (frames - 1)) for step in range(frames)]
        if action == "part":  # they were led together: play it backwards
            scenes.reverse()
        if all(_apart(one.things) for one in scenes):
            return Clip(tuple(scenes), action, tuple(range(number)))


def _on_the_way(scene: Scene, ends: tuple[Thing, ...], share: float) -> Scene:
    """The scene with its first things on the way to their ends: 0 the start, 1 the end."""
    moved = []
    for start, end in zip(scene.things, ends, strict=False):
        values = {}
        for name in ("x", "y", "radius"):
            value = getattr(start, name) + share * (getattr(end, name) - getattr(start, name))
            values[name] = math.floor(value * 16 + 0.5) / 16
        moved.append(replace(start, **values))
    return replace(scene, things=(*moved, *scene.things[len(moved) :]))


def _apart(things: tuple[Thing, ...]) -> bool:
    """True where all things are inside the picture and none touches another."""
    return all(_clear_of(thing, list(things[:index])) for index, thing in enumerate(things))


def draw_clip(clip: Clip) -> np.ndarray:
    """The frames of a clip: uint8, shape (frames, 96, 96, 3). All share one background."""
    stage, light = _stage(clip.scenes[0])
    pictures = []
    for scene in clip.scenes:
        canvas = stage.copy()
        for thing in scene.things:
            _paint_thing(canvas, thing, light)
        pictures.append(_finish(canvas))
    return np.stack(pictures)


# ---------------------------------------------------------------- files


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(picture: np.ndarray) -> bytes:
    """A picture, uint8 (height, width, 3), as an uncompressed PNG file: the same bytes anywhere.

    The image data are "stored" blocks (RFC 1950 and 1951), put together by hand.
    """
    height, width, _ = picture.shape
    lines = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # a 0 before each line: no filter
    lines[:, 1:] = picture.reshape(height, -1)
    raw = lines.tobytes()
    blocks = b""
    for start in range(0, len(raw), 65535):
        block = raw[start : start + 65535]
        last = start + 65535 >= len(raw)
        blocks += struct.pack("<BHH", last, len(block), 65535 - len(block)) + block
    data = b"\x78\x01" + blocks + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


INFO = {"description": "Drawn scenes of the Conv-RNN course, made from a seed", "version": "1"}
CATEGORIES = [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(SHAPES, 1)]


def _write_json(path: Path, record: dict) -> None:
    """JSON with one fixed spelling: sorted keys, no spaces, "\\n" line ends, ASCII."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    path.write_bytes((text + "\n").encode("ascii"))


def _instances(scene: Scene, image_id: int) -> list[dict]:
    """COCO annotations of the visible part of every thing: box, area, mask, attributes."""
    from pycocotools import mask as coco_mask

    visible = masks(scene)
    codes = coco_mask.encode(np.asfortranarray(visible.transpose(1, 2, 0).astype(np.uint8)))
    records = []
    for thing, mask, code in zip(scene.things, visible, codes, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        records.append({
            "id": 10 * image_id + len(records), "image_id": image_id, "iscrowd": 0,
            "category_id": SHAPES.index(thing.shape) + 1, "area": int(mask.sum()),
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            "segmentation": {"size": [SIZE, SIZE], "counts": code["counts"].decode("ascii")},
            "attributes": {"colour": thing.colour, "size": thing.size, "pattern": thing.pattern},
        })
    return records


class _Folder:
    """Makes a data set in a sibling folder, and gives it its name only when all is written."""

    def __init__(self, folder: str | os.PathLike):
        self.final = Path(folder)
        if self.final.exists():
            raise FileExistsError(f"{self.final} is there already; delete it or choose another.")
        self.path = self.final.with_name(f".{self.final.name}.{os.getpid()}.part")

    def __enter__(self) -> Path:
        shutil.rmtree(self.path, ignore_errors=True)
        (self.path / "images").mkdir(parents=True)
        return self.path

    def __exit__(self, error, *_) -> None:
        if error is None:
            self.path.rename(self.final)
        else:
            shutil.rmtree(self.path, ignore_errors=True)


SPLITS = ("train", "val", "test", "held_out")


def write(folder, train=6000, val=500, test=500, held_out=500, seed=0, progress=None) -> None:
    """Write the data set as COCO files: 5 captions, boxes and masks for every picture.

    folder: the folder to make; train, val, test, held_out: numbers of pictures. A picture depends
    only on the seed, its split and its number. progress: called as progress(done, total).
    Raises FileExistsError where the folder exists; nothing half-written is ever left there.
    """
    counts = dict(zip(SPLITS, (train, val, test, held_out), strict=True))
    done, total = 0, sum(counts.values())
    random = np.random.RandomState()  # seeded anew for every picture
    with _Folder(folder) as path:
        for number, (split, count) in enumerate(counts.items()):
            images, annotations, instances = [], [], []
            for index in range(count):
                random.seed([seed, number, index])
                scene = sample_scene(random, held_out=split == "held_out")
                image_id = 1_000_000 * (number + 1) + index
                name = f"{split}_{index:06d}.png"
                (path / "images" / name).write_bytes(png(draw(scene)))
                images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE,
                               "scene": scene.to_json()})
                annotations += _caption_records(captions(scene, random), image_id)
                instances += _instances(scene, image_id)
                done += 1
                if progress:
                    progress(done, total)
            record = {"info": INFO, "licenses": [], "images": images}
            _write_json(path / f"captions_{split}.json", {**record, "annotations": annotations})
            _write_json(path / f"instances_{split}.json",
                        {**record, "annotations": instances, "categories": CATEGORIES})


def _caption_records(sentences: list[str], image_id: int) -> list[dict]:
    return [{"id": 10 * image_id + k, "image_id": image_id, "caption": sentence}
            for k, sentence in enumerate(sentences)]


def write_clips(folder, train=600, val=100, test=100, seed=0, frames=12, progress=None) -> None:
    """Write clips as COCO captions files: an "image" is a clip, with its frames and its action.

    An image record has file_name (the first frame), frames (all file names in order), action,
    and clip (what `Clip.from_json` reads). Otherwise as `write`.
    """
    counts = dict(zip(SPLITS, (train, val, test), strict=False))
    done, total = 0, sum(counts.values())
    random = np.random.RandomState()  # seeded anew for every picture
    with _Folder(folder) as path:
        for number, (split, count) in enumerate(counts.items()):
            images, annotations = [], []
            for index in range(count):
                random.seed([seed, 10 + number, index])
                clip = sample_clip(random, frames)
                image_id = 1_000_000 * (number + 1) + index
                names = [f"{split}_{index:06d}_{step:02d}.png" for step in range(frames)]
                for name, picture in zip(names, draw_clip(clip), strict=True):
                    (path / "images" / name).write_bytes(png(picture))
                images.append({"id": image_id, "file_name": names[0], "frames": names,
                               "action": clip.action, "width": SIZE, "height": SIZE,
                               "clip": clip.to_json()})
                annotations += _caption_records(clip_captions(clip, random), image_id)
                done += 1
                if progress:
                    progress(done, total)
            record = {"info": INFO, "licenses": [], "images": images}
            _write_json(path / f"captions_{split}.json", {**record, "annotations": annotations})
