"""Trained models on disk: safetensors for the numbers, JSON in its header for the rest.

One file holds the weights and all that is needed to use them: the model's arguments, the encoder
with its preprocessing, the vocabulary and the scores. Nothing is ever unpickled.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.encoders import create_encoder
from convrnn_utils.env import repository
from convrnn_utils.files import complete_or_absent
from convrnn_utils.text import Vocabulary

FORMAT = "convrnn-checkpoint-1"
DECODERS = {"rnn": ConvRNN, "attention": ShowAttendTell}

# The models that come with the course, both trained on Flickr8k.
SHIPPED_CAPTIONER = repository() / "data" / "captioner" / "flickr8k_attention.safetensors"
DOCUMENT_CAPTIONER = repository() / "data" / "captioner" / "flickr8k_rnn.safetensors"


def write_file(path: Path, tensors: dict[str, Tensor], content: dict) -> None:
    """Write tensors and a dictionary that JSON can hold as one file, complete or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with complete_or_absent(path) as unfinished:
        save_file(tensors, unfinished, {"format": FORMAT, "content": json.dumps(content)})


def read_file(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the dictionary that ``write_file`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or comes from elsewhere.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; train the model first.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no checkpoint, or a damaged one: {error}.") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this course: its format is another one.")
    return tensors, json.loads(metadata["content"])


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model but for those of frozen encoders, which others provide."""
    modules = model.named_modules()
    frozen = tuple(f"{name}." for name, part in modules if getattr(part, "frozen", False))
    weights = model.state_dict()
    return {name: weight for name, weight in weights.items() if not name.startswith(frozen)}


def load_trained_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put weights that ``trained_weights`` gave into a model of the same description."""
    expected = trained_weights(model)
    wrong = {name for name in expected.keys() | weights.keys() if not _fit(name, expected, weights)}
    if wrong:
        raise ValueError(
            f"the weights do not fit the model: {len(wrong)} tensors are missing or differ in "
            f"shape, among them {min(wrong)}; build the model with the checkpoint's arguments."
        )
    model.load_state_dict(weights, strict=False)


def _fit(name: str, expected: dict[str, Tensor], weights: dict[str, Tensor]) -> bool:
    both = name in expected and name in weights
    return both and expected[name].shape == weights[name].shape


def describe_model(model: ConvRNN | ShowAttendTell) -> dict:
    """Everything but the weights that makes a model: its arguments, encoder and preprocessing."""
    encoder = model.cnn
    return {
        "decoder": next(name for name, kind in DECODERS.items() if type(model) is kind),
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
    """Write a trained model with its vocabulary, and what else should be known of it.

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
            encoder here has other weights or preprocesses in another way than at training time.
    """
    weights, content = read_file(path)
    if "model" not in content:  # the file that an interrupted run goes on from, say
        raise ValueError(f"{path} holds no whole model; load the best.safetensors beside it.")
    description = content["model"]
    if description["decoder"] not in DECODERS:
        raise ValueError(f"{path} holds a decoder {description['decoder']!r}, unknown here.")
    frozen = description["encoder"]["frozen"]  # the weights of others are in the file
    encoder = create_encoder(description["encoder"]["name"], "DEFAULT" if frozen else None, frozen)
    model = DECODERS[description["decoder"]](**description["arguments"], cnn=encoder)
    here = describe_model(model)
    for part in ("encoder", "preprocessing"):
        if here[part] != description[part]:
            raise ValueError(
                f"{path} was trained with another {part} than {encoder.name} is here "
                f"({description[part]}, and not {here[part]}); train it again."
            )
    load_trained_weights(model, {name: weight.float() for name, weight in weights.items()})
    facts = {key: value for key, value in content.items() if key not in ("model", "vocabulary")}
    return model.eval(), Vocabulary(content["vocabulary"]), facts


def require_vocabulary(expected: list[str], vocabulary: Vocabulary, path: Path) -> None:
    """Raise a ``ValueError`` in words where a checkpoint belongs to another vocabulary."""
    words = vocabulary.own_words
    if words != expected:
        missing = len(set(expected) - set(words))
        raise ValueError(
            f"{path} was trained with a vocabulary of {len(expected)} words, of which {missing} "
            f"are not among the {len(words)} of this one, so its numbers mean other words; use "
            "the vocabulary saved with it, or train into another folder."
        )
