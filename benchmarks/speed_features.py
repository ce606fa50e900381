"""Features of photographs: how many a second, beside EfficientNet-Lite0 as its package has it.

python benchmarks/speed_features.py

From JPEG files to the grid of features of a picture. Ours is ``data.cached_features``: batch
normalisation folded into the convolutions, channels last, memory kept, photographs decoded by
threads while the network runs. The reference is ``plain_features.py``, in a process of its own. The
photographs are those of the course, eight times over.
"""

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

MULTIPLY_ADDS = 0.4e9  # of EfficientNet-Lite0 for a picture of 224 pixels
REPEATS = 8
ROUNDS = 3


def start_reference(target: Path, paths: list[Path]) -> subprocess.Popen:
    """A process that waits to compute features of ``paths`` the plain way, into ``target``."""
    script = Path(__file__).with_name("plain_features.py")
    pipe = subprocess.PIPE
    arguments = [sys.executable, script, target, *paths]
    process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True)
    process.stdout.readline()  # it is ready
    return process


def ask(process: subprocess.Popen) -> float:
    """Seconds that the reference takes for its photographs."""
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def ours(split: data.Split, encoder) -> tuple[float, numpy.ndarray]:
    """Seconds for the features of a split, and these, (N, L, D) of fp16."""
    began = time.perf_counter()
    features = data.cached_features(split, encoder)
    seconds = time.perf_counter() - began
    kept = numpy.array(features)
    Path(features.filename).unlink()
    return seconds, kept


@torch.inference_mode()
def rate_of_network(encoder, batch_size: int = 32, rounds: int = 5) -> float:
    """Pictures a second through the folded network alone."""
    pictures = torch.randint(0, 256, (batch_size, 3, encoder.size, encoder.size), dtype=torch.uint8)
    folded = encoder.folded()
    return batch_size / in_turn({"network": lambda: folded(pictures)}, rounds)["network"]


def measure(repeats: int = REPEATS, rounds: int = ROUNDS) -> list[dict]:
    """The row ``features``; raises an ``AssertionError`` where the two sides differ."""
    photos = data.load_split(data.photos(), "test")
    parts = (photos.ids, photos.paths, photos.captions, photos.records)
    many = data.Split("photos-repeated/test", *(part * repeats for part in parts))
    encoder = create_encoder("efficientnet_lite0")
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, CONVRNN_DATA=folder):
        target = Path(folder) / "reference.npy"
        reference = start_reference(target, many.paths)
        for _ in range(rounds + 1):
            taken, features = ours(many, encoder)
            seconds["ours"].append(taken)
            seconds["reference"].append(ask(reference))
        expected = numpy.load(target)
        reference.stdin.close()
        reference.wait()
    check(encoder, photos, features, expected)
    rates = {side: len(many) / statistics.median(times[1:]) for side, times in seconds.items()}
    floor = multiply_adds_a_second() / MULTIPLY_ADDS
    network = rate_of_network(encoder)
    print(
        f"The network alone: {network:.0f} pictures a second. At the rate of this machine's matrix "
        f"products, {floor * MULTIPLY_ADDS / 1e9:.0f} G multiply-adds a second, its 0.4 G a picture"
        f" allow {floor:.0f}, {floor / network:.1f} times as many."
    )
    return [row("features", rates["ours"], rates["reference"], "pictures/s")]


def check(encoder, photos: data.Split, cached: numpy.ndarray, expected: numpy.ndarray) -> None:
    """The folded network agrees with the reference to 1e-4; the cache rounds it to fp16."""
    with torch.inference_mode():
        features = encoder.folded()(data.Pictures(photos, encoder)[range(len(photos))]).numpy()
    scale = abs(expected).max()
    assert abs(features - expected[: len(photos)]).max() < 1e-4 * scale
    assert abs(cached - expected).max() < 1e-3 * scale


if __name__ == "__main__":
    command(__doc__, measure)
