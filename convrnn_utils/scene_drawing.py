"""The pictures of scenes and clips: background, clutter, things with their patterns and shadows.

Like ``scene_shapes``, this uses only arithmetic that is the same, bit for bit, on every machine.
A canvas is an array (3, 96, 96) of red, green and blue in 0..1; it is painted from back to front
and rounded to bytes once, at the very end.
"""

import math

import numpy
from numpy.random import RandomState

from convrnn_utils.scene_model import BACKGROUNDS, COLOURS, SIZE, Clip, Scene, Thing
from convrnn_utils.scene_shapes import (
    COLUMNS,
    ROWS,
    SQRT_HALF,
    coordinates,
    distance,
    length,
    rotate,
    window,
)

# Dots are pale, as on a toadstool, except on the light colours, where they would not show.
PALE, LIGHT_COLOURS = (0.98, 0.97, 0.92), ("yellow", "white")

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
MARK = numpy.arange(-6, 7, dtype=numpy.float64)  # the pixels around the middle of a mark


def draw(scene: Scene) -> numpy.ndarray:
    """The picture of a scene: uint8, shape (96, 96, 3)."""
    canvas, light = _stage(scene)
    return _paint(canvas, scene, light)


def draw_clip(clip: Clip) -> numpy.ndarray:
    """The frames of a clip: uint8, shape (frames, 96, 96, 3). All share one background."""
    canvas, light = _stage(clip.scenes[0])
    return numpy.stack([_paint(canvas.copy(), scene, light) for scene in clip.scenes])


def _stage(scene: Scene) -> tuple[numpy.ndarray, numpy.ndarray]:
    """A canvas with background and clutter, and the colour of the light, (3,)."""
    random = RandomState(scene.seed)
    light = 0.93 + 0.10 * random.random_sample() + 0.04 * random.random_sample(3)
    canvas = _background(scene.background, random)
    _scatter(canvas, scene.background, random)
    canvas *= light[:, None, None]
    return canvas, light


def _paint(canvas: numpy.ndarray, scene: Scene, light: numpy.ndarray) -> numpy.ndarray:
    """Paint the things of a scene onto the canvas, and round it to bytes, (96, 96, 3)."""
    for thing in scene.things:
        _paint_thing(canvas, thing, light)
    levels = numpy.clip(canvas * 255 + 0.5, 0, 255).astype(numpy.uint8)
    return numpy.ascontiguousarray(levels.transpose(1, 2, 0))


# ---------------------------------------------------------------- tools


def _soft(value: numpy.ndarray) -> numpy.ndarray:
    """0 below 0, 1 above 1, and a smooth step between."""
    value = numpy.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _wave(value: numpy.ndarray) -> numpy.ndarray:
    """A triangle wave of period 1 between 0 and 1."""
    return numpy.abs(2 * (value - numpy.floor(value)) - 1)


def _noise(random: RandomState, rows: int, columns: int) -> numpy.ndarray:
    """A smooth random field (96, 96) in 0..1, with about rows x columns blobs."""
    grid = random.random_sample((rows + 2, columns + 2))
    y, x = numpy.arange(SIZE) * (rows / SIZE), numpy.arange(SIZE) * (columns / SIZE)
    top, left = numpy.floor(y).astype(int), numpy.floor(x).astype(int)
    down, across = _soft(y - top)[:, None], _soft(x - left)
    grid = grid[top] + down * (grid[top + 1] - grid[top])
    return grid[:, left] + across * (grid[:, left + 1] - grid[:, left])


def _mix(first, second, share: numpy.ndarray) -> numpy.ndarray:
    """Colours between two, (3, height, width): share 0 is the first colour, 1 the second."""
    first, second = numpy.array(first)[:, None, None], numpy.array(second)[:, None, None]
    return first + (second - first) * share


# ---------------------------------------------------------------- background


def _background(kind: str, random: RandomState) -> numpy.ndarray:
    """A canvas with the textured background and no clutter."""
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
        y = ROWS + math.floor(start)
        row = numpy.floor(y / 12)
        x = COLUMNS + 11 * row + math.floor(random.random_sample() * 22)
        column = numpy.floor(x / 22)
        tones = random.random_sample(64)[(row * 7 + column * 3).astype(int) % 64]
        edge = numpy.minimum(y - 12 * row, x - 22 * column)
        brick = _mix((0.58, 0.38, 0.33), (0.74, 0.53, 0.45), 0.6 * tones + 0.4 * grain)
        mortar = _soft((2.2 - edge) / 1.5)
        return brick + (0.80 - 0.08 * grain - brick) * mortar
    if kind == "wood":  # planks with grain along them
        y = ROWS + math.floor(start)
        plank = numpy.floor(y / 24)
        tones = random.random_sample(8)[plank.astype(int) % 8]
        rings = _wave((ROWS + 10 * _noise(random, 12, 2) + 40 * tones) / 7)
        share = 0.4 * rings + 0.35 * tones + 0.25 * _noise(random, 64, 10)
        wood = _mix((0.42, 0.27, 0.17), (0.62, 0.43, 0.28), share)
        return wood * (1 - 0.5 * _soft(1.6 - (y - 24 * plank)))
    if kind == "paper":  # faint squares of an exercise book
        shift = math.floor(start)
        line = numpy.minimum((ROWS + shift) % 12, (COLUMNS + shift) % 12) < 1
        share = 0.5 * _noise(random, 5, 5) + 0.5 * grain
        paper = _mix((0.90, 0.88, 0.82), (0.98, 0.97, 0.93), share)
        return numpy.where(line, _mix((0.70, 0.80, 0.90), (0.74, 0.84, 0.94), grain), paper)
    raise ValueError(f"There is no background {kind!r}; choose one of {', '.join(BACKGROUNDS)}.")


def _scatter(canvas: numpy.ndarray, kind: str, random: RandomState) -> None:
    """Small marks that no caption names: pebbles, leaves, glints, stars, scratches."""
    most, long, wide, colours = CLUTTER[kind]
    chances = random.random_sample((most, 6))  # the sixth is spare
    number = 1 + math.floor(random.random_sample() * most)
    for row, column, turn, scale, colour, _ in chances[:number]:
        scale = 0.6 + 0.6 * scale
        x, y = rotate(MARK, MARK[:, None], 2 * turn - 1)
        outside = length(x / (long * scale), y / (wide * scale))
        cover = numpy.clip((1 - outside) * wide + 0.5, 0, 1) * 0.85
        top, left = math.floor(row * (SIZE - 13)), math.floor(column * (SIZE - 13))
        patch = canvas[:, top : top + 13, left : left + 13]
        paint = numpy.array(colours[math.floor(colour * len(colours))])[:, None, None]
        patch += (paint - patch) * cover


# ---------------------------------------------------------------- things


def _stripes(position: numpy.ndarray, period: float) -> numpy.ndarray:
    """Bands of 0 and 1 with smooth edges."""
    return numpy.clip((_wave(position / period) - 0.5) * period + 0.5, 0, 1)


def _pattern(pattern: str, x: numpy.ndarray, y: numpy.ndarray, radius: float) -> numpy.ndarray:
    """How much of the second colour shows at each pixel, 0..1."""
    period = 3.4 + 0.22 * radius
    if pattern == "striped":
        return _stripes((x + y) * SQRT_HALF, period)
    if pattern == "dotted":
        row = numpy.floor(y / period)
        x = x + 0.5 * period * (row - 2 * numpy.floor(row / 2))  # every other row half a step on
        column = numpy.floor(x / period)
        outside = length(x - period * (column + 0.5), y - period * (row + 0.5))
        return numpy.clip(0.31 * period - outside + 0.5, 0, 1)
    if pattern == "checked":
        across, down = _stripes(x, 1.5 * period), _stripes(y, 1.5 * period)
        return across + down - 2 * across * down
    return numpy.zeros_like(x)


def _paint_thing(canvas: numpy.ndarray, thing: Thing, light: numpy.ndarray) -> None:
    """Paint one thing and its shadow onto the canvas, inside its window only."""
    radius = thing.radius
    rows, columns = window(thing, 6)
    patch = canvas[:, rows, columns]
    x, y = coordinates(thing, (rows, columns))
    outside = distance(thing.shape, x, y, radius)

    shadow = _soft(0.5 - outside[:-3, :-2] / 5)  # the same outline, softer, 3 down and 2 right
    patch[:, 3:, 2:] *= 1 - 0.42 * shadow

    colour, second = COLOURS[thing.colour]
    if thing.pattern == "dotted" and thing.colour not in LIGHT_COLOURS:
        second = PALE
    share = _pattern(thing.pattern, x, y, radius)
    paint = _mix(numpy.array(colour) * light, numpy.array(second) * light, share)

    rim = numpy.clip(1 + outside / (0.30 * radius), 0, 1)
    paint = paint * (1.04 - 0.10 * (x + y) / radius - 0.22 * rim * rim)  # lit from the top left
    right, down = x / radius + 0.35, y / radius + 0.42
    shine = numpy.maximum(1 - (right * right + down * down) / 0.12, 0)
    paint += (1 - paint) * (0.30 * shine * (1 - rim))
    patch += (paint - patch) * numpy.clip(0.5 - outside, 0, 1)
