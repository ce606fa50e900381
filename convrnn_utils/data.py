"""What a network is fed: splits of a data set, pictures, cached features and batches.

A data set is a folder with ``images/`` and ``captions_{train,val,test}.json`` in the COCO captions
format. ``scenes``, ``photos``, ``flickr8k`` and ``coco`` give the folder, after drawing,
downloading or converting its contents if necessary; ``load_split`` reads one split of it.
"""

import contextlib
import glob
import hashlib
import json
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from tqdm import tqdm

from convrnn_utils import processes
from convrnn_utils.coco import coco
from convrnn_utils.downloads import require_room
from convrnn_utils.env import data_folder, has_bfloat16
from convrnn_utils.files import complete_or_absent, one_line, open_captions, read_image
from convrnn_utils.own_data import from_csv
from convrnn_utils.sources import flickr8k, photos, scenes
from convrnn_utils.text import PAD, Vocabulary, tokenize

__all__ = [
    "CaptionDataset",
    "PictureDataset",
    "Pictures",
    "Split",
    "Views",
    "batch_indices",
    "cached_features",
    "coco",
    "flickr8k",
    "from_csv",
    "load_split",
    "open_captions",
    "pad_captions",
    "photos",
    "read_image",
    "readable",
    "scenes",
    "to_gpu",
]


@dataclass
class Split:
    """One split of a data set; entry i of each list belongs to picture i.

    Attributes:
        name: of the data set and the split, such as ``"scenes-6000/train"``.
        ids: the COCO image ids.
        paths: the image files.
        captions: the captions of each picture.
        records: the COCO image records, with whatever else the data set says about a picture.
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
        return self._part(f"{self.name}-first-{count}", range(len(self))[:count])

    def _part(self, name: str, rows: Iterable[int]) -> "Split":
        lists = (self.ids, self.paths, self.captions, self.records)
        return Split(name, *([entries[row] for row in rows] for entries in lists))


def load_split(folder: Path, split: str) -> Split:
    """One split of a data set, its pictures in the order of their ids.

    Captions without a word, captions of no picture, and pictures without a caption are left out;
    a warning counts them. Control characters in a caption become spaces.

    Raises:
        FileNotFoundError, ValueError: see ``open_captions``; also if nothing is left.
    """
    folder = Path(folder)
    annotations = open_captions(folder, split)
    captions: dict[int, list[str]] = {image_id: [] for image_id in sorted(annotations.imgs)}
    wordless = lost = 0
    for row in annotations.dataset["annotations"]:
        caption = one_line(row["caption"])
        if row["image_id"] not in captions:
            lost += 1
        elif not tokenize(caption):
            wordless += 1
        else:
            captions[row["image_id"]].append(caption)
    ids = [image_id for image_id, own in captions.items() if own]
    left_out = {
        "captions without a word": wordless,
        "captions of no picture": lost,
        "pictures without a caption": len(captions) - len(ids),
    }
    if not ids:
        raise ValueError(f"{folder}/captions_{split}.json has no picture with a caption.")
    if any(left_out.values()):
        counts = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
        warnings.warn(f"left out of {folder.name}/{split}: {counts}.", stacklevel=2)
    records = [annotations.imgs[image_id] for image_id in ids]
    return Split(
        name=f"{folder.name}/{split}",
        ids=ids,
        paths=[folder / "images" / record["file_name"] for record in records],
        captions=[captions[image_id] for image_id in ids],
        records=records,
    )


def readable(split: Split) -> Split:
    """The pictures of a split that can be read; a warning names the others, which are left out.

    Every picture is decoded once, and the result is kept in ``data/features`` until a file
    changes; those that could not be read are tried again each time. Of several processes (see
    ``processes.first_before_others``) only the first tries them again.

    Raises:
        ValueError: no picture can be read.
    """
    name = f"{split.name.replace('/', '-')}-readable-{_fingerprint(split)}.json"
    path = data_folder() / "features" / name
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if known is None:
        with ThreadPoolExecutor(_cores_to_read()) as pool:
            found = pool.map(_complaint, split.paths)
            found = list(tqdm(found, total=len(split), desc="looking at pictures", leave=False))
        broken = {str(row): complaint for row, complaint in enumerate(found) if complaint}
    elif processes.rank() == 0:
        # looked at again: perhaps this account could not read it then, or no memory was left
        now = {row: _complaint(split.paths[int(row)]) for row in known}
        broken = {row: complaint for row, complaint in now.items() if complaint}
    else:  # as the first process found it, so that all have the same pictures
        broken = known
    if broken != known:
        with complete_or_absent(path) as unfinished:
            unfinished.write_text(json.dumps(broken), encoding="utf-8")
    if not broken:
        return split
    if len(broken) == len(split):
        raise ValueError(f"no picture of {split.name} can be read: {broken['0']}")
    warnings.warn(
        f"{len(broken):,} of the {len(split):,} pictures of {split.name} are left out:\n"
        + "\n".join(broken.values()),
        stacklevel=2,
    )
    rows = [row for row in range(len(split)) if str(row) not in broken]
    return split._part(f"{split.name}-readable", rows)


def _complaint(path: Path) -> str | None:
    """What is wrong with a picture file, if anything is."""
    try:
        read_image(path)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _part(image: Image.Image, across: float, down: float) -> Image.Image:
    """A part of a picture, 7/8 as wide and high; ``across`` = ``down`` = 0 is at the top left."""
    width, height = image.size
    left, top = across * width / 8, down * height / 8
    box = (left, top, left + width * 7 / 8, top + height * 7 / 8)
    return image.crop(tuple(round(edge) for edge in box))


# The ways to see a picture. A mirrored one swaps left and right, so that captions which name them
# become false: not for ``scenes``. All views can be pickled, which worker processes need where they
# are spawned (Windows, macOS).
VIEWS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "whole": Image.Image.copy,
    "mirrored": ImageOps.mirror,
    "centre": partial(_part, across=0.5, down=0.5),
    "top_left": partial(_part, across=0, down=0),
    "top_right": partial(_part, across=1, down=0),
    "bottom_left": partial(_part, across=0, down=1),
    "bottom_right": partial(_part, across=1, down=1),
}


class Pictures:
    """The pictures of a split as an array of bytes, (N, 3, size, size), decoded when asked for.

    ``pictures[rows]`` gives the pictures of a list of rows as one tensor. With ``in_memory`` all
    are decoded once and kept: 27 kB for a picture of 96 pixels, 150 kB at 224. ``view`` is one of
    ``VIEWS``.
    """

    def __init__(self, split: Split, encoder, in_memory: bool = False, view: str = "whole"):
        if view not in VIEWS:
            raise ValueError(f"there is no view {view!r}; choose one of {', '.join(VIEWS)}.")
        self.paths, self.encoder, self.view = split.paths, encoder, VIEWS[view]
        self.kept = None
        if in_memory:
            batches = _batches_of(32, len(self))
            parts = prefetch(self.__getitem__, batches, _cores_to_read())
            bar = tqdm(parts, total=len(batches), desc="pictures", leave=False)
            self.kept = torch.cat(list(bar))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Iterable[int]) -> Tensor:
        if self.kept is not None:
            return self.kept[list(rows)]
        images = (self.view(read_image(self.paths[row])) for row in rows)
        return torch.stack([self.encoder.preprocess(image) for image in images])


class Views:
    """N pictures, each in several views; a batch gets one view of each picture, drawn at random.

    Args:
        views: arrays or tensors of N rows by the name of the view; row i of each belongs to
            picture i.
    """

    def __init__(self, views: dict[str, numpy.ndarray | Tensor]):
        self.names, self.arrays = list(views), list(views.values())

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: Sequence[int]):
        """Rows (B, ...), each of a view drawn at random with torch's generator."""
        chosen = torch.randint(len(self.arrays), (len(rows),)).tolist()
        drawn = [self.arrays[view][row] for view, row in zip(chosen, rows, strict=True)]
        return torch.stack(drawn) if torch.is_tensor(drawn[0]) else numpy.stack(drawn)


def to_gpu(inputs, where: torch.device):
    """Arrays of features or pictures in a GPU's memory, if half of what is free there holds them.

    Otherwise the CPU gathers those of each batch and copies them, and the GPU waits.

    Args:
        inputs: what a ``CaptionDataset`` takes.
        where: the device that is to use them.

    Returns:
        a tensor, or ``Views`` of tensors; ``inputs`` as they are if they do not fit, if they are
        ``Pictures``, or if the device is no CUDA device.
    """
    arrays = inputs.arrays if isinstance(inputs, Views) else [inputs]
    if not all(isinstance(array, numpy.ndarray) for array in arrays):
        return inputs
    if 2 * sum(array.nbytes for array in arrays) > _free_on_gpu(where):
        return inputs
    moved = [_copy_on(where, array) for array in arrays]
    if isinstance(inputs, Views):
        return Views(dict(zip(inputs.names, moved, strict=True)))
    return moved[0]


def _copy_on(where: torch.device, array: numpy.ndarray) -> Tensor:
    """An array as a tensor on a device, in parts: the computer's memory may not hold all of it."""
    copy = torch.tensor(array[:0]).to(where).new_empty(array.shape)
    for rows in _batches_of(256, len(array)):
        copy[rows.start : rows.stop].copy_(torch.tensor(array[rows]))
    return copy


def _free_on_gpu(where: torch.device) -> int:
    """The bytes of a GPU's memory that are free, or that torch keeps and does not use; else 0."""
    if where.type != "cuda":
        return 0
    kept = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
    return torch.cuda.mem_get_info(where)[0] + kept


def _take(inputs, rows: list[int]) -> Tensor:
    """Rows of a data set's inputs; where these are on a GPU, the CPU does not wait for it."""
    if torch.is_tensor(inputs):  # torch waits for a GPU before it copies a list to it
        return inputs[torch.tensor(rows).to(inputs.device, non_blocking=True)]
    return torch.as_tensor(inputs[rows])


def cached_features(
    split: Split,
    encoder,
    pooled: bool = False,
    batch_size: int | None = None,
    view: str = "whole",
    for_training: bool = False,
):
    """What a frozen encoder makes of each picture, computed once and kept on disk.

    The name of the file in ``data/features`` holds the data set, split, encoder, size, view,
    precision, and grid or pooled, and a fingerprint of the pictures and the weights; if any of
    these changes, a new file is made. It is complete or absent: it gets its name after the last
    feature is written.

    Args:
        split: N pictures.
        encoder: an ``ImageEncoder`` with L places and D features.
        pooled: keep only the mean over the places.
        batch_size: pictures at a time; by default 32 on a GPU; on each core of a CPU 4, or 16 if
            the features are rounded, since the weights are then rounded anew for each batch.
        view: one of ``VIEWS``.
        for_training: round as ``training.train`` does, to bfloat16 on a device that has units for
            it. This takes about half the time, and the features are a few per cent off; captions
            to score, or to compare with those of another machine, are better written without.

    Returns:
        a memory-mapped fp16 array, (N, L, D), or (N, D) if ``pooled``.

    Raises:
        ValueError: there is no picture, one cannot be read, or the encoder is being trained.
        OSError: the disk has no room for them.
    """
    if encoder.training:
        raise ValueError(
            f"{encoder.name} is in training mode, in which features depend on the batch; call "
            "encoder.eval() first."
        )
    if not len(split):
        raise ValueError(f"{split.name} has no picture.")
    kind = "pooled" if pooled else "grid"
    kind += "" if view == "whole" else f"-{view}"
    rounded = for_training and has_bfloat16(encoder.mean.device)
    kind += "-bfloat16" if rounded else ""
    name = f"{split.name.replace('/', '-')}-{encoder.name}-{encoder.size}-{kind}"
    path = data_folder() / "features" / f"{name}-{_fingerprint(split, encoder)}.npy"
    if not path.exists():
        with complete_or_absent(path) as unfinished:
            pictures = Pictures(split, encoder, view=view)
            _write_features(unfinished, pictures, encoder, pooled, batch_size, rounded)
        for outdated in path.parent.glob(f"{glob.escape(name)}-????????.npy"):
            if outdated != path:
                with contextlib.suppress(PermissionError):  # Windows: still open in a notebook
                    outdated.unlink()
    return numpy.load(path, mmap_mode="r")


def _write_features(
    path: Path, pictures: Pictures, encoder, pooled: bool, batch_size: int | None, rounded: bool
) -> None:
    where, network = encoder.mean.device, encoder.folded()
    on_cpu = where.type == "cpu"

    @torch.inference_mode()
    def features_of(images: Tensor) -> numpy.ndarray:
        with torch.autocast(where.type, torch.bfloat16, enabled=rounded):
            grid = network(images.to(where)).float()
        features = (grid.mean(dim=1) if pooled else grid).half()
        if not features.isfinite().all():
            raise ValueError(f"{encoder.name} gives features beyond the range of fp16 (65,504).")
        return features.cpu().numpy()

    def features_of_files(rows: range) -> numpy.ndarray:
        return features_of(pictures[rows])

    size = batch_size or ((16 if rounded else 4) if on_cpu else 32)
    batches = _batches_of(size, len(pictures))
    # On a CPU each core does all the work of its own batch: cores that shared one would wait for
    # each other. A GPU takes one batch after another, and the cores decode the pictures for it.
    work = features_of_files if on_cpu else pictures.__getitem__
    cores = torch.get_num_threads() if on_cpu else _cores_to_read()
    with contextlib.closing(prefetch(work, batches, cores)) as results, path.open("wb") as file:
        done = results if on_cpu else map(features_of, results)
        bar = tqdm(done, total=len(batches), desc=f"features ({encoder.name})", leave=False)
        for number, batch in enumerate(bar):
            if number == 0:
                shape = (len(pictures), *batch.shape[1:])
                require_room(
                    path.parent, 2 * math.prod(shape), f"a cache of the features of {encoder.name}"
                )
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                numpy.lib.format.write_array_header_1_0(file, header)
            file.write(batch.tobytes())


def _batches_of(size: int, count: int) -> list[range]:
    return [range(i, min(i + size, count)) for i in range(0, count, size)]


def _cores_to_read() -> int:
    """How many threads read pictures at the same time."""
    return min(os.cpu_count() or 1, 16)


def prefetch(work: Callable, batches: Sequence, cores: int) -> Iterator:
    """``work(batch)`` of each batch in order, while threads work on the batches that follow.

    Args:
        work: is called in one of ``cores`` threads, in each of which torch uses that thread only.
        batches: what ``work`` is called with, one at a time.
        cores: how many threads.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque(pool.submit(work, rows) for rows in batches[: 2 * cores])
        for following in [*batches[2 * cores :], *[None] * len(waiting)]:
            result = waiting.popleft().result()
            if following is not None:
                waiting.append(pool.submit(work, following))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # for threads that begin later


def _fingerprint(split: Split, encoder=None) -> str:
    digest = hashlib.sha256(encoder.fingerprint().encode() if encoder else b"")
    for path in split.paths:
        if not path.exists():  # reading the picture gives a better message
            digest.update(f"{path.name} is not there\n".encode())
            continue
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:8]


class CaptionDataset:
    """Pairs of a picture and one of its captions; ``dataset[indices]`` gives a batch of them.

    Args:
        split: N pictures with their captions.
        inputs: N rows, one per picture: ``Pictures`` or an array of cached features.
        vocabulary: turns captions into ids.
        max_words: longer captions are cut here.

    Raises:
        ValueError: there are not as many inputs as pictures.
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

    def captions_by_picture(self) -> list[list[list[int]]]:
        """The captions of each picture, as ids."""
        captions: list[list[list[int]]] = [[] for _ in range(len(self.split))]
        for row, caption in self.pairs:
            captions[row].append(caption)
        return captions

    def length(self, index: int) -> int:
        """Words of the caption of a pair, the special ones included."""
        return len(self.pairs[index][1])

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The inputs (B, ...) and the padded captions (B, T) of the pairs ``indices``."""
        inputs = _take(self.inputs, [self.pairs[index][0] for index in indices])
        return inputs, pad_captions([self.pairs[index][1] for index in indices])


class PictureDataset(CaptionDataset):
    """Pictures, each with several of its captions, so that a batch reads a picture only once.

    Args:
        split, inputs, vocabulary, max_words: see ``CaptionDataset``.
        captions_each: captions per picture; if there are more, the first ones are taken.

    Raises:
        ValueError: a picture has fewer than ``captions_each`` captions.
    """

    def __init__(self, split, inputs, vocabulary, max_words: int = 40, captions_each: int = 5):
        require_captions(split, captions_each)
        super().__init__(split, inputs, vocabulary, max_words)
        self.captions = [group[:captions_each] for group in self.captions_by_picture()]

    def __len__(self) -> int:
        return len(self.captions)

    def length(self, index: int) -> int:
        """Words of the longest caption of a picture, the special ones included."""
        return max(len(caption) for caption in self.captions[index])

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The inputs (B, ...) of pictures and their padded captions (B · captions_each, T)."""
        captions = [caption for row in indices for caption in self.captions[row]]
        return _take(self.inputs, list(indices)), pad_captions(captions)


def require_captions(split: Split, captions_each: int = 5) -> None:
    """Raise a ``ValueError`` if a picture has fewer than ``captions_each`` captions."""
    fewest = min(len(captions) for captions in split.captions)
    if fewest < captions_each:
        raise ValueError(
            f"a picture of {split.name} has {fewest} captions, not {captions_each}; train on "
            "captions one by one (CaptionDataset; in a command, without --by-picture)."
        )


def _cut(ids: list[int], max_words: int) -> list[int]:
    return ids if len(ids) <= max_words + 2 else [*ids[: max_words + 1], ids[-1]]


def pad_captions(captions: Sequence[Sequence[int]]) -> Tensor:
    """Captions of different lengths as one tensor (B, T) of ids, filled up with ``<pad>``."""
    rows = [torch.tensor(caption) for caption in captions]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def batch_indices(dataset: CaptionDataset, batch_size: int, seed: int) -> list[list[int]]:
    """All indices of a data set in batches of about equal length, in random order.

    Within every stretch of 50 batches the captions are sorted by length, so that little of a
    batch is padding, which costs as much as words do. ``seed`` fixes the order. A batch of a
    single caption is left out, since batch normalisation cannot train on it.
    """
    random = Random(seed)
    order = list(range(len(dataset)))
    random.shuffle(order)
    batches = []
    for start in range(0, len(order), 50 * batch_size):
        stretch = order[start : start + 50 * batch_size]
        stretch.sort(key=dataset.length)
        batches += [stretch[i : i + batch_size] for i in range(0, len(stretch), batch_size)]
    random.shuffle(batches)
    return [batch for batch in batches if len(batch) > 1]
