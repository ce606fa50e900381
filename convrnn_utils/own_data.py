"""A data set of one's own, from a CSV file of pictures and captions."""

import csv
import errno
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tqdm import tqdm

from convrnn_utils.env import data_folder
from convrnn_utils.files import (
    complete_or_absent,
    locked,
    one_line,
    read_image,
    write_captions,
)
from convrnn_utils.text import tokenize

SPLITS = ("train", "val", "test")
TAKEN = {"captioner", "checkpoints", "coco2014", "coco2017", "features", "flickr8k", "photos"}
TAKEN |= {"small_cnn"}  # the course's own folders in data/, besides scenes-6000 and the like


def from_csv(path: Path, seed: int = 0) -> Path:
    """A data set of your own, ``data/NAME`` for ``NAME.csv``, with the columns path and caption.

    One line per caption; a picture may have several lines. A path is relative to the CSV file's
    folder, or absolute. A third column, ``split``, may say train, val or test; without it one
    picture in ten goes to val and one to test, at random. The pictures are copied. What cannot be
    used (a picture that cannot be read, a caption without a word) is left out, and a warning
    says which line and why.

    Args:
        path: the file, UTF-8, with a header; commas, semicolons or tabs between the columns.
        seed: of the random split.

    Returns:
        the folder, for ``load_split``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a table; fewer than three pictures, or none for a split,
            are left; or ``data/NAME`` was made from something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check its name.")
    folder = data_folder() / path.stem
    if folder.name.lower() in TAKEN or folder.name.startswith("scenes-"):
        raise ValueError(
            f"data/{folder.name} is a folder of the course; give {path} another name: "
            "the data set is called after its file."
        )
    made_from = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "seed": seed}
    complaints: list[str] = []
    with locked(folder):
        if not folder.exists():
            with complete_or_absent(folder) as unfinished:
                complaints = _convert(path, unfinished, seed)
                text = json.dumps(made_from)
                (unfinished / "made_from.json").write_text(text, encoding="utf-8")
    if complaints:
        warnings.warn(
            f"Left out of {path.name} (to include them, correct these lines, delete "
            f"{folder.name} in the data folder, and start again):\n" + "\n".join(complaints),
            stacklevel=2,
        )
    note = folder / "made_from.json"
    if not note.exists() or json.loads(note.read_text(encoding="utf-8")) != made_from:
        raise ValueError(
            f"{folder} was not made from {path} as it is now; if the table has changed, delete "
            "that folder, and it will be made again; if this is another table, rename its file."
        )
    return folder


def _convert(path: Path, folder: Path, seed: int) -> list[str]:
    """Make the data set; return a complaint about each line that is left out."""
    (folder / "images").mkdir(parents=True)
    records: dict[Path, dict] = {}
    complaints = []
    for line, row in tqdm(_rows(path), desc="pictures", leave=False):
        try:
            _add(records, row, path.parent, folder / "images")
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            complaints.append(f"line {line}: {error}")
    reasons = "".join(f"\n{complaint}" for complaint in complaints[:20])
    if len(records) < 3:
        raise ValueError(f"{path} has fewer than three pictures that can be used.{reasons}")
    _deal_out(list(records.values()), seed)
    for split in SPLITS:
        own = [record for record in records.values() if record["split"] == split]
        if not own:
            raise ValueError(f"{path} has no picture for the split {split}.{reasons}")
        write_captions(folder, split, own)
    captions = sum(len(record["captions"]) for record in records.values())
    print(f"{path.name}: {len(records):,} pictures with {captions:,} captions.")
    return complaints


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table, each with the number of its (last) line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            separator = max(",;\t", key=header.count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=separator, strict=True)
            if not {"path", "caption"} <= set(reader.fieldnames or ()):
                raise ValueError(
                    f"{path} needs a first line that names its columns, path and caption; "
                    f"it is {header.strip()[:80]!r}."
                )
            for row in reader:
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error.reason}); save it as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(
            f"{path} is not a CSV file that can be read: {error}, on line "
            f"{reader.reader.line_num} or in double quotes that begin before it."
        ) from error


def _add(records: dict[Path, dict], row: dict[str, str], home: Path, images: Path) -> None:
    """Add one line to the records, or raise an error that says why it cannot be used."""
    name, caption = (row["path"] or "").strip(), one_line(row["caption"] or "").strip()
    split = (row.get("split") or "").strip().lower() or None
    if None in row:
        raise ValueError("it has too many columns; put a caption with commas in double quotes.")
    if not name or "\0" in name:
        raise ValueError("it names no picture.")
    if not tokenize(caption):
        raise ValueError("its caption has no word.")
    if split not in (None, *SPLITS):
        raise ValueError(f"its split is {split!r}, which is not train, val or test.")
    file = (home / name).resolve()  # the table may name one picture in two ways
    if file not in records:
        read_image(file)
        number = len(records)
        file_name = f"{number:06d}{Path(name).suffix.lower()}"
        shutil.copyfile(file, images / file_name)
        records[file] = {
            "id": number,
            "file_name": file_name,
            "original": name,
            "captions": [],
            "split": split,
        }
    elif records[file]["split"] != split:
        raise ValueError(f"{name} is in another split on an earlier line.")
    records[file]["captions"].append(caption)


def _deal_out(records: list[dict], seed: int) -> None:
    """Give a split to the pictures that have none: a tenth each to val and test."""
    undecided = [record for record in records if record["split"] is None]
    Random(seed).shuffle(undecided)
    tenth = max(1, len(undecided) // 10)
    for number, record in enumerate(undecided):
        record["split"] = "val" if number < tenth else "test" if number < 2 * tenth else "train"
