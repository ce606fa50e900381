"""What notebooks do where there is a GPU, done here with one that is not there.

The tensors of ``pretended_gpu`` refuse what a GPU's refuse. In notebooks on photographs the data
sets and networks are those of the profile ``gpu``, and the numbers those of ``smoke``. Flickr8k is
the course's own photographs under other names; the weights of the ResNets are random.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import torchvision
from nbclient import NotebookClient

from convrnn_utils import data, files
from convrnn_utils.env import repository

NOTEBOOKS = sorted(repository().glob("notebooks/**/*_*.ipynb"))
ON_PHOTOGRAPHS = [
    path
    for path in NOTEBOOKS
    if re.search(r'gpu=(\\"flickr8k\\"|True)', path.read_text(encoding="utf-8"))
]
LESSONS_ON_DRAWINGS = [
    path
    for path in NOTEBOOKS
    if path not in ON_PHOTOGRAPHS and not path.stem.endswith("_solutions")
]
GPU = f"""
import sys

sys.path.append({str(Path(__file__).parent)!r})
import pretended_gpu

pretended_gpu.install()
"""
BEFORE = """
from convrnn_utils import env

def pick(*, smoke, laptop, gpu):
    env.on_photographs |= gpu is True or gpu == "flickr8k"
    chosen = gpu if isinstance(gpu, (str, bool)) else smoke
    return "resnet18" if chosen == "resnet50" else chosen  # for the sake of time

env.pick, env.on_photographs = pick, False
"""
ON_GPU = "from convrnn_utils.env import device; assert device().type == 'cuda'"
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


def execute(path: Path, before: list[str], after: list[str]):
    notebook = nbformat.read(path, as_version=4)
    first, last = ([nbformat.v4.new_code_cell(code) for code in cells] for cells in (before, after))
    notebook.cells = [*first, *notebook.cells, *last]
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, resources=folder).execute()


@pytest.mark.parametrize("path", ON_PHOTOGRAPHS, ids=lambda path: path.stem)
def test_a_notebook_runs_with_the_choices_for_a_gpu(path, photographs, networks, monkeypatch):
    monkeypatch.setenv("CONVRNN_PROFILE", "smoke")
    monkeypatch.setenv("CONVRNN_DATA", str(photographs))
    monkeypatch.setenv("TORCH_HOME", str(networks))
    execute(path, [GPU, BEFORE], [AFTER])


@pytest.mark.parametrize("path", LESSONS_ON_DRAWINGS, ids=lambda path: path.stem)
def test_a_lesson_runs_on_a_gpu(path, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVRNN_PROFILE", "smoke")
    monkeypatch.setenv("CONVRNN_DATA", str(tmp_path))
    execute(path, [GPU], [ON_GPU])


def test_the_lessons_with_photographs_are_found():
    assert {path.name[:2] for path in ON_PHOTOGRAPHS} == {"04", "05", "06", "07"}


@pytest.mark.parametrize(
    "code, refusal",
    [
        ("on_gpu + torch.ones(2)", "add was given tensors, or a generator, of the CPU and"),
        ("torch.nn.Linear(2, 3)(on_gpu)", "linear was given tensors"),
        ("torch.nn.Linear(2, 3).to(on_gpu.device)(torch.ones(2))", "linear was given tensors"),
        ("on_gpu.numpy()", "cannot become an array of NumPy"),
        ("numpy.asarray(on_gpu)", "cannot become an array of NumPy"),
        ("torch.randperm(3, generator=torch.Generator(), device='cuda')", "or a generator, of"),
    ],
)
def test_the_gpu_that_is_not_there_refuses_what_a_gpu_refuses(code, refusal):
    begin = "import numpy, torch\non_gpu = torch.ones(2).to('cuda')\n"
    program = subprocess.run(
        [sys.executable, "-c", GPU + begin + code], capture_output=True, text=True, check=False
    )
    assert refusal in program.stderr.splitlines()[-1]
