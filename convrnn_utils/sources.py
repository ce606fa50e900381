"""Where each data set comes from: drawn, shipped, downloaded, or converted.

Each function gives the data set's folder, with ``images/`` and ``captions_SPLIT.json``.
"""

import contextlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pooch
from tqdm import tqdm

from convrnn_utils import scenes as scene_generator
from convrnn_utils.env import data_folder, repository
from convrnn_utils.files import complete_or_absent, open_captions, read_image, write_captions

# The public release of Flickr8k. `sha256` is for whoever can see the public files to fill in;
# until then their members are counted and every picture is decoded.
FLICKR8K = {
    "Flickr8k_text.zip": {"bytes": 2_340_801, "sha256": None},
    "Flickr8k_Dataset.zip": {"bytes": 1_115_419_746, "sha256": None},
}
FLICKR8K_ADDRESS = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
FLICKR8K_PICTURES = 8091
FLICKR8K_JUDGEMENTS = ("ExpertAnnotations.txt", "CrowdFlowerAnnotations.txt")


def scenes(train: int = 6000, test: int = 500, seed: int = 0) -> Path:
    """The drawn scenes, ``data/scenes-TRAIN``: drawn at the first call, found at the next.

    Args:
        train: pictures to train on.
        test: pictures in each of the splits ``val``, ``test`` and ``held_out``; the last holds
            combinations of colour and shape that no other split has.
        seed: of the generator; the same seed gives the same bytes on every machine.
    """
    name = f"scenes-{train}" if (test, seed) == (500, 0) else f"scenes-{train}-{test}-{seed}"
    folder = data_folder() / name
    if not folder.exists():
        with tqdm(total=train + 3 * test, desc="drawing scenes", leave=False) as bar:
            scene_generator.write(
                folder, train, test, test, test, seed, progress=lambda done, total: bar.update()
            )
    return folder


def photos() -> Path:
    """The photographs that come with the course: one split, ``test``; no model trains on them."""
    folder = repository() / "data" / "photos"
    return _require(folder, "the course's photographs", "clone the repository again")


def flickr8k(address: str | None = None) -> Path:
    """Flickr8k, ``data/flickr8k``: downloaded and converted at the first call (about 1 GB).

    Beside the pictures and captions lie the judgements of captions by people that come with it
    (see ``judgements``).

    Args:
        address: where the two archives of the public release lie; without it the environment
            variable ``CONVRNN_FLICKR8K``, without that the public address.

    Raises:
        ConnectionError: the archives could not be fetched.
        ValueError: an archive is not what it should be.

    Source: Hodosh, Young & Hockenmaier, JAIR 47 (2013), doi:10.1613/jair.3994.
    """
    folder = data_folder() / "flickr8k"
    if folder.exists():
        return folder
    address = address or os.environ.get("CONVRNN_FLICKR8K") or FLICKR8K_ADDRESS
    archives = data_folder() / "flickr8k-archives"
    paths = [_download(address, name, archives) for name in FLICKR8K]
    with complete_or_absent(folder) as unfinished:
        _convert_flickr8k(*paths, unfinished)
    shutil.rmtree(archives)
    return folder


def coco(year: int = 2014) -> Path:
    """COCO, ``data/coco2014`` or ``data/coco2017``, from files that you have downloaded.

    The folder must hold, unpacked from the archives of cocodataset.org:

    - 2014: ``images/train2014/``, ``images/val2014/`` and Karpathy's ``dataset_coco.json``,
      whose split is used (``restval`` counts as training, as is usual);
    - 2017: ``images/train2017/``, ``images/val2017/`` and ``annotations/captions_*2017.json``.
      The captions of COCO's own test pictures are not public, so ``val2017`` is our ``test``,
      and every 24th picture of ``train2017`` (about 5,000) our ``val``.

    Raises:
        FileNotFoundError: a file is missing.

    Source: Chen et al., arXiv:1504.00325; split: Karpathy & Fei-Fei, arXiv:1412.2306.
    """
    readers = {2014: _karpathy_splits, 2017: _coco2017_splits}
    if year not in readers:
        raise ValueError(f"there is no COCO {year} here; choose 2014 or 2017.")
    folder = data_folder() / f"coco{year}"
    if not (folder / "captions_test.json").exists():
        for split, records in readers[year](folder).items():
            write_captions(folder, split, records)
    return folder


# ---------------------------------------------------------------- Flickr8k


def _download(address: str, name: str, folder: Path) -> Path:
    """Fetch one archive of the release; pooch gives it its name when it is whole."""
    expected = FLICKR8K[name]["sha256"]
    try:
        path = pooch.retrieve(
            f"{address.rstrip('/')}/{name}",
            known_hash=f"sha256:{expected}" if expected else None,
            fname=name,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
        )
    except OSError as error:
        raise ConnectionError(
            f"{name} could not be fetched from {address} ({error}); check the network, or name "
            "another address in the environment variable CONVRNN_FLICKR8K."
        ) from error
    return Path(path)


def _convert_flickr8k(texts: Path, pictures: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    _unpack_pictures(pictures, folder / "images")
    captions, split_of = _read_flickr8k_texts(texts)
    for split, names in split_of.items():
        records = [
            {"id": number, "file_name": name, "captions": captions[name]}
            for number, name in enumerate(sorted(captions))
            if name in names
        ]
        write_captions(folder, split, records)
    with _open_zip(texts) as members:
        for name in set(FLICKR8K_JUDGEMENTS) & set(members.namelist()):
            (folder / name).write_bytes(members.read(name))


def _unpack_pictures(archive: Path, folder: Path) -> None:
    """Write the JPEG members of a zip file to ``folder`` under their bare names; decode each."""
    with _open_zip(archive) as members:
        names = [name for name in members.namelist() if _is_picture(name)]
        if len(names) != FLICKR8K_PICTURES:
            raise ValueError(f"it holds {len(names)} pictures and not {FLICKR8K_PICTURES}")
        for name in tqdm(names, desc="unpacking", leave=False):
            path = folder / Path(name).name
            path.write_bytes(members.read(name))
            read_image(path)


def _is_picture(member: str) -> bool:
    return member.endswith(".jpg") and not member.startswith("__MACOSX")


@contextlib.contextmanager
def _open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file; one that proves not to be what it should be is removed and refused."""
    try:
        with zipfile.ZipFile(archive) as members:
            yield members
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        archive.unlink()
        raise ValueError(
            f"{archive.name} is not as it was released: {str(error).rstrip('.')}; it was removed, "
            "so call flickr8k() again to fetch it anew."
        ) from error


def _read_flickr8k_texts(archive: Path) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """The captions by picture, and the names of the pictures in each official split."""
    captions: dict[str, list[str]] = {}
    with _open_zip(archive) as members:
        for line in members.read("Flickr8k.token.txt").decode().splitlines():
            label, caption = line.split("\t")
            captions.setdefault(label.split("#")[0], []).append(caption.strip())
        split_of = {
            ours: set(members.read(f"Flickr_8k.{theirs}Images.txt").decode().split())
            for ours, theirs in {"train": "train", "val": "dev", "test": "test"}.items()
        }
    return captions, split_of


# ---------------------------------------------------------------- COCO


def _karpathy_splits(folder: Path) -> dict[str, list[dict]]:
    """The splits of ``dataset_coco.json``, ``restval`` taken as training."""
    path = _require(
        folder / "dataset_coco.json",
        "Karpathy's splits",
        "put the file dataset_coco.json there",
    )
    splits: dict[str, list[dict]] = {"train": [], "val": [], "test": []}
    for image in json.loads(path.read_text(encoding="utf-8"))["images"]:
        record = {
            "id": image["cocoid"],
            "file_name": f"{image['filepath']}/{image['filename']}",
            "captions": [sentence["raw"].strip() for sentence in image["sentences"]],
        }
        splits["train" if image["split"] == "restval" else image["split"]].append(record)
    return splits


def _coco2017_splits(folder: Path) -> dict[str, list[dict]]:
    """Our three splits from the two public caption files of 2017."""
    training = _coco2017_records(folder, "train2017")
    return {
        "train": [record for number, record in enumerate(training) if number % 24],
        "val": training[::24],
        "test": _coco2017_records(folder, "val2017"),
    }


def _coco2017_records(folder: Path, part: str) -> list[dict]:
    path = folder / "annotations"
    _require(path / f"captions_{part}.json", "COCO's captions", "unpack annotations_trainval2017")
    annotations = open_captions(path, part)
    return [
        {
            "id": image_id,
            "file_name": f"{part}/{annotations.imgs[image_id]['file_name']}",
            "captions": [row["caption"].strip() for row in annotations.imgToAnns[image_id]],
        }
        for image_id in sorted(annotations.imgs)
    ]


def _require(path: Path, what: str, way_out: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{what} are not at {path}; {way_out}.")
    return path
