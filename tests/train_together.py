"""A short training that test_processes.py runs alone, and under torchrun in two processes.

python tests/train_together.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch

from convrnn_utils import data, processes, training
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.encoders import create_encoder
from convrnn_utils.text import Vocabulary

CAPTIONS = ["a red ring", "a blue star in the night", "two stars", "a ring and a small blue star"]


def train_captioner(folder: Path) -> tuple[list[dict], ShowAttendTell]:
    """Two epochs of batches of 8, the first process saving into ``folder``."""
    training.has_bfloat16 = lambda where: False  # sums of bfloat16 depend on their order
    captions = [[CAPTIONS[i % 4], CAPTIONS[i % 3]] for i in range(18)]
    split = data.Split(
        "few/train", list(range(18)), [Path(f"{n}.png") for n in range(18)], captions, [{}] * 18
    )
    vocabulary = Vocabulary.from_captions(CAPTIONS, 1)
    features = torch.rand(18, 4, 384, generator=torch.Generator().manual_seed(1)).numpy()
    dataset = data.CaptionDataset(split, features, vocabulary)
    torch.manual_seed(0)
    model = ShowAttendTell(8, 16, len(vocabulary), cnn=create_encoder("small_cnn"))
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "averaging": 0.9}
    return training.train(model, dataset, dataset, folder, **options), model


def main() -> None:
    """Train, and write what this process ends with beside the run."""
    folder = Path(sys.argv[1])
    processes.join()
    history, model = train_captioner(folder)
    weights = {name: weight.sum().item() for name, weight in model.named_parameters()}
    result = {"count": processes.count(), "history": history, "weights": weights}
    (folder / f"result-{processes.leave()}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
