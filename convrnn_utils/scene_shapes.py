"""Where a thing is in the picture: the geometry of the shapes, and masks.

Only ``+ - * / sqrt min max floor`` are used. IEEE 754 defines them to the last bit, so the
pictures are the same on every machine; the last bit of a sine, a power or a long sum depends on
the library that computes it.
"""

import math

import numpy

from convrnn_utils.scene_model import REACH, SHAPES, SIZE, Scene, Thing

ROWS, COLUMNS = numpy.mgrid[0:SIZE, 0:SIZE].astype(numpy.float64)
SQRT_HALF = 0.7071067811865476
COSINE_30 = 0.8660254037844386  # of 30 degrees
COSINE_36, SINE_36 = 0.8090169943749475, 0.5877852522924731


def length(x: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """The length of the vectors (x, y)."""
    return numpy.sqrt(x * x + y * y)


def rotate(x: numpy.ndarray, y: numpy.ndarray, turn: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Turn coordinates by an angle; ``turn`` is the tangent of half of it."""
    cosine = (1 - turn * turn) / (1 + turn * turn)
    sine = 2 * turn / (1 + turn * turn)
    return cosine * x + sine * y, cosine * y - sine * x


def distance(shape: str, x: numpy.ndarray, y: numpy.ndarray, radius: float) -> numpy.ndarray:
    """About how many pixels a point lies outside the shape's edge (inside: negative).

    Args:
        shape: one of ``SHAPES``.
        x, y: coordinates from the shape's centre, turned with it.
        radius: of the shape.
    """
    if shape == "circle":
        return length(x, y) - 0.93 * radius
    if shape == "ring":
        return numpy.abs(length(x, y) - 0.68 * radius) - 0.28 * radius
    if shape == "moon":  # a disc out of which another disc is bitten
        x = x - 0.10 * radius
        bite = 0.72 * radius - length(x - 0.50 * radius, y + 0.20 * radius)
        return numpy.maximum(length(x, y) - radius, bite)
    if shape == "triangle":
        y = y - 0.25 * radius
        sides = COSINE_30 * numpy.abs(x) - 0.5 * y - 0.52 * radius
        return numpy.maximum(y - 0.52 * radius, sides)
    x = numpy.abs(x)  # the rest are the same left and right
    if shape == "square":
        return numpy.maximum(x, numpy.abs(y)) - 0.80 * radius
    if shape == "cross":
        y = numpy.abs(y)
        return numpy.maximum(
            numpy.maximum(x, y) - 0.95 * radius, numpy.minimum(x, y) - 0.33 * radius
        )
    if shape == "diamond":  # taller than wide, so not a turned square
        return 0.8126967 * x + 0.5826882 * numpy.abs(y) - 0.6176495 * radius
    if shape == "heart":  # a square on its corner, and a disc on each of its upper sides
        y = y - 0.09 * radius
        disc = 0.6 * radius
        half = SQRT_HALF * disc
        corner = (x + numpy.abs(y)) * SQRT_HALF
        return numpy.minimum(corner, length(x - half, y + half)) - disc
    if shape == "star":  # fold the plane onto a tenth of the star, leaving one straight edge
        y = 0.07 * radius - y
        for cosine in (COSINE_36, -COSINE_36):
            fold = 2 * numpy.maximum(cosine * x - SINE_36 * y, 0)
            x, y = x - fold * cosine, y + fold * SINE_36
        return 0.8967393 * numpy.abs(x) + 0.4425656 * (y - 1.1 * radius)
    raise ValueError(f"There is no shape {shape!r}; choose one of {', '.join(SHAPES)}.")


def window(thing: Thing, margin: int) -> tuple[slice, slice]:
    """The rows and columns of the picture that a thing can touch, with a margin in pixels."""
    reach = REACH * thing.radius + margin
    top, left = max(math.floor(thing.y - reach), 0), max(math.floor(thing.x - reach), 0)
    bottom, right = math.floor(thing.y + reach) + 2, math.floor(thing.x + reach) + 2
    return slice(top, min(bottom, SIZE)), slice(left, min(right, SIZE))


def coordinates(thing: Thing, place: tuple[slice, slice]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """x and y of the pixels of a window, seen from the thing's centre and turned with it."""
    return rotate(COLUMNS[place] - thing.x, ROWS[place] - thing.y, thing.turn)


def outline(thing: Thing) -> numpy.ndarray:
    """The mask of a thing that nothing hides: bool, shape (96, 96)."""
    place = window(thing, 1)
    mask = numpy.zeros((SIZE, SIZE), dtype=bool)
    mask[place] = distance(thing.shape, *coordinates(thing, place), thing.radius) < 0
    return mask


def masks(scene: Scene) -> numpy.ndarray:
    """The visible part of every thing: bool, shape (number of things, 96, 96)."""
    visible = numpy.zeros((len(scene.things), SIZE, SIZE), dtype=bool)
    for index, thing in enumerate(scene.things):
        mask = outline(thing)
        visible[:index] &= ~mask
        visible[index] = mask
    return visible


def place_shares(mask: numpy.ndarray, side: int) -> numpy.ndarray:
    """The share of each place of a grid that a mask covers: (side · side,), row by row.

    Args:
        mask: (H, H) of True and False.
        side: places in a row of the grid.

    Raises:
        ValueError: H is not a multiple of ``side``.
    """
    if len(mask) % side:
        raise ValueError(f"a mask of {len(mask)} pixels cannot be cut into {side} equal parts.")
    step = len(mask) // side
    return mask.reshape(side, step, side, step).mean(axis=(1, 3)).ravel()
