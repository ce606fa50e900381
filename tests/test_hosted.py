"""The set-up cell where only a notebook is there, and what it calls; Colab as a stand-in.

The stand-in is a folder with nothing but the notebook, a virtual environment that holds invented
packages under the names of Colab's, and a bare repository on disk under the published address.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

from convrnn_utils import __version__, hosted

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "notebooks"))
import publish  # noqa: E402

LESSON = "00_welcome.ipynb"
ITS_OWN = {"torch": "2.9.0+cu126", "torchvision": "0.24.0+cu126", "numpy": "2.0.2"}
ITS_OWN |= {"ipywidgets": "7.7.1", "nvidia-cublas-cu12": "12.6.4.1"}
GOOGLE_COLAB = {
    "__init__.py": "",
    "output.py": "def enable_custom_widget_manager():\n    print('widget manager on')\n",
    "drive.py": "def mount(place):\n    print('drive at', place)\n",
}


def copy_of_the_course(folder: Path) -> Path:
    """The files that the set-up cell needs, and what publish writes into."""
    for place in ("convrnn_utils", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / place, folder / place, ignore=ignored)
    for name in ("requirements.txt", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def write_package(folder: Path, name: str, version: str, needs: str = "") -> None:
    """A package that can be found and does nothing, as pip leaves it in site-packages."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text("")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {needs}"] if needs else []
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text(f"{module}.py,,\n")
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    (info / "WHEEL").write_text(wheel)


def write_wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """The same as a file that pip can install."""
    folder.mkdir(exist_ok=True)
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    write_package(unpacked, name, version, needs)
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(unpacked.rglob("*.*")):
            if file.is_file():
                archive.write(file, file.relative_to(unpacked))
        for file in unpacked.glob("*/[A-Z]*"):
            archive.write(file, file.relative_to(unpacked))
    shutil.rmtree(unpacked)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A copy of the course after ``make publish``, tagged, as a bare repository."""
    folder = copy_of_the_course(tmp_path_factory.mktemp("published") / "course")
    publish.publish("ada/conv-rnn", folder)
    for command in (
        "init --quiet",
        "add .",
        "-c user.name=A -c user.email=a@b commit --quiet -m all",
        f"tag v{__version__}",
        f"clone --quiet --bare . {folder.parent / 'bare.git'}",
    ):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


class Machine:
    """A Python of its own, a shop of packages for pip, an empty folder with one notebook."""

    def __init__(self, folder: Path, course: Path, colab: bool):
        venv.create(folder / "python", with_pip=True, symlinks=True)
        self.python = folder / "python" / "bin" / "python"
        self.packages = next(folder.glob("python/lib/python3*/site-packages"))
        self.shop = folder / "shop"
        self.here = folder / "here"
        self.here.mkdir()
        shutil.copy(course / "notebooks" / LESSON, self.here)
        self.environment = {
            name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ
        }
        self.environment |= {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.shop),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{course.parent / 'bare.git'}.insteadOf",
            "GIT_CONFIG_VALUE_0": "https://github.com/ada/conv-rnn",
            "GIT_TERMINAL_PROMPT": "0",
        }
        for name, version in ITS_OWN.items():
            write_package(self.packages, name, version)
        if colab:
            (self.packages / "google" / "colab").mkdir(parents=True)
            for name, text in GOOGLE_COLAB.items():
                (self.packages / "google" / "colab" / name).write_text(text)
        for name, least in hosted.requirements().items():
            write_wheel(self.shop, name, f"{least}.7", needs="numpy>=1.20")
        write_wheel(self.shop, "torch", "99.0")

    def run_setup(self, change=lambda cell: cell) -> subprocess.CompletedProcess:
        """Run the set-up cell of the notebook, and print where the data would lie."""
        cells = nbformat.read(self.here / LESSON, as_version=4).cells
        source = change(next(c.source for c in cells if "setup" in c.metadata.get("tags", [])))
        source += "\nimport os\nprint('data in', os.environ.get('CONVRNN_DATA'))\n"
        return subprocess.run(
            [self.python, "-c", source],
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def versions(self) -> dict[str, str]:
        command = [self.python, "-m", "pip", "list", "--format", "json"]
        listed = subprocess.run(command, env=self.environment, capture_output=True, check=True)
        return {row["name"]: row["version"] for row in json.loads(listed.stdout)}


def test_in_colab_the_cell_fetches_the_tag_and_only_what_is_missing(tmp_path, published):
    machine = Machine(tmp_path, published, colab=True)
    before = machine.versions()
    result = machine.run_setup()
    assert result.returncode == 0, result.stderr
    after = machine.versions()
    assert {name: after[name] for name in before} == before
    expected = set(hosted.requirements()) - hosted.TOOLS
    assert set(after) - set(before) == expected - set(ITS_OWN)
    course = machine.here / "course"
    described = subprocess.run(
        ["git", "describe", "--tags"], cwd=course, capture_output=True, text=True
    )
    assert described.stdout.strip() == f"v{__version__}"
    assert "widget manager on" in result.stdout
    assert "drive at" not in result.stdout and "data in None" in result.stdout

    again = machine.run_setup(lambda cell: cell.replace("DRIVE = False", "DRIVE = True"))
    assert again.returncode == 0, again.stderr
    assert "installing" not in again.stdout
    assert "drive at /content/drive" in again.stdout
    assert f"data in {hosted.DATA_IN_DRIVE}" in again.stdout


def test_what_cannot_be_installed_beside_what_is_there_is_refused_in_words(tmp_path, published):
    machine = Machine(tmp_path, published, colab=True)
    for path in machine.shop.glob("timm-*"):
        path.unlink()
    write_wheel(machine.shop, "timm", "9.0", needs="torch>=90")
    before = machine.versions()
    result = machine.run_setup()
    assert "without changing what Colab has" in result.stderr and "timm" in result.stderr
    assert machine.versions() == before


def test_elsewhere_nothing_is_installed_and_the_way_out_is_said(tmp_path, published):
    machine = Machine(tmp_path, published, colab=False)
    before = machine.versions()
    result = machine.run_setup()
    assert "this Python lacks torchvision" not in result.stderr  # it has that
    assert "this Python lacks timm" in result.stderr
    assert re.search(r'-m pip install -r ".*requirements\.txt"', result.stderr)
    assert machine.versions() == before


def test_a_folder_around_the_notebook_is_taken_as_it_is(tmp_path, published):
    machine = Machine(tmp_path, published, colab=True)
    inside = shutil.copytree(published, tmp_path / "around") / "notebooks" / "deeper"
    inside.mkdir()
    shutil.copy(machine.here / LESSON, inside)
    machine.here = inside
    result = machine.run_setup()
    assert result.returncode == 0, result.stderr
    assert not (inside / "course").exists()


def test_on_this_machine_there_is_nothing_to_do(capsys):
    hosted.prepare()
    assert capsys.readouterr().out == ""
    assert hosted.host() is None
    hosted.prepare(keep_in_drive=True)
    assert "in Colab only" in capsys.readouterr().out


def test_kaggle_is_known_by_its_variable(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert hosted.host() == "Kaggle"


def test_publishing_writes_one_address_and_a_second_time_nothing(tmp_path):
    course = copy_of_the_course(tmp_path / "course")
    first = sorted((course / "notebooks").glob("[0-9]*.ipynb"))[0].read_text(encoding="utf-8")
    before = publish.ADDRESS.search(first)[1]  # of a copy that was published it is another one
    changed = publish.publish("https://github.com/grace/seeing-2.0.git", course)
    assert len(changed) >= len(list((course / "notebooks").glob("[0-9]*.ipynb")))
    assert not publish.publish("grace/seeing-2.0", course)
    everything = "".join(path.read_text() for path in course.rglob("*.ipynb"))
    assert before not in everything
    badge = f"colab.research.google.com/github/grace/seeing-2.0/blob/v{__version__}/notebooks/"
    assert everything.count(badge) == len(list((course / "notebooks").glob("[0-9]*.ipynb")))
    publish.publish(before, course)  # and back: nothing else has been touched
    for path in course.rglob("*.ipynb"):
        assert path.read_text() == (ROOT / path.relative_to(course)).read_text()


@pytest.mark.parametrize("wrong", ["", "conv-rnn", "a/b/c", "ada/conv rnn", "http://x.y/a/b"])
def test_an_address_of_another_form_is_refused_and_nothing_written(tmp_path, wrong):
    (tmp_path / "notebooks").mkdir()
    with pytest.raises(ValueError, match="not of the form owner/name"):
        publish.publish(wrong, tmp_path)
