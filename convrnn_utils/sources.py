"""Where each data set comes from: drawn, shipped, downloaded, or converted.

Each function gives the data set's folder, with ``images/`` and ``captions_SPLIT.json``.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from convrnn_utils import scenes as scene_generator
from convrnn_utils.archives import open_archive, unpack_pictures
from convrnn_utils.downloads import download_released, fetched, require_room
from convrnn_utils.env import data_folder, repository
from convrnn_utils.files import complete_or_absent, locked, read_image, write_captions

# The public release of Flickr8k. `sha256` is to be filled in by someone who can see the public
# files; until then, their pictures are counted, and every picture is decoded, as a check.
FLICKR8K_ADDRESS = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
FLICKR8K = {
    "Flickr8k_text.zip": {"address": FLICKR8K_ADDRESS, "bytes": 2_340_801, "sha256": None},
    "Flickr8k_Dataset.zip": {"address": FLICKR8K_ADDRESS, "bytes": 1_115_419_746, "sha256": None},
}
FLICKR8K_PICTURES = 8091
FETCH_ANEW = "call flickr8k() again to fetch it anew"
FLICKR8K_JUDGEMENTS = ("ExpertAnnotations.txt", "CrowdFlowerAnnotations.txt")


def scenes(train: int = 6000, test: int = 500, seed: int = 0) -> Path:
    """The drawn scenes, such as ``data/scenes-6000``: drawn at the first call, then found there.

    If ``test`` or ``seed`` is not the default, the folder's name contains all three numbers.

    Args:
        train: pictures to train on.
        test: pictures in each of the splits ``val``, ``test`` and ``held_out``; the last holds
            combinations of colour and shape that no other split has.
        seed: of the generator; the same seed gives the same bytes on every machine.
    """
    name = f"scenes-{train}" if (test, seed) == (500, 0) else f"scenes-{train}-{test}-{seed}"
    folder = data_folder() / name
    if folder.exists():
        return folder
    with locked(folder):
        if not folder.exists():
            with tqdm(total=train + 3 * test, desc="drawing scenes", leave=False) as bar:
                scene_generator.write(folder, train, test, test, test, seed, progress=bar.update)
    return folder


def photos() -> Path:
    """The photographs that come with the course: one split, ``test``; no model trains on them.

    Raises:
        FileNotFoundError: they are not where the course has them.
    """
    folder = repository() / "data" / "photos"
    if not folder.exists():
        raise FileNotFoundError(
            f"the course's photographs are not at {folder}; clone the repository again."
        )
    return folder


def flickr8k(address: str | Sequence[str] | None = None) -> Path:
    """Flickr8k, ``data/flickr8k``: downloaded and converted at the first call (about 1 GB).

    The folder also holds people's judgements of captions, which are part of the release (see
    ``judgements``). An interrupted download goes on where it stopped.

    Args:
        address: where the two archives of the public release lie, or several such places, tried
            in turn; by default what the environment variable ``CONVRNN_FLICKR8K`` says, and if
            that is not set, the public address.

    Raises:
        ConnectionError: the archives could not be fetched.
        OSError: there is not enough room on the disk.
        ValueError: an archive is not what it should be.

    Source: Hodosh, Young & Hockenmaier, JAIR 47 (2013), doi:10.1613/jair.3994.
    """
    folder = data_folder() / "flickr8k"
    if folder.exists():
        return folder
    with locked(folder):
        if not folder.exists():
            _fetch_flickr8k(folder, address or os.environ.get("CONVRNN_FLICKR8K") or None)
    return folder


# ---------------------------------------------------------------- Flickr8k


def _fetch_flickr8k(folder: Path, address: str | Sequence[str] | None) -> None:
    archives = data_folder() / "flickr8k-archives"
    if address is None:  # elsewhere, archives may have been packed anew, with smaller pictures
        public = sum(archive["bytes"] for archive in FLICKR8K.values())
        require_room(folder, 2 * public - fetched(FLICKR8K, archives), "Flickr8k")
    paths = [
        download_released(name, release, archives, address, "flickr8k()", "CONVRNN_FLICKR8K")
        for name, release in FLICKR8K.items()
    ]
    with complete_or_absent(folder) as unfinished:
        _convert_flickr8k(*paths, unfinished)
    shutil.rmtree(archives)


def _convert_flickr8k(texts: Path, pictures: Path, folder: Path) -> None:
    with open_archive(pictures, FETCH_ANEW) as members:
        for path in unpack_pictures(members, folder / "images", FLICKR8K_PICTURES):
            read_image(path)
    captions, split_of = _read_flickr8k_texts(texts)
    for split, names in split_of.items():
        records = [
            {"id": number, "file_name": name, "captions": captions[name]}
            for number, name in enumerate(sorted(captions))
            if name in names
        ]
        write_captions(folder, split, records)
    with open_archive(texts, FETCH_ANEW) as members:
        for name in set(FLICKR8K_JUDGEMENTS) & set(members.namelist()):
            (folder / name).write_bytes(members.read(name))


def _read_flickr8k_texts(archive: Path) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """The captions by picture, and the names of the pictures in each official split."""
    captions: dict[str, list[str]] = {}
    with open_archive(archive, FETCH_ANEW) as members:
        for line in members.read("Flickr8k.token.txt").decode().splitlines():
            label, caption = line.split("\t")
            captions.setdefault(label.split("#")[0], []).append(caption.strip())
        split_of = {
            ours: set(members.read(f"Flickr_8k.{theirs}Images.txt").decode().split())
            for ours, theirs in {"train": "train", "val": "dev", "test": "test"}.items()
        }
    return captions, split_of
