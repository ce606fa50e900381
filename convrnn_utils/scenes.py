"""The embedded data set: drawn scenes with captions, boxes, masks and short clips.

A scene is one to four things over a background. A thing has a shape, a colour, a size and a
pattern. Everything comes from a seed and is the same, byte for byte, on every machine.

This module writes the files, and gathers under one name what these other modules offer:

- ``scene_model``: what a scene is; ``scene_sampling``: scenes at random;
- ``scene_shapes`` and ``scene_drawing``: their pictures;
- ``scene_words`` and ``scene_captions``: their captions;
- ``scene_reading`` and ``scene_checking``: whether a caption is true of a scene.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
from numpy.random import RandomState
from pycocotools import mask as coco_mask

from convrnn_utils.files import complete_or_absent
from convrnn_utils.scene_captions import captions, clip_captions
from convrnn_utils.scene_checking import check, faithfulness
from convrnn_utils.scene_drawing import draw, draw_clip
from convrnn_utils.scene_model import (
    ACTIONS,
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    PATTERNS,
    SHAPES,
    SIZE,
    SIZES,
    Clip,
    Scene,
    Thing,
)
from convrnn_utils.scene_reading import parse
from convrnn_utils.scene_sampling import sample_clip, sample_scene
from convrnn_utils.scene_shapes import masks, place_shares

__all__ = [
    "ACTIONS",
    "BACKGROUNDS",
    "COLOURS",
    "HELD_OUT",
    "PATTERNS",
    "SHAPES",
    "SIZE",
    "SIZES",
    "SPLITS",
    "Clip",
    "Scene",
    "Thing",
    "captions",
    "check",
    "clip_captions",
    "draw",
    "draw_clip",
    "faithfulness",
    "masks",
    "parse",
    "place_shares",
    "png",
    "sample_clip",
    "sample_scene",
    "write",
    "write_clips",
]

SPLITS = ("train", "val", "test", "held_out")
INFO = {"description": "Drawn scenes of the Conv-RNN course, made from a seed", "version": "1"}
CATEGORIES = [
    {"id": number, "name": name, "supercategory": "shape"} for number, name in enumerate(SHAPES, 1)
]


def write(
    folder: str | os.PathLike,
    train: int = 6000,
    val: int = 500,
    test: int = 500,
    held_out: int = 500,
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> None:
    """Write the data set as COCO files: 5 captions, boxes and masks for every picture.

    A picture depends only on the seed, its split and its number.

    Args:
        folder: created here, with all its files or not at all.
        train, val, test, held_out: numbers of pictures.
        seed: of all random choices.
        progress: called after every picture.

    Raises:
        FileExistsError: the folder is there already.
    """
    counts = (train, val, test, held_out)
    random = RandomState()  # seeded anew for every picture
    with _new_folder(folder) as path:
        for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
            images, annotations, instances = [], [], []
            for index in range(count):
                random.seed([seed, number, index])
                scene = sample_scene(random, held_out=split == "held_out")
                name = f"{split}_{index:06d}.png"
                (path / "images" / name).write_bytes(png(draw(scene)))
                image = _image_record(number, index, name) | {"scene": scene.to_json()}
                images.append(image)
                annotations += _caption_records(captions(scene, random), image["id"])
                instances += _instance_records(scene, image["id"])
                if progress:
                    progress()
            record = {"info": INFO, "licenses": [], "images": images}
            _write_json(path / f"captions_{split}.json", record | {"annotations": annotations})
            record |= {"annotations": instances, "categories": CATEGORIES}
            _write_json(path / f"instances_{split}.json", record)


def write_clips(
    folder: str | os.PathLike,
    train: int = 600,
    val: int = 100,
    test: int = 100,
    seed: int = 0,
    frames: int = 12,
    progress: Callable[[], object] | None = None,
) -> None:
    """Write clips as COCO captions files: an "image" is a clip, with its frames and its action.

    An image record has ``file_name`` (the first frame), ``frames`` (all file names in order),
    ``action``, and ``clip`` (what ``Clip.from_json`` reads).

    Args:
        folder: created here, with all its files or not at all.
        train, val, test: numbers of clips.
        seed: of all random choices.
        frames: in each clip, 8 to 16.
        progress: called after every clip.

    Raises:
        FileExistsError: the folder is there already.
        ValueError: ``frames`` is out of its range.
    """
    counts = (train, val, test)
    random = RandomState()  # seeded anew for every clip
    with _new_folder(folder) as path:
        for number, (split, count) in enumerate(zip(SPLITS, counts, strict=False)):
            images, annotations = [], []
            for index in range(count):
                random.seed([seed, 10 + number, index])
                clip = sample_clip(random, frames)
                names = [f"{split}_{index:06d}_{step:02d}.png" for step in range(frames)]
                for name, picture in zip(names, draw_clip(clip), strict=True):
                    (path / "images" / name).write_bytes(png(picture))
                image = _image_record(number, index, names[0])
                image |= {"frames": names, "action": clip.action, "clip": clip.to_json()}
                images.append(image)
                annotations += _caption_records(clip_captions(clip, random), image["id"])
                if progress:
                    progress()
            record = {"info": INFO, "licenses": [], "images": images, "annotations": annotations}
            _write_json(path / f"captions_{split}.json", record)


# ---------------------------------------------------------------- records


def _image_record(split_number: int, index: int, name: str) -> dict:
    image_id = 1_000_000 * (split_number + 1) + index
    return {"id": image_id, "file_name": name, "width": SIZE, "height": SIZE}


def _caption_records(sentences: list[str], image_id: int) -> list[dict]:
    return [
        {"id": 10 * image_id + number, "image_id": image_id, "caption": sentence}
        for number, sentence in enumerate(sentences)
    ]


def _instance_records(scene: Scene, image_id: int) -> list[dict]:
    """COCO annotations of the visible part of every thing: box, area, mask, attributes."""
    records = []
    for number, (thing, mask) in enumerate(zip(scene.things, masks(scene), strict=True)):
        rows, columns = numpy.flatnonzero(mask.any(axis=1)), numpy.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        right, bottom = int(columns[-1]) + 1, int(rows[-1]) + 1
        code = coco_mask.encode(numpy.asfortranarray(mask, dtype=numpy.uint8))
        record = {
            "id": 10 * image_id + number,
            "image_id": image_id,
            "iscrowd": 0,
            "category_id": SHAPES.index(thing.shape) + 1,
            "area": int(mask.sum()),
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": {"size": [SIZE, SIZE], "counts": code["counts"].decode("ascii")},
            "attributes": {"colour": thing.colour, "size": thing.size, "pattern": thing.pattern},
        }
        records.append(record)
    return records


# ---------------------------------------------------------------- files


def png(picture: numpy.ndarray) -> bytes:
    """A picture, uint8 (height, width, 3), as an uncompressed PNG file.

    Two builds of zlib may compress the same picture to different bytes; the image data are
    therefore "stored" blocks (RFC 1950 and 1951), put together by hand.
    """
    height, width, _ = picture.shape
    lines = numpy.zeros((height, 1 + 3 * width), dtype=numpy.uint8)  # each begins with 0: no filter
    lines[:, 1:] = picture.reshape(height, -1)
    raw = lines.tobytes()
    data = b"\x78\x01"
    for start in range(0, len(raw), 65535):
        block = raw[start : start + 65535]
        last = start + 65535 >= len(raw)
        data += struct.pack("<BHH", last, len(block), 65535 - len(block)) + block
    data += struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _write_json(path: Path, record: dict) -> None:
    """JSON with one fixed spelling: sorted keys, no spaces, "\\n" line ends, ASCII."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    path.write_bytes((text + "\n").encode("ascii"))


@contextlib.contextmanager
def _new_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """A folder to write to, with ``images/`` in it; it gets its own name when all is written."""
    if Path(folder).exists():
        raise FileExistsError(f"{folder} is there already; delete it or choose another.")
    with complete_or_absent(Path(folder)) as unfinished:
        (unfinished / "images").mkdir(parents=True)
        yield unfinished
