"""A training run on disk, saved as it goes, so that it can resume and end with the same weights."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from convrnn_utils import processes
from convrnn_utils.checkpoints import (
    load_trained_weights,
    read_file,
    require_vocabulary,
    require_weights,
    trained_weights,
    write_file,
)
from convrnn_utils.data import CaptionDataset

RUN, RUN_BEFORE = "run.safetensors", "run-before.safetensors"


def _beginning() -> dict:
    return {"epoch": 0, "batch": 0, "loss_sum": 0.0, "seconds": 0.0, "history": []}


@dataclass
class Run:
    """What a training run changes, and what it must not change.

    Attributes:
        folder: where the run is kept.
        model: what is trained.
        average: the running mean of its weights by name; empty where there is none.
        optimizer: of the model's weights.
        training: what the model is trained on; it has the model's vocabulary.
        settings: by name; a run can only be resumed with the same ones.
        progress: the epoch and the batch that the run has reached, the sum of the losses and the
            seconds of the epoch so far, and the history of the epochs before.
    """

    folder: Path
    model: nn.Module
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    training: CaptionDataset
    settings: dict
    progress: dict = field(default_factory=_beginning)

    @property
    def best(self) -> Path:
        """The file with the best model so far, once an epoch is done."""
        return self.folder / "best.safetensors"

    @property
    def history(self) -> list[dict]:
        """What ``training.train`` returns, as far as it has come."""
        return self.progress["history"]


def save(run: Run) -> None:
    """Write ``run.safetensors``: weights, the optimiser's and generator's state, progress.

    Of several processes the first one writes.

    Raises:
        OSError: no space is left, or the folder cannot be written to; the previous save is kept.
    """
    if processes.rank() > 0:
        return
    tensors = {f"model.{name}": weight for name, weight in trained_weights(run.model).items()}
    tensors |= {f"average.{name}": weight for name, weight in run.average.items()}
    for number, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    words = run.training.vocabulary.own_words
    content = {"settings": run.settings, "vocabulary": words, "progress": run.progress}
    write_file(run.folder / RUN, tensors, content, previous=run.folder / RUN_BEFORE)


def saves_in(folder: Path) -> list[Path]:
    """The files that ``save`` has left in a folder: the last save, then the one before."""
    return [path for path in (folder / RUN, folder / RUN_BEFORE) if path.exists()]


def read_save(folder: Path) -> tuple[Path, dict[str, Tensor], dict]:
    """The path and content of a run's last save or, if that is damaged, of the one before.

    Raises:
        ValueError: there is only one, and it is damaged.
    """
    *newer, oldest = saves_in(folder)
    for path in newer:
        try:
            return path, *read_file(path)
        except ValueError as error:
            warnings.warn(f"{error} The run resumes from the save before it.", stacklevel=4)
    return oldest, *read_file(oldest)


def _flat(settings: dict) -> dict:
    """The settings without nesting: inner ones have names like ``model.arguments.hidden_size``."""
    flat = {}
    for name, value in settings.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": part for key, part in inner.items()} or {name: value}
    return flat


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    """Give the optimiser the state that ``save`` wrote, with names such as ``0.exp_avg``."""
    states: dict[int, dict] = {}
    (group,) = optimizer.param_groups
    for name, tensor in saved.items():
        number, key = name.split(".")
        weight = group["params"][int(number)]
        # Copies, since Windows cannot replace a file while tensors still read from it. The means
        # get the memory layout of their weight, which a fused AdamW relies on.
        mean = tensor.shape == weight.shape
        copied = torch.empty_like(weight).copy_(tensor) if mean else tensor.clone()
        states.setdefault(int(number), {})[key] = copied
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def resume(run: Run) -> None:
    """Restore the model, mean, optimiser, generator and progress of the run saved in its folder.

    Raises:
        ValueError: the run had other pictures or captions, or another vocabulary, model or setting.
    """
    path, tensors, content = read_save(run.folder)
    if content.keys() != {"settings", "vocabulary", "progress"}:
        raise ValueError(f"{path} is not a run that can be resumed; delete it to begin again.")
    before, now = _flat(content["settings"]), _flat(run.settings)
    other = [name for name, value in now.items() if before.get(name) != value]
    advice = f"train into another folder (--folder of the command), or delete {run.folder}"
    if "captions" in other:
        raise ValueError(
            f"{run.folder} holds a run with other pictures or captions; {advice} to begin again."
        )
    require_vocabulary(content["vocabulary"], run.training.vocabulary, path)
    if other:
        was = ", ".join(f"{name} = {before.get(name)}" for name in other)
        has = ", ".join(f"{name} = {now[name]}" for name in other)
        raise ValueError(
            f"{path} was begun with {was}, and this run has {has}; {advice} to begin again."
        )
    parts: dict[str, dict] = {"model": {}, "average": {}, "optimizer": {}, "random": {}}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    load_trained_weights(run.model, parts["model"])
    require_weights(run.average, parts["average"])
    for name, weight in run.average.items():
        weight.copy_(parts["average"][name])
    _restore_optimizer(run.optimizer, parts["optimizer"])
    torch.set_rng_state(parts["random"]["cpu"])
    if "cuda" in parts["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(parts["random"]["cuda"])
    run.progress = content["progress"]
