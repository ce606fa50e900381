"""A step of training: captions a second, compared with the way it is commonly written.

python benchmarks/speed_training.py

Ours are the models of the course, fed with features computed beforehand, as ``training.train`` does
it: in bfloat16 if the processor has units for it, with torch's fused AdamW. The references have the
same weights and the same loss, and torch's default AdamW. For the document's model, the reference
reads and decodes the pictures and runs the CNN again in each step, and packs the sequences. For
attention, the reference is ``plain_attention``, which projects the places again before every word,
over a batch that shrinks. A batch of attention has four captions of each picture (``train
--by-picture`` takes five, which do not divide 32): ours reads a picture's places once for all four,
the reference once for each.
"""

from collections.abc import Callable
from functools import partial
from random import Random

import torch
from plain_attention import plain_copy
from timing import command, in_turn, row
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from convrnn_utils import data
from convrnn_utils.checkpoints import DOCUMENT_CAPTIONER, SHIPPED_CAPTIONER, load_model
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.env import device, has_bfloat16
from convrnn_utils.text import PAD, Vocabulary
from convrnn_utils.training import teacher_forcing_loss


def plain_document_loss(model: ConvRNN, pictures: Tensor, captions: Tensor) -> Tensor:
    """The loss of ``teacher_forcing_loss``, but with the CNN run again and the captions packed.

    Args:
        model: the document's model.
        pictures: bytes (B, 3, S, S).
        captions: (B, T), the longest first.
    """
    lengths = (captions != PAD).sum(dim=1).cpu()
    decoder = model.rnn_decoder
    words = torch.cat(
        (model.cnn_encoder(pictures).unsqueeze(1), decoder.embed(captions[:, :-1])), dim=1
    )
    packed = pack_padded_sequence(decoder.dropout(words), lengths, batch_first=True)
    hiddens = decoder.rnn(packed)[0]
    logits = decoder.linear(decoder.dropout(hiddens.data))[len(captions) :]  # those of words
    targets = pack_padded_sequence(captions[:, 1:], lengths - 1, batch_first=True).data
    return functional.cross_entropy(logits, targets)


def fast_loss(model: nn.Module, inputs: Tensor, captions: Tensor) -> Tensor:
    """The loss as ``training.train`` computes it."""
    where = captions.device
    with torch.autocast(where.type, torch.bfloat16, enabled=has_bfloat16(where)):
        return teacher_forcing_loss(model, inputs, captions)


def step(model: nn.Module, loss: Callable[[], Tensor], fused: bool = True) -> Callable[[], None]:
    """A step of training that minimises what ``loss()`` gives.

    A ``fused`` AdamW goes over the weights once, instead of once for each operation.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, 1e-4, fused=fused or None)  # None: torch decides
    model.train()

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()

    return run


def batch(split: data.Split, vocabulary: Vocabulary, size: int) -> tuple[list[int], Tensor]:
    """Rows of pictures, and a caption (B, T) of each, the longest first."""
    pairs = [
        (row, vocabulary.encode(caption))
        for row, captions in enumerate(split.captions)
        for caption in captions
    ]
    chosen = sorted(Random(0).choices(pairs, k=size), key=lambda pair: -len(pair[1]))
    rows, captions = zip(*chosen, strict=True)
    return list(rows), data.pad_captions(captions).to(device())


def batch_by_picture(
    split: data.Split, vocabulary: Vocabulary, size: int, captions_each: int = 4
) -> tuple[list[int], Tensor]:
    """Rows of pictures, and captions (B, T): four of each picture, one after the other."""
    rows = Random(0).choices(range(len(split)), k=size // captions_each)
    captions = [caption for row in rows for caption in split.captions[row][:captions_each]]
    padded = data.pad_captions([vocabulary.encode(caption) for caption in captions])
    return rows, padded.to(device())


def check(model: nn.Module, *losses: Callable[[], Tensor]) -> None:
    """Check that the losses, without dropout, agree to 1e-4."""
    model.eval()
    with torch.no_grad():
        first, second = (loss().item() for loss in losses)
    assert abs(first - second) < 1e-4, f"the losses differ: {first} and {second}"


@torch.inference_mode()
def features_of(model: nn.Module, photos: data.Split) -> Tensor:
    """The grids (N, L, D) of photographs."""
    cnn, pictures = model.cnn.folded(), data.Pictures(photos, model.cnn)
    parts = torch.arange(len(photos)).split(8)
    return torch.cat([cnn(pictures[rows.tolist()].to(device())) for rows in parts]).clone()


def measure_document(photos: data.Split, rounds: int, size: int = 32) -> list[dict]:
    """The row ``train_document_b32``."""
    model, vocabulary, _ = load_model(DOCUMENT_CAPTIONER)
    model = model.to(device())
    pictures = data.Pictures(photos, model.cnn)
    rows, captions = batch(photos, vocabulary, size)
    inputs = features_of(model, photos).mean(dim=1)[rows]
    decoded = pictures[rows].to(device())
    check(
        model,
        lambda: teacher_forcing_loss(model, inputs, captions),
        lambda: plain_document_loss(model, decoded, captions),
    )
    seconds = in_turn(
        {
            "ours": step(model, lambda: fast_loss(model, inputs, captions)),
            "reference": step(
                model,
                lambda: plain_document_loss(model, pictures[rows].to(device()), captions),
                fused=False,
            ),
            "pictures": lambda: model.cnn(pictures[rows].to(device())),
        },
        rounds,
    )
    share = seconds["pictures"] / seconds["reference"]
    print(f"Of the reference's step for the document's model, {share:.0%} is decoding and the CNN.")
    rates = (size / seconds[side] for side in ("ours", "reference"))
    return [row(f"train_document_b{size}", *rates, "captions/s")]


def measure_epoch(photos: data.Split, rounds: int, size: int = 32, epochs: int = 10) -> list[dict]:
    """The row ``epoch_document``: seconds an epoch over ``photos``, in a training of ``epochs``.

    Ours runs the CNN once, and each epoch bears its share of that time; its batches have captions
    of similar length. The reference decodes the pictures and runs the CNN in every epoch, and takes
    captions as they come.
    """
    model, vocabulary, _ = load_model(DOCUMENT_CAPTIONER)
    model = model.to(device())
    pictures = data.Pictures(photos, model.cnn)
    dataset = data.CaptionDataset(photos, features_of(model, photos).mean(dim=1).cpu(), vocabulary)
    shuffled = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    fed = {}
    losses = {
        "ours": lambda: fast_loss(model, *fed["ours"]),
        "reference": lambda: plain_document_loss(model, *fed["reference"]),
    }
    steps = {side: step(model, loss, fused=side == "ours") for side, loss in losses.items()}

    def ours() -> None:
        for chosen in data.batch_indices(dataset, size, 0):
            fed["ours"] = [tensor.to(device()) for tensor in dataset[chosen]]
            steps["ours"]()

    def reference() -> None:
        for chosen in shuffled.split(size):
            pairs = sorted((dataset.pairs[i] for i in chosen), key=lambda pair: -len(pair[1]))
            rows, captions = zip(*pairs, strict=True)
            decoded = pictures[list(rows)].to(device())
            fed["reference"] = decoded, data.pad_captions(captions).to(device())
            steps["reference"]()

    sides = {"ours": ours, "reference": reference, "once": lambda: features_of(model, photos)}
    seconds = in_turn(sides, rounds)
    return [
        row("epoch_document", seconds["ours"] + seconds["once"] / epochs, seconds["reference"], "s")
    ]


def measure_attention(photos: data.Split, rounds: int, sizes=(32, 128)) -> list[dict]:
    """The rows ``train_attention_b32`` and ``train_attention_b128``."""
    model, vocabulary, _ = load_model(SHIPPED_CAPTIONER)
    model = model.to(device())
    plain, grids = plain_copy(model), features_of(model, photos)
    rows = []
    for size in sizes:
        chosen, captions = batch_by_picture(photos, vocabulary, size)
        inputs = grids[chosen]
        repeated = inputs.repeat_interleave(size // len(chosen), dim=0)  # one picture per caption
        plain.load_state_dict(model.state_dict())
        plain.eval()
        fed = {"ours": (model, inputs, captions), "reference": (plain, repeated, captions)}
        check(model, *(partial(teacher_forcing_loss, *what) for what in fed.values()))
        sides = {
            "ours": step(model, partial(fast_loss, *fed["ours"])),
            "reference": step(plain, partial(teacher_forcing_loss, *fed["reference"]), fused=False),
        }
        seconds = in_turn(sides, rounds)
        rates = (size / seconds[side] for side in sides)
        rows.append(row(f"train_attention_b{size}", *rates, "captions/s"))
    return rows


def measure(rounds: int = 3) -> list[dict]:
    """All rows; raises an ``AssertionError`` if two sides have different losses."""
    photos = data.load_split(data.photos(), "test")
    return [
        *measure_document(photos, rounds),
        *measure_epoch(photos, rounds),
        *measure_attention(photos, rounds),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
