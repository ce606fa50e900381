"""Pictures and COCO captions in files: errors in plain words, and no file that is half written."""

import contextlib
import errno
import glob
import io
import json
import os
import shutil
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy
from filelock import FileLock, Timeout
from PIL import Image, ImageOps, UnidentifiedImageError
from pycocotools.coco import COCO

# The formats of cameras and the web; Pillow also reads others, one of them with Ghostscript's help.
Image.init()
PICTURE_FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"} & Image.OPEN.keys()
ABANDONED = 3600  # seconds without a change after which an unfinished file counts as left behind


@contextlib.contextmanager
def complete_or_absent(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Give a temporary name to write a file or folder to; when all has gone well, rename it.

    The new name is ``path``. If something fails, what was written is removed, and ``path`` stays as
    it was. Everything is on the disk before the renaming, so that not even a power cut can leave
    half a file or folder under the name ``path``.

    Args:
        path: what to write, or to replace.
        previous: where to keep the file that was at ``path`` until now; by default it is not kept.

    Raises:
        PermissionError: nothing can be written there.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    _make_writable(path.parent)
    _remove(unfinished)  # a killed process that had the same number may have left it
    _remove_unfinished(path, older_than=ABANDONED)
    try:
        yield unfinished
        flush_to_disk(unfinished)
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(unfinished, path)
        _flush_names(path.parent)
    finally:
        _remove(unfinished)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other program is making the file or folder ``path``, and keep others waiting.

    Whatever a killed program has left unfinished is removed. The lock is released when the process
    that holds it ends, however it ends; the empty lock file stays.
    """
    path = Path(path)
    _make_writable(path.parent)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"Another program is at work on {path.name}; waiting until it is done.")
        lock.acquire()
    try:
        _remove_unfinished(path)
        for left in list(path.rglob(".*.unfinished")):  # of files inside the folder
            _remove(left)
        yield
    finally:
        lock.release()


def _make_writable(folder: Path) -> None:
    """Make a folder; if nothing can be written to it, raise an error that says what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refused = not os.access(folder, os.W_OK)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"a file is in the way of the folder {folder}; choose another one, or, if it is for "
            "the data, let CONVRNN_DATA name a folder."
        ) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        refused = True
    if refused:
        raise PermissionError(
            f"nothing can be written to {folder}; choose another one, or, if it is for the data, "
            "set CONVRNN_DATA to a folder of your own before you start Python."
        )


def flush_to_disk(path: Path) -> None:
    """Wait until what was written to a file or folder has reached the disk."""
    if path.is_dir():
        if hasattr(os, "sync"):  # not on Windows
            os.sync()
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    """Wait until new names in a folder have reached the disk; Windows sees to that itself."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some network disks cannot do this
            os.fsync(descriptor)
        os.close(descriptor)


def _remove_unfinished(path: Path, older_than: float = 0) -> None:
    """Remove what killed processes have left unfinished of ``path``."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.unfinished"):
        with contextlib.suppress(OSError):  # another process has just removed it
            if time.time() - left.stat().st_mtime >= older_than:
                _remove(left)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def nearest_folder(path: Path) -> Path:
    """A folder, or if it does not exist yet, the nearest one above it that does."""
    return next(place for place in (path.resolve(), *path.resolve().parents) if place.is_dir())


def read_image(path: Path) -> Image.Image:
    """Return the picture in a file, or the first of an animation, made RGB by ``upright_rgb``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, not a picture, damaged, or has too many pixels: Pillow's limit,
            179 million, is checked before anything is decoded.
    """
    try:
        with Image.open(path, formats=list(PICTURE_FORMATS)) as image:
            return upright_rgb(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no picture {path}; check its name.") from None
    except Exception as error:  # damaged bytes make Pillow's readers raise almost anything
        if isinstance(error, IsADirectoryError | PermissionError) and Path(path).is_dir():
            reason = "it is a folder; name the pictures in it"
        elif isinstance(error, UnidentifiedImageError):
            reason = f"it is damaged, or not one of {', '.join(sorted(PICTURE_FORMATS))}"
        else:
            reason = str(error).rstrip(".")
        raise ValueError(f"{path} cannot be read as a picture: {reason}.") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, 0 to 255, turned as its EXIF data say.

    16-bit grey is scaled down to 8 bits; transparent parts are shown on white.

    Raises:
        ValueError: the range of its values is not known.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16 bits, which convert() would clip
        values = numpy.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its values need more than 16 bits; save it with 8 bits per colour")
        image = Image.fromarray((values // 256).astype(numpy.uint8))
    if image.mode == "F":
        raise ValueError("its values are fractions; save it with 8 bits per colour")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def open_captions(folder: Path, split: str) -> COCO:
    """Read ``captions_SPLIT.json`` of a data set with pycocotools, without its printed messages.

    Raises:
        FileNotFoundError: there is no such split; the message lists those that exist.
        ValueError: the file is not in the COCO captions format.
    """
    path = Path(folder) / f"captions_{split}.json"
    if not path.exists():
        there = sorted(p.stem.removeprefix("captions_") for p in path.parent.glob("captions_*"))
        known = ", ".join(there) or "no captions at all"
        raise FileNotFoundError(f"{path.parent} has no split {split!r}; it has {known}.")
    try:
        annotations = COCO()
        annotations.dataset = json.loads(path.read_text(encoding="utf-8"))
        with contextlib.redirect_stdout(io.StringIO()):
            annotations.createIndex()
        check_captions(annotations.dataset["images"], annotations.dataset["annotations"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a COCO captions file ({type(error).__name__}: {error}); it needs the "
            "lists 'images' (id, file_name) and 'annotations' (id, image_id, caption)."
        ) from error
    return annotations


def check_captions(images: list[dict], annotations: list[dict]) -> None:
    """Raise an error that says what is wrong with the lists of a COCO captions file."""
    if not images:
        raise ValueError("it has no picture")
    for what, rows in {"image": images, "annotation": annotations}.items():
        seen = set()
        for row in rows:
            if type(row["id"]) is not int:
                raise TypeError(f"the {what} id {row['id']!r} is not a whole number")
            if row["id"] in seen:
                raise ValueError(f"the {what} id {row['id']} comes twice")
            seen.add(row["id"])
    for row in images:
        name = row["file_name"]
        if not isinstance(name, str) or not name or "\0" in name:
            raise TypeError(f"the file name of image {row['id']} is not text")
        for path in (PurePosixPath(name), PureWindowsPath(name)):
            if path.anchor or ".." in path.parts:
                raise ValueError(f"the file name {name!r} leads out of the data set")
    for row in annotations:
        if type(row["image_id"]) is not int:
            raise TypeError(f"the image_id of annotation {row['id']} is not a whole number")
        if not isinstance(row["caption"], str):
            raise TypeError(f"the caption of annotation {row['id']} is not text")


def one_line(caption: str) -> str:
    """A caption without control characters and lone surrogates, which other programs choke on."""
    if caption.isprintable():
        return caption
    strange = {"Cc", "Cs", "Zl", "Zp"}
    letters = (" " if unicodedata.category(letter) in strange else letter for letter in caption)
    return " ".join("".join(letters).split())


def write_captions(folder: Path, split: str, records: list[dict]) -> None:
    """Write ``captions_SPLIT.json`` in the COCO captions format.

    Args:
        folder: the data set's folder.
        records: one per picture: ``{"id", "file_name", "captions": [...]}`` and any other fields.
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
