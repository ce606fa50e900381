"""What a drawn scene is: ``Thing``, ``Scene``, ``Clip``, and the values that they may have.

Coordinates are pixels: x to the right, y down, the middle of the top left pixel is (0, 0).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.random import RandomState

SIZE = 96  # width and height of a picture in pixels

# Colour of a thing, and colour of the stripes or checks on it: red, green, blue in 0..1.
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
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring", "moon")
PATTERNS = ("plain", "striped", "dotted", "checked")
SIZES = {"small": (9.0, 10.5), "medium": (12.5, 13.5), "large": (16.0, 19.0)}  # radius in pixels
BACKGROUNDS = ("sand", "grass", "water", "night", "brick", "wood", "paper")
ACTIONS = ("left", "right", "up", "down", "grow", "shrink", "meet", "part")

# (colour, shape) pairs that training, validation and test pictures never show: one per colour.
HELD_OUT = frozenset(
    {
        ("red", "ring"),
        ("orange", "star"),
        ("yellow", "square"),
        ("green", "moon"),
        ("blue", "triangle"),
        ("purple", "circle"),
        ("pink", "diamond"),
        ("white", "cross"),
    }
)

REACH = 1.2  # no shape reaches further from its centre than REACH times its radius


@dataclass(frozen=True)
class Thing:
    """One thing: what it is and where. ``turn`` is the tangent of half its angle of rotation."""

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
    """A still picture, before it is drawn.

    Attributes:
        things: from back to front.
        background: one of ``BACKGROUNDS``.
        seed: of the texture, the clutter and the light.
        overlaps: the pairs (i, j) in which thing i partly covers thing j.
    """

    things: tuple[Thing, ...]
    background: str
    seed: int
    overlaps: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict:
        """The scene as a dictionary that ``json`` can write."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict) -> "Scene":
        """The scene that ``to_json`` wrote."""
        things = tuple(Thing(**thing) for thing in record["things"])
        overlaps = tuple((front, back) for front, back in record["overlaps"])
        return cls(things, record["background"], record["seed"], overlaps)


@dataclass(frozen=True)
class Clip:
    """A short film.

    Attributes:
        scenes: one for each frame; the things and the seed are the same in all. A thing that
            grows or shrinks keeps its ``size``.
        action: one of ``ACTIONS``.
        movers: the numbers of the things that move or change size.
    """

    scenes: tuple[Scene, ...]
    action: str
    movers: tuple[int, ...]

    def to_json(self) -> dict:
        """The clip as a dictionary that ``json`` can write."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict) -> "Clip":
        """The clip that ``to_json`` wrote."""
        scenes = tuple(Scene.from_json(scene) for scene in record["scenes"])
        return cls(scenes, record["action"], tuple(record["movers"]))


def chance(random: RandomState, probability: float) -> bool:
    """True with the given probability.

    ``random_sample`` is the only source of chance in these modules: NumPy promises never to
    change the numbers that it gives for a seed (NEP 19).
    """
    return random.random_sample() < probability


def choose(random: RandomState, options: Sequence) -> Any:
    """One of the options at random."""
    return options[int(random.random_sample() * len(options))]
