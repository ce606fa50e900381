"""A whole training with its times: Flickr8k from JPEG files to scores of the test split.

python benchmarks/gpu_training.py               on a GPU
python benchmarks/gpu_training.py --pictures 40 --encoder small_cnn --epochs 1 --product 1024
                                                to try it

Prints seconds by phase (features, training, captions, scores), pictures and captions a second, and
how far these are from what the device could do: before anything is timed, the multiply-adds of the
CNN and of a step of the decoder and the bytes that a step must move are counted, and the rates of a
large product of bfloat16 and of a large copy are measured. Then the same is done with the encoder
trained, too, and its pictures cropped and mirrored at random. Each of the two trainings prints its
table and its record in JSON as soon as it is done; ``--only`` does one of them.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from timing import in_turn, machine, wait_for_device
from torch.utils.flop_counter import FlopCounterMode

from convrnn_utils import data, metrics
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.decoding import beam_search, candidates, caption_all
from convrnn_utils.encoders import ImageEncoder, create_encoder
from convrnn_utils.env import device, has_bfloat16, seed_everything
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import teacher_forcing_loss, train

VIEWS = ("whole", "mirrored", "centre", "top_left", "bottom_right")
CAPTIONS_EACH = 5
COPIES = 10  # timed together, since one copy takes hardly longer than its start


class PhaseTimes:
    """Seconds by phase; a phase ends when the device has done all that it was given."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def __call__(self, phase: str, work):
        """Do ``work()``, note the seconds that it took, and return its result."""
        began = time.perf_counter()
        result = work()
        wait_for_device()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began
        return result


def rates_of_device(size: int) -> dict[str, float]:
    """Floating-point operations a second of a product of bfloat16, bytes a second of a copy."""
    where = device()
    kind = torch.bfloat16 if has_bfloat16(where) else torch.float32
    matrix = torch.rand(size, size, device=where, dtype=kind)
    target = torch.empty_like(matrix)

    def copies() -> None:
        for _ in range(COPIES):
            target.copy_(matrix)

    seconds = in_turn({"product": lambda: matrix @ matrix, "copy": copies}, 9)
    moved = COPIES * 2 * matrix.numel() * matrix.element_size()
    return {"operations": 2 * size**3 / seconds["product"], "bytes": moved / seconds["copy"]}


def operations_of(work) -> int:
    """Floating-point operations of products and convolutions; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def floor_of_step(model: ShowAttendTell, inputs, captions) -> dict[str, float]:
    """What a training step cannot do without: its operations, and the bytes that it must move.

    The bytes: keys and values are read for every word, forwards and backwards, and the weights of
    the decoder, their gradients and the optimiser's two means are read and written once.
    """
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    pictures, places = inputs.shape[:2]
    widths = model.key.out_features + model.value.out_features
    of_places = pictures * places * widths * (captions.shape[1] - 1)

    def step() -> None:
        teacher_forcing_loss(model, inputs, captions).backward()

    model.train()
    operations = operations_of(step)
    model.zero_grad(set_to_none=True)
    of_weights = 4 * 8 * weights
    return {
        "operations": operations,
        "bytes": 2 * 2 * of_places + of_weights,
        "bytes of weights": of_weights,
    }


def typical_batch(dataset: data.CaptionDataset, batch_size: int) -> list[int]:
    """The middle one of the batches of an epoch, sorted by the length of their longest caption."""
    batches = data.batch_indices(dataset, batch_size, 0)
    batches.sort(key=lambda rows: max(map(dataset.length, rows)))
    return batches[len(batches) // 2]


def make_model(vocabulary: Vocabulary, encoder: ImageEncoder, size: int) -> ShowAttendTell:
    """The captioner; with a ``size`` of 512, it has the sizes of the shipped one."""
    sizes = (size // 2, size, len(vocabulary))
    return ShowAttendTell(*sizes, size // 2, dropout=0.5, cnn=encoder).to(device())


def report(
    name: str, phases: PhaseTimes, counts: dict[str, int], shares: dict, scores: dict
) -> dict:
    """Print what was measured of one training, as a table and as a record; give the record."""
    print(f"\n{name}")
    for phase, seconds in phases.seconds.items():
        rate = f"{counts[phase] / seconds:12,.0f} a second" if phase in counts else ""
        print(f"  {phase:28}{seconds:10.1f} s{rate}")
    print(f"  {'all':28}{sum(phases.seconds.values()):10.1f} s")
    for what, share in shares.items():
        print(f"  {what}: {share:.1%}")
    print("  " + ", ".join(f"{score} {value:.1f}" for score, value in scores.items()))
    record = {"name": name, "seconds": phases.seconds, "counts": counts, "shares": shares}
    record |= {"scores": scores, "machine": machine()}
    print(json.dumps(record), flush=True)  # a later failure does not lose it
    return record


def captions_and_scores(phases: PhaseTimes, model, split: data.Split, inputs, vocabulary) -> dict:
    """Scores of captions with a beam of 5."""
    search = partial(beam_search, beam_width=5, length_power=1.0)
    written = phases(
        "captions of the test split",
        lambda: caption_all(model, inputs, vocabulary, search=search),
    )
    pair = split.references(), candidates(split.ids, written)
    return phases("scores", lambda: metrics.score(*pair))


def frozen(splits: dict[str, data.Split], options, vocabulary: Vocabulary, folder: Path) -> dict:
    """Compute the features once, then train the decoder."""
    phases, rates = PhaseTimes(), rates_of_device(options.product)
    encoder = create_encoder(options.encoder).to(device())
    one = torch.zeros(1, 3, encoder.size, encoder.size, dtype=torch.uint8, device=device())
    of_picture = operations_of(lambda: encoder(one))
    features = {
        name: phases(
            "pictures to features",
            lambda name=name: data.cached_features(
                splits[name], encoder, for_training=name == "train"
            ),
        )
        for name in splits
    }
    on_device = {
        name: phases("features to the device", lambda array=array: data.to_gpu(array, device()))
        for name, array in features.items()
    }
    datasets = {
        name: data.PictureDataset(splits[name], on_device[name], vocabulary, 40, CAPTIONS_EACH)
        for name in ("train", "val")
    }
    model = make_model(vocabulary, encoder, options.size)
    inputs, captions = datasets["train"][typical_batch(datasets["train"], options.batch_size)]
    floor = floor_of_step(model, inputs.to(device()).float(), captions.to(device()))
    history = phases(
        "training",
        lambda: train(
            model,
            datasets["train"],
            datasets["val"],
            folder / "frozen",
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=2e-3,
            label_smoothing=0.1,
        ),
    )
    steps_alone = sum(entry["seconds"] for entry in history)
    steps = len(history) * -(-len(splits["train"]) // options.batch_size)
    scores = captions_and_scores(phases, model, splits["test"], on_device["test"], vocabulary)
    pictures = sum(map(len, splits.values()))
    shares = {
        "CNN, JPEG included, of the rate of products": pictures
        * of_picture
        / phases.seconds["pictures to features"]
        / rates["operations"],
        "a step's operations, of the rate of products": steps
        * floor["operations"]
        / steps_alone
        / rates["operations"],
        "a step's bytes, of the rate of copies": steps
        * floor["bytes"]
        / steps_alone
        / rates["bytes"],
    }
    counts = {
        "pictures to features": pictures,
        "training": len(history) * CAPTIONS_EACH * len(splits["train"]),
        "captions of the test split": len(splits["test"]),
    }
    return report("frozen encoder", phases, counts, shares, scores)


def fine_tuned(splits: dict[str, data.Split], options, vocabulary, folder: Path) -> dict:
    """Train the CNN, too, from pictures kept in memory, each in one of five views at random."""
    phases, rates = PhaseTimes(), rates_of_device(options.product)
    encoder = create_encoder(options.encoder, frozen=False).to(device())
    views = {
        view: phases(
            "decoding", lambda view=view: data.Pictures(splits["train"], encoder, True, view)
        )
        for view in VIEWS
    }
    others = {
        name: phases("decoding", lambda name=name: data.Pictures(splits[name], encoder, True))
        for name in ("val", "test")
    }
    kept = data.Views({name: pictures.kept.numpy() for name, pictures in views.items()})
    training = data.PictureDataset(splits["train"], kept, vocabulary, 40, CAPTIONS_EACH)
    validation = data.PictureDataset(splits["val"], others["val"], vocabulary, 40, CAPTIONS_EACH)
    model = make_model(vocabulary, encoder, options.size)
    one = torch.zeros(2, 3, encoder.size, encoder.size, dtype=torch.uint8, device=device())
    counted = copy.deepcopy(encoder)  # blank pictures would move the means of its normalisations
    of_picture = operations_of(lambda: counted(one).sum().backward()) / 2
    history = phases(
        "training",
        lambda: train(
            model,
            training,
            validation,
            folder / "fine-tuned",
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=5e-4,
            label_smoothing=0.1,
        ),
    )
    scores = captions_and_scores(phases, model, splits["test"], others["test"], vocabulary)
    seen = len(history) * len(splits["train"])
    steps_alone = sum(entry["seconds"] for entry in history)
    shares = {
        "the CNN's operations in training, of the rate of products": seen
        * of_picture
        / steps_alone
        / rates["operations"]
    }
    counts = {
        "decoding": len(VIEWS) * len(splits["train"]) + len(splits["val"]) + len(splits["test"]),
        "training": CAPTIONS_EACH * seen,
        "captions of the test split": len(splits["test"]),
    }
    return report("encoder trained along", phases, counts, shares, scores)


SIDES = {"frozen": frozen, "fine-tuned": fine_tuned}


def main(arguments: list[str] | None = None) -> list[dict]:
    """Measure the trainings and print the tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="efficientnet_lite2")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64, help="pictures a step")
    parser.add_argument("--size", type=int, default=512, help="of the decoder's state")
    parser.add_argument("--pictures", type=int, help="of each split, at most; without it all")
    parser.add_argument("--product", type=int, default=8192, help="side of the product timed")
    parser.add_argument("--only", choices=SIDES, help="one of the two trainings")
    options = parser.parse_args(arguments)
    try:
        flickr8k = data.flickr8k()
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    splits = {name: data.load_split(flickr8k, name) for name in ("train", "val", "test")}
    if options.pictures:
        splits = {name: split.first(options.pictures) for name, split in splits.items()}
    vocabulary = Vocabulary.from_captions(sum(splits["train"].captions, []), 5)
    seed_everything(0)
    sides = [SIDES[options.only]] if options.only else SIDES.values()
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, CONVRNN_DATA=folder):
        return [side(splits, options, vocabulary, Path(folder)) for side in sides]


if __name__ == "__main__":
    main()
