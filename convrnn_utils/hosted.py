"""What the set-up cell of a notebook does once the course is there.

In Colab and Kaggle it installs the packages that they lack and leaves the others as they are;
elsewhere it says what is missing. Only the standard library is imported here, since anything else
may be missing.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
TOOLS = {"jupyterlab", "nbval", "pytest", "pytest-xdist", "hypothesis", "ruff"}  # not in notebooks
VERSION = re.compile(r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[\w.]+)?")
DRIVE = "/content/drive"  # where Colab shows Google Drive
DATA_IN_DRIVE = f"{DRIVE}/MyDrive/convrnn-data"


def prepare(keep_in_drive: bool = False) -> None:
    """Make this Python ready for a notebook, or say what it lacks.

    Args:
        keep_in_drive: in Colab, keep data sets and checkpoints in the reader's Google Drive.

    Raises:
        ModuleNotFoundError: packages are missing and this is neither Colab nor Kaggle, where
            they may be installed without asking.
        RuntimeError: pip cannot install them without changing what is there.
    """
    missing = missing_packages()
    if missing and not host():
        raise ModuleNotFoundError(
            f"this Python lacks {', '.join(missing)}. If you have run `make lab`, choose the "
            "kernel of .venv; else run this and restart the kernel: "
            f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
        )
    if missing:
        install(missing)
    if host() == "Colab":
        from google.colab import output

        output.enable_custom_widget_manager()
        if keep_in_drive:
            from google.colab import drive

            drive.mount(DRIVE)
            os.environ.setdefault("CONVRNN_DATA", DATA_IN_DRIVE)
            print(f"data and trained models are kept in {os.environ['CONVRNN_DATA']}")
    elif keep_in_drive:
        print("Google Drive can be reached in Colab only; files are kept where the course is.")


def host() -> str | None:
    """``"Colab"`` or ``"Kaggle"`` if the notebook runs there, else None."""
    try:
        colab = importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # there is no package "google" at all
        colab = False
    if colab:
        return "Colab"
    return "Kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in os.environ else None


def requirements() -> dict[str, str]:
    """The minimum version of each package of the course, by its name, from requirements.txt."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)>=([\d.]+)", text, re.MULTILINE))


def missing_packages() -> list[str]:
    """The names of the packages that the notebooks need and this Python does not have."""
    here = installed_versions()
    return [name for name in requirements() if _plain(name) not in here and name not in TOOLS]


def installed_versions() -> dict[str, str]:
    """The version of every package of this Python, by its name in plain form."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a broken installation may leave a nameless folder
            versions.setdefault(_plain(name), distribution.version)  # the first one is imported
    return versions


def install(names: list[str]) -> None:
    """Install packages with pip, without changing the version of any that is there.

    Raises:
        RuntimeError: that is impossible; nothing was changed.
    """
    print(f"{host()} lacks {', '.join(names)}: installing; all else stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        pins = [
            f"{name}=={version}\n"
            for name, version in installed_versions().items()
            if VERSION.fullmatch(version)  # some have other forms, and pip refuses such a file
        ]
        constraints.write_text("".join(pins), encoding="utf-8")
        least = requirements()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--constraint", str(constraints)]
        command += [f"{name}>={least[name]}" for name in names]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(
            f"pip could not install {', '.join(names)} without changing what {host()} has. Please "
            f"open an issue with the lines that follow.\n{result.stderr.strip()[-2000:]}"
        )
    importlib.invalidate_caches()


def _plain(name: str) -> str:
    """A package's name as pip compares it: ``PyTorch_Model`` is ``pytorch-model``."""
    return re.sub(r"[-_.]+", "-", name).lower()
