"""Drawing scenes: how many a second, compared with the plain way to draw them.

python benchmarks/speed_scenes.py

Ours is ``scenes.write``: pictures, captions, boxes and masks as COCO files. The reference writes
the same files, but it paints every thing over the whole picture instead of a window around it, and
has Pillow compress the pictures. Pictures and JSON files come out the same.
"""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy
from PIL import Image
from timing import command, in_turn, row

from convrnn_utils import scene_drawing, scene_shapes, scenes

COUNT = 300


def whole_picture(thing: scenes.Thing, margin: int) -> tuple[slice, slice]:
    """Stand in for ``scene_shapes.window``: all rows and columns."""
    return slice(0, scenes.SIZE), slice(0, scenes.SIZE)


def compressed_png(picture: numpy.ndarray) -> bytes:
    """Stand in for ``scenes.png``: the file as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def write_plainly(folder: Path, count: int) -> None:
    """Write scenes the plain way."""
    with (
        mock.patch.object(scene_drawing, "window", whole_picture),
        mock.patch.object(scene_shapes, "window", whole_picture),
        mock.patch.object(scenes, "png", compressed_png),
    ):
        scenes.write(folder, count, 0, 0, 0)


def check(first: Path, second: Path) -> None:
    """Two folders hold the same pictures, pixel by pixel, and the same JSON files."""
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*.*"))
    assert names == sorted(str(path.relative_to(second)) for path in second.rglob("*.*"))
    for name in names:
        if name.endswith(".png"):
            pictures = (numpy.asarray(Image.open(folder / name)) for folder in (first, second))
            assert numpy.array_equal(*pictures), name
        else:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


def measure(count: int = COUNT, rounds: int = 3) -> list[dict]:
    """The row ``scenes``; raises an ``AssertionError`` if the two sides differ."""
    with tempfile.TemporaryDirectory() as temporary:
        written: dict[str, list[Path]] = {"ours": [], "reference": []}

        def writes(side: str, write: Callable[[Path, int], None]) -> Callable[[], None]:
            def run() -> None:
                folder = Path(temporary) / f"{side}-{len(written[side])}"
                write(folder, count)
                written[side].append(folder)

            return run

        sides = {
            "ours": writes("ours", lambda folder, n: scenes.write(folder, n, 0, 0, 0)),
            "reference": writes("reference", write_plainly),
        }
        seconds = in_turn(sides, rounds)
        check(written["ours"][0], written["reference"][0])
    rates = (count / seconds[side] for side in sides)
    return [row("scenes", *rates, "scenes/s", "cpu")]


if __name__ == "__main__":
    command(__doc__, measure)
