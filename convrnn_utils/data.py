"""Every data set as the same files on disk, and what a network is fed from them.

A data set is a folder with ``images/`` and ``captions_{train,val,test}.json`` in the COCO captions
format. ``scenes``, ``photos``, ``flickr8k`` and ``coco`` give the folder, after drawing,
downloading or converting where that is needed; ``load_split`` reads one split of it.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy
import pooch
import torch
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from torch import Tensor
from tqdm import tqdm

from convrnn_utils import scenes as scene_generator
from convrnn_utils.env import data_folder, repository
from convrnn_utils.text import PAD, Vocabulary

# The public release of Flickr8k. `sha256` is for whoever can see the public files to fill in;
# until then their members are counted and every picture is decoded.
FLICKR8K = {
    "Flickr8k_text.zip": {"bytes": 2_340_801, "sha256": None},
    "Flickr8k_Dataset.zip": {"bytes": 1_115_419_746, "sha256": None},
}
FLICKR8K_ADDRESS = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
FLICKR8K_PICTURES = 8091


@dataclass
class Split:
    """One split of a data set; entry i of each list belongs to picture i.

    Attributes:
        name: the data set's and the split's, such as ``"scenes-6000/train"``.
        ids: the COCO image ids.
        paths: the image files.
        captions: the captions of each picture.
        records: the COCO image records, with whatever else the data set says of a picture.
    """

    name: str
    ids: list[int]
    paths: list[Path]
    captions: list[list[str]]
    records: list[dict]

    def __len__(self) -> int:
        return len(self.ids)

    def references(self) -> dict[int, list[str]]:
        """The captions by image id, as ``metrics`` takes them."""
        return dict(zip(self.ids, self.captions, strict=True))

    def first(self, count: int) -> "Split":
        """The first ``count`` pictures as a split of their own."""
        return Split(
            f"{self.name}-first-{count}",
            self.ids[:count],
            self.paths[:count],
            self.captions[:count],
            self.records[:count],
        )


# ---------------------------------------------------------------- the data sets


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


# ---------------------------------------------------------------- reading


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


def load_split(folder: Path, split: str) -> Split:
    """One split of a data set, its pictures in the order of their ids."""
    folder = Path(folder)
    annotations = open_captions(folder, split)
    ids = sorted(annotations.imgs)
    records = [annotations.imgs[image_id] for image_id in ids]
    return Split(
        name=f"{folder.name}/{split}",
        ids=ids,
        paths=[folder / "images" / record["file_name"] for record in records],
        captions=[[row["caption"] for row in annotations.imgToAnns[i]] for i in ids],
        records=records,
    )


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


class Pictures:
    """The pictures of a split as an array of bytes, (N, 3, size, size), decoded when asked for.

    ``pictures[rows]`` gives the pictures of a list of rows as one tensor. With ``in_memory`` all
    are decoded once and kept: 27 kB a picture of 96 pixels, 150 kB at 224.
    """

    def __init__(self, split: Split, encoder, in_memory: bool = False):
        self.paths, self.encoder = split.paths, encoder
        self.kept = None
        if in_memory:
            self.kept = self[tqdm(range(len(self)), desc="pictures", leave=False)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Iterable[int]) -> Tensor:
        if self.kept is not None:
            return self.kept[list(rows)]
        return torch.stack([self.encoder.preprocess(read_image(self.paths[row])) for row in rows])


# ---------------------------------------------------------------- the feature cache


def cached_features(split: Split, encoder, pooled: bool = False, batch_size: int = 32):
    """What a frozen encoder makes of each picture, computed once and kept on disk.

    The file in ``data/features`` is named by data set, split, encoder and size, and by a
    fingerprint of the pictures and the weights; where any of these has changed it is made anew.
    It is complete or absent: it gets its name when the last feature is written.

    Args:
        split: N pictures.
        encoder: an ``ImageEncoder``; L places and D features.
        pooled: keep the mean over the places only.

    Returns:
        a memory-mapped fp16 array, (N, L, D), or (N, D) where pooled.
    """
    kind = "pooled" if pooled else "grid"
    name = f"{split.name.replace('/', '-')}-{encoder.name}-{encoder.size}-{kind}"
    path = data_folder() / "features" / f"{name}-{_fingerprint(split, encoder)}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete_or_absent(path) as unfinished:
            _write_features(unfinished, split, encoder, pooled, batch_size)
        for outdated in path.parent.glob(f"{name}-????????.npy"):
            if outdated != path:
                outdated.unlink()
    return numpy.load(path, mmap_mode="r")


@torch.inference_mode()
def _write_features(path: Path, split: Split, encoder, pooled: bool, batch_size: int) -> None:
    where = encoder.mean.device
    pictures = Pictures(split, encoder)
    features = None
    starts = range(0, len(split), batch_size)
    for start in tqdm(starts, desc=f"features of {split.name}", leave=False):
        rows = range(start, min(start + batch_size, len(split)))
        grid = encoder(pictures[rows].to(where))
        batch = (grid.mean(dim=1) if pooled else grid).cpu().numpy().astype(numpy.float16)
        if not numpy.isfinite(batch).all():
            raise ValueError(f"{encoder.name} gives features beyond the range of fp16 (65,504).")
        if features is None:
            shape = (len(split), *batch.shape[1:])
            features = numpy.lib.format.open_memmap(path, "w+", numpy.float16, shape)
        features[start : start + len(batch)] = batch
    features.flush()


def _fingerprint(split: Split, encoder) -> str:
    digest = hashlib.sha256(encoder.fingerprint().encode())
    for path in split.paths:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:8]


# ---------------------------------------------------------------- batches


class CaptionDataset(torch.utils.data.Dataset):
    """Pairs of a picture and one of its captions, given out batch by batch.

    Args:
        split: N pictures with their captions.
        inputs: N rows, one a picture: ``Pictures`` or an array of cached features.
        vocabulary: turns captions into ids.
        max_words: longer captions are cut here.
    """

    def __init__(self, split: Split, inputs, vocabulary: Vocabulary, max_words: int = 40):
        if len(inputs) != len(split):
            raise ValueError(f"{len(inputs)} inputs do not fit the {len(split)} pictures.")
        self.split, self.inputs, self.vocabulary = split, inputs, vocabulary
        self.pairs = [
            (row, _cut(vocabulary.encode(caption), max_words))
            for row, captions in enumerate(split.captions)
            for caption in captions
        ]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The inputs (B, ...) and the padded captions (B, T) of the pairs ``indices``."""
        rows = [self.pairs[index][0] for index in indices]
        inputs = self.inputs[rows]
        captions = pad_captions([self.pairs[index][1] for index in indices])
        return inputs if torch.is_tensor(inputs) else torch.from_numpy(inputs), captions


def _cut(ids: list[int], max_words: int) -> list[int]:
    return ids if len(ids) <= max_words + 2 else [*ids[: max_words + 1], ids[-1]]


def pad_captions(captions: Sequence[Sequence[int]]) -> Tensor:
    """Captions of different lengths as one tensor (B, T) of ids, filled up with ``<pad>``."""
    longest = max(len(caption) for caption in captions)
    return torch.tensor([[*caption, *[PAD] * (longest - len(caption))] for caption in captions])


def batch_indices(dataset: CaptionDataset, batch_size: int, seed: int) -> list[list[int]]:
    """All indices of a data set in batches of captions of about equal length, in random order.

    Within every stretch of 50 batches the captions are sorted by length, so that little of a
    batch is padding: it costs as much to compute as words. ``seed`` fixes the order. A batch of a
    single caption is left out, since batch normalisation cannot train on it.
    """
    random = Random(seed)
    order = list(range(len(dataset)))
    random.shuffle(order)
    batches = []
    for start in range(0, len(order), 50 * batch_size):
        stretch = order[start : start + 50 * batch_size]
        stretch.sort(key=lambda index: len(dataset.pairs[index][1]))
        batches += [stretch[i : i + batch_size] for i in range(0, len(stretch), batch_size)]
    random.shuffle(batches)
    return [batch for batch in batches if len(batch) > 1]


# ---------------------------------------------------------------- files, complete or absent


@contextlib.contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """A name to write a file or folder to, which becomes ``path`` when all has gone well.

    Where something fails, what was written is removed, and ``path`` is as it was.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)


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


def _require(path: Path, what: str, way_out: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{what} are not at {path}; {way_out}.")
    return path


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
