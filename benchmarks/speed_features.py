"""Features of photographs: how many a second, compared with EfficientNet-Lite0 in its package.

python benchmarks/speed_features.py

From JPEG files to the grid of features of a picture. Ours is ``data.cached_features``, as for
training: batch normalisation folded into the convolutions, channels last, memory kept, every core
at work on pictures of its own, and bfloat16, with a ReLU6 that is fast in it, if the processor has
units for it. The reference is ``plain_features.py``, in a process of its own. Ours reads the 24
``photos`` 32 times over, the reference 8 times, which is three whole batches: a rate does not
depend on how many pictures there are, except for what happens only once.
"""

import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy
import torch
from timing import command, in_turn, multiply_adds_a_second, row

from convrnn_utils import data
from convrnn_utils.encoders import create_encoder
from convrnn_utils.env import has_bfloat16

MULTIPLY_ADDS = 0.4e9  # of EfficientNet-Lite0 for a picture of 224 pixels
REPEATS = 32  # of the photographs, for ours
PLAIN_REPEATS = 8  # for the reference
ROUNDS = 3


def start_reference(target: Path, paths: list[Path]) -> subprocess.Popen:
    """A process that waits to compute features of ``paths`` the plain way, into ``target``."""
    script = Path(__file__).with_name("plain_features.py")
    pipe = subprocess.PIPE
    arguments = [sys.executable, script, target, *paths]
    process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True)
    if process.stdout.readline() != "ready\n":
        raise SystemExit("the reference could not begin: its error is above.")
    return process


def ask(process: subprocess.Popen) -> float:
    """Seconds that the reference takes for its photographs."""
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def ours(split: data.Split, encoder, for_training: bool) -> tuple[float, numpy.ndarray]:
    """Seconds for the features of a split, and these, (N, L, D) of fp16."""
    began = time.perf_counter()
    features = data.cached_features(split, encoder, for_training=for_training)
    seconds = time.perf_counter() - began
    kept, path = numpy.array(features), Path(features.filename)
    del features  # Windows deletes no file that is open
    path.unlink()
    return seconds, kept


def rate_of_network(network, pictures: torch.Tensor, rounds: int = 5) -> float:
    """Pictures a second through the network alone; these normalised ones go in again and again."""
    cores = torch.get_num_threads()
    batches = [pictures] * (8 * cores)

    @torch.inference_mode()
    def one(batch: torch.Tensor) -> None:
        network(batch)

    seconds = in_turn({"network": lambda: list(data.prefetch(one, batches, cores))}, rounds)
    return len(pictures) * len(batches) / seconds["network"]


@torch.inference_mode()
def report_network(encoder, pictures: torch.Tensor) -> None:
    """Print how fast the folded network is by itself, what would be possible, and bfloat16.

    Batches are as large as those of ``data.cached_features``: 4 pictures, 16 in bfloat16.
    """
    folded = encoder.folded()
    normalised = folded.normalise(pictures)
    rate = rate_of_network(folded.network, normalised[:4])
    floor = multiply_adds_a_second() / MULTIPLY_ADDS
    print(
        f"The network alone: {rate:.0f} pictures a second. At the rate of this machine's matrix "
        f"products, {floor * MULTIPLY_ADDS / 1e9:.0f} G multiply-adds a second, its 0.4 G a picture"
        f" allow {floor:.0f}, {floor / rate:.1f} times as many."
    )
    if not has_bfloat16(normalised.device):
        return
    rough_network, rough_pictures = copy.deepcopy(folded.network).bfloat16(), normalised.bfloat16()
    exact, rough = folded.network(normalised), rough_network(rough_pictures)
    rough_rate = rate_of_network(rough_network, rough_pictures)
    print(
        f"In bfloat16: {rough_rate:.0f} pictures a second, and features that are "
        f"{(rough - exact).norm() / exact.norm():.1%} of their length off."
    )


def measure(
    repeats: int = REPEATS, plain_repeats: int = PLAIN_REPEATS, rounds: int = ROUNDS
) -> list[dict]:
    """The row ``features``; raises an ``AssertionError`` if the two sides differ."""
    photos = data.load_split(data.photos(), "test")
    parts = (photos.ids, photos.paths, photos.captions, photos.records)
    many, fewer = (
        data.Split("photos-repeated/test", *(part * count for part in parts))
        for count in (repeats, plain_repeats)
    )
    encoder = create_encoder("efficientnet_lite0")
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, CONVRNN_DATA=folder):
        target = Path(folder) / "reference.npy"
        reference = start_reference(target, fewer.paths)
        for _ in range(rounds + 1):
            taken, _ = ours(many, encoder, for_training=True)
            seconds["ours"].append(taken)
            seconds["reference"].append(ask(reference))
        expected = numpy.load(target)
        reference.stdin.close()
        reference.wait()
        check(encoder, photos, ours(fewer, encoder, for_training=False)[1], expected)
    pictures = {"ours": len(many), "reference": len(expected)}
    rates = {side: pictures[side] / statistics.median(times[1:]) for side, times in seconds.items()}
    report_network(encoder, data.Pictures(photos, encoder)[range(min(16, len(photos)))])
    return [row("features", rates["ours"], rates["reference"], "pictures/s", "cpu")]


def check(encoder, photos: data.Split, cached: numpy.ndarray, expected: numpy.ndarray) -> None:
    """Check that the folded network agrees with the reference to 1e-4; the cache is in fp16."""
    with torch.inference_mode():
        features = encoder.folded()(data.Pictures(photos, encoder)[range(len(photos))]).numpy()
    scale = abs(expected).max()
    assert abs(features - expected[: len(photos)]).max() < 1e-4 * scale
    assert abs(cached - expected).max() < 1e-3 * scale


if __name__ == "__main__":
    command(__doc__, measure)
