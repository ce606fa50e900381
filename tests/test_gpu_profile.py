"""What notebooks do with photographs where there is a GPU, done here on a CPU.

The data sets and networks are those of the profile ``gpu``, and the numbers those of ``smoke``.
Flickr8k is the course's own photographs under other names; the weights of the ResNets are random.
"""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
import torchvision
from nbclient import NotebookClient

from convrnn_utils import data, files
from convrnn_utils.env import repository

NOTEBOOKS = [
    path
    for path in sorted(repository().glob("notebooks/**/*_*.ipynb"))
    if re.search(r'gpu=(\\"flickr8k\\"|True)', path.read_text(encoding="utf-8"))
]
BEFORE = """
from convrnn_utils import env

def pick(*, smoke, laptop, gpu):
    env.on_photographs |= gpu is True or gpu == "flickr8k"
    chosen = gpu if isinstance(gpu, (str, bool)) else smoke
    return "resnet18" if chosen == "resnet50" else chosen  # for the sake of time

env.pick, env.on_photographs = pick, False
"""
AFTER = "from convrnn_utils import env; assert env.on_photographs"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A data folder with Flickr8k in it: each photograph is in all splits, in train three times."""
    home = tmp_path_factory.mktemp("data")
    photos = data.load_split(data.photos(), "test")
    folder = home / "flickr8k"
    (folder / "images").mkdir(parents=True)
    number = 0
    for split, times in (("train", 3), ("val", 1), ("test", 1)):
        records = []
        for path, captions in list(zip(photos.paths, photos.captions, strict=True)) * times:
            name = f"{number}.jpg"
            shutil.copy(path, folder / "images" / name)
            records.append({"id": number, "file_name": name, "captions": captions})
            number += 1
        files.write_captions(folder, split, records)
    return home


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The folder in which torch finds weights of ResNets as if they had been downloaded."""
    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    for name in ("resnet18", "resnet50"):
        file_name = Path(torchvision.models.get_model_weights(name).DEFAULT.url).name
        weights = torchvision.models.get_model(name).state_dict()
        torch.save(weights, home / "hub" / "checkpoints" / file_name)
    return home


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_with_the_choices_for_a_gpu(path, photographs, networks, monkeypatch):
    monkeypatch.setenv("CONVRNN_PROFILE", "smoke")
    monkeypatch.setenv("CONVRNN_DATA", str(photographs))
    monkeypatch.setenv("TORCH_HOME", str(networks))
    notebook = nbformat.read(path, as_version=4)
    before, after = (nbformat.v4.new_code_cell(code) for code in (BEFORE, AFTER))
    notebook.cells = [before, *notebook.cells, after]
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, resources=folder).execute()


def test_the_lessons_with_photographs_are_found():
    assert {path.name[:2] for path in NOTEBOOKS} == {"04", "05", "06", "07"}
