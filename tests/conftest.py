"""What several test files share: a data folder of their own, and a small data set in it."""

import numpy
import pytest
import torch
from PIL import Image

from convrnn_utils import data, files
from convrnn_utils.encoders import ImageEncoder


@pytest.fixture
def data_home(monkeypatch, tmp_path):
    """An empty folder in the place of ``data/``."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("CONVRNN_DATA", str(folder))
    return folder


@pytest.fixture
def small_split(data_home):
    """Seven pictures of noise of different sizes, with two captions each."""
    random = numpy.random.RandomState(0)
    folder = data_home / "noise"
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(7):
        pixels = random.randint(0, 256, (20 + number, 30, 3), numpy.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        captions = [f"picture {number} is {'very ' * number}noisy", f"noise {number}"]
        records.append({"id": 10 + number, "file_name": f"{number}.png", "captions": captions})
    files.write_captions(folder, "train", records)
    return data.load_split(folder, "train")


class TinyEncoder(ImageEncoder):
    """A grid of 2 × 2 places and 5 features from pictures of 16 pixels; counts its calls."""

    def __init__(self, **options):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 5, kernel_size=8, stride=8)
        super().__init__("tiny", network, 16, 5, (127.0,) * 3, (128.0,) * 3, **options)
        self.calls = 0

    def forward(self, pictures):
        self.calls += 1
        return super().forward(pictures)


@pytest.fixture
def tiny_encoder():
    """An ``ImageEncoder`` that takes no time."""
    return TinyEncoder()
