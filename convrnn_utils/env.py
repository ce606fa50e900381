"""The machine a notebook runs on: its seed, device, profile and folders."""

import os
import random
import sys
from pathlib import Path

import numpy
import torch

PROFILES = ("smoke", "laptop", "gpu")

# Functions of torch.cpu that tell of units for bfloat16. torch has no public ones, and may rename
# these private ones one day.
BFLOAT16_QUESTIONS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")

# By default, GPUs from Ampere on round the numbers that convolutions and LSTMs multiply to 10 bits
# (TF32). That is too coarse for the equalities that notebooks check to 1e-5, and makes the features
# differ from those of a CPU.
torch.backends.cudnn.allow_tf32 = False


def seed_everything(seed: int = 0) -> None:
    """Seed Python's, NumPy's and torch's generators with ``seed``.

    With the same seed, data and versions on one thread of a CPU of the same kind, scenes, batches,
    weights and captions are the same to the last bit (``tests/test_runs.py`` compares them). This
    no longer holds with another number of threads, kind of CPU or version of torch, or on a GPU:
    sums are then added up in another order, and a difference in the last digit grows as training
    goes on. Only the drawn scenes and the order of the batches are the same everywhere.
    """
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def device() -> torch.device:
    """The fastest device here: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bfloat16(where: torch.device) -> bool:
    """Whether mixed precision pays on a device: if it has units for matrices of bfloat16.

    CUDA devices from Ampere on have them, and CPUs with AMX (Intel's Xeon from 2023 on) or with
    AVX-512 for bfloat16 (AMD's from Zen 4, 2022, on).
    """
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return where.type == "cpu" and any(getattr(torch.cpu, q, bool)() for q in BFLOAT16_QUESTIONS)


def profile() -> str:
    """The name of the profile: ``smoke``, ``laptop`` or ``gpu``.

    The environment variable ``CONVRNN_PROFILE`` decides if it is set; without it, a CUDA device
    means ``gpu`` and anything else ``laptop``.

    Raises:
        ValueError: ``CONVRNN_PROFILE`` names no profile.
    """
    name = os.environ.get("CONVRNN_PROFILE")
    if not name:
        return "gpu" if torch.cuda.is_available() else "laptop"
    if name not in PROFILES:
        raise ValueError(f"CONVRNN_PROFILE is {name!r}; set it to one of {', '.join(PROFILES)}.")
    return name


def pick(*, smoke, laptop, gpu):
    """Of three values, the one for the profile of this machine.

    ``smoke`` is what the tests use: everything runs, nothing learns much. ``laptop`` is for two
    CPU cores and a few minutes, ``gpu`` for the full training.
    """
    return {"smoke": smoke, "laptop": laptop, "gpu": gpu}[profile()]


def check_shape(tensor, *sizes):
    """Return ``tensor`` if it has the shape ``sizes``, and raise an error if it has not.

    Args:
        tensor: anything with a ``shape``.
        sizes: one entry per dimension: a number that must match, or a name such as ``"B"``, which
            stands for any size, but for the same size wherever the name is repeated.

    Raises:
        ValueError: the shape differs; the message shows both.
    """
    shape, seen = tuple(tensor.shape), {}
    fits = len(shape) == len(sizes)
    for actual, wanted in zip(shape, sizes, strict=False):
        fits &= actual == (seen.setdefault(wanted, actual) if isinstance(wanted, str) else wanted)
    if not fits:
        wanted = ", ".join(str(size) for size in sizes)
        raise ValueError(f"the tensor has shape {shape}, but ({wanted}) was expected.")
    return tensor


def repository() -> Path:
    """The folder that holds ``convrnn_utils``: the root of the course."""
    return Path(__file__).resolve().parents[1]


def data_folder() -> Path:
    """Where data sets lie and downloads land: ``CONVRNN_DATA``, or ``data/`` in the course."""
    return Path(os.environ.get("CONVRNN_DATA") or repository() / "data").expanduser()


def describe() -> str:
    """One line about this run, for the top of a notebook: versions, device and profile."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    where = device()
    name = torch.cuda.get_device_name() if where.type == "cuda" else str(where)
    if where.type != "cpu" and not has_bfloat16(where):
        name += " (without bfloat16: it trains in float32)"
    return f"Python {version} · torch {torch.__version__} · device {name} · profile {profile()}"
