"""COCO on paper: minutes, disk and memory of a training on machines that one may not have at hand.

python benchmarks/coco_plan.py                 at 30% of what the machines could do
python benchmarks/coco_plan.py --share 0.1     at another share; gpu_training.py measures yours

The captioner of the course, its encoder frozen, on the Karpathy split of COCO 2014 (see
data/README.md): read every JPEG once, run the CNN once, train the decoder. What is counted here:
the operations of the CNN and of a training step, and the bytes that the step moves, as in
gpu_training.py. What is measured here: how many photographs one core of this machine decodes and
resizes in a second. What is published: how fast the machines are at best. What is left out: the
download and the disk, which depend on where you are; the communication between GPUs; and the time
to start each operation on a GPU. A small training step waits for these starts, so that training
in less than a minute is out of reach.

Sources: NVIDIA's data sheets of the T4 (2018) and of the H200 (2023), products without sparsity.
"""

import argparse
import time
from typing import NamedTuple

import torch
from gpu_training import CAPTIONS_EACH, floor_of_step, make_model, operations_of

from convrnn_utils import data
from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model

PICTURES, TRAINING_PICTURES = 123_287, 113_287
ON_DISK, LARGEST_ARCHIVE = 20.2e9, 13.5e9  # bytes; an archive is removed once it is unpacked
EPOCHS, BATCH_SIZE = 10, 40  # batches of pictures
WORDS = 16  # <end> included, of the longest caption of a batch, as it is with Flickr8k on average


class Machine(NamedTuple):
    """What a machine can do at best.

    Attributes:
        devices: how many GPUs it has.
        cores: processor cores, for decoding.
        float32: floating-point operations a second of one GPU.
        bfloat16: the same in products of 16-bit numbers; 0 if the course trains in float32 there.
        bandwidth: bytes a second between one GPU and its memory.
        memory: bytes of one GPU.
    """

    devices: int
    cores: int
    float32: float
    bfloat16: float
    bandwidth: float
    memory: float


MACHINES = {
    "T4 in Colab": Machine(1, 2, 8.1e12, 0, 320e9, 16e9),
    "H200": Machine(1, 16, 67e12, 989e12, 4.8e12, 141e9),
    "eight H200": Machine(8, 128, 67e12, 989e12, 4.8e12, 141e9),
}


def decoded_a_second(encoder, rounds: int = 3) -> float:
    """Photographs that one core reads, decodes and resizes in a second."""
    pictures = data.Pictures(data.load_split(data.photos(), "test"), encoder)
    began = time.perf_counter()
    for _ in range(rounds):
        for row in range(len(pictures)):
            pictures[[row]]
    return rounds * len(pictures) / (time.perf_counter() - began)


def work_of_captioner() -> dict[str, float]:
    """Operations, bytes and sizes of the captioner that comes with the course, at COCO's size."""
    shipped, vocabulary, _ = load_model(SHIPPED_CAPTIONER)
    encoder = shipped.cnn.cpu()
    model = make_model(vocabulary, encoder, shipped.key.out_features * 2).cpu()
    one = torch.zeros(1, 3, encoder.size, encoder.size, dtype=torch.uint8)
    grid = encoder(one)
    inputs = grid.detach().expand(BATCH_SIZE, -1, -1)
    captions = torch.ones(BATCH_SIZE * CAPTIONS_EACH, WORDS + 1, dtype=torch.long)
    step = floor_of_step(model, inputs, captions)
    return {
        "of a picture": operations_of(lambda: encoder(one)),
        "of a step": step["operations"],
        "bytes of places": step["bytes"] - step["bytes of weights"],
        "bytes of weights": step["bytes of weights"],
        "features": 2 * grid.numel() * PICTURES,  # fp16
        "decoded": decoded_a_second(encoder),
    }


def plan(machine: Machine, work: dict[str, float], share: float) -> dict[str, float]:
    """Minutes by phase, and gigabytes.

    Args:
        machine: where it is to run.
        work: what ``work_of_captioner`` gives.
        share: how much of the machine's operations and bandwidth is reached, 0 to 1.
    """
    steps = EPOCHS * TRAINING_PICTURES / BATCH_SIZE
    in_training = machine.bfloat16 or machine.float32
    operations = work["of a step"] / in_training
    # features of the pictures to train on are computed as training is, the others in float32
    of_pictures = work["of a picture"] * (
        TRAINING_PICTURES / in_training + (PICTURES - TRAINING_PICTURES) / machine.float32
    )
    of_places = work["bytes of places"] * (1 if machine.bfloat16 else 2)
    # every GPU has its part of a batch, and moves all weights
    moved = (of_places / machine.devices + work["bytes of weights"]) / machine.bandwidth
    of_step = max(operations / machine.devices, moved) / share
    seconds = {
        "decoding": PICTURES / (machine.cores * work["decoded"]),
        "CNN": of_pictures / (share * machine.devices),
        "training": steps * of_step,
    }
    minutes = {f"{phase}, minutes": value / 60 for phase, value in seconds.items()}
    # pictures are decoded while the CNN works on others
    total = max(seconds["decoding"], seconds["CNN"]) + seconds["training"]
    fit = 2 * work["features"] <= machine.memory  # about as data.to_gpu decides; each GPU holds all
    return minutes | {
        "in all, minutes": total / 60,
        "disk, GB": (ON_DISK + max(LARGEST_ARCHIVE, work["features"])) / 1e9,
        "features, GB": work["features"] / 1e9,
        "memory of a GPU, GB": machine.memory / 1e9,
        "features read, GB": work["features"] / 1e9 * (1 if fit else EPOCHS),
    }


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the plan as a table; give it by machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.3, help="of the best that is reached")
    share = parser.parse_args(arguments).share
    if not 0 < share <= 1:
        parser.error(f"--share is {share}; it has to be above 0 and at most 1")
    work = work_of_captioner()
    plans = {name: plan(machine, work, share) for name, machine in MACHINES.items()}
    print(f"{'':26}" + "".join(f"{name:>14}" for name in plans))
    for line in next(iter(plans.values())):
        print(f"{line:26}" + "".join(f"{each[line]:14.3g}" for each in plans.values()))
    print(f"{share:.0%} of the best; {work['decoded']:.0f} photographs a second decoded by a core.")
    return plans


if __name__ == "__main__":
    main()
