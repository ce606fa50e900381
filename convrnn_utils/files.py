"""Files, with errors in words: pictures, captions in the COCO format, complete or absent."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps
from pycocotools.coco import COCO


@contextlib.contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """A name to write a file or folder to, which becomes ``path`` when all has gone well.

    Where something fails, what was written is removed, and ``path`` is as it was.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(unfinished)  # a killed process that had the same number may have left it
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_image(path: Path) -> Image.Image:
    """A picture file as an upright RGB image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture, or a broken one.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "I;16":  # 16 bits of grey, which convert() would clip to white
                upright = upright.point(lambda value: value / 256)
            return upright.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no picture {path}; check its name.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}.") from error


def open_captions(folder: Path, split: str) -> COCO:
    """``captions_SPLIT.json`` of a data set through pycocotools, without its chatter.

    Raises:
        FileNotFoundError: there is no such split; the message names those that there are.
        ValueError: the file is not in the COCO captions format.
    """
    path = Path(folder) / f"captions_{split}.json"
    if not path.exists():
        there = sorted(p.stem.removeprefix("captions_") for p in path.parent.glob("captions_*"))
        known = ", ".join(there) or "no captions at all"
        raise FileNotFoundError(f"{path.parent} has no split {split!r}; it has {known}.")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            annotations = COCO(str(path))
        if not all(isinstance(row["caption"], str) for row in annotations.anns.values()):
            raise TypeError("a caption is not text")
        if not annotations.imgs or not all("file_name" in row for row in annotations.imgs.values()):
            raise TypeError("a picture has no file name")
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a COCO captions file ({type(error).__name__}: {error}); it needs the "
            "lists 'images' (id, file_name) and 'annotations' (id, image_id, caption)."
        ) from error
    return annotations


def write_captions(folder: Path, split: str, records: list[dict]) -> None:
    """Write ``captions_SPLIT.json`` in the COCO captions format.

    Args:
        folder: the data set's folder.
        records: one a picture: ``{"id", "file_name", "captions": [...]}`` and what else is known.
    """
    images = [{k: v for k, v in record.items() if k != "captions"} for record in records]
    captions = ((record["id"], text) for record in records for text in record["captions"])
    annotations = [
        {"id": number, "image_id": image_id, "caption": text}
        for number, (image_id, text) in enumerate(captions)
    ]
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    with complete_or_absent(Path(folder) / f"captions_{split}.json") as unfinished:
        unfinished.write_text(json.dumps(content), encoding="utf-8")
