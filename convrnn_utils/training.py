"""Training a captioner: the loss, the loop, and runs that resume where they were interrupted."""

import contextlib
import copy
import hashlib
import json
import math
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Subset
from tqdm import tqdm

from convrnn_utils import metrics, processes
from convrnn_utils.checkpoints import (
    describe_model,
    load_trained_weights,
    read_file,
    save_model,
    trained_weights,
)
from convrnn_utils.data import CaptionDataset, Split, Views, batch_indices, to_gpu
from convrnn_utils.decoding import candidates, caption_all, evaluating
from convrnn_utils.env import has_bfloat16
from convrnn_utils.runs import Run, resume, save, saves_in
from convrnn_utils.text import PAD


def teacher_forcing_loss(
    model: nn.Module, inputs: Tensor, captions: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """The loss of a model that is given the true words: see ``caption_loss``."""
    return caption_loss(model(inputs, captions[:, :-1]), captions, label_smoothing)


def caption_loss(logits: Tensor, captions: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the next word, in nats, over all words that are not padding.

    Args:
        logits: a model's output for ``captions[:, :-1]``, (B, T - 1, V) or (B, T, V); the last
            T − 1 positions belong to words of the caption (see ``decoders``).
        captions: (B, T) ids, from ``<start>`` to ``<end>``, then padding.
        label_smoothing: share of the target spread evenly over all words (arXiv:1512.00567).
    """
    targets = captions[:, 1:]
    logits = logits[:, -targets.shape[1] :]
    return functional.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=PAD,
        label_smoothing=label_smoothing,
    )


@torch.inference_mode()
def validation_loss(model: nn.Module, dataset: CaptionDataset, batch_size: int = 256) -> float:
    """Mean cross-entropy over a data set with teacher forcing, in nats per word."""
    where = next(model.parameters()).device
    sums = torch.zeros(2, device=where)  # of the losses, and of the words
    with evaluating(model):
        for start in processes.share(range(0, len(dataset), batch_size)):
            inputs, captions = dataset[range(start, min(start + batch_size, len(dataset)))]
            captions = captions.to(where)
            words = _words_in(captions)
            loss = caption_loss(model(inputs.to(where), captions[:, :-1]), captions)
            sums += torch.stack((loss * words, words))
    loss, words = processes.total(sums).tolist()
    return loss / words


def _words_in(captions: Tensor) -> Tensor:
    """How many words of captions (B, T) enter the loss."""
    return (captions[:, 1:] != PAD).sum()


def cider_of_captions(model: nn.Module, dataset: CaptionDataset) -> float:
    """CIDEr × 100 of greedy, free-running captions of a data set's pictures."""
    own = Subset(dataset.inputs, processes.share(range(len(dataset.inputs))))
    captions = processes.gathered(caption_all(model, own, dataset.vocabulary))
    return metrics.cider(dataset.split.references(), candidates(dataset.split.ids, captions))


def train(
    model: nn.Module,
    training: CaptionDataset,
    validation: CaptionDataset,
    folder: Path,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    label_smoothing: float = 0.0,
    clip_norm: float = 5.0,
    averaging: float = 0.0,
    patience: int = 3,
    seed: int = 0,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    save_every: float = 60.0,
    on_epoch: Callable[[list[dict]], None] | None = None,
) -> list[dict]:
    """Train a model; resume the run in ``folder`` if there is one, or load its result if finished.

    The optimiser is Adam with a learning rate that falls along a cosine to zero. After each epoch
    the model's captions for ``validation`` are scored, and the best model so far is saved (see
    ``best_epoch``). Training stops after ``patience`` epochs in a row without a better one. An
    interrupted run that is started again ends with the weights that it would have had without the
    interruption (on one thread of a CPU, to the last bit); whatever was done since the last save is
    repeated. An interrupt stops the run between two steps, and saves it.

    On a GPU, features are kept in its memory if they fit (see ``data.to_gpu``).

    Several processes (see ``processes.join``) train one model: each takes its share of every batch
    and of the validation split, and the first one saves.

    Args:
        model: one that can be saved (see ``decoders``); at the end it has the best weights.
        training, validation: pairs of pictures and captions with the same vocabulary.
        folder: gets ``best.safetensors`` (the model), ``run.safetensors`` (to resume from) and
            ``run-before.safetensors`` (the previous save, in case the last one is damaged).
        epochs: the maximum number of passes over all captions.
        batch_size: items of ``training`` per step, over all processes together: captions, or
            pictures together with their captions.
        learning_rate: of the first step.
        weight_decay: of AdamW, arXiv:1711.05101.
        label_smoothing: see ``caption_loss``; has no effect where ``loss`` is given.
        clip_norm: longer gradients are scaled down to this norm (arXiv:1211.5063).
        averaging: if this is above zero, the weights that are scored and saved are a running
            mean over the steps, and the mean keeps this share of itself, such as 0.999, at each
            step (less in the first ones). Polyak & Juditsky 1992, doi:10.1137/0330046, average all
            steps alike.
        patience: see above.
        seed: fixes the order of the captions and the dropout.
        loss: a function that takes the model and the inputs and captions of a batch, and gives
            what is minimised; by default ``teacher_forcing_loss``.
        save_every: seconds between two saves within an epoch.
        on_epoch: called with the history after each epoch and, when a run is resumed, with its
            earlier history; in the first process only.

    Returns:
        the history: a dictionary per epoch with ``epoch``, ``training_loss``,
        ``validation_loss``, ``cider`` and ``seconds``.

    Raises:
        ValueError: ``folder`` holds a run with other pictures or captions, or another vocabulary,
            model or setting; ``epochs`` is below 1, ``batch_size`` below two per process, or
            there are too few captions for one batch.
        torch.OutOfMemoryError: with advice; the last save stays.
    """
    if epochs < 1:
        raise ValueError(
            f"epochs is {epochs}; it must be 1 or more, or there is no model to load at the end."
        )
    if batch_size < 2 * processes.count():
        raise ValueError("batch normalisation needs at least two captions per process in a batch.")
    folder = Path(folder)
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "loss": getattr(loss or teacher_forcing_loss, "__name__", type(loss).__name__),
        "clip_norm": clip_norm,
        "averaging": averaging,
        "patience": patience,
        "seed": seed,
        "data": training.split.name,
        "captions": _fingerprint(training.split, validation.split),
        "items": f"{len(training)} of {type(training).__name__}",
        "views": training.inputs.names if isinstance(training.inputs, Views) else ["whole"],
        "model": describe_model(model),
    }
    loss = loss or partial(teacher_forcing_loss, label_smoothing=label_smoothing)
    torch.manual_seed(seed)
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay, fused=True)
    average = _copy_of_weights(model) if averaging else {}
    run = Run(folder, model, average, optimizer, training, settings)
    if processes.rank() > 0:
        on_epoch = None
    if saves_in(folder):
        resume(run)
        if run.history and not run.best.exists():
            raise ValueError(
                f"{folder} holds a run, but not its best.safetensors; put that back, or delete "
                f"{folder} to begin again."
            )
        if on_epoch and run.history:
            on_epoch(run.history)

    processes.wait_for_all()  # so that the first one writes only after the others have read
    together = processes.together(model)
    steps = len(_batches(run, 0))
    if not steps:
        raise ValueError(
            f"{training.split.name} has too few captions for a batch of two per process; "
            "take more pictures to train on."
        )
    finished = _finished(run.history, epochs, patience)
    if not finished:
        where = next(model.parameters()).device
        run.training, validation = _near(training, where), _near(validation, where)
    with tqdm(
        total=epochs * steps,
        initial=run.progress["epoch"] * steps + run.progress["batch"],
        unit="batch",
        leave=False,
        dynamic_ncols=True,
        disable=processes.rank() > 0 or finished,
    ) as bar:
        while not _finished(run.history, epochs, patience):
            try:
                with _advice_on_memory(batch_size, folder):
                    _train_epoch(run, together, loss, bar, save_every)
                    with _averaged(model, average):
                        _finish_epoch(run, validation)
            except KeyboardInterrupt:  # never comes in the middle of a step
                save(run)
                raise
            save(run)
            if on_epoch:
                on_epoch(run.history)
    processes.wait_for_all()  # until the first one has saved
    load_trained_weights(model, read_file(run.best)[0])
    model.eval()
    return run.history


def _near(dataset: CaptionDataset, where: torch.device) -> CaptionDataset:
    """The same data set, its inputs moved by ``data.to_gpu``; the caller's own stays as it is."""
    nearer = copy.copy(dataset)
    nearer.inputs = to_gpu(dataset.inputs, where)
    return nearer


def _fingerprint(*splits: Split) -> str:
    """Eight characters that change with the pictures' names, their order and their captions."""
    texts = [[[path.name for path in split.paths], split.captions] for split in splits]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8]


def best_epoch(history: list[dict]) -> dict:
    """The epoch whose model is kept, from the history that ``train`` returns.

    It is the epoch with the highest CIDEr. If several share it, which happens when few pictures are
    scored (with a single one, CIDEr is always 0), it is the one with the lowest validation loss.
    """
    return max(history, key=lambda entry: (entry["cider"], -entry["validation_loss"]))


def _finished(history: list[dict], epochs: int, patience: int) -> bool:
    """Whether all epochs are done, or the last ``patience`` of them brought nothing better."""
    if not history:
        return False
    return len(history) >= min(epochs, best_epoch(history)["epoch"] + patience)


def _batches(run: Run, epoch: int) -> list[list[int]]:
    """The batches of an epoch that are large enough to be shared out among all processes."""
    seed = 1000 * run.settings["seed"] + epoch  # runs with other seeds share no order
    batches = batch_indices(run.training, run.settings["batch_size"], seed)
    return [batch for batch in batches if len(batch) >= 2 * processes.count()]


def _train_epoch(run: Run, together: nn.Module, loss_function, bar: tqdm, save_every: float):
    """One pass over the captions, starting at the batch that ``run.progress`` has reached.

    Args:
        run: is changed in place.
        together: the run's model, as all processes train it.
        loss_function: see ``loss`` of ``train``.
        bar: shows the steps of all epochs.
        save_every: see ``train``.
    """
    settings, progress, training = run.settings, run.progress, run.training
    where = next(run.model.parameters()).device
    batches = _batches(run, progress["epoch"])
    total_steps = settings["epochs"] * len(batches)
    began = saved = time.monotonic()
    shown = -math.inf
    before = progress["seconds"]
    at_once = where.type == "cuda"  # a copy to it need not wait for the step before
    loss_sum = torch.tensor(progress["loss_sum"], device=where)  # its .item() waits for a GPU
    together.train()
    try:
        for number in range(progress["batch"], len(batches)):
            step = progress["epoch"] * len(batches) + number
            # by hand and not by a scheduler of torch: a run that resumes then needs no state of it
            rate = settings["learning_rate"] * 0.5 * (1 + math.cos(math.pi * step / total_steps))
            with _interrupts_wait():
                inputs, captions = training[processes.share(batches[number])]
                inputs = inputs.to(where, non_blocking=at_once)
                captions = captions.to(where, non_blocking=at_once)
                with torch.autocast(where.type, torch.bfloat16, enabled=has_bfloat16(where)):
                    loss = loss_function(together, inputs, captions)
                if processes.count() > 1:  # the mean over all words, not over the processes
                    words = _words_in(captions)
                    loss = loss * (words / processes.total(words) * processes.count())
                _minimise(loss, run.optimizer, rate, settings["clip_norm"])
                loss_sum += processes.total(loss.detach()) / processes.count()
                _update_average(run.average, run.model, settings["averaging"], step)
                progress["batch"] = number + 1
            now = time.monotonic()
            progress["seconds"] = before + now - began
            if now - shown > 0.5:
                mean = loss_sum.item() / (number + 1)
                bar.n = step + 1
                bar.set_description(f"epoch {progress['epoch'] + 1}, loss {mean:.2f}")
                shown = now
            if now - saved > save_every:
                progress["loss_sum"] = loss_sum.item()
                save(run)
                saved = time.monotonic()
    finally:
        progress["loss_sum"] = loss_sum.item()


def _minimise(loss: Tensor, optimizer, learning_rate: float, clip_norm: float) -> None:
    """One step of the optimiser."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
    optimizer.step()


def _copy_of_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in trained_weights(model).items()}


def _update_average(average: dict[str, Tensor], model, share: float, step: int) -> None:
    """One step of the running mean; it forgets faster at first, when the weights are worst."""
    if not average:
        return
    share = min(share, (1 + step) / (10 + step))
    for name, weight in trained_weights(model).items():
        if weight.is_floating_point():
            average[name].lerp_(weight, 1 - share)
        else:  # counts, such as those of batch normalisation
            average[name].copy_(weight)


@contextlib.contextmanager
def _averaged(model: nn.Module, average: dict[str, Tensor]):
    """Give the model its mean weights, if there are any, for the length of the ``with`` block."""
    current = _copy_of_weights(model) if average else {}
    model.load_state_dict(average, strict=False)
    try:
        yield
    finally:
        model.load_state_dict(current, strict=False)


@torch.no_grad()
def blend(model: nn.Module, path: Path, share: float) -> None:
    """Move a fine-tuned model's weights back towards its earlier ones, which a file holds.

    Between the weights before and after fine-tuning there are often better ones than either
    (Wortsman et al., arXiv:2109.01903).

    Args:
        model: is changed in place.
        path: the file that ``save_model`` wrote of the same model before the fine-tuning.
        share: the share of the model's own weights that is kept, 0 to 1.
    """
    before = read_file(path)[0]
    for name, weight in trained_weights(model).items():
        if weight.is_floating_point():
            weight.copy_(before[name].to(weight).lerp(weight, share))


def _finish_epoch(run: Run, validation: CaptionDataset) -> None:
    """Score the model, add the epoch to the history, and save the model if it is the best."""
    progress, earlier = run.progress, run.history
    entry = {
        "epoch": progress["epoch"] + 1,
        "training_loss": progress["loss_sum"] / progress["batch"],
        "validation_loss": validation_loss(run.model, validation),
        "cider": cider_of_captions(run.model, validation),
        "seconds": round(progress["seconds"], 3),
    }
    if best_epoch([*earlier, entry]) is entry and processes.rank() == 0:
        facts = {"data": run.training.split.name, "metrics": {"validation": entry}}
        save_model(run.best, run.model, run.training.vocabulary, **facts)
    progress.update(  # last of all: an epoch that is interrupted before this is scored again
        epoch=entry["epoch"], batch=0, loss_sum=0.0, seconds=0.0, history=[*earlier, entry]
    )


# ---------------------------------------------------------------- what can go wrong


@contextlib.contextmanager
def _interrupts_wait():
    """Put off a KeyboardInterrupt until the block is done, so that no step is left half done."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # only the main thread gets interrupts; or the program ignores them
        return
    interrupted = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def _advice_on_memory(batch_size: int, folder: Path):
    """When a device runs out of memory, say in the error what helps."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("out of memory|not enough memory|allocate memory", str(error)):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that took the memory
        raise torch.OutOfMemoryError(
            f"no memory is left for a batch of {batch_size}: train with batch_size="
            f"{max(2, batch_size // 2)}, into another folder if this run has begun (its last save "
            f"stays in {folder}), or close the notebooks that use the same device."
        ) from None
