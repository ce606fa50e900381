"""Trained models on disk: safetensors for the numbers, JSON in its header for the rest.

One file holds the weights and all that is needed to use them: the model's arguments, the encoder
with its preprocessing, the vocabulary and the scores. Nothing is ever unpickled.
"""

import json
import os
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.encoders import create_encoder
from convrnn_utils.env import repository
from convrnn_utils.files import complete_or_absent
from convrnn_utils.text import Vocabulary

FORMAT, VERSION = "convrnn-checkpoint-", 1
DECODERS = {"rnn": ConvRNN, "attention": ShowAttendTell}

# The models that come with the course, both trained on Flickr8k.
SHIPPED_CAPTIONER = repository() / "data" / "captioner" / "flickr8k_attention.safetensors"
DOCUMENT_CAPTIONER = repository() / "data" / "captioner" / "flickr8k_rnn.safetensors"


def write_file(
    path: Path, tensors: dict[str, Tensor], content: dict, previous: Path | None = None
) -> None:
    """Write tensors and a dictionary fit for JSON to one file, completely or not at all.

    Args:
        path: the file.
        tensors, content: what to write.
        previous: where to keep the file that was at ``path`` until now; by default it is not kept.

    Raises:
        OSError: the disk is full, or cannot be written to; what was there before is unharmed.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": f"{FORMAT}{VERSION}", "content": json.dumps(content)}
    with complete_or_absent(path, previous) as unfinished:
        try:
            save_file(tensors, unfinished, metadata)
        except SafetensorError as error:  # how safetensors reports a system error
            raise OSError(
                f"{path} could not be written ({error}); make room on the disk. What was saved "
                "before is unharmed."
            ) from error


def read_file(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the dictionary that ``write_file`` wrote; nothing in the file is ever run.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: the file belongs to another account, and this account may not read it.
        ValueError: the file is damaged or comes from elsewhere.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; train the model first.")
    if not os.access(path, os.R_OK):
        raise PermissionError(
            f"{path} may not be read by this account; set CONVRNN_DATA to a folder of your own, or "
            "have its owner give you the right to read it."
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            format_ = metadata.get("format", "")
            # of a file with another format, which may be of any size, no tensor is read
            names = file.keys() if format_ == f"{FORMAT}{VERSION}" else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint, or is damaged: {error}.") from error
    if not format_.startswith(FORMAT):
        raise ValueError(f"{path} is not a checkpoint of this course: it has another format.")
    if format_ != f"{FORMAT}{VERSION}":
        raise ValueError(
            f"{path} is a checkpoint of version {format_.removeprefix(FORMAT)}, and this program "
            f"reads version {VERSION}; use the course that it was written with, or train it again."
        )
    try:
        content = json.loads(metadata["content"])
    except (KeyError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is a damaged checkpoint: its description is not a JSON object.")
    return tensors, content


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model except those of frozen encoders, which come from elsewhere."""
    modules = model.named_modules()
    frozen = tuple(f"{name}." for name, part in modules if getattr(part, "frozen", False))
    weights = model.state_dict()
    return {name: weight for name, weight in weights.items() if not name.startswith(frozen)}


def load_trained_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put weights that ``trained_weights`` gave into a model of the same description."""
    require_weights(trained_weights(model), weights)
    model.load_state_dict(weights, strict=False)


def require_weights(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Raise a ``ValueError`` if tensors differ in name or shape from those expected."""
    wanted, given = ({n: w.shape for n, w in side.items()} for side in (expected, weights))
    wrong = {name for name, _ in wanted.items() ^ given.items()}
    if wrong:
        raise ValueError(
            f"the weights do not fit the model: {len(wrong)} tensors are missing or differ in "
            f"shape, among them {min(wrong)}; build the model with the checkpoint's arguments."
        )


def describe_model(model: ConvRNN | ShowAttendTell) -> dict:
    """All that defines a model except its weights: its arguments, encoder and preprocessing.

    Raises:
        ValueError: the class of the model is not in ``DECODERS``.
    """
    name = next((name for name, kind in DECODERS.items() if type(model) is kind), None)
    if name is None:
        kind = type(model).__name__
        raise ValueError(
            f"a checkpoint names the class of its model, and {kind} has no name yet: give it one "
            f"first, with checkpoints.DECODERS['my name'] = {kind}."
        )
    encoder = model.cnn
    return {
        "decoder": name,
        "arguments": model.arguments,
        "encoder": {
            "name": encoder.name,
            "frozen": encoder.frozen,
            "fingerprint": encoder.fingerprint() if encoder.frozen else None,
        },
        "preprocessing": {
            "resize": [encoder.size, encoder.size],
            "mean": encoder.mean.flatten().tolist(),
            "deviation": encoder.deviation.flatten().tolist(),
        },
    }


def save_model(
    path: Path,
    model: ConvRNN | ShowAttendTell,
    vocabulary: Vocabulary,
    half: bool = False,
    **facts,
) -> None:
    """Write a trained model with its vocabulary, and other facts about it.

    Args:
        path: the file, ``NAME.safetensors``.
        model: the model; a frozen encoder's weights are left out.
        vocabulary: the words that it was trained with.
        half: round the weights to fp16, which halves the file.
        facts: JSON values, such as ``metrics={...}`` and ``data="flickr8k"``.
    """
    content = {"model": describe_model(model), "vocabulary": vocabulary.own_words, **facts}
    weights = trained_weights(model)
    if half:
        weights = {n: w.half() if w.is_floating_point() else w for n, w in weights.items()}
    write_file(path, weights, content)


def load_model(path: Path) -> tuple[ConvRNN | ShowAttendTell, Vocabulary, dict]:
    """A trained model in evaluation mode, its vocabulary, and the facts saved with it.

    Raises:
        FileNotFoundError, ValueError: see ``read_file``; also if the decoder is unknown, or the
            encoder here has other weights or other preprocessing than at training time.
        RuntimeError: the encoder's weights could not be downloaded.
    """
    weights, content = read_file(path)
    if "model" not in content:  # such as run.safetensors of an interrupted run
        raise ValueError(f"{path} holds only a part of a model; load best.safetensors beside it.")
    _require_schema(path, content, weights)
    description = content["model"]
    if description["decoder"] not in DECODERS:
        raise ValueError(f"{path} holds a decoder {description['decoder']!r}, unknown here.")
    frozen = description["encoder"]["frozen"]  # the file holds the weights of all others
    encoder = create_encoder(description["encoder"]["name"], "DEFAULT" if frozen else None, frozen)
    build = partial(DECODERS[description["decoder"]], **description["arguments"], cnn=encoder)
    try:
        with torch.device("meta"):  # takes no memory, whatever sizes the file asks for
            require_weights(trained_weights(build()), weights)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{path} does not fit together: {reason}.") from error
    model = build()
    here = describe_model(model)
    for part in ("encoder", "preprocessing"):
        if here[part] != description[part]:
            raise ValueError(
                f"{path} was trained with another {part}: {encoder.name} is not the same here "
                f"(then {description[part]}, here {here[part]}); train the model again."
            )
    load_trained_weights(model, {name: weight.float() for name, weight in weights.items()})
    facts = {key: value for key, value in content.items() if key not in ("model", "vocabulary")}
    return model.eval(), Vocabulary(content["vocabulary"]), facts


def _require_schema(path: Path, content: dict, weights: dict[str, Tensor]) -> None:
    """Raise a ``ValueError`` if the description of a model is not what ``save_model`` writes."""
    largest = max((size for weight in weights.values() for size in weight.shape), default=0)
    try:
        model, words = content["model"], content["vocabulary"]
        arguments, encoder = model["arguments"], model["encoder"]
        fine = {
            "the vocabulary": all(isinstance(word, str) for word in words) and type(words) is list,
            "the number of words": len(Vocabulary(words)) == arguments["vocab_size"],
            "the decoder": isinstance(model["decoder"], str),
            "the encoder": isinstance(encoder["name"], str) and type(encoder["frozen"]) is bool,
            "the preprocessing": isinstance(model["preprocessing"], dict),
            "the arguments": all(
                isinstance(value, str) or 0 <= value <= largest for value in arguments.values()
            ),
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is a damaged checkpoint: {type(error).__name__} in its description: {error}."
        ) from error
    for part, is_fine in fine.items():
        if not is_fine:
            raise ValueError(f"{path} is a damaged checkpoint: {part} cannot be right.")


def require_vocabulary(expected: list[str], vocabulary: Vocabulary, path: Path) -> None:
    """Raise a ``ValueError`` if a checkpoint belongs to another vocabulary."""
    words = vocabulary.own_words
    if words != expected:
        shared = len(set(expected) & set(words))
        raise ValueError(
            f"{path} was trained with another vocabulary: of its {len(expected)} words {shared} "
            f"are among the {len(words)} of this one, and its ids stand for other words here; use "
            "the vocabulary saved with it, or train into another folder."
        )
