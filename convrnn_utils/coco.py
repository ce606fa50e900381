"""COCO, 2014 with Karpathy's split or 2017: downloaded, unpacked, and divided into our splits."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from convrnn_utils.archives import open_archive, unpack_pictures
from convrnn_utils.downloads import download_released, fetched, require_room
from convrnn_utils.env import data_folder
from convrnn_utils.files import (
    check_captions,
    complete_or_absent,
    locked,
    open_captions,
    write_captions,
)

PICTURES_ADDRESS = "http://images.cocodataset.org/zips"
ANNOTATIONS_ADDRESS = "http://images.cocodataset.org/annotations"
KARPATHY_ADDRESS = "https://cs.stanford.edu/people/karpathy/deepimagesent"

# Sizes are those that the servers give; checksums are from torchvision 0.13's
# prototype/datasets/coco.py.
ARCHIVES = {
    "train2014.zip": {
        "address": PICTURES_ADDRESS,
        "bytes": 13_510_573_713,
        "sha256": "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        "pictures": 82_783,
    },
    "val2014.zip": {
        "address": PICTURES_ADDRESS,
        "bytes": 6_645_013_297,
        "sha256": "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        "pictures": 40_504,
    },
    "caption_datasets.zip": {"address": KARPATHY_ADDRESS, "bytes": 36_745_453, "sha256": None},
    "train2017.zip": {
        "address": PICTURES_ADDRESS,
        "bytes": 19_336_861_798,
        "sha256": "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        "pictures": 118_287,
    },
    "val2017.zip": {
        "address": PICTURES_ADDRESS,
        "bytes": 815_585_330,
        "sha256": "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        "pictures": 5_000,
    },
    "annotations_trainval2017.zip": {
        "address": ANNOTATIONS_ADDRESS,
        "bytes": 252_907_541,
        "sha256": "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    },
}
# What each archive is unpacked into: a folder of pictures, or the files named.
PICTURES = {2014: ("train2014", "val2014"), 2017: ("train2017", "val2017")}
TEXTS = {
    2014: ("caption_datasets.zip", ["dataset_coco.json"]),
    2017: (
        "annotations_trainval2017.zip",
        [f"annotations/captions_{part}.json" for part in PICTURES[2017]],
    ),
}


def coco(year: int = 2014, address: str | Sequence[str] | None = None) -> Path:
    """COCO, ``data/coco2014`` or ``data/coco2017``: downloaded at the first call, 20 GB each.

    Files that are there already are not fetched again, so you can put your own copies there:

    - 2014: ``images/train2014/``, ``images/val2014/`` and Karpathy's ``dataset_coco.json``,
      whose split is used (``restval`` counts as training, as is usual);
    - 2017: ``images/train2017/``, ``images/val2017/`` and ``annotations/captions_*2017.json``.
      The captions of COCO's own test pictures are not public, so ``val2017`` is our ``test``,
      and every 24th picture of ``train2017`` (about 5,000) our ``val``.

    An interrupted download goes on where it stopped. One picture of ``train2014`` is known to be
    broken in the release itself (COCO_train2014_000000167126.jpg): ``data.readable`` leaves it out.

    Args:
        year: 2014 or 2017.
        address: where the archives lie instead, or several such places, tried in turn; without
            it what the environment variable ``CONVRNN_COCO`` says, and if that is not set, the
            public addresses.

    Raises:
        ConnectionError: an archive could not be fetched.
        OSError: there is not enough room on the disk.
        ValueError: there is no such year, or an archive is not what it should be.

    Source: Chen et al., arXiv:1504.00325; split: Karpathy & Fei-Fei, arXiv:1412.2306.
    """
    if year not in PICTURES:
        raise ValueError(f"there is no COCO {year} here; choose 2014 or 2017.")
    folder = data_folder() / f"coco{year}"
    if (folder / "captions_test.json").exists():
        return folder
    with locked(folder):
        if not (folder / "captions_test.json").exists():
            _fetch(folder, year, address or os.environ.get("CONVRNN_COCO") or None)
            splits = _karpathy_splits(folder) if year == 2014 else _coco2017_splits(folder)
            for split, records in splits.items():
                write_captions(folder, split, records)
    return folder


def _fetch(folder: Path, year: int, address: str | Sequence[str] | None) -> None:
    """Download and unpack what is not in ``folder`` yet."""
    archives = data_folder() / f"coco{year}-archives"
    wanted = [part for part in PICTURES[year] if not (folder / "images" / part).exists()]
    texts, members = TEXTS[year]
    texts_missing = not all((folder / member).exists() for member in members)
    sizes = [ARCHIVES[f"{part}.zip"]["bytes"] for part in wanted]
    if sizes:  # one archive at a time lies beside the pictures
        there = fetched((f"{part}.zip" for part in wanted), archives)
        require_room(folder, sum(sizes) + max(sizes) - there, f"COCO {year}")
    if texts_missing:
        with _archive(archives, texts, address) as archive:
            for member in members:
                with complete_or_absent(folder / member) as unfinished:
                    unfinished.write_bytes(archive.read(member))
    for part in wanted:
        with (
            _archive(archives, f"{part}.zip", address) as archive,
            complete_or_absent(folder / "images" / part) as unfinished,
        ):
            unpack_pictures(archive, unfinished, ARCHIVES[f"{part}.zip"]["pictures"])
        (archives / f"{part}.zip").unlink()
    shutil.rmtree(archives, ignore_errors=True)


def _archive(archives: Path, name: str, address: str | Sequence[str] | None):
    """Fetch one archive of COCO and open it."""
    path = download_released(name, ARCHIVES[name], archives, address, "coco()", "CONVRNN_COCO")
    return open_archive(path, "call coco() again to fetch it anew")


def _karpathy_splits(folder: Path) -> dict[str, list[dict]]:
    """The splits of ``dataset_coco.json``, with ``restval`` counted as training."""
    path = folder / "dataset_coco.json"
    splits: dict[str, list[dict]] = {"train": [], "val": [], "test": []}
    try:
        for image in json.loads(path.read_text(encoding="utf-8"))["images"]:
            record = {
                "id": image["cocoid"],
                "file_name": f"{image['filepath']}/{image['filename']}",
                "captions": [sentence["raw"].strip() for sentence in image["sentences"]],
            }
            splits["train" if image["split"] == "restval" else image["split"]].append(record)
        check_captions(sum(splits.values(), []), [])
        if empty := [split for split, records in splits.items() if not records]:
            raise ValueError(f"it has no picture for {', '.join(empty)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not Karpathy's split ({type(error).__name__}: {error}); "
            "remove it and call coco() again to fetch it anew."
        ) from error
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
    annotations = open_captions(folder / "annotations", part)
    return [
        {
            "id": image_id,
            "file_name": f"{part}/{annotations.imgs[image_id]['file_name']}",
            "captions": [row["caption"].strip() for row in annotations.imgToAnns[image_id]],
        }
        for image_id in sorted(annotations.imgs)
    ]
